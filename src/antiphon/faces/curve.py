"""The learning curve of a run, from the records of its ``log.jsonl``: in the terminal, and as a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from antiphon.faces.figure import new_figure, save_figure

if TYPE_CHECKING:
    from rich.console import Console

Points = list[tuple[float, float]]

# Dots of a braille character by (column, row) inside it; U+2800 has none.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True)
class Curve:
    """Points (update, nats per token), and (update, score) where the deciding metric is another than the loss."""

    train: Points
    dev: Points
    metric: str
    scores: Points
    best: float | None
    """Update of the best validation."""


def read_curve(log: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve in a log; where a run was taken up again, later records replace those of the same update."""
    train: dict[float, float] = {}
    dev: dict[float, float] = {}
    scores: dict[float, float] = {}
    metric, best = "loss", None
    for record in log:
        if record.get("event") == "progress":
            train[record["update"]] = record["loss"]
        elif record.get("event") == "validated":
            dev[record["update"]] = record["dev_loss"]
            metric = record["metric"]
            if metric != "loss":
                scores[record["update"]] = record["score"]
            best = record["update"] if record["best"] else best
    found = _points(dev)
    return Curve(_points(train), found, metric, _points(scores), best if best in dict(found) else None)


def draw_curve(log: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Write the curve as a PNG; does nothing, and says so, while there is no point to draw.

    Args:
        log: records of ``log.jsonl`` in order.
        path: the file to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SaveError: the file cannot be written.
    """
    curve = read_curve(log)
    if not curve.train and not curve.dev:
        return False
    figure = new_figure(7.0, 3.8)
    axes = figure.subplots()
    if curve.train:
        axes.plot(*zip(*curve.train, strict=True), color="0.65", linewidth=1.2, label="train")
    if curve.dev:
        axes.plot(
            *zip(*curve.dev, strict=True), color="tab:blue", linewidth=1.8, marker="o", markersize=3.5, label="dev"
        )
    if curve.best is not None:
        low = dict(curve.dev)[curve.best]
        axes.plot([curve.best], [low], "o", markersize=9, markerfacecolor="none", markeredgecolor="tab:blue")
        axes.annotate(f"kept: {low:.3f}", (curve.best, low), (0, 10), textcoords="offset points", ha="center")
    bottom, top = _limits(curve)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("updates")
    axes.set_ylabel("nats per target token")
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    lines = axes.get_lines()[: bool(curve.train) + bool(curve.dev)]
    if curve.scores:
        right = axes.twinx()
        lines += right.plot(
            *zip(*curve.scores, strict=True), color="tab:orange", marker="o", markersize=3, label=f"dev {curve.metric}"
        )
        right.set_ylabel(curve.metric)
        right.spines[["top", "left"]].set_visible(False)
    figure.legend(lines, [str(line.get_label()) for line in lines], frameon=False, loc="outside upper center", ncols=3)
    save_figure(figure, path)
    return True


def print_curve(log: Sequence[Mapping[str, Any]], console: Console, *, height: int = 12) -> None:
    """Draw the curve in the terminal: the training loss in dots, every validation a ●."""
    curve = read_curve(log)
    points = curve.train + curve.dev
    if not points:
        console.print("no curve yet")
        return
    width = min(console.width, 100) - 10
    bottom, top = _limits(curve)
    left, right = min(x for x, _ in points), max(x for x, _ in points)

    def place(x: float, y: float, columns: int, rows: int) -> tuple[int, int]:
        across = (x - left) / (right - left or 1.0) * (columns - 1)
        down = (top - min(max(y, bottom), top)) / (top - bottom) * (rows - 1)
        return round(across), round(down)

    dots = [[0] * width for _ in range(height)]
    for x, y in _joined(curve.train, left, right, 2 * width):
        column, row = place(x, y, 2 * width, 4 * height)
        dots[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
    marks = {place(x, y, width, height) for x, y in curve.dev}
    for row in range(height):
        label = f"{top:7.2f} ┤" if row == 0 else f"{bottom:7.2f} ┤" if row == height - 1 else "        │"
        line = Text(label, style="dim")
        for column in range(width):
            if (column, row) in marks:
                line.append("●", style="bold cyan")
            else:
                line.append(chr(0x2800 + dots[row][column]) if dots[row][column] else " ")
        console.print(line, soft_wrap=True)
    first, last = f"{left:,.0f}", f"{right:,.0f} updates"
    console.print(Text("        └" + "─" * width, style="dim"), soft_wrap=True)
    console.print(Text(" " * 9 + first + last.rjust(width - len(first)), style="dim"), soft_wrap=True)
    console.print(Text("         nats per target token: ⠒ train  ● dev", style="dim"), soft_wrap=True)


def _points(values: Mapping[float, float]) -> Points:
    return [(x, y) for x, y in sorted(values.items()) if math.isfinite(y)]


def _limits(curve: Curve) -> tuple[float, float]:
    """Losses to show. The first updates are far above all that follows and would flatten it: they are cut."""
    losses = sorted(y for _, y in curve.train + curve.dev)
    top = losses[min(len(losses) - 1, int(0.98 * len(losses)))]
    top = max([top, *(y for _, y in curve.dev)])
    room = 0.05 * (top - losses[0]) or 0.5
    return max(losses[0] - room, 0.0), top + room  # no loss is below zero


def _joined(points: Points, left: float, right: float, columns: int) -> Points:
    """The points with those between them, one for every column of dots at least."""
    step = (right - left) / columns or 1.0
    joined = points[:1]
    for (x0, y0), (x1, y1) in pairwise(points):
        pieces = max(1, math.ceil((x1 - x0) / step))
        joined += [(x0 + (x1 - x0) * n / pieces, y0 + (y1 - y0) * n / pieces) for n in range(1, pieces + 1)]
    return joined
