"""Pairs of texts, and the files they live in, read some thousand lines at a time.

A file is one of four kinds, told by its name:

    pairs.tsv            source TAB target, one pair a line (any name that is none of the following)
    src.txt,tgt.txt      two files, line N of one goes with line N of the other
    pairs.jsonl          {"source": …, "target": …} a line
    talks.dialogue       one conversation a line, turns TAB-separated; adjacent turns are pairs

A TSV may have three columns where one of them is features: lemma, form, features (UniMorph), or lemma, features, form
(SIGMORPHON 2023). The source is the features and the lemma then, the target the form.

All are UTF-8, lines end in LF or CRLF, a byte-order mark is taken off. Blank lines are passed over; pairs with
one empty side are skipped and counted.

A file is cut into *spans* of so many lines, each of which can be read by itself, by another process, without what is
before it: so a file may be larger than memory.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from antiphon.data import features
from antiphon.errors import DataError, SaveError

TURN = "<turn>"
"""Stands between the turns of a dialogue where several make one source."""

CARD_FILE = "data.json"
SPAN_LINES = 1 << 15
"""Lines of a span."""

_JSON_LINE = 'write {"source": "…", "target": "…"} on every line'
_WRITTEN = {".jsonl": _JSON_LINE, ".dialogue": "write one conversation a line, two turns or more with a TAB between"}

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
    sha256: str = ""
    """Of the archive that was read, in hexadecimal: authors change theirs. Empty where it was a folder, or none."""

    def save(self, folder: Path) -> None:
        """Write ``data.json``. Raises SaveError."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)
        write_whole(folder / CARD_FILE, [text, "\n"])

    @classmethod
    def load(cls, folder: Path) -> Card | None:
        """The card of a folder, None where there is none. Raises DataError when it is damaged."""
        path = folder / CARD_FILE
        if not path.exists():
            return None
        try:
            tree = json.loads("\n".join(_read_lines(path, 0, path.stat().st_size, 1)))
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
        for key, kinds in {"counts": int, "skipped": int, "options": (int, str)}.items():
            for name, value in tree.get(key, {}).items():
                if not isinstance(value, kinds):
                    cure = "make the folder again or delete it"
                    raise DataError(f"not a data card ({key}: {name} is {value!r:.40})", where=str(path), cure=cure)
        return cls(**{key: tree[key] for key in known.keys() & tree.keys()})


_TELLING = 8
"""Spans at the beginning of a file that are to tell which of three columns has the features."""


class Span(NamedTuple):
    """Some lines of a file, or the same lines of two parallel files."""

    form: Literal["tsv", "parallel", "jsonl", "dialogue"]
    files: tuple[tuple[str, int, int], ...]
    """Path, first byte, and the byte after the last, of each file."""
    line: int
    """Number of the first line, from 1."""
    context: int
    """Earlier turns joined in front of a source (dialogue)."""
    features: int | None = None
    """The column that holds features where a line of a TSV has three; 0: lines have two; None: the file's beginning
    does not tell, and every span is to say."""

    @property
    def bytes(self) -> int:
        """Size of the texts."""
        return sum(end - start for _, start, end in self.files)


def read_pairs(path: str | Path, *, context: int = 0) -> list[Pair]:
    """The pairs of one file (or of ``src.txt,tgt.txt``).

    Args:
        path: see the head of this module.
        context: earlier turns joined in front of a source; ``.dialogue`` only.

    Raises:
        DataError: missing, not UTF-8, no pairs, or a line that is not a pair.
    """
    skipped: Counter[str] = Counter()
    pairs = [pair for span in spans_of(path, context=context) for _, pair in keyed_pairs(span, skipped)]
    if not pairs:
        raise no_pairs(path)
    return pairs


def no_pairs(path: str | Path) -> DataError:
    """The error of a file without pairs."""
    cure = _WRITTEN.get(Path(path).suffix, "write one pair a line: source TAB target")
    return DataError("no pairs", where=str(path), cure=cure)


def spans_of(data: str | Path, *, context: int = 0) -> list[Span]:
    """The file (or ``src.txt,tgt.txt``) in spans; none if it is empty. Looks for line ends; of a TSV also at the first
    span, or few, for which column has features.

    Raises:
        DataError: missing, a pipe, or parallel files of different length; not UTF-8 in the first span.
    """
    path, *others = files_of(data)
    if others:
        source_path, target_path = path, others[0]
        (sources, of_source), (targets, of_target) = _line_starts(source_path), _line_starts(target_path)
        if of_source != of_target:
            raise DataError(
                f"{of_source:,} lines in {source_path.name} but {of_target:,} in {target_path.name}",
                where=f"{source_path},{target_path}",
                cure="line N of one must go with line N of the other",
            )
        edges = zip(itertools.pairwise(sources), itertools.pairwise(targets), strict=True)
        pieces = [((str(source_path), *source), (str(target_path), *target)) for source, target in edges]
        form = "parallel"
    else:
        pieces = [((str(path), start, end),) for start, end in itertools.pairwise(_line_starts(path)[0])]
        form = "dialogue" if path.suffix == ".dialogue" else "jsonl" if path.suffix == ".jsonl" else "tsv"
    spans = [Span(form, files, 1 + SPAN_LINES * number, context) for number, files in enumerate(pieces)]
    column = _features_column_of(spans) if form == "tsv" else None
    return [span._replace(features=column) for span in spans]


def files_of(data: str | Path) -> list[Path]:
    """The file, or both of ``src.txt,tgt.txt``; whether they are there or not."""
    path, both = Path(data), str(data).split(",")
    if path.suffix != ".dialogue" and len(both) == 2 and all(both) and not path.exists():
        return [Path(name.strip()) for name in both]
    return [path]


def check_readable(data: str | Path) -> None:
    """Raises DataError, as `spans_of`, if the file or the files cannot be opened, or only be read once."""
    for path in files_of(data):
        with _opened(path):
            pass


def keyed_pairs(span: Span, skipped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    """The pairs of a span, and to each what must not be torn apart between train and dev: the lemma that it is a form
    of (its source without features), or the whole conversation that it is from.

    Args:
        skipped: what is left out is counted here.

    Raises:
        DataError: not UTF-8, or a line that is not a pair.
    """
    lines = [_read_lines(Path(path), start, end, span.line) for path, start, end in span.files]
    path = span.files[0][0]
    if span.form == "dialogue":
        return _from_dialogues(lines[0], span.context, skipped)
    if span.form == "parallel":
        if len(lines[0]) != len(lines[1]):  # a file of nothing but a byte-order mark has no line
            where = ",".join(path for path, _, _ in span.files)
            raise DataError(
                "one of the files is empty", where=where, cure="line N of one must go with line N of the other"
            )
        pairs = _from_parallel(lines[0], lines[1], skipped)
    elif span.form == "jsonl":
        pairs = _from_json_lines(lines[0], path, span.line, skipped)
    else:
        return _from_tsv(lines[0], span, skipped)
    return ((features.without(pair.source), pair) for pair in pairs)


def write_pairs(path: str | Path, pairs: Iterable[tuple[str, str]]) -> int:
    """Write a TSV whole or not at all; a TAB or line end inside a text becomes a space. Returns how many pairs.

    Raises:
        SaveError: the disk is full or refuses.
    """
    return write_whole(Path(path), (f"{one_line(source)}\t{one_line(target)}\n" for source, target in pairs))


def write_whole(path: Path, pieces: Iterable[str]) -> int:
    """Write text whole or not at all, also over the file that the pieces are read from; returns how many they were.

    Raises:
        SaveError: the disk is full or refuses.
    """
    # What is there under another name stays there; a pipe, and standard output, are written to as they are.
    place = Path(os.path.realpath(path))
    straight = path.parts[:2] in (("/", "dev"), ("/", "proc")) or (os.path.exists(place) and not os.path.isfile(place))
    part = path if straight else place.with_name(f"{place.name}.part")
    count = 0
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            for piece in pieces:
                file.write(piece)
                count += 1
        if not straight:
            part.replace(place)
    except OSError as error:
        cure = "check path, space and rights"
        raise SaveError(f"cannot be written ({error.strerror})", where=str(path), cure=cure) from None
    finally:
        if not straight:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return count


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

_LOOKED_AT = 20
"""Lines at the start of a file without TABs that tell what parts them."""
_LINE_BREAKING = {ord(mark): " " for mark in "\t\n\r"}


def spread(pairs: list[Pair], count: int) -> list[Pair]:
    """So many pairs, or all if there are fewer, in their order and evenly from everywhere."""
    count = min(count, len(pairs))
    return [pairs[place * len(pairs) // count] for place in range(count)]


def _from_tsv(lines: list[str], span: Span, skipped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    path = span.files[0][0]
    tags = _features_column(lines) if span.features is None else span.features
    for number, line in enumerate(lines, start=span.line):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) == 3 and tags:
            key, pair = columns[0], Pair(f"{columns[tags]} {columns[0]}", columns[3 - tags])
        elif len(columns) == 2:
            key, pair = features.without(columns[0]), Pair(*columns)
        elif any(columns):
            count = "one column" if len(columns) == 1 else f"{len(columns)} columns"
            cure = "write source TAB target on every line"
            if len(columns) == 1 and (mark := _other_separator(lines)):
                cure = f'parted by "{mark}"? then make it a TAB: tr "{mark}" "\\t" < OLD > NEW'
            raise DataError(f"{count} where two are needed", where=f"{path}:{number}", cure=cure)
        else:
            continue
        if all(columns):
            yield key, pair
        elif any(columns):
            skipped[_EMPTY_SIDE] += 1


def _other_separator(lines: list[str]) -> str:
    """What parts the first of these lines in two where no TAB does; empty if nothing does."""
    first = [line for line in lines[:_LOOKED_AT] if line.strip()]
    if any(not {"\t", '"'}.isdisjoint(line) for line in first):
        return ""
    return next((mark for mark in ",;|" if all(line.count(mark) == 1 for line in first)), "")


def _features_column(lines: list[str]) -> int | None:
    """The column that holds features where lines have three: the first one that is without doubt a bundle of them
    tells; None if none is."""
    for line in lines:
        if line.count("\t") == 2:
            bundles = [features.BUNDLE.fullmatch(column.strip()) is not None for column in line.split("\t")]
            if bundles in ([False, True, False], [False, False, True]):
                return bundles.index(True)
    return None


def _features_column_of(spans: Sequence[Span]) -> int | None:
    """The same of a file, by its first spans; 0 if its first line has another number of columns."""
    for span in spans[:_TELLING]:
        [(path, start, end)] = span.files
        lines = _read_lines(Path(path), start, end, span.line)
        if span is spans[0] and next((line.count("\t") for line in lines if line.strip()), 2) != 2:
            return 0
        if (column := _features_column(lines)) is not None:
            return column
    return None


def _from_parallel(sources: list[str], targets: list[str], skipped: Counter[str]) -> Iterator[Pair]:
    for source, target in zip(sources, targets, strict=True):
        source, target = source.strip(), target.strip()
        if source and target:
            yield Pair(source, target)
        elif source or target:
            skipped[_EMPTY_SIDE] += 1


def _from_json_lines(lines: list[str], path: str, first: int, skipped: Counter[str]) -> Iterator[Pair]:
    for number, line in enumerate(lines, start=first):
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
    if not isinstance(entry, dict):
        raise DataError("not a JSON object", where=where, cure=_JSON_LINE)
    for key in ("source", "target"):
        if key not in entry:
            raise DataError(f'no "{key}" in this object', where=where, cure=_JSON_LINE)
        if not isinstance(entry[key], str):
            raise DataError(f'"{key}" is not a string', where=where, cure=_JSON_LINE)
    if "\\u" in line:
        _refuse_half_characters(entry["source"] + entry["target"], where)
    return entry["source"].strip(), entry["target"].strip()


def _refuse_half_characters(text: str, where: str) -> None:
    # JSON can spell one half of a surrogate pair, which is no character and cannot be written as UTF-8.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError("half of a surrogate pair", where=where, cure="write the character itself") from None


def _from_dialogues(lines: list[str], context: int, skipped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    for line in lines:
        if not line.strip():
            continue
        pairs = []
        # Around an empty turn there is nothing to answer and no answer: the conversation breaks in two there.
        for turns in _unbroken([turn.strip() for turn in line.split("\t")], skipped):
            pairs += adjacent_pairs(turns, context)
        if not pairs:
            skipped[_LONE_TURN] += 1
        yield from ((line, pair) for pair in pairs)


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


# Files.


def _line_starts(path: Path) -> tuple[list[int], int]:
    """The byte where every span begins, with the file's end as the last; and how many lines there are."""
    starts, size, lines, ended = [0], 0, 0, True
    with _opened(path) as file:
        while piece := file.read(1 << 22):
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n")) + 1
            first = SPAN_LINES - 1 - lines % SPAN_LINES  # the line end in this piece that ends a span
            starts += (size + ends[first::SPAN_LINES]).tolist()
            size, lines, ended = size + len(piece), lines + len(ends), piece.endswith(b"\n")
    if starts[-1] != size:
        starts.append(size)
    return starts, lines + (not ended)


def _read_lines(path: Path, start: int, end: int, first: int) -> list[str]:
    """Lines of some bytes of a file; ``first`` is the number of the first of them."""
    with _opened(path) as file:
        file.seek(start)
        content = file.read(end - start)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first + content.count(b"\n", 0, error.start)
        what = f"not UTF-8 (byte 0x{content[error.start]:02x} at offset {start + error.start})"
        cure = "convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        with _opened(path) as file:
            head = file.read(4)
        cure = next((advice for mark, advice in _FOREIGN.items() if head.startswith(mark)), cure)
        raise DataError(what, where=f"{path}:{line}", cure=cure) from None
    # Only LF ends a line: str.splitlines would also cut at U+2028, U+0085 and others that occur inside texts.
    lines = (text if start else text.removeprefix("\ufeff")).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            if not file.seekable():
                cure = "write them to a file"
                raise DataError("a pipe, and pairs are read more than once", where=str(path), cure=cure)
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("no such file", where=str(path), cure=_cure_for_missing(path)) from None
    except IsADirectoryError:
        raise DataError("a folder where a file is needed", where=str(path), cure="name a file in it") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(path), cure="check it") from None


def _cure_for_missing(path: Path) -> str:
    try:
        siblings = sorted(os.listdir(path.parent))
    except OSError:
        return f"there is no folder {path.parent} either"
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"
