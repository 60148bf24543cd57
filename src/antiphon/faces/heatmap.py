"""Attention made visible: source tokens across, target tokens down, the darker or brighter the more was looked at.

One drawing for the terminal (coloured cells, or shades of grey where there is no colour), one for a PNG file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from antiphon.faces.figure import new_figure, save_figure
from antiphon.faces.screen import shown

if TYPE_CHECKING:
    from rich.console import Console

_CELL = 2
"""Columns of a cell; a wide (CJK) character fills exactly one."""
_LABEL = 16
"""Longest label, in columns of the terminal."""
_SHADES = ("  ", "░░", "▒▒", "▓▓", "██")
# Dark to bright, single-hued towards the end, so that it reads the same on black, on white and without colour sight.
_RAMP = ((24, 26, 48), (36, 58, 110), (38, 112, 142), (53, 167, 134), (170, 205, 84), (253, 231, 88))


def draw_attention(
    source_tokens: Sequence[str], target_tokens: Sequence[str], attention: np.ndarray, console: Console
) -> None:
    """Print the map; a source too long for the screen continues below, in further blocks.

    Args:
        source_tokens: S tokens, EOS included, in the order the text was read in.
        target_tokens: T tokens.
        attention: (T, S) weights, each row a distribution over the source.
        console: where to; its colours and width decide how.
    """
    weights = np.atleast_2d(np.asarray(attention, dtype=np.float64))
    if not weights.size:
        console.print("(nothing was attended to)")
        return
    # An encoder without attention looks at nothing: its weights are all zero.
    brightness = weights / max(float(weights.max()), 1e-9)
    sources = [_label(token) for token in source_tokens[: weights.shape[1]]]
    targets = [_label(token) for token in target_tokens[: weights.shape[0]]]
    margin = max(map(cell_len, targets)) + 1
    across = max(1, (max(console.width, 40) - margin - 1) // _CELL)
    for start in range(0, len(sources), across):
        if start:
            console.print()
        _draw_block(sources[start : start + across], targets, brightness[:, start : start + across], margin, console)


def save_attention(
    source_tokens: Sequence[str], target_tokens: Sequence[str], attention: np.ndarray, path: Path, *, title: str = ""
) -> None:
    """Write the map as a PNG; arguments as `draw_attention`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SaveError: the file cannot be written.
    """
    weights = np.atleast_2d(np.asarray(attention, dtype=np.float64))
    height, width = weights.shape
    side = 0.34 if max(height, width) <= 60 else 0.2
    figure = new_figure(max(3.2, 1.8 + side * width), max(2.4, 1.3 + side * height))
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=max(1e-9, float(weights.max())), aspect="equal")
    size = 10 if side > 0.3 else 6
    axes.set_xticks(range(width), [_label(token) for token in source_tokens[:width]], rotation=60, fontsize=size)
    axes.set_yticks(range(height), [_label(token) for token in target_tokens[:height]], fontsize=size)
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set(ha="left", va="bottom", rotation_mode="anchor", parse_math=False)
    for label in axes.get_yticklabels():
        label.set(parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    # White lines between the cells, so that neighbours of equal weight stay two.
    axes.set_xticks(np.arange(0.5, width - 1), minor=True)
    axes.set_yticks(np.arange(0.5, height - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="minor", length=0)
    if title:
        axes.set_xlabel(_label(title, most=80), fontsize=size, color="0.35", parse_math=False)
    scale = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
    scale.outline.set_visible(False)
    scale.ax.tick_params(length=0, labelsize=7, labelcolor="0.35")
    save_figure(figure, path)


def _draw_block(sources: list[str], targets: list[str], brightness: np.ndarray, margin: int, console: Console) -> None:
    columns = [_upright(label) for label in sources]
    tallest = max(map(len, columns))
    for level in range(tallest):
        # Labels stand on the cells, so short ones begin lower.
        marks = [
            column[level - (tallest - len(column))] if level >= tallest - len(column) else "" for column in columns
        ]
        line = " " * (margin + 1) + "".join(set_cell_size(mark, _CELL) for mark in marks)
        console.print(Text(line.rstrip()), style="dim", soft_wrap=True)
    coloured = console.color_system is not None
    for label, row in zip(targets, brightness, strict=True):
        line = Text(" " * (margin - 1 - cell_len(label)) + label + "  ")
        for value in row:
            if coloured:
                line.append(" " * _CELL, style=f"on {_colour(value)}")
            else:
                line.append(_SHADES[min(len(_SHADES) - 1, int(value * len(_SHADES)))])
        if not coloured:
            line.rstrip()
        console.print(line, soft_wrap=True)


def _colour(value: float) -> str:
    place = min(max(value, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return f"rgb({red},{green},{blue})"


def _label(token: str, most: int = _LABEL) -> str:
    text = shown(token).strip() or "␣"
    return text if cell_len(text) <= most else set_cell_size(text, most - 1).rstrip() + "…"


def _upright(label: str) -> list[str]:
    """The characters of a label, each with the marks and joiners that stand on it."""
    letters: list[str] = []
    for character in label:
        if letters and (cell_len(character) == 0 or letters[-1].endswith("\u200d")):
            letters[-1] += character
        else:
            letters.append(character)
    return letters
