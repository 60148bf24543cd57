"""PNG files by matplotlib: no window, no global state, glyphs of many scripts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.errors import MissingExtraError, SaveError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Tried in this order for each glyph; those not installed are left out. The last is matplotlib's own.
_FONTS = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Yu Gothic",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "DejaVu Sans",
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("drawing a PNG", "train") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write it; a glyph that no installed font has becomes a box, quietly. Raises SaveError."""
    from matplotlib import font_manager, text

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = [name for name in _FONTS if name in installed]
    for label in figure.findobj(text.Text):
        label.set_fontfamily(families)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        try:
            figure.savefig(path, dpi=150, format="png")
        except OSError as error:
            cure = "check the folder, space and rights"
            raise SaveError(f"cannot be written ({error.strerror})", where=str(path), cure=cure) from None
