"""What a load run gave, and tables of it."""

import math
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Result:
    """What one run of a load tool gave."""

    requests: int
    failures: int
    servers: dict = field(default_factory=dict)  # answers by server
    kinds: Counter = field(default_factory=Counter)  # failures by kind
    moves: int = 0  # times that a user found itself at another server


def percentile(values, share):
    """The value that `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * share) - 1]


def table(header, rows):
    """Rows as aligned text, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    numeric = [all(_number(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _number(text):
    return text.replace(".", "").replace("%", "").isdigit() or text in ("", "-")
