"""Laws of batches: nothing lost, nothing twice, PAD where it belongs, the same again from the same key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data.batches import Batch, BatchStream, make_batch
from antiphon.data.buckets import Bucket, BucketPlan
from antiphon.data.store import Store
from antiphon.data.tokenizer import BOS, EOS, PAD
from antiphon.errors import DataError

ROW = st.lists(st.integers(5, 99), max_size=12)
PAIRS = st.lists(st.tuples(ROW, ROW), min_size=1, max_size=30)
PLAN = BucketPlan.by_hand([(4, 4), (5, 13), (13, 5), (13, 13)])
SMALL = BucketPlan.by_hand([(3, 6), (6, 3)])


def store(rows: list[list[int]]) -> Store:
    return Store.of_rows(rows)


def stream(pairs: list[tuple[list[int], list[int]]], plan: BucketPlan = PLAN, rows: int = 3, **options) -> BatchStream:
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    return BatchStream(store(sources), store(targets), plan, [rows] * len(plan.buckets), **options)


def same(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("src", "src_len", "tgt_in", "tgt_out", "rows", "bucket", "indices")
    )


def check(batch: Batch, shape: Bucket, pairs: list[tuple[list[int], list[int]]], *, reverse: bool = False) -> None:
    """A batch says what a plain loop over its pairs would say."""
    assert all(array.dtype == np.int64 for array in (batch.src, batch.src_len, batch.tgt_in, batch.tgt_out))
    assert batch.src.shape[1] == shape.source
    assert batch.tgt_in.shape == batch.tgt_out.shape == (len(batch.src), shape.target)
    for row in range(len(batch.src)):
        source, target = pairs[batch.indices[row]] if row < batch.rows else ([], None)
        source = source[max(0, len(source) - shape.source + 1) :]
        source = [*(source[::-1] if reverse else source), EOS]
        expected = [source, [], []] if target is None else [source, [BOS, *target], [*target, EOS]]
        assert batch.src_len[row] == len(source)
        for found, wanted in zip((batch.src, batch.tgt_in, batch.tgt_out), expected, strict=True):
            wanted = wanted[: found.shape[1]]
            assert found[row].tolist() == wanted + [PAD] * (found.shape[1] - len(wanted))


@settings(max_examples=80)
@given(pairs=PAIRS, rows=st.integers(1, 5), reverse=st.booleans(), seed=st.integers(-5, 2**70), cut=st.booleans())
def test_every_pair_once_an_epoch(pairs, rows: int, reverse: bool, seed: int, cut: bool) -> None:
    plan = SMALL if cut else PLAN
    batches = stream(pairs, plan, rows, reverse_source=reverse, seed=seed)
    for epoch in (0, 3):
        seen = list(batches.epoch(epoch))
        assert len(seen) == batches.batches_per_epoch
        assert sorted(i for batch in seen for i in batch.indices) == list(range(len(pairs)))
        for batch in seen:
            assert len(batch.src) == rows
            assert 1 <= batch.rows == len(batch.indices) <= rows
            check(batch, plan.buckets[batch.bucket], pairs, reverse=reverse)
    ordered = list(batches.in_order())
    assert sorted(i for batch in ordered for i in batch.indices) == list(range(len(pairs)))
    assert [batch.bucket for batch in ordered] == sorted(batch.bucket for batch in ordered)
    for batch in ordered:
        check(batch, plan.buckets[batch.bucket], pairs, reverse=reverse)


@settings(max_examples=40)
@given(pairs=PAIRS, order=st.sampled_from(["shuffled", "proportional"]), data=st.data())
def test_a_batch_is_a_function_of_seed_epoch_index(pairs, order, data: st.DataObject) -> None:
    one, other = (stream(pairs, order=order, seed=7) for _ in range(2))
    ahead = [one.batch(epoch, index) for epoch in (0, 1) for index in range(one.batches_per_epoch)]
    keys = [(epoch, index) for epoch in (0, 1) for index in range(one.batches_per_epoch)]
    for place in data.draw(st.lists(st.integers(0, len(keys) - 1), max_size=8)):
        assert same(other.batch(*keys[place]), ahead[place])
    start = data.draw(st.integers(0, one.batches_per_epoch))
    assert all(same(a, b) for a, b in zip(other.epoch(1, start), one.epoch(1, start), strict=True))


def test_epochs_and_seeds_differ() -> None:
    pairs = [([5 + n % 3] * (n % 12), [6] * (n % 11)) for n in range(60)]
    orders = {tuple(stream(pairs, seed=seed).batch(epoch, 0).indices) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


def test_proportional_draws_by_share_and_takes_turns() -> None:
    pairs = [([5, 6], [7])] * 30 + [([5] * 12, [7] * 12)] * 10
    batches = stream(pairs, rows=2, order="proportional", seed=3)
    seen = [batches.batch(epoch, index) for epoch in range(60) for index in range(batches.batches_per_epoch)]
    share = np.mean([batch.bucket == 0 for batch in seen])
    assert share == pytest.approx(0.75, abs=0.05)
    assert all(batch.rows == 2 for batch in seen)
    for bucket, members in ((0, range(30)), (3, range(30, 40))):
        line = [i for b in seen[: batches.batches_per_epoch] if b.bucket == bucket for i in b.indices]
        for start in range(0, len(line), len(members)):
            turn = line[start : start + len(members)]
            assert len(set(turn)) == len(turn)
            assert set(turn) <= set(members)


def test_proportional_fills_from_a_small_bucket() -> None:
    batch = stream([([5], [6])], rows=7, order="proportional").batch(0, 0)
    assert batch.indices.tolist() == [0] * 7


def test_cut_targets_do_not_end_and_cut_sources_keep_the_newest() -> None:
    batch = make_batch([[5, 6, 7, 8]], [[15, 16, 17, 18]], (3, 3))
    assert batch.src.tolist() == [[7, 8, EOS]]
    assert batch.tgt_in.tolist() == [[BOS, 15, 16]]
    assert batch.tgt_out.tolist() == [[15, 16, 17]]
    backwards = make_batch([[5, 6, 7, 8]], [[15, 16]], (3, 3), reverse_source=True)
    assert backwards.src.tolist() == [[8, 7, EOS]]
    assert backwards.tgt_out.tolist() == [[15, 16, EOS]]


def test_too_long_is_counted() -> None:
    pairs = [([5] * 2, [5]), ([5] * 40, [5]), ([5], [5] * 40)]
    assert (stream(pairs).truncated, stream(pairs).dropped) == (2, 0)
    left = stream(pairs, too_long="drop")
    assert (left.truncated, left.dropped) == (0, 2)
    assert [batch.indices.tolist() for batch in left.epoch(0)] == [[0]]
    with pytest.raises(DataError, match="no pair fits a bucket"):
        stream(pairs[1:], too_long="drop")


@settings(max_examples=40)
@given(pairs=PAIRS, reverse=st.booleans(), extra=st.integers(0, 3))
def test_make_batch_agrees_with_a_plain_loop(pairs, reverse: bool, extra: int) -> None:
    shape = Bucket(6, 9)
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    batch = make_batch(sources, targets, shape, rows=len(pairs) + extra, reverse_source=reverse)
    assert len(batch.src) == len(pairs) + extra
    check(batch, shape, pairs, reverse=reverse)


@settings(max_examples=40)
@given(pairs=PAIRS, size=st.integers(1, 4), order=st.sampled_from(["shuffled", "proportional"]))
def test_parts_of_a_batch_are_the_batch(pairs, size: int, order) -> None:
    whole = stream(pairs, rows=3, order=order)
    parts = [stream(pairs, rows=3, order=order, part=(rank, size)) for rank in range(size)]
    for index in range(whole.batches_per_epoch):
        one, shares = whole.batch(2, index), [part.batch(2, index) for part in parts]
        assert one.tokens == int((one.tgt_out != PAD).sum())
        assert {share.tokens for share in shares} == {one.tokens}
        assert len({share.src.shape for share in shares}) == 1
        assert sum(int((share.tgt_out != PAD).sum()) for share in shares) == one.tokens
        assert sorted(i for share in shares for i in share.indices) == sorted(one.indices.tolist())
        for rank, share in enumerate(shares):
            assert share.indices.tolist() == one.indices[rank::size].tolist()
            assert np.array_equal(share.src[: share.rows], one.src[: one.rows][rank::size])
            assert np.array_equal(share.tgt_out[: share.rows], one.tgt_out[: one.rows][rank::size])
