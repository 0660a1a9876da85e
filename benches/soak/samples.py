"""What a process held over time: samples, the verdict on them, and a graph."""

import csv
import os
from html import escape
from pathlib import Path
from statistics import linear_regression, median

COLUMNS = ["seconds", "rss_kib", "descriptors", "threads", "cpu_seconds", "requests", "good", "excused", "failed"]

# What may grow, and by how much more than the first quarter's median: a
# share, and something absolute, below which it is the load's own to and fro.
BOUNDS = {"rss_kib": (0.1, 2048), "descriptors": (0.1, 30), "threads": (0, 0)}


def of_process(pid):
    """Memory in KiB, descriptors, threads and seconds of CPU."""
    proc = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    ticks = (proc / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (
        int(status["VmRSS"].split()[0]),
        len(list((proc / "fd").iterdir())),
        int(status["Threads"]),
        sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
    )


def write(samples, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(samples)


def verdict(samples, warm_up):
    """What is wrong with the samples behind the warm-up, a line each.

    Flat is what ends at most a tenth above the median of its first quarter,
    and whose line through the second half rises by no more than half that."""
    wrong = []
    rows = [row for row in samples if row[0] >= warm_up]
    half, quarter = len(rows) // 2, max(1, len(rows) // 4)
    for name, (share, slack) in BOUNDS.items():
        at = COLUMNS.index(name)
        values = [row[at] for row in rows]
        begins, ends = median(values[:quarter]), median(values[-min(10, quarter) :])
        most = max(begins * share, slack)
        later = rows[half:]
        slope = linear_regression([row[0] for row in later], [row[at] for row in later]).slope
        rises = slope * (later[-1][0] - later[0][0])
        print(f"{name}: {begins:,.0f} at first, {ends:,.0f} at last, {rises:+,.0f} over the second half")
        if ends > begins + most:
            wrong.append(f"{name} ended at {ends:,.0f}, from {begins:,.0f}")
        if rises > most / 2:
            wrong.append(f"{name} rose by {rises:,.0f} over the second half")
    return wrong


def graph(samples, title):
    """An SVG with a line for each thing that was watched."""
    width, height, left, gap = 720, 90, 90, 34
    pairs = zip(samples, samples[1:])
    # Samples are a second apart, or less where one was late.
    rate = [0, *((after[5] - before[5]) / max(after[0] - before[0], 1) for before, after in pairs)]
    charts = [
        ("memory, MiB", "#1f77b4", [row[1] / 1024 for row in samples]),
        ("descriptors", "#2ca02c", [row[2] for row in samples]),
        ("threads", "#9467bd", [row[3] for row in samples]),
        ("requests a second", "#ff7f0e", rate),
        ("failed, in all", "#d62728", [row[8] for row in samples]),
    ]
    total = 44 + len(charts) * (height + gap)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{total}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="13" font-weight="bold">{escape(title)}</text>',
    ]
    last = samples[-1][0] or 1
    # As many points as there are pixels.
    step = max(1, len(samples) // width)
    y = 44
    for name, colour, values in charts:
        most = max(*values, 1) * 1.1
        # The most of what falls together, so that no peak is lost.
        points = [
            (samples[at][0] / last * width, max(values[at : at + step]) / most * height)
            for at in range(0, len(values), step)
        ]
        line = " ".join(f"{left + x:.1f},{y + height - value:.1f}" for x, value in points)
        parts += [
            f'<text x="{left}" y="{y - 5}">{name}</text>',
            f'<rect x="{left}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#cccccc"/>',
            f'<text x="{left - 6}" y="{y + 9}" text-anchor="end">{most:,.0f}</text>',
            f'<text x="{left - 6}" y="{y + height}" text-anchor="end">0</text>',
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>',
        ]
        y += height + gap
    minutes = f"{last / 60:.0f} min" if last >= 120 else f"{last:.0f} s"
    parts.append(f'<text x="{left + width}" y="{y - gap + 16}" text-anchor="end">{minutes}</text>')
    return "\n".join([*parts, "</svg>", ""])
