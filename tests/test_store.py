"""Laws of the id files: what goes in comes out, wherever it is kept, and a damaged file is told, not read."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data import store as store_module
from antiphon.data.pairs import Pair
from antiphon.data.store import Encoded, Shards, Store, encode, in_memory, shards_for
from antiphon.data.tokenizer import EOS, Tokenizer
from antiphon.errors import FolderError, SaveError, UsageError

V = 70_000
ROW = st.lists(st.integers(5, V - 1), max_size=8)
PAIRS = st.lists(st.tuples(ROW, ROW), min_size=1, max_size=30)


def encoded(pairs: list[tuple[list[int], list[int]]], *, texts: bool = False) -> Encoded:
    sides = [Store.of_rows([pair[side] for pair in pairs]) for side in (0, 1)]
    words = [f"{a}→{b}".encode() for a, b in pairs for _ in "ab"] if texts else []
    lengths = np.array([len(word) for word in words], np.int32).reshape(-1, 2)
    flat = np.frombuffer(b"".join(words), np.uint8)
    return Encoded(sides[0].ids, sides[0].lengths, sides[1].ids, sides[1].lengths, flat, lengths)


def rows(shards: Shards) -> list[list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    found = []
    for number in range(len(shards.pairs)):
        source, target, _ = shards.shard(number)
        found.append([(tuple(s.tolist()), tuple(t.tolist())) for s, t in zip(source, target, strict=True)])
    return found


@settings(max_examples=60)
@given(pairs=PAIRS, count=st.integers(1, 4), cut=st.integers(1, 7), remote=st.booleans(), texts=st.booleans())
def test_pairs_come_back_each_once(
    tmp_path_factory: pytest.TempPathFactory, pairs, count: int, cut: int, remote: bool, texts: bool
) -> None:
    address = f"memory://{uuid4()}" if remote else str(tmp_path_factory.mktemp("ids"))
    pieces = [encoded(pairs[start : start + cut], texts=texts) for start in range(0, len(pairs), cut)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "SPOOL_BYTES", 64)
        written = Shards.write(address, "train", pieces, shards=count, vocabulary=V, seed=3)
    opened = Shards.open(address, "train")
    plain = [(tuple(source), tuple(target)) for source, target in pairs]
    found = rows(opened)
    assert sorted(pair for shard in found for pair in shard) == sorted(plain)
    assert [len(shard) for shard in found] == opened.pairs.tolist() == written.pairs.tolist()
    if count == 1:
        assert found == [plain]
    of_lengths = {(s, t): n for s, t, n in opened.lengths.tolist()}
    assert sum(of_lengths.values()) == len(opened) == len(pairs)
    assert all(n == sum((len(a), len(b)) == key for a, b in plain) for key, n in of_lengths.items())
    flat = [token for _, target in plain for token in target] + [EOS] * len(plain)
    assert opened.counts.tolist() == np.bincount(flat, minlength=V).tolist()
    for number, shard in enumerate(found):
        expected = [Pair(*[f"{list(a)}→{list(b)}"] * 2) for a, b in shard] if texts else []
        assert opened.shard(number).texts == expected


def test_ids_take_two_bytes_where_they_fit(tmp_path: Path) -> None:
    shards = Shards.write(tmp_path, "train", [encoded([([5, 65_535], [5, 65_536])])], shards=1, vocabulary=V, seed=1)
    source, target, _ = shards.shard(0)
    assert (source.ids.dtype, target.ids.dtype) == (np.uint16, np.int32)


def test_dealing_is_decided_by_the_seed(tmp_path: Path) -> None:
    pairs = [([5 + n], [6]) for n in range(60)]
    found = [
        rows(Shards.write(tmp_path / name, "t", [encoded(pairs)], shards=3, vocabulary=V, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert found[0] == found[1] != found[2]
    assert all(10 < len(shard) < 30 for shard in found[0])


def test_shards_are_of_bounded_size() -> None:
    assert shards_for(0, 0) == shards_for(200_000, 20_000_000) == 1
    assert shards_for(20_000_000, 2_400_000_000) == 77
    assert shards_for(10, 1 << 30) == 16


def test_index_as_a_list() -> None:
    store = Store.of_rows([[1], [2, 3], []])
    assert store[-2].tolist() == [2, 3]
    assert [row.tolist() for row in store] == [[1], [2, 3], []]
    assert store.lengths.tolist() == [1, 2, 0]
    with pytest.raises(IndexError):
        store[3]


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def pieces():
        yield encoded([([5], [6])] * 9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Shards.write(tmp_path, "train", pieces(), shards=2, vocabulary=V, seed=1)
    with pytest.raises(FolderError, match="cannot read token ids"):
        Shards.open(tmp_path, "train")
    assert not list(tmp_path.glob(".spool-*"))


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError, match="cannot write token ids"):
        Shards.write(tmp_path / "file", "train", [encoded([([5], [6])])], shards=1, vocabulary=V, seed=1)
    with pytest.raises(UsageError, match="no such kind of address"):
        Shards.open("nothing://there", "train")
    with pytest.raises(FolderError, match="cannot read token ids"):
        Shards.open(tmp_path / "none", "train")


@settings(max_examples=150)
@given(data=st.data())
def test_damage_is_a_folder_error_or_harmless(data: st.DataObject) -> None:
    address = f"memory://{uuid4()}"
    pairs = [([5, 6, 7], [8]), ([], [9, 10])]
    Shards.write(address, "x", [encoded(pairs, texts=True)], shards=1, vocabulary=20, seed=1)
    system, root = fsspec.core.url_to_fs(address)
    victim = f"{root}/{data.draw(st.sampled_from(['x-00000.npz', 'x.index.npz']))}"
    content = bytearray(system.cat_file(victim))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    system.pipe_file(victim, bytes(content))
    try:
        source, target, texts = Shards.open(address, "x").shard(0)
    except FolderError:
        return
    assert [row.tolist() for row in source] == [list(pair[0]) for pair in pairs]
    assert [row.tolist() for row in target] == [list(pair[1]) for pair in pairs]
    assert len(texts) == 2


@pytest.mark.parametrize("arrays", [{"pairs": np.array([{}], object)}, {"pairs": np.zeros(1 << 20, np.int64)}])
def test_pickles_are_not_run_and_nothing_swells(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(tmp_path / "x.index.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(FolderError, match="damaged token ids"):
        Shards.open(tmp_path, "x")


def test_encode_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK_PAIRS", 3)
    pairs = [Pair(f"the cat {'sat ' * n}", f"le chat {n}") for n in range(8)]
    tokenizer = Tokenizer.train([t for pair in pairs for t in pair], kind="bpe", vocabulary=40)
    sources, targets, texts = in_memory(encode(pairs, tokenizer, tokenizer, texts=True), 40).shard(0)
    assert [row.tolist() for row in sources] == tokenizer.encode_batch([pair.source for pair in pairs])
    assert [row.tolist() for row in targets] == tokenizer.encode_batch([pair.target for pair in pairs])
    assert texts == pairs
    sampled = [
        in_memory(encode(pairs, tokenizer, tokenizer, dropout=0.5, rng=np.random.default_rng(3)), 40).shard(0)
        for _ in range(2)
    ]
    for side in (0, 1):
        assert [r.tolist() for r in sampled[0][side]] == [r.tolist() for r in sampled[1][side]]
        assert [tokenizer.decode(r.tolist()) for r in sampled[0][side]] == [
            tokenizer.normalise(pair[side]) for pair in pairs
        ]
