"""Batches of static shape, each a pure function of (seed, shard, epoch, index): that is all there is to save."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from antiphon.data.buckets import Bucket, BucketPlan, TooLong
from antiphon.data.store import Store
from antiphon.data.tokenizer import BOS, EOS, PAD
from antiphon.errors import DataError

Order = Literal["shuffled", "proportional"]


@dataclass(frozen=True)
class Batch:
    """B rows of one bucket (S, T), longest target first. Rows from ``rows`` on are fillers: source EOS, target PAD."""

    src: np.ndarray
    """(B, S) int64: the source (perhaps reversed), EOS, PAD …"""
    src_len: np.ndarray
    """(B,) int64: source tokens with EOS, at least 1."""
    tgt_in: np.ndarray
    """(B, T) int64: BOS, the target, PAD …"""
    tgt_out: np.ndarray
    """(B, T) int64: the target, EOS, PAD …; PAD has no weight in the loss."""
    rows: int
    """Real rows."""
    tokens: int
    """Real target tokens; where several processes share a batch, those of all its parts."""
    bucket: int
    """Index of the bucket in its plan."""
    indices: np.ndarray
    """(rows,) int64: which pairs of the stores."""


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """(N, longest) int64, PAD after the end of each row."""
    filled = np.full((len(rows), max(map(len, rows))), PAD, dtype=np.int64)
    for n, row in enumerate(rows):
        filled[n, : len(row)] = row
    return filled


def make_batch(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    shape: Bucket | tuple[int, int],
    *,
    rows: int | None = None,
    reverse_source: bool = False,
    bucket: int = 0,
) -> Batch:
    """A batch from ids without BOS and EOS, cut to the shape as `BatchStream` cuts.

    Args:
        sources: n sources.
        targets: n targets.
        shape: (S, T), EOS counted.
        rows: B; fillers fill up. None: n.
        reverse_source: feed sources backwards.
        bucket: what the batch says of its bucket.
    """
    assert len(sources) == len(targets), "as many targets as sources"
    both = [Store.of_rows(side) for side in (sources, targets)]
    count = len(sources) if rows is None else rows
    indices = np.arange(len(sources), dtype=np.int64)
    tokens = sum(min(len(row) + 1, shape[1]) for row in targets)
    return _assemble(both[0], both[1], indices, Bucket(*shape), count, tokens, reverse_source, bucket)


class BatchStream:
    """The batches that one shard gives in every epoch.

    Order "shuffled": pairs are shuffled within their buckets and cut into batches, the batches of all buckets are
    shuffled; every pair comes once an epoch, the last batch of a bucket is filled up with filler rows.
    Order "proportional" (Stanford CS20's way): for each batch a bucket is drawn with the probability of its share
    of pairs, and within a bucket shuffled pairs follow in turn, shuffled anew when they run out. No fillers. An
    epoch is as many batches as the other order has, but some pairs come twice and others not at all.

    Pairs beyond every bucket, "truncate": a source loses its oldest tokens (on the left) and keeps EOS; a target
    loses its end, and EOS with it, so that the model is not taught to stop in the middle of a sentence.

    Args:
        source: n sources, no EOS.
        target: n targets, no BOS or EOS.
        plan: the shapes.
        rows: B of each bucket (`rows_per_bucket`).
        order: see above.
        reverse_source: feed sources backwards; EOS stays last.
        too_long: cut pairs beyond every bucket, or drop them.
        seed: any whole number.
        part: (r, n): of each batch only its rows r, r + n, …; for one of n processes that share it.

    Raises:
        DataError: no pair left to make a batch of.
    """

    def __init__(
        self,
        source: Store,
        target: Store,
        plan: BucketPlan,
        rows: Sequence[int],
        *,
        order: Order = "shuffled",
        reverse_source: bool = False,
        too_long: TooLong = "truncate",
        seed: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        assert len(source) == len(target), "as many targets as sources"
        assert len(rows) == len(plan.buckets), "rows for every bucket"
        assert min(rows) >= 1, "a row at least"
        self.source, self.target, self.plan, self.rows = source, target, plan, list(rows)
        self.order, self.reverse_source, self.seed, self.part = order, reverse_source, seed, part
        lengths = source.lengths.astype(np.int64) + 1, target.lengths.astype(np.int64) + 1
        held = plan.assign(*lengths)
        chosen = plan.assign_cut(*lengths) if too_long == "truncate" else held
        self.truncated = int(((held < 0) & (chosen >= 0)).sum())
        """Pairs cut to fit."""
        self.dropped = int((chosen < 0).sum())
        """Pairs left out."""
        by_bucket = np.argsort(chosen, kind="stable")
        edges = np.searchsorted(chosen[by_bucket], np.arange(len(plan.buckets) + 1))
        self._members = [by_bucket[start:end] for start, end in itertools.pairwise(edges)]
        self._batches = [-(-len(members) // count) for members, count in zip(self._members, self.rows, strict=True)]
        self.batches_per_epoch = sum(self._batches)
        """The same for every epoch."""
        if not self.batches_per_epoch:
            raise DataError("no pair fits a bucket", cure='give larger buckets, or set data.too_long = "truncate"')
        # the order of one epoch, kept since the next batch will want it too; a pure function of its key
        self._epoch_kept: tuple[int, np.ndarray, list[np.ndarray]] | None = None
        self._turns_kept: dict[tuple[int, int, int], np.ndarray] = {}

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch ``index`` (from 0 to `batches_per_epoch` - 1) of ``epoch`` (from 0); calls may come in any order."""
        assert epoch >= 0, "epochs count from 0"
        assert 0 <= index < self.batches_per_epoch, "no such batch"
        if self.order == "proportional":
            bucket, indices = self._drawn(epoch, index)
        else:
            bucket, indices = self._cut(epoch, index)
        return self._take(bucket, indices)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the ``start``-th on."""
        return (self.batch(epoch, index) for index in range(start, self.batches_per_epoch))

    def in_order(self) -> Iterator[Batch]:
        """Every pair once, bucket by bucket, unshuffled: for evaluation. ``Batch.indices`` says which pairs."""
        for bucket, (members, count) in enumerate(zip(self._members, self.rows, strict=True)):
            for start in range(0, len(members), count):
                yield self._take(bucket, members[start : start + count])

    def _take(self, bucket: int, indices: np.ndarray) -> Batch:
        shape, rows = self.plan.buckets[bucket], self.rows[bucket]
        # longest target first: a decoder that goes step by step can let the ended rows go
        indices = indices[np.argsort(-self.target.lengths[indices], kind="stable")]
        tokens = int(np.minimum(self.target.lengths[indices] + 1, shape.target).sum())
        first, step = self.part
        indices, rows = indices[first::step], -(-rows // step)
        return _assemble(self.source, self.target, indices, shape, rows, tokens, self.reverse_source, bucket)

    def _cut(self, epoch: int, index: int) -> tuple[int, np.ndarray]:
        if self._epoch_kept is None or self._epoch_kept[0] != epoch:
            shuffled = [self._random(epoch, 0, k).permutation(members) for k, members in enumerate(self._members)]
            self._epoch_kept = epoch, self._random(epoch, 1).permutation(self.batches_per_epoch), shuffled
        _, order, shuffled = self._epoch_kept
        ticket, bucket = int(order[index]), 0
        while ticket >= self._batches[bucket]:  # tickets count the batches of bucket 0, then of bucket 1, …
            ticket, bucket = ticket - self._batches[bucket], bucket + 1
        rows = self.rows[bucket]
        return bucket, shuffled[bucket][ticket * rows : (ticket + 1) * rows]

    def _drawn(self, epoch: int, index: int) -> tuple[int, np.ndarray]:
        if self._epoch_kept is None or self._epoch_kept[0] != epoch:
            sizes = np.array([len(members) for members in self._members], np.float64)
            draws = self._random(epoch, 2).choice(len(sizes), self.batches_per_epoch, p=sizes / sizes.sum())
            self._epoch_kept, self._turns_kept = (epoch, draws, []), {}
        draws = self._epoch_kept[1]
        bucket = int(draws[index])
        members, rows = self._members[bucket], self.rows[bucket]
        first = int((draws[:index] == bucket).sum()) * rows  # place in the bucket's endless line of pairs
        pieces = []
        for turn in range(first // len(members), (first + rows - 1) // len(members) + 1):
            key = epoch, bucket, turn
            if key not in self._turns_kept:
                if len(self._turns_kept) > 256:
                    self._turns_kept.clear()
                self._turns_kept[key] = self._random(epoch, 3, bucket, turn).permutation(members)
            start = turn * len(members)
            pieces.append(self._turns_kept[key][max(first - start, 0) : first + rows - start])
        return bucket, np.concatenate(pieces)

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed % 2**64, *key])


def _assemble(
    source: Store,
    target: Store,
    indices: np.ndarray,
    shape: Bucket,
    rows: int,
    tokens: int,
    reverse: bool,
    bucket: int,
) -> Batch:
    """Gather rows of flat ids into a batch, without a Python loop over them."""
    count = len(indices)
    assert count <= rows, "more pairs than rows"
    src = np.full((rows, shape.source), PAD, np.int64)
    src_len = np.ones(rows, np.int64)
    tgt_in = np.full((rows, shape.target), PAD, np.int64)
    tgt_out = np.full((rows, shape.target), PAD, np.int64)
    tgt_in[:count, 0] = BOS
    src[count:, 0] = EOS
    if count:
        ends = source.offsets[indices + 1]
        lengths = np.minimum(ends - source.offsets[indices], shape.source - 1)
        src_len[:count] = lengths + 1
        width = int(lengths.max())
        # the newest tokens are the last ones: `lengths` of them, forwards or backwards
        steps = np.arange(width)
        places = ends[:, None] - 1 - steps if reverse else (ends - lengths)[:, None] + steps
        _gather(source.ids, places, steps < lengths[:, None], src[:count, :width])
        src[np.arange(count), lengths] = EOS

        starts = target.offsets[indices]
        lengths = target.offsets[indices + 1] - starts
        width = min(int(lengths.max()), shape.target)
        steps = np.arange(width)
        _gather(target.ids, starts[:, None] + steps, steps < lengths[:, None], tgt_out[:count, :width])
        tgt_in[:count, 1:] = tgt_out[:count, :-1]
        ended = np.flatnonzero(lengths < shape.target)
        tgt_out[ended, lengths[ended]] = EOS
    return Batch(src, src_len, tgt_in, tgt_out, count, tokens, bucket, indices)


def _gather(ids: np.ndarray, places: np.ndarray, real: np.ndarray, out: np.ndarray) -> None:
    """out = ids[places] where real; elsewhere out keeps its PAD."""
    if len(ids):
        # "clip" lets the unreal places of the first and last rows point anywhere; `real` throws them away
        np.copyto(out, ids.take(places, mode="clip"), where=real)
