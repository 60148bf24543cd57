"""What a model learns from and is judged by: parts of pairs, gone through as often as needed, never held in memory."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from antiphon.data.pairs import (
    Card,
    Pair,
    Span,
    check_readable,
    keyed_pairs,
    no_pairs,
    read_pairs,
    spans_of,
)
from antiphon.data.workers import over
from antiphon.errors import DataError, UsageError

Part = Literal["train", "dev", "test"]
"""What a corpus is divided into."""

SAMPLED_SPANS = 16
"""Spans read for a sample of a part that has more."""
CANDIDATES = 4
"""Pairs that may be held out and are remembered while the size of the data is not known, for each that is wanted."""


@dataclass(frozen=True)
class Held:
    """The pairs held out of a part: whole groups, named by a number drawn from their key."""

    groups: frozenset[int] = frozenset()

    def __contains__(self, key: str) -> bool:
        return bool(self.groups) and group_of(key) in self.groups


@dataclass(frozen=True)
class Pairs:
    """The pairs of a part in the order of their files; reading happens at every iteration."""

    spans: tuple[Span, ...] = ()
    held: Held = Held()
    """What is left out."""
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Pair]:
        return (pair for span in self.spans for pair in self.of(span))

    def of(self, span: Span) -> Iterator[Pair]:
        """The pairs of one span."""
        return (pair for key, pair in keyed_pairs(span, Counter()) if key not in self.held)

    def sample(self, count: int) -> list[Pair]:
        """About ``count`` pairs, spread evenly; of a large part some spans only are read."""
        step = max(1, self.count // count)
        some = self.spans[:: max(1, len(self.spans) // SAMPLED_SPANS)]
        step = max(1, step * len(some) // max(1, len(self.spans)))
        return list(islice((pair for span in some for pair in self.of(span)), 0, None, step))

    @property
    def bytes(self) -> int:
        """Size of the texts, about."""
        return sum(span.bytes for span in self.spans)


@dataclass(frozen=True)
class Corpus:
    """All there is to learn from and to be judged by; of a ``dev`` held out here no group is in ``train`` (a source, a
    lemma, a conversation)."""

    train: Pairs
    dev: Pairs | list[Pair]
    """Held out: a list."""
    test: Pairs
    card: Card | None
    fingerprint: str
    """sha256 over the digests of the files' spans, in hexadecimal: equal when the data are."""
    train_fingerprint: str = ""
    """The same of the train part alone, with what is held out of it."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What the readers left out: reason and number."""

    def learnt(self, dev_pairs: int) -> Learnt:
        """What a model that learns from this has learnt from."""
        return Learnt(self.train_fingerprint, dev_pairs if isinstance(self.dev, list) else 0)


@dataclass(frozen=True)
class Learnt:
    """What a model has learnt from."""

    fingerprint: str
    """Of the train part (`Corpus.train_fingerprint`)."""
    held_out: int
    """Most pairs that were held out of it; 0: none was, since there was a dev part."""

    @classmethod
    def of(cls, tree: object) -> Learnt | None:
        """From a run's facts; None where they do not say."""
        match tree:
            case {"fingerprint": str(fingerprint), "held_out": int(held_out)}:
                return cls(fingerprint, held_out)
        return None


def read_corpus(data: str | Path, *, context: int = 0, dev_pairs: int = 1000) -> Corpus:
    """DATA as the command line takes it: one file, two parallel files, or a folder with ``train.tsv``.

    A folder may bring ``dev.tsv``, ``test.tsv`` and ``data.json``. Where there is no dev part it is held out:
    ``dev_pairs``, at most a tenth of the data, at least one. Pairs of one source stay together, features left aside (so
    the forms of one lemma do), and so do the pairs of one conversation in a ``.dialogue`` file. The same pairs have the
    same dev part, whatever the order of the lines and the seed of a run: so runs can be compared, and averaged.
    Every line is looked at once, or twice where dev is held out; of the texts nothing but what is held out is kept in
    memory.

    Raises:
        DataError: as `read_pairs`; a folder without ``train.tsv``; nothing that could be held out.
    """
    check_there(data)
    folder = Path(data)
    if not folder.is_dir():
        return _corpus({"train": data}, None, context=context, dev_pairs=dev_pairs)
    parts = {name: folder / f"{name}.tsv" for name in ("train", "dev", "test")}
    parts = {name: path for name, path in parts.items() if path.exists()}
    return _corpus(parts, Card.load(folder), context=0, dev_pairs=dev_pairs)


def check_there(data: str | Path) -> None:
    """Whether there is anything to read, without a look at it. Raises DataError, as `read_corpus`."""
    folder = Path(data)
    if not folder.is_dir():
        check_readable(data)
    elif not (folder / "train.tsv").is_file():
        raise DataError("no train.tsv in this folder", where=str(folder), cure=_cure_for_folder(folder))


def read_part(
    data: str | Path, part: Part | None = None, *, context: int, dev_pairs: int, learnt: Sequence[Learnt] = ()
) -> tuple[str, list[Pair]]:
    """One part of DATA: where it is, in words, and its pairs in the order of the files.

    What has no dev part has the one that `read_corpus` holds out, and its train part is the rest.

    Args:
        data: as `read_corpus` takes it; a folder needs the files of that part alone.
        part: None: of a folder test, where there is one, else dev; of a file all pairs, or dev if it was held out of
            it when a model learnt from it.
        context: of dialogues.
        dev_pairs: how many are held out.
        learnt: what models have learnt from.

    Raises:
        DataError: as `read_corpus`.
        UsageError: the test part of a file.
    """
    folder, place = Path(data), str(data)
    if folder.is_dir():
        part = part or ("test" if (folder / "test.tsv").is_file() else "dev")
        path = folder / f"{part}.tsv"
        if part == "test" or (folder / "dev.tsv").is_file():
            return str(path), read_pairs(path)
    elif part == "test":
        raise UsageError("a file has no test part", where="--split", cure="leave it out, or say dev: what is held out")
    elif learnt:
        now = read_corpus(data, context=context, dev_pairs=0).train_fingerprint
        held = [one.held_out for one in learnt if one.fingerprint == now]
        if held and not min(held):
            place = f"{data}, all of which was learnt"
        elif held and part is None:
            part, dev_pairs = "dev", min(held)
    if part is None:
        return place, read_pairs(data, context=context)
    corpus = read_corpus(data, context=context, dev_pairs=dev_pairs)
    if part == "train":
        return f"what training learns of {place}", list(corpus.train)
    return f"what training holds out of {place}", list(corpus.dev)


def group_of(key: str) -> int:
    """A number below 2**63 that depends on the key alone: pairs with the lowest are held out."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _corpus(parts: Mapping[str, str | Path], card: Card | None, *, context: int, dev_pairs: int) -> Corpus:
    hold_out = "dev" not in parts and dev_pairs > 0
    found: dict[str, Pairs] = {}
    skipped: Counter[str] = Counter()
    groups: dict[int, int] = {}
    digest, of_train = hashlib.sha256(), hashlib.sha256()
    for name, path in parts.items():
        spans = spans_of(path, context=context)
        count = 0
        wanted = dev_pairs if hold_out and name == "train" else 0
        digest.update(f"{name}\n".encode())
        for seen in over(functools.partial(scan, dev_pairs=wanted), spans):
            count += seen.pairs
            skipped.update(seen.skipped)
            digest.update(seen.digest)
            if name == "train":
                of_train.update(seen.digest)
            if wanted:
                groups = _lowest([groups, seen.groups], wanted)
        if not count:
            raise no_pairs(path)
        found[name] = Pairs(tuple(spans), Held(), count)
    train = found["train"]
    if hold_out:
        held = Held(_chosen(groups, dev_pairs, len(train), where=str(parts["train"])))
        dev = [pair for some in over(functools.partial(select, held=held), train.spans) for pair in some]
        train = Pairs(train.spans, held, len(train) - len(dev))
    else:
        dev = found.get("dev", Pairs())
    prints = digest.hexdigest(), of_train.hexdigest()
    return Corpus(train, dev, found.get("test", Pairs()), card, *prints, dict(skipped))


class _Seen(NamedTuple):
    pairs: int
    skipped: dict[str, int]
    digest: bytes
    groups: dict[int, int]


def scan(span: Span, *, dev_pairs: int) -> _Seen:
    """Counts of a span, and the pairs of each group that may be held out (`Held`); none if ``dev_pairs`` is 0."""
    skipped: Counter[str] = Counter()
    groups: Counter[int] = Counter()
    pairs = []
    for key, pair in keyed_pairs(span, skipped):
        pairs.append(pair)
        if dev_pairs:
            groups[group_of(key)] += 1
    text = "\n".join(map("\t".join, pairs))
    return _Seen(len(pairs), dict(skipped), hashlib.sha256(text.encode()).digest(), _lowest([groups], dev_pairs))


def select(span: Span, *, held: Held) -> list[Pair]:
    """The pairs of a span that are held out."""
    return [pair for key, pair in keyed_pairs(span, Counter()) if key in held]


def _lowest(counted: Iterable[Mapping[int, int]], dev_pairs: int) -> dict[int, int]:
    """Pairs of the lowest groups, as many groups as may be needed.

    A group counts as no larger than one pair too many. So what is kept of a part is kept of the whole if it is kept of
    every part, and its count is whole.
    """
    total: Counter[int] = Counter()
    for groups in counted:
        total.update(groups)
    kept, room = {}, CANDIDATES * dev_pairs
    for group in sorted(total):
        if room <= 0:
            break
        kept[group] = total[group]
        room -= min(total[group], dev_pairs + 1)
    return kept


def _chosen(groups: dict[int, int], dev_pairs: int, pairs: int, *, where: str) -> frozenset[int]:
    if len(groups) < 2:
        raise DataError(
            "all pairs belong to one source (or one lemma, one conversation), so none can be held out to validate on",
            where=where,
            cure="bring more data, or a folder with train.tsv and dev.tsv",
        )
    room = max(1, min(dev_pairs, pairs // 10))
    chosen = set()
    for group in sorted(groups):
        if groups[group] <= room:
            chosen.add(group)
            room -= groups[group]
    # Every group is larger than what is wanted: the smallest must do, for there has to be a dev part.
    return frozenset(chosen or {min(sorted(groups), key=lambda group: groups[group])})


def _cure_for_folder(folder: Path) -> str:
    others = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".tsv", ".jsonl", ".dialogue"))
    if others:
        best = next((name for name in others if name.startswith("train")), others[0])
        return f"name one file: {folder / best}; or make it a folder with train.tsv, and dev.tsv if you have one"
    return "antiphon data NAME --out DIR makes such a folder"
