"""Writes docs/cli.md from the help pages of the program itself: ``make docs``."""

from __future__ import annotations

import io
from pathlib import Path

from cyclopts.help import PlainFormatter
from rich.console import Console

from antiphon.faces.cli import app

PAGE = Path(__file__).with_name("cli.md")
_WIDTH = 10_000  # no line of a help page is broken
_HEAD = """\
# The command line

This page is made from `antiphon --help` and the help of every command: change the code, then `make docs`.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 2 your mistake, told in one
line with the cure; 130 interrupted, with all saved. A flag wins over a preset; `--train.max_updates` and
`--train.max-updates` are one flag; a switch may be written `--model.feed`, `--model.no-feed` or
`--model.feed false`.

## JSON

What `--json` prints keeps its form. New keys may come; none goes without a new major version.

- `antiphon evaluate --json FILE`: one object. `accuracy`, `wer`, `per`, `hits_at_1` are percent; `bleu`, `chrf` 0 to
  100; `loss` nats per target token; `perplexity`, `perplexity_per_word`; `bits_per_character`,
  `bits_per_character_uncharged`; `unknown_share`, `distinct_1`, `distinct_2`, `ten_commonest`, `repeats_4gram` shares
  from 0 to 1; `distinct_2_beside_human` a ratio; `pairs`, `sources`, `truncated`, `target_tokens` counts; `seconds`.
  Only what was asked for is there.
- `antiphon predict --json`: one object a line. `source`, `text`, `score`, `truncated`, `unknown`, `alternatives`
  (each `text` and `score`); with `--attention` also `source_tokens`, `tokens`, and `attention`, a row for each token.
- `antiphon score --json`: one object a line. `nats`, `tokens`, `source`, `target`.
- `antiphon data --json`: the data card. `name`, `origin`, `licence`, `citation`, `context`, `counts`, `skipped`,
  `seed`, `options`, `note`.
- `antiphon conversations list --json`: one object a line. `id`, `model`, `begun`, `changed`, `turns`, `title`. `export`
  prints a turn a line: `conversation`, `said`, `answer`, `source`, `model`, `id`, `thumb`, `better`, `created`.
- `antiphon learn --json`: one object. `better`, `reason`; `corrections`, `held_out`, `liked`, `replayed` counts;
  `seconds`; `before` and `after`, each `dev_loss` in nats per target token, `learnt` and `held_out` shares from 0 to 1.
- `antiphon inspect --json`: one object; `kind` is `data`, `run` or `model`.

## antiphon
"""


def page() -> str:
    """The whole of docs/cli.md."""
    commands = [name for name in app if not name.startswith("-")]
    sections = [_HEAD, _section([])]
    sections += [f"## antiphon {name}\n\n{_section([name])}" for name in commands]
    return "\n".join(sections)


def _section(command: list[str]) -> str:
    """One help page as Markdown: panels become bold lines, entries become list items."""
    usage, *rest = help_page(command).splitlines()
    lines = ["```text", usage.removeprefix("Usage: "), "```"]
    for line in rest:
        label, colon, told = line.strip().partition(": ")
        if line.startswith("  ") and colon:
            lines.append(f"- `{label}` {_plain(told)}")
        elif line.startswith("  "):
            lines.append(f"- `{line.strip().removesuffix(':')}`")
        elif line.endswith(":"):
            lines += [f"**{_plain(line.removesuffix(':'))}**", ""]
        elif line or lines[-1]:  # one empty line is enough
            lines.append(_plain(line))
    return "\n".join(lines).rstrip() + "\n"


def help_page(command: list[str]) -> str:
    """What the program says to ``antiphon COMMAND --help``, a line an entry."""
    file = io.StringIO()
    before = app.help_formatter
    app.help_formatter = PlainFormatter(max_width=_WIDTH)
    try:
        app.help_print(command, console=Console(file=file, width=_WIDTH, color_system=None, force_terminal=False))
    finally:
        app.help_formatter = before
    return file.getvalue()


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return "".join(f"\\{sign}" if sign in "*<>_`" else sign for sign in text.strip())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
