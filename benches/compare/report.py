"""The tables, and the chart, of what was measured."""

from statistics import median
from xml.sax.saxutils import escape

COLOURS = ["#7f8c8d", "#2e8b57", "#1f5fbf", "#c8ccd0", "#b5651d", "#8e44ad"]


def values(runs, key):
    return [run[key] for run in runs if run.get(key) is not None]


def middle(runs, key):
    found = values(runs, key)
    return median(found) if found else None


def figure(value):
    """Three digits or all before the point."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(runs, others, key="cpu"):
    """By pairs from the same round, which met the same machine: the middle,
    and the least and the most."""
    pairs = [
        ours[key] / theirs[key]
        for ours, theirs in zip(runs, others)
        if ours.get(key) and theirs.get(key)
    ]
    if not pairs:
        return "–"
    text = f"{median(pairs):.2f}"
    return text if len(pairs) == 1 else f"{text} ({min(pairs):.2f}–{max(pairs):.2f})"


def table(head, lines):
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def cpu(results, peers, when):
    """What a request costs: at the same rate for everyone ("fixed", the
    headline), or as fast as each can ("closed")."""
    ours = [peer for peer in peers if peer.key not in ("haproxy", "nginx", "floor")]
    others = [peer for peer in peers if peer not in ours[:1]]
    head = ["work", *(peer.title for peer in peers)]
    if when == "fixed":
        head.insert(1, "requests/s")
    if ours:
        head += [f"{ours[0].title} / {other.title}" for other in others]
    lines = []
    for row, result in results:
        line = [row.title]
        if when == "fixed":
            line.append(f"{result['rate']:,}")
        for peer in peers:
            line.append(cpu_cell(result[when].get(peer.key, [])))
        if ours:
            mine = result[when].get(ours[0].key, [])
            line += [ratio(mine, result[when].get(p.key, [])) for p in others]
        lines.append(line)
    return table(head, lines)


def cpu_cell(runs):
    total = middle(runs, "cpu")
    if total is None:
        return "–"
    # Ticks are too coarse for one round: the split is that of all together.
    user, system = sum(values(runs, "user")), sum(values(runs, "system"))
    share = user / (user + system) if user + system else 0
    return f"{figure(total)} ({figure(total * share)} + {figure(total * (1 - share))})"


def latency(results, peers):
    head = ["work", *(peer.title for peer in peers)]
    lines = []
    for row, result in results:
        line = [row.title]
        for peer in peers:
            runs = result["fixed"].get(peer.key, [])
            cells = [figure(middle(runs, key)) for key in ("p50", "p99", "p999")]
            line.append(" / ".join(cells))
        lines.append(line)
    return table(head, lines)


def ceiling(results, peers):
    """Requests a second at the most. Where a proxy's core was not busy, the
    load was the limit, and the figure says only that it can do as much."""
    head = ["work", "load", *(peer.title for peer in peers)]
    lines = []
    for row, result in results:
        line = [row.title, result["closed_by"]]
        for peer in peers:
            runs = result["closed"].get(peer.key, [])
            busy, most = middle(runs, "busy"), middle(runs, "rate")
            limited = row.connections > 1 and busy is not None and busy < 0.9
            line.append(("≥ " if limited else "") + figure(most))
        lines.append(line)
    return table(head, lines)


def idle(result, peers):
    head = ["KiB a connection", *(peer.title for peer in peers)]
    runs = result["runs"]
    cells = [figure(middle(runs.get(peer.key, []), "kib")) for peer in peers]
    return table(head, [[f"{result['connections']:,} idle connections", *cells]])


def chart(results, peers):
    """CPU a request, each row to the scale of its most expensive proxy."""
    bar, gap, left, width = 12, 14, 240, 420
    height = sum(len(peers) * bar + gap for _ in results) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<text x="10" y="18" font-size="13" font-weight="bold">'
        "CPU a request, µs (shorter is better)</text>",
    ]
    for n, peer in enumerate(peers):
        x = left + n * 95
        parts.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{COLOURS[n]}"/>')
        parts.append(f'<text x="{x + 14}" y="35">{escape(peer.title)}</text>')
    y = 50
    for row, result in results:
        costs = [middle(result["fixed"].get(peer.key, []), "cpu") for peer in peers]
        most = max((cost for cost in costs if cost), default=1)
        middle_y = y + len(peers) * bar / 2 + 4
        parts.append(
            f'<text x="{left - 8}" y="{middle_y}" text-anchor="end">{escape(row.title)}</text>'
        )
        for n, cost in enumerate(costs):
            length = (cost or 0) / most * width
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" '
                f'fill="{COLOURS[n]}"/>'
                f'<text x="{left + length + 4:.1f}" y="{y + 9}" font-size="9">'
                f"{figure(cost)}</text>"
            )
            y += bar
        y += gap
    return "\n".join([*parts, "</svg>", ""])
