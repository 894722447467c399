"""Draws `loss.csv` as a small SVG, without any library."""

import csv
import math
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 320, 48


def draw_loss(source: Path, target: Path) -> None:
    """Read step, tokens and loss from `source`; write the curve, with a logarithmic loss axis, to
    `target`.
    """
    with source.open() as file:
        points = [(int(row["tokens"]), float(row["loss"])) for row in csv.DictReader(file)]
    if not points:
        raise ValueError(f"{source} has no rows")
    most = points[-1][0]
    low, high = (math.log(pick(loss for _, loss in points)) for pick in (min, max))
    across, up = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def place(tokens: float, loss: float) -> tuple[float, float]:
        return MARGIN + across * tokens / most, HEIGHT - MARGIN - up * (math.log(loss) - low) / max(
            high - low, 1e-9
        )

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    marks = [mark for mark in (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5, 8) if low <= math.log(mark) <= high]
    grid = "".join(_loss_mark(place(0, mark)[1], mark) for mark in marks)
    grid += "".join(_token_mark(MARGIN + across * part / 4, most * part / 4) for part in range(5))
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{grid}'
        f'<polyline points="{line}" fill="none" stroke="#b03060" stroke-width="1.5"/>'
        f'<text x="{MARGIN}" y="24">training loss (log scale) over millions of tokens</text></svg>\n'
    )


def _loss_mark(y: float, value: float) -> str:
    return (
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _token_mark(x: float, tokens: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{tokens / 1e6:.0f}</text>'
