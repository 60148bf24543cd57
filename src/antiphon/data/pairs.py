"""Pairs of texts: the files they live in, and the corpus a model learns from.

A file is one of four kinds, told by its name:

    pairs.tsv            source TAB target, one pair a line (any name that is none of the following)
    src.txt,tgt.txt      two files, line N of one goes with line N of the other
    pairs.jsonl          {"source": …, "target": …} a line
    talks.dialogue       one conversation a line, turns TAB-separated; adjacent turns are pairs

All are UTF-8, lines end in LF or CRLF, a byte-order mark is taken off. Blank lines are passed over; pairs with
one empty side are skipped and counted.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from antiphon.errors import DataError, SaveError

TURN = "<turn>"
"""Stands between the turns of a dialogue where several make one source."""

CARD_FILE = "data.json"

_EMPTY_SIDE = "empty source or target"
_LONE_TURN = "conversations of one turn"

# First bytes of files that are often handed over by mistake, and what to do about them.
_FOREIGN = {
    b"\x1f\x8b": "it is gzipped: unpack it with gunzip",
    b"PK\x03\x04": "it is a zip archive: unpack it with unzip",
    b"\xff\xfe": "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
    b"\xfe\xff": "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
}


class Pair(NamedTuple):
    """What goes in and what should come out."""

    source: str
    target: str


@dataclass(frozen=True)
class Card:
    """Where a prepared folder comes from and what is in it: its ``data.json``."""

    name: str
    origin: str = ""
    """Address of the authors."""
    licence: str = ""
    citation: str = ""
    context: int = 0
    """Earlier turns already joined in front of every source."""
    counts: dict[str, int] = field(default_factory=dict)
    """Pairs of train, dev, test, and whatever else the recipe counted."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What was left out: reason and number."""
    seed: int = 1
    options: dict[str, str | int] = field(default_factory=dict)
    """The recipe's options, defaults included."""
    note: str = ""
    """What a reader of the numbers must know."""

    def save(self, folder: Path) -> None:
        """Write ``data.json``. Raises SaveError."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)
        _write(folder / CARD_FILE, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> Card | None:
        """The card of a folder, None where there is none. Raises DataError when it is damaged."""
        path = folder / CARD_FILE
        if not path.exists():
            return None
        try:
            tree = json.loads(_read_text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON ({error})", where=str(path), cure="make the folder again or delete it") from None
        _refuse_half_characters(json.dumps(tree, ensure_ascii=False), str(path))
        if not isinstance(tree, dict) or not isinstance(tree.get("name"), str):
            raise DataError("not a data card (no name)", where=str(path), cure="make the folder again or delete it")
        empty = cls(name="")
        known = {entry.name: type(getattr(empty, entry.name)) for entry in dataclasses.fields(cls)}
        for key in known.keys() & tree.keys():
            if type(tree[key]) is not known[key]:
                cure = "make the folder again or delete it"
                raise DataError(f"not a data card ({key} is {tree[key]!r:.40})", where=str(path), cure=cure)
        return cls(**{key: tree[key] for key in known.keys() & tree.keys()})


@dataclass(frozen=True)
class Corpus:
    """All there is to learn from and to be judged by; no source of ``dev`` held out here is in ``train``."""

    train: list[Pair]
    dev: list[Pair]
    test: list[Pair]
    card: Card | None
    fingerprint: str
    """sha256 over all pairs, in hexadecimal: equal exactly when the data are."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What the readers left out: reason and number."""


def read_pairs(path: str | Path, *, context: int = 0) -> list[Pair]:
    """The pairs of one file (or of ``src.txt,tgt.txt``).

    Args:
        path: see the head of this module.
        context: earlier turns joined in front of a source; ``.dialogue`` only.

    Raises:
        DataError: missing, not UTF-8, no pairs, or a line that is not a pair.
    """
    return [pair for group in _read_groups(path, context, Counter(), together=False) for pair in group]


def read_corpus(data: str | Path, *, context: int = 0, dev_pairs: int = 1000, seed: int = 1) -> Corpus:
    """DATA as the command line takes it: one file, two parallel files, or a folder with ``train.tsv``.

    A folder may bring ``dev.tsv``, ``test.tsv`` and ``data.json``. Where there is no dev part it is held out:
    `dev_pairs`, at most a tenth of the data, at least one. Pairs of one source stay together, and so do the
    pairs of one conversation in a ``.dialogue`` file.

    Raises:
        DataError: as `read_pairs`; a folder without ``train.tsv``; nothing that could be held out.
    """
    skipped: Counter[str] = Counter()
    folder = Path(data)
    if not folder.is_dir():
        groups = _read_groups(data, context, skipped, together=True)
        train, dev = _hold_out(groups, dev_pairs, seed, where=str(data))
        return Corpus(train, dev, [], None, _fingerprint(train, dev, []), dict(skipped))

    if not (folder / "train.tsv").is_file():
        raise DataError("no train.tsv in this folder", where=str(folder), cure=_cure_for_folder(folder))
    train, dev, test = (_read_part(folder / f"{name}.tsv", skipped) for name in ("train", "dev", "test"))
    if not dev:
        train, dev = _hold_out(_by_source(train), dev_pairs, seed, where=str(folder / "train.tsv"))
    return Corpus(train, dev, test, Card.load(folder), _fingerprint(train, dev, test), dict(skipped))


def write_pairs(path: str | Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write a TSV whole or not at all; a TAB or line end inside a text becomes a space. Raises SaveError."""
    _write(Path(path), "".join(f"{one_line(source)}\t{one_line(target)}\n" for source, target in pairs))


def one_line(text: str) -> str:
    """The text without TABs and line ends, so that it fits a TSV."""
    return text.translate(_LINE_BREAKING)


def join_context(turns: Sequence[str], context: int) -> str:
    """The last turn with up to `context` turns before it, joined by `TURN`: what a dialogue model reads."""
    return f" {TURN} ".join(turns[-(context + 1) :])


def adjacent_pairs(turns: Sequence[str], context: int = 0) -> list[Pair]:
    """Every turn of a conversation with the turn that answers it. Turns must not be empty."""
    return [Pair(join_context(turns[:end], context), turns[end]) for end in range(1, len(turns))]


# Readers.

_LINE_BREAKING = {ord(mark): " " for mark in "\t\n\r"}


def _read_groups(data: str | Path, context: int, skipped: Counter[str], *, together: bool) -> list[list[Pair]]:
    """The pairs in groups that must not be torn apart between train and dev; one group unless `together`."""
    path = Path(data)
    if path.suffix == ".dialogue":
        groups = _conversations(_read_lines(path), context, skipped)
    else:
        pairs = list(_read_flat(data, skipped))
        groups = _by_source(pairs) if together else [pairs]
    if not any(groups):
        raise DataError("no pairs", where=str(data), cure="write one pair a line: source TAB target")
    return groups


def _read_part(path: Path, skipped: Counter[str]) -> list[Pair]:
    return _read_groups(path, 0, skipped, together=False)[0] if path.exists() else []


def _read_flat(data: str | Path, skipped: Counter[str]) -> Iterator[Pair]:
    path = Path(data)
    both = str(data).split(",")
    if len(both) == 2 and all(both) and not path.exists():
        return _from_parallel(Path(both[0].strip()), Path(both[1].strip()), skipped)
    if path.suffix == ".jsonl":
        return _from_json_lines(path, skipped)
    return _from_tsv(path, skipped)


def _from_tsv(path: Path, skipped: Counter[str]) -> Iterator[Pair]:
    for number, line in enumerate(_read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) == 2:
            source, target = columns[0].strip(), columns[1].strip()
            if source and target:
                yield Pair(source, target)
            elif source or target:
                skipped[_EMPTY_SIDE] += 1
        elif line.strip():
            count = "one column" if len(columns) == 1 else f"{len(columns)} columns"
            cure = "write source TAB target on every line"
            raise DataError(f"{count} where two are needed", where=f"{path}:{number}", cure=cure)


def _from_parallel(source_path: Path, target_path: Path, skipped: Counter[str]) -> Iterator[Pair]:
    sources, targets = _read_lines(source_path), _read_lines(target_path)
    if len(sources) != len(targets):
        raise DataError(
            f"{len(sources):,} lines in {source_path.name} but {len(targets):,} in {target_path.name}",
            where=f"{source_path},{target_path}",
            cure="line N of one must go with line N of the other",
        )
    for source, target in zip(sources, targets, strict=True):
        source, target = source.strip(), target.strip()
        if source and target:
            yield Pair(source, target)
        elif source or target:
            skipped[_EMPTY_SIDE] += 1


def _from_json_lines(path: Path, skipped: Counter[str]) -> Iterator[Pair]:
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        source, target = _json_pair(line, f"{path}:{number}")
        if source and target:
            yield Pair(source, target)
        else:
            skipped[_EMPTY_SIDE] += 1


def _json_pair(line: str, where: str) -> tuple[str, str]:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError without msg: a number of thousands of digits
        reason = getattr(error, "msg", "nested too deep, or too long a number")
        raise DataError(f"not JSON ({reason})", where=where, cure="one object a line, not one list") from None
    cure = 'write {"source": "…", "target": "…"} on every line'
    if not isinstance(entry, dict):
        raise DataError("not a JSON object", where=where, cure=cure)
    for key in ("source", "target"):
        if key not in entry:
            raise DataError(f'no "{key}" in this object', where=where, cure=cure)
        if not isinstance(entry[key], str):
            raise DataError(f'"{key}" is not a string', where=where, cure=cure)
    if "\\u" in line:
        _refuse_half_characters(entry["source"] + entry["target"], where)
    return entry["source"].strip(), entry["target"].strip()


def _refuse_half_characters(text: str, where: str) -> None:
    # JSON can spell one half of a surrogate pair, which is no character and cannot be written as UTF-8.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError("half of a surrogate pair", where=where, cure="write the character itself") from None


def _conversations(lines: Sequence[str], context: int, skipped: Counter[str]) -> list[list[Pair]]:
    groups = []
    for line in lines:
        if not line.strip():
            continue
        pairs = []
        # Around an empty turn there is nothing to answer and no answer: the conversation breaks in two there.
        for turns in _unbroken([turn.strip() for turn in line.split("\t")], skipped):
            pairs += adjacent_pairs(turns, context)
        if pairs:
            groups.append(pairs)
        else:
            skipped[_LONE_TURN] += 1
    return groups


def _unbroken(turns: Sequence[str], skipped: Counter[str]) -> Iterator[list[str]]:
    stretch: list[str] = []
    for turn in turns:
        if turn:
            stretch.append(turn)
        else:
            skipped["empty turns"] += 1
            yield stretch
            stretch = []
    yield stretch


def _by_source(pairs: Iterable[Pair]) -> list[list[Pair]]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.source, []).append(pair)
    return list(groups.values())


# Holding out.


def _hold_out(groups: list[list[Pair]], dev_pairs: int, seed: int, *, where: str) -> tuple[list[Pair], list[Pair]]:
    if len(groups) < 2:
        raise DataError(
            "all pairs belong to one source (or one conversation), so none can be held out to validate on",
            where=where,
            cure="bring more data, or a folder with train.tsv and dev.tsv",
        )
    wanted = max(1, min(dev_pairs, sum(map(len, groups)) // 10))
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    held: set[int] = set()
    room = wanted
    for index in order:
        if len(groups[index]) <= room:
            held.add(index)
            room -= len(groups[index])
        if room == 0:
            break
    # Every group is larger than a tenth of the data: the smallest must do, for there has to be a dev part.
    held = held or {min(order, key=lambda index: len(groups[index]))}
    train = [pair for index, group in enumerate(groups) if index not in held for pair in group]
    dev = [pair for index, group in enumerate(groups) if index in held for pair in group]
    return train, dev


def _fingerprint(*parts: list[Pair]) -> str:
    digest = hashlib.sha256()
    for pairs in parts:
        # Lengths first, so that no two different corpora write the same bytes.
        digest.update(f"{len(pairs)} pairs\n".encode())
        digest.update("\n".join(map("\t".join, pairs)).encode())
    return digest.hexdigest()


# Files.


def _read_lines(path: Path) -> list[str]:
    # Only LF ends a line: str.splitlines would also cut at U+2028, U+0085 and others that occur inside texts.
    lines = _read_text(path).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("no such file", where=str(path), cure=_cure_for_missing(path)) from None
    except IsADirectoryError:
        raise DataError("a folder where a file is needed", where=str(path), cure="name a file in it") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 (byte 0x{content[error.start]:02x} at offset {error.start})"
        cure = "convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        cure = next((advice for head, advice in _FOREIGN.items() if content.startswith(head)), cure)
        raise DataError(what, where=f"{path}:{line}", cure=cure) from None


def _cure_for_missing(path: Path) -> str:
    try:
        siblings = sorted(os.listdir(path.parent))
    except OSError:
        return f"there is no folder {path.parent} either"
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"


def _cure_for_folder(folder: Path) -> str:
    others = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".tsv", ".jsonl", ".dialogue"))
    if others:
        return f"rename the training part to train.tsv, or name one file: {folder / others[0]}"
    return "antiphon data NAME --out DIR makes such a folder"


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(text.encode("utf-8"))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SaveError(
            f"cannot be written ({error.strerror})", where=str(path), cure="check space and rights"
        ) from None
