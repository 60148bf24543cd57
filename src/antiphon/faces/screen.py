"""What every face shares: where words go, and how a stranger's text is made fit to be shown.

Results go to standard output, everything said to the user to standard error.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from antiphon.data.pairs import write_whole

# C0, C1 and DEL drive terminals; the two Unicode separators break lines; bidirectional overrides make text read as
# what it is not; lone surrogates cannot be written. Joiners stay: emoji and Persian need them.
_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_ABOVE_ASCII = r"\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSHOWABLE = re.compile(rf"[\x00-\x1f{_ABOVE_ASCII}]")

_EIGHTHS = " ▏▎▍▌▋▊▉"


def shown(text: str) -> str:
    """The text on one line, without anything that could drive a terminal."""
    return _UNSHOWABLE.sub("", _BREAKS.sub(" ", text))


def escaped(document: str) -> str:
    """A JSON document in which whatever could drive a terminal is written as \\uXXXX; it says the same."""
    return re.sub(f"[{_ABOVE_ASCII}]", lambda match: f"\\u{ord(match[0]):04x}", document)


class _Console(Console):
    """One whose reader may go: it says so as any other output does, and does not end the process."""

    def on_broken_pipe(self) -> None:
        raise  # what rich has just caught


def stderr() -> Console:
    """A console on standard error that reads no markup into what it is given."""
    return _Console(stderr=True, highlight=False, markup=False, emoji=False)


def stdout() -> Console:
    """The same on standard output."""
    return _Console(highlight=False, markup=False, emoji=False)


def say(console: Console, text: str, style: str = "") -> None:
    """One line of text: cut with an ellipsis where it does not fit a terminal, whole in a file."""
    # Not print(style=…): that would colour a live line below as well.
    line = Text(text, style=style)
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def note(text: str) -> None:
    """One line to the user, on standard error."""
    print(shown(text), file=sys.stderr, flush=True)


def speak_utf8() -> None:
    """Make the three standard streams UTF-8, whatever the locale; bytes that are not become U+FFFD, and what is read
    may begin with a byte-order mark. Of a closed one nothing is read, or to nowhere is written."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # its program was started without it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, for as long as the process
    for stream, encoding in ((sys.stdin, "utf-8-sig"), (sys.stdout, "utf-8"), (sys.stderr, "utf-8")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors="replace")


def bar(share: float, width: int) -> str:
    """A bar of `share` (0..1) of `width` columns, exact to an eighth of a column; never empty above zero."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as lines of aligned columns, two spaces apart.

    Args:
        rows: cells; all rows equally long.
        right: the columns that are aligned to the right (numbers).
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def duration(seconds: float) -> str:
    """``3:07``, or ``1:02:09`` from an hour on."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float, unit: str = "B") -> str:
    """``4.0 MB``: three significant digits, powers of 1000."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5 or prefix == "G":
            break
        count /= 1000
    digits = 0 if not prefix or count >= 100 else 1
    return f"{count:,.{digits}f} {prefix}{unit}"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A result as a file of lines, whole or not at all. Raises SaveError."""
    write_whole(path, (f"{line}\n" for line in lines))
