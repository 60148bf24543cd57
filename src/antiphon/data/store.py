"""Ids in memory-mapped files: a corpus of any size costs the memory of what is read from it.

Two files a store: ``<stem>.ids.npy`` (all rows end to end, uint16 where every id fits, else int32) and
``<stem>.offsets.npy`` (int64, one more than there are rows; row i is ``ids[offsets[i]:offsets[i + 1]]``).
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from antiphon.data.pairs import Pair
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import FolderError, SaveError

SPOOL_IDS = 1 << 20  # ids held in memory while writing
CHUNK_PAIRS = 8192  # pairs tokenised at a time


class Store:
    """Rows of token ids on disk.

    Args:
        ids: all rows end to end, (total,) uint16 or int32, usually memory-mapped.
        offsets: where rows start, (rows + 1,) int64.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        # asarray drops the memmap subclass (not the mapping), whose indexing costs several times as much
        self.ids = np.asarray(ids)
        self.offsets = np.asarray(offsets)
        self.lengths = np.diff(self.offsets).astype(np.int32)

    @classmethod
    def write(cls, stem: Path, rows: Iterable[Sequence[int]]) -> Store:
        """Write rows in bounded memory and open them; an existing store is replaced only once all is written.

        Args:
            stem: path without the endings ``.ids.npy`` and ``.offsets.npy``; its folder must exist.
            rows: ids from 0 to 2**31 - 1; rows may be empty.

        Raises:
            SaveError: the disk is full or refuses.
        """
        ids_path, offsets_path = _paths(stem)
        lengths, buffer, largest = array("q"), array("i"), 0
        try:
            # ids wait in a spool, since neither their number nor their width is known before the last row
            with tempfile.TemporaryFile(dir=ids_path.parent) as spool:
                for row in rows:
                    lengths.append(len(row))
                    buffer.extend(row)
                    if len(buffer) >= SPOOL_IDS:
                        largest = max(largest, np.max(buffer))
                        buffer.tofile(spool)
                        del buffer[:]
                largest = max(largest, np.max(buffer, initial=0))
                buffer.tofile(spool)
                offsets = np.concatenate(([0], np.cumsum(np.array(lengths, np.int64)))).astype(np.int64)
                spool.seek(0)
                width = np.uint16 if largest <= np.iinfo(np.uint16).max else np.int32
                with tempfile.TemporaryDirectory(dir=ids_path.parent) as folder:
                    fresh_ids, fresh_offsets = Path(folder) / "ids.npy", Path(folder) / "offsets.npy"
                    with fresh_ids.open("wb") as file:
                        header = {"descr": np.dtype(width).str, "fortran_order": False, "shape": (int(offsets[-1]),)}
                        np.lib.format.write_array_header_1_0(file, header)
                        while chunk := spool.read(4 * SPOOL_IDS):
                            file.write(np.frombuffer(chunk, np.int32).astype(width).tobytes())
                    np.save(fresh_offsets, offsets)
                    os.replace(fresh_ids, ids_path)
                    os.replace(fresh_offsets, offsets_path)
        except OSError as error:
            raise SaveError(f"cannot write token ids ({error.strerror or error})", where=str(ids_path)) from None
        return cls.open(stem)

    @classmethod
    def open(cls, stem: Path) -> Store:
        """Map a store that `write` made; reads nothing but the offsets.

        Raises:
            FolderError: a file is missing, damaged, or does not fit the other.
        """
        ids_path, offsets_path = _paths(stem)
        try:
            ids = np.load(ids_path, mmap_mode="r", allow_pickle=False)
            offsets = np.load(offsets_path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # of a damaged header numpy's parser raises whatever it stumbles over
            raise FolderError(f"cannot read token ids ({error})", where=str(ids_path), cure=_CURE) from None
        sound = ids.ndim == 1 and ids.dtype in (np.uint16, np.int32) and offsets.ndim == 1 and offsets.dtype == np.int64
        offsets = np.array(offsets) if sound else offsets
        if not sound or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
            raise FolderError("the files of token ids do not fit each other", where=str(ids_path), cure=_CURE)
        return cls(ids, offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        """Ids of one row, (length,), read-only. Negative rows count from the end; IndexError beyond."""
        row = range(len(self))[row]
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))


def encode_pairs(
    pairs: Sequence[Pair],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    folder: Path,
    name: str,
    *,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[Store, Store]:
    """Tokenise pairs into two stores, a few thousand at a time.

    Args:
        pairs: gone through twice, sources then targets.
        folder: where the files go; made if missing.
        name: they are called ``<name>.source.*`` and ``<name>.target.*``.
        dropout: share of subword regularisation (`Tokenizer.encode_sampled`); above 0 it needs ``rng``.
        rng: its draws, and nothing else, decide the sampled segmentations.

    Returns:
        The stores of sources and of targets, row i of both being pair i; no BOS, no EOS.

    Raises:
        SaveError: the disk is full or refuses.
    """
    assert dropout == 0 or rng is not None, "subword dropout needs a random generator"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder ({error.strerror})", where=str(folder)) from None

    def rows(tokenizer: Tokenizer, side: int) -> Iterator[list[int]]:
        for start in range(0, len(pairs), CHUNK_PAIRS):
            texts = [pair[side] for pair in pairs[start : start + CHUNK_PAIRS]]
            if dropout and rng is not None:
                yield from tokenizer.encode_sampled(texts, dropout=dropout, rng=rng)
            else:
                yield from tokenizer.encode_batch(texts)

    sources = Store.write(folder / f"{name}.source", rows(source_tokenizer, 0))
    targets = Store.write(folder / f"{name}.target", rows(target_tokenizer, 1))
    return sources, targets


_CURE = "remove the ids folder and train again; it is made anew"


def _paths(stem: Path) -> tuple[Path, Path]:
    # not with_suffix: "train.source" would lose ".source"
    return stem.parent / f"{stem.name}.ids.npy", stem.parent / f"{stem.name}.offsets.npy"
