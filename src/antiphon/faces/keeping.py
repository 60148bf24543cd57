"""`antiphon conversations`: what was kept, listed, shown, exported, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from antiphon.conversations import Conversations, Turn, as_json
from antiphon.data.pairs import one_line
from antiphon.errors import DataError, UsageError
from antiphon.faces.conversation import SEPARATOR
from antiphon.faces.screen import escaped, note, shown, table, write_lines

Action = Literal["list", "show", "export", "delete"]


def act(
    action: Action,
    ids: Sequence[str],
    *,
    store: str,
    out: Path | None,
    limit: int,
    older_than: float | None,
    as_json: bool,
) -> Iterator[str]:
    """The lines of standard output.

    Raises:
        DataError: no such store or conversation.
        UsageError: an action without what it needs.
        SaveError: a file or the store cannot be written.
    """
    kept = Conversations(store, create=False)
    try:
        match action:
            case "list":
                yield from _list(kept, limit=limit, as_json=as_json)
            case "show":
                if not ids:
                    raise UsageError("which conversation?", where="antiphon conversations show", cure="name its id")
                for conversation in ids:
                    yield from _show(_turns(kept, conversation))
            case "export":
                yield from _export(kept, ids, out)
            case "delete":
                _delete(kept, ids, older_than)
    finally:
        kept.close()


def _list(kept: Conversations, *, limit: int, as_json: bool) -> Iterator[str]:
    found = kept.list(limit=limit)
    if as_json:
        for summary in found:
            record = {**asdict(summary), "begun": summary.begun.isoformat(), "changed": summary.changed.isoformat()}
            yield escaped(json.dumps(record, ensure_ascii=False))
        return
    if not found:
        note("no conversations")
        return
    rows = [
        (one.id, f"{one.changed.astimezone():%Y-%m-%d %H:%M}", f"{one.turns:,}", one.model, shown(one.title)[:60])
        for one in found
    ]
    yield from table([("id", "last turn", "turns", "model", "begins"), *rows], right=(2,))


def _turns(kept: Conversations, conversation: str) -> list[Turn]:
    turns = kept.turns(conversation)
    if not turns:
        raise DataError("no such conversation", where=conversation, cure="antiphon conversations list")
    return turns


def _show(turns: list[Turn]) -> Iterator[str]:
    """As the text form of a transcript, with what people thought of the answers."""
    for turn in turns:
        mark = {1: "  (liked)", -1: "  (disliked)"}.get(turn.thumb, "")
        yield f"HUMAN ++++ {shown(turn.said)}"
        yield f"BOT ++++ {shown(turn.answer)}{mark}"
        if turn.better:
            yield f"BETTER ++++ {shown(turn.better)}"
    yield SEPARATOR


def _export(kept: Conversations, ids: Sequence[str], out: Path | None) -> Iterator[str]:
    turns = [turn for one in ids for turn in _turns(kept, one)] if ids else list(kept.every_turn())
    lines = _dialogues(turns) if out is not None and out.suffix == ".dialogue" else [as_json(turn) for turn in turns]
    if out is None:
        yield from map(escaped, lines)
        return
    write_lines(out, lines)
    note(f"{len(turns):,} turns in {out}" if out.suffix != ".dialogue" else f"{len(lines):,} lines in {out}")


def _dialogues(turns: Sequence[Turn]) -> list[str]:
    """A conversation a line, turns parted by TAB; where a better answer is known, it is the answer.

    Of several answers to one thing said (`/again`), one: that which was corrected, or liked, or is the last. With one
    that was disliked a line ends, for nobody is to learn it.
    """
    talks: dict[str, list[Turn]] = {}
    for turn in turns:
        talk = talks.setdefault(turn.conversation, [])
        if talk and (talk[-1].said, talk[-1].source) == (turn.said, turn.source):
            turn = max(turn, talk.pop(), key=_worth)  # of equals the later one
        talk.append(turn)
    lines: list[list[str]] = []
    for talk in talks.values():
        lines.append([])
        for turn in talk:
            lines[-1].append(one_line(turn.said))
            if turn.thumb < 0 and not turn.better:
                lines.append([])
            else:
                lines[-1].append(one_line(turn.better or turn.answer))
    return ["\t".join(line) for line in lines if len(line) > 1]


def _worth(turn: Turn) -> int:
    """Of an answer, by what was thought of it: 2 corrected, 1 liked, 0, -1 disliked."""
    return 2 if turn.better else turn.thumb


def _delete(kept: Conversations, ids: Sequence[str], older_than: float | None) -> None:
    if bool(ids) == (older_than is not None):
        raise UsageError("which conversations?", where="antiphon conversations delete", cure="give ids or --older-than")
    for conversation in ids:
        _turns(kept, conversation)  # a slip in one id deletes nothing
    count = kept.delete(ids) if older_than is None else kept.delete_older(older_than)
    note(f"{count:,} deleted")
