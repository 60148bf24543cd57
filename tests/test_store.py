"""Laws of the id files: what goes in comes out, and a damaged file is told, not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data import store as store_module
from antiphon.data.pairs import Pair
from antiphon.data.store import Store, encode_pairs
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import FolderError, SaveError

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=8), max_size=12)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS, small=st.booleans())
def test_rows_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], small: bool) -> None:
    if small:
        rows = [[token % 60_000 for token in row] for row in rows]
    stem = tmp_path_factory.mktemp("ids") / "train.source"
    written = Store.write(stem, rows)
    opened = Store.open(stem)
    for found in (written, opened):
        assert [row.tolist() for row in found] == rows
        assert found.lengths.tolist() == [len(row) for row in rows]
        assert found.lengths.dtype == np.int32
    assert opened.ids.dtype == (np.int32 if any(t > 65_535 for row in rows for t in row) else np.uint16)


def test_rows_longer_than_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SPOOL_IDS", 7)
    rows = [list(range(count)) for count in (20, 0, 3, 70_000 // 1000)]
    assert [row.tolist() for row in Store.write(tmp_path / "x", iter(rows))] == rows


def test_index_as_a_list(tmp_path: Path) -> None:
    store = Store.write(tmp_path / "x", [[1], [2, 3]])
    assert store[-1].tolist() == [2, 3]
    with pytest.raises(IndexError):
        store[2]
    assert not store[0].flags.writeable


def test_a_failed_writing_leaves_the_old_store(tmp_path: Path) -> None:
    stem = tmp_path / "x"
    Store.write(stem, [[1, 2], [3]])

    def rows():
        yield [9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store.write(stem, rows())
    assert [row.tolist() for row in Store.open(stem)] == [[1, 2], [3]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ids.npy", "x.offsets.npy"]


def test_rewriting_does_not_disturb_a_reader(tmp_path: Path) -> None:
    old = Store.write(tmp_path / "x", [[1, 2], [3]])
    Store.write(tmp_path / "x", [[7]])
    assert old[0].tolist() == [1, 2]


def test_no_folder_is_a_save_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="cannot write token ids"):
        Store.write(tmp_path / "none" / "x", [[1]])


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="cannot read token ids"):
        Store.open(tmp_path / "x")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_is_a_folder_error_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stem = tmp_path_factory.mktemp("ids") / "x"
    Store.write(stem, [[1, 2, 3], [4]])
    victim = stem.parent / f"x.{data.draw(st.sampled_from(['ids', 'offsets']))}.npy"
    content = bytearray(victim.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    victim.write_bytes(bytes(content))
    try:
        store = Store.open(stem)
    except FolderError:
        return
    assert sum(len(row) for row in store) == len(store.ids)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.ids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "x.offsets.npy", np.array([0, 1]))
    with pytest.raises(FolderError):
        Store.open(tmp_path / "x")


def test_encode_pairs_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK_PAIRS", 3)
    pairs = [Pair(f"the cat {'sat ' * n}", f"le chat {n}") for n in range(8)]
    tokenizer = Tokenizer.train([t for pair in pairs for t in pair], kind="bpe", vocabulary=40)
    sources, targets = encode_pairs(pairs, tokenizer, tokenizer, tmp_path / "ids", "train")
    assert [row.tolist() for row in sources] == tokenizer.encode_batch([pair.source for pair in pairs])
    assert [row.tolist() for row in targets] == tokenizer.encode_batch([pair.target for pair in pairs])
    sampled = [
        encode_pairs(pairs, tokenizer, tokenizer, tmp_path / n, "t", dropout=0.5, rng=np.random.default_rng(3))
        for n in "ab"
    ]
    for side in (0, 1):
        assert [r.tolist() for r in sampled[0][side]] == [r.tolist() for r in sampled[1][side]]
        assert [tokenizer.decode(r.tolist()) for r in sampled[0][side]] == [
            tokenizer.normalise(pair[side]) for pair in pairs
        ]
