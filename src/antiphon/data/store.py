"""Token ids in shards of bounded size, anywhere: a corpus of any size costs the memory of one shard.

A part of a corpus (train, dev) is a folder's files ``<part>-00000.npz``, …, and ``<part>.index.npz``, which is written
last: without it there is nothing. The folder may be a path or any address that fsspec knows (``s3://bucket/ids``).
Pairs are dealt to the shards at random, so that each is a fair sample of the whole: shards taken in a random order, and
the pairs of each shuffled, are the whole well shuffled. What is small is one shard, in its own order.
"""

from __future__ import annotations

import io
import itertools
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from antiphon.data.pairs import Pair
from antiphon.data.placeholders import hidden
from antiphon.data.tokenizer import EOS, Tokenizer
from antiphon.errors import FolderError, SaveError, UsageError

SHARD_PAIRS = 1 << 18
"""Pairs in a shard, about."""
SHARD_BYTES = 1 << 26
"""Text in a shard, about."""
SPOOL_BYTES = 1 << 25
"""Ids held in memory while they are dealt to several shards."""
CHUNK_PAIRS = 8192
"""Pairs tokenised at a time."""


class Store:
    """Rows of token ids.

    Args:
        ids: all rows end to end, (total,) uint16 or int32.
        offsets: where rows start, (rows + 1,) int64.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        self.ids, self.offsets = ids, offsets
        self.lengths = np.diff(offsets).astype(np.int32)

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[int]]) -> Store:
        """From rows of ids, 0 to 2**31 - 1; rows may be empty."""
        rows = list(rows)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls.of(np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths)

    @classmethod
    def of(cls, ids: np.ndarray, lengths: np.ndarray) -> Store:
        """From rows end to end and their lengths."""
        return cls(ids, np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        """Ids of one row, (length,). Negative rows count from the end; IndexError beyond."""
        row = range(len(self))[row]
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))


class Shard(NamedTuple):
    """Some pairs of a part; row i of both sides is pair i; no BOS, no EOS."""

    source: Store
    target: Store
    texts: list[Pair]
    """Kept for subword dropout, which cuts them anew at every epoch; else empty."""


class Encoded(NamedTuple):
    """Some pairs on their way into shards, each side's rows end to end."""

    source: np.ndarray
    """Ids, int32."""
    source_lengths: np.ndarray
    """(n,) int32."""
    target: np.ndarray
    target_lengths: np.ndarray
    texts: np.ndarray
    """UTF-8 of source and target in turn, (bytes,) uint8; empty if texts are not kept."""
    text_lengths: np.ndarray
    """(n, 2) int32, in bytes; (0, 2) if texts are not kept."""


@dataclass(frozen=True)
class Shards:
    """One part of a corpus as ids."""

    address: str
    """The folder."""
    part: str
    pairs: np.ndarray
    """Pairs of each shard."""
    lengths: np.ndarray
    """(k, 3) int64: source tokens, target tokens, pairs that have so many; EOS not counted."""
    counts: np.ndarray
    """(V,) int64: how often each id occurs in targets, EOS once a pair."""
    loaded: Shard | None = None
    """The only shard, if it was never put away."""

    def __len__(self) -> int:
        """All pairs."""
        return int(self.pairs.sum())

    def shard(self, number: int) -> Shard:
        """Reads a shard.

        Raises:
            FolderError: it is missing or damaged.
        """
        if self.loaded is not None:
            return self.loaded
        name = _name(self.part, number)
        arrays = _read(self.address, name)
        try:
            source, target = (
                Store.of(_checked(arrays[side], 1), _checked(arrays[f"{side}_lengths"], 1))
                for side in ("source", "target")
            )
            texts = _texts(_checked(arrays["texts"], 1), _checked(arrays["text_lengths"], 2))
            _agree(len(source) == len(target) == self.pairs[number] and len(texts) in (0, len(source)))
            _agree(all(s.offsets[-1] == len(s.ids) and s.lengths.min(initial=0) >= 0 for s in (source, target)))
            _agree(int(target.ids.max(initial=0)) < len(self.counts))
        except (KeyError, ValueError) as error:
            raise _damaged(self.address, name, str(error)) from None
        return Shard(source, target, texts)

    @classmethod
    def open(cls, address: str | Path, part: str) -> Shards:
        """What `write` made; reads the index only.

        Raises:
            FolderError: it is missing or damaged.
        """
        name = f"{part}.index.npz"
        arrays = _read(str(address), name)
        try:
            pairs, lengths, counts = (
                _checked(arrays[key], dimensions) for key, dimensions in (("pairs", 1), ("lengths", 2), ("counts", 1))
            )
            _agree(lengths.shape[1] == 3 and len(pairs) > 0 and pairs.min() >= 0 and lengths.min(initial=0) >= 0)
            _agree(pairs.sum() == lengths[:, 2].sum())
        except (KeyError, ValueError) as error:
            raise _damaged(str(address), name, str(error)) from None
        return cls(str(address), part, pairs, lengths, counts)

    @classmethod
    def write(
        cls,
        address: str | Path,
        part: str,
        encoded: Iterable[Encoded],
        *,
        shards: int,
        vocabulary: int,
        seed: int,
        scratch: Path | None = None,
    ) -> Shards:
        """Deals pairs to shards and writes them, in bounded memory.

        Args:
            address: the folder; made if missing.
            part: train, dev.
            encoded: the pairs.
            shards: how many (`shards_for`).
            vocabulary: V of the targets; ids are kept in two bytes where they fit.
            seed: decides which pair goes to which shard.
            scratch: a folder to make for what is on its way, and to remove; None: one of the system's.

        Raises:
            SaveError: the disk is full or refuses.
        """
        lengths = _Histogram()
        counts = np.zeros(vocabulary, np.int64)
        pairs = np.zeros(shards, np.int64)
        try:
            files = _files(str(address))
            files.makedirs(files.root, exist_ok=True)
            with ExitStack() as held:
                if scratch is None:
                    scratch = Path(held.enter_context(tempfile.TemporaryDirectory()))
                shutil.rmtree(scratch, ignore_errors=True)  # what was killed may have left some: rows are appended
                scratch.mkdir(exist_ok=True)
                held.callback(shutil.rmtree, scratch, ignore_errors=True)
                spool = _Spool(scratch, shards)
                for number, some in enumerate(encoded):
                    n = len(some.source_lengths)
                    lengths.add(some.source_lengths, some.target_lengths)
                    counts += np.bincount(some.target, minlength=vocabulary)
                    dealt = np.zeros(n, np.int64)
                    if shards > 1:
                        dealt = np.random.default_rng([seed % 2**64, number]).integers(shards, size=n)
                    pairs += np.bincount(dealt, minlength=shards)
                    spool.add(some, dealt)
                counts[EOS] += pairs.sum()
                for number in range(shards):
                    files.write(_name(part, number), spool.take(number))
            histogram = lengths.whole()
            files.write(f"{part}.index.npz", {"pairs": pairs, "lengths": histogram, "counts": counts})
        except OSError as error:
            raise SaveError(f"cannot write token ids ({error.strerror or error})", where=str(address)) from None
        return cls(str(address), part, pairs, histogram, counts)


def shards_for(pairs: int, size: int) -> int:
    """How many shards so many pairs with so many bytes of text should make."""
    return max(1, -(-pairs // SHARD_PAIRS), -(-size // SHARD_BYTES))


def encode(
    pairs: Iterable[Pair],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    texts: bool = False,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Encoded:
    """Tokenises pairs.

    Args:
        texts: keep the texts too.
        dropout: share of subword regularisation (`Tokenizer.encode_sampled`); above 0 it needs ``rng``.
        rng: its draws, and nothing else, decide the sampled segmentations.
    """
    assert dropout == 0 or rng is not None, "subword dropout needs a random generator"
    pairs = hidden(list(pairs), (source_tokenizer, target_tokenizer))

    def side(number: int, cut: Callable[[list[str], int], list[list[int]]]) -> list[list[int]]:
        rows: list[list[int]] = []
        for start in range(0, len(pairs), CHUNK_PAIRS):
            rows += cut([pair[number] for pair in pairs[start : start + CHUNK_PAIRS]], start)
        return rows

    if dropout and rng is not None:
        rows = side(0, lambda some, _: source_tokenizer.encode_sampled(some, dropout=dropout, rng=rng))
        beside = side(1, lambda some, _: target_tokenizer.encode_sampled(some, dropout=dropout, rng=rng))
    else:
        rows = side(0, lambda some, _: source_tokenizer.encode_batch(some))
        beside = side(1, lambda some, at: target_tokenizer.encode_beside(some, rows[at : at + len(some)]))
    source, target = Store.of_rows(rows), Store.of_rows(beside)
    content = [text.encode() for pair in pairs for text in pair] if texts else []
    sizes = np.fromiter(map(len, content), np.int32, len(content)).reshape(-1, 2)
    flat = np.frombuffer(b"".join(content), np.uint8)
    return Encoded(source.ids, source.lengths, target.ids, target.lengths, flat, sizes)


def in_memory(encoded: Encoded, vocabulary: int) -> Shards:
    """One shard that is nowhere but in memory."""
    lengths, n = _Histogram(), len(encoded.source_lengths)
    lengths.add(encoded.source_lengths, encoded.target_lengths)
    counts = np.bincount(encoded.target, minlength=vocabulary)
    counts[EOS] += n
    return Shards("", "", np.array([n]), lengths.whole(), counts, as_shard(encoded))


def as_shard(encoded: Encoded) -> Shard:
    """The same, row by row."""
    source = Store.of(encoded.source, encoded.source_lengths)
    target = Store.of(encoded.target, encoded.target_lengths)
    return Shard(source, target, _texts(encoded.texts, encoded.text_lengths))


class _Histogram:
    """How many pairs have which two lengths."""

    def __init__(self) -> None:
        self._keys, self._counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]

    def add(self, source: np.ndarray, target: np.ndarray) -> None:
        keys, counts = np.unique(source.astype(np.int64) << 32 | target, return_counts=True)
        self._keys.append(keys)
        self._counts.append(counts)
        if sum(map(len, self._keys)) > 2 * len(self._keys[0]) + (1 << 16):
            self._merge()

    def whole(self) -> np.ndarray:
        """(k, 3): source length, target length, pairs."""
        self._merge()
        return np.stack((self._keys[0] >> 32, self._keys[0] & 0xFFFFFFFF, self._counts[0]), axis=1)

    def _merge(self) -> None:
        keys, places = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, places, np.concatenate(self._counts))
        self._keys, self._counts = [keys], [counts]


class _Spool:
    """Rows on their way to their shards, in memory until they are many, then in a file for each shard and array."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._folder, self._shards, self._size = folder, shards, 0
        self._held: list[defaultdict[str, list[np.ndarray]]] = [defaultdict(list) for _ in range(shards)]

    def add(self, some: Encoded, dealt: np.ndarray) -> None:
        if self._shards == 1:
            self._hold(0, some)
            return
        order = np.argsort(dealt, kind="stable")
        edges = np.searchsorted(dealt[order], np.arange(self._shards + 1))
        source = _sorted(some.source, some.source_lengths, order)
        target = _sorted(some.target, some.target_lengths, order)
        texts, text_lengths = None, some.text_lengths
        if len(text_lengths):
            texts, text_lengths = _sorted(some.texts, text_lengths.sum(1), order), text_lengths[order]
        for shard, (first, end) in enumerate(itertools.pairwise(edges)):
            of_texts = some.texts if texts is None else texts.ids[texts.offsets[first] : texts.offsets[end]]
            part = Encoded(
                source.ids[source.offsets[first] : source.offsets[end]],
                source.lengths[first:end],
                target.ids[target.offsets[first] : target.offsets[end]],
                target.lengths[first:end],
                of_texts,
                text_lengths[first:end],
            )
            self._hold(shard, part)
        if self._size > SPOOL_BYTES:
            self._put_away()

    def take(self, shard: int) -> dict[str, np.ndarray]:
        """All arrays of a shard, which is then forgotten."""
        found = {}
        for name, dtype in _DTYPES.items():
            pieces = self._held[shard].pop(name, [])
            path = self._path(shard, name)
            if path.exists():
                pieces.insert(0, np.fromfile(path, dtype))
                path.unlink()
            found[name] = np.concatenate(pieces) if pieces else np.empty(0, dtype)
        found["text_lengths"] = found["text_lengths"].reshape(-1, 2)
        for side in ("source", "target"):
            if found[side].max(initial=0) <= np.iinfo(np.uint16).max:
                found[side] = found[side].astype(np.uint16)
        return found

    def _hold(self, shard: int, some: Encoded) -> None:
        named = {
            "source": some.source,
            "source_lengths": some.source_lengths,
            "target": some.target,
            "target_lengths": some.target_lengths,
            "texts": some.texts,
            "text_lengths": some.text_lengths.ravel(),
        }
        for name, array in named.items():
            array = array.astype(_DTYPES[name], copy=self._shards > 1)  # a copy: a view would keep all of its base
            self._held[shard][name].append(array)
            self._size += array.nbytes

    def _put_away(self) -> None:
        for shard, held in enumerate(self._held):
            for name, pieces in held.items():
                with self._path(shard, name).open("ab") as file:
                    np.concatenate(pieces).tofile(file)
            held.clear()
        self._size = 0

    def _path(self, shard: int, name: str) -> Path:
        return self._folder / f"{shard}.{name}"


_DTYPES = {
    "source": np.int32,
    "source_lengths": np.int32,
    "target": np.int32,
    "target_lengths": np.int32,
    "texts": np.uint8,
    "text_lengths": np.int32,
}
_CURE = "remove the ids and train again; they are made anew"


def _sorted(flat: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> Store:
    """Rows end to end, in another order."""
    starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))[:-1]
    moved = lengths[order]
    ends = np.concatenate(([0], np.cumsum(moved, dtype=np.int64)))
    return Store(flat[np.arange(ends[-1]) + np.repeat(starts[order] - ends[:-1], moved)], ends)


def _texts(flat: np.ndarray, lengths: np.ndarray) -> list[Pair]:
    content, place, found = flat.tobytes(), 0, []
    if lengths.shape[1:] != (2,) or lengths.min(initial=0) < 0 or lengths.sum(dtype=np.int64) != len(content):
        raise ValueError("lengths of texts")
    for source, target in lengths.tolist():
        middle, end = place + source, place + source + target
        found.append(Pair(content[place:middle].decode(), content[middle:end].decode()))
        place = end
    return found


def _name(part: str, number: int) -> str:
    return f"{part}-{number:05}.npz"


class _Files:
    """A folder at an address of fsspec's."""

    def __init__(self, address: str) -> None:
        import fsspec  # when it is needed: it takes a while

        self._system, self.root = fsspec.core.url_to_fs(address)
        self.makedirs = self._system.makedirs

    def write(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        self._system.pipe_file(f"{self.root}/{name}", content.getvalue())

    def read(self, name: str) -> bytes:
        return self._system.cat_file(f"{self.root}/{name}")

    def exists(self, name: str) -> bool:
        return self._system.exists(f"{self.root}/{name}")


def _files(address: str) -> _Files:
    try:
        return _Files(address)
    except (ValueError, ImportError) as error:
        cure = "give a folder, or install what the address needs (s3:// needs s3fs)"
        raise UsageError(f"no such kind of address ({error})", where="--data.ids", cure=cure) from None


def is_there(address: str | Path, part: str) -> bool:
    """Whether ids of this part are at the address."""
    return _files(str(address)).exists(f"{part}.index.npz")


def _read(address: str, name: str) -> dict[str, np.ndarray]:
    try:
        content = _files(address).read(name)
    except OSError as error:
        raise FolderError(f"cannot read token ids ({error})", where=f"{address}/{name}", cure=_CURE) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise ValueError("compressed")  # we never compress; a stranger might, a thousandfold
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays}
    except Exception as error:  # of a damaged header numpy's parser raises whatever it stumbles over
        raise _damaged(address, name, str(error)) from None


def _checked(array: Any, dimensions: int) -> np.ndarray:
    if array.ndim != dimensions or array.dtype not in (np.uint8, np.uint16, np.int32, np.int64):
        raise ValueError("an array of another form")
    return array


def _agree(sound: bool) -> None:
    if not sound:
        raise ValueError("its arrays do not fit each other")


def _damaged(address: str, name: str, why: str) -> FolderError:
    return FolderError(f"damaged token ids: {why}", where=f"{address}/{name}", cure=_CURE)
