"""A few static shapes for pairs of many lengths, chosen so that little of them is padding.

A bucket is a shape (S, T): sources up to S tokens, targets up to T, EOS counted on both. A pair goes into the
cheapest bucket (least S + T) that holds it, so buckets need not be nested: (8, 40) beside (40, 8) is a good
plan for dialogue, where the length of an answer says little about the length of its question.

How `BucketPlan.fit` chooses. The work of a plan is the sum over pairs of S + T of their bucket. To find the best
plan of K free rectangles is hard, to find the best place for ONE more bucket is not: if H_j(S, T) pairs of the
bucket j lie within (S, T), a new bucket there saves

    sum over j of H_j(S, T) * max(0, cost_j - (S + T)),

and all H_j for all (S, T) at once are cumulative sums of the length histogram (the dynamic programme of summed
areas). So: start with the one shape that holds everything, add the best bucket K - 1 times, then take out
one or two buckets in turn and put them back where they are best, until no such exchange helps. Every step
lowers the work; nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from antiphon.errors import DataError, UsageError

GRID = 96  # lengths a side that may become a boundary; beyond it, lengths are grouped evenly by pairs
PAIRS_UP_TO = 16  # buckets up to which two are exchanged at once; there are count² / 2 such exchanges
TooLong = Literal["truncate", "drop"]


class Bucket(NamedTuple):
    """One static shape, in tokens with EOS counted."""

    source: int
    """S: longest source."""
    target: int
    """T: longest target."""


@dataclass(frozen=True)
class BucketReport:
    """What a plan costs on given lengths. Shares are of all computed positions, from 0 to 1."""

    buckets: tuple[Bucket, ...]
    pairs: tuple[int, ...]
    """Pairs in each bucket, those cut to fit included."""
    batches: tuple[int, ...]
    """Batches of each bucket in an epoch."""
    padding_source: float
    """Share of PAD among source positions of real rows."""
    padding_target: float
    """The same for targets."""
    padding: float
    """The same for both together."""
    filler: float
    """Share of all positions that belong to filler rows (the last batch of a bucket is filled up)."""
    shapes: int
    """Buckets that hold at least one pair."""
    too_long: int
    """Pairs beyond every bucket: cut or left out, as configured."""


@dataclass(frozen=True)
class BucketPlan:
    """Shapes, ordered by cost S + T (ties: by S)."""

    buckets: tuple[Bucket, ...]

    @classmethod
    def fit(
        cls,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        *,
        count: int,
        max_source: int,
        max_target: int,
        too_long: TooLong = "truncate",
        pairs: np.ndarray | None = None,
    ) -> BucketPlan:
        """The plan of at most ``count`` shapes with the least padded work found (see the module's head).

        Args:
            source_lengths: (n,) tokens with EOS.
            target_lengths: (n,) tokens with EOS.
            count: most shapes; fewer where fewer suffice for no padding at all.
            max_source: longest source; pairs beyond are planned for as if cut to it ("truncate"), or not ("drop").
            max_target: the same for targets.
            too_long: what will be done with such pairs.
            pairs: (n,) how many pairs have each two lengths; None: one.

        Raises:
            DataError: no pair to plan for.
            UsageError: ``count`` below 1, or a longest length below 2.
        """
        if count < 1:
            raise UsageError("there must be at least one bucket", where="data.buckets")
        if max_source < 2 or max_target < 2:
            raise UsageError("the longest source and target must be at least 2 tokens", where="data.max_source")
        source, target = _lengths(source_lengths), _lengths(target_lengths)
        weights = np.ones(len(source), np.int64) if pairs is None else pairs
        if too_long == "drop":
            kept = (source <= max_source) & (target <= max_target)
            source, target, weights = source[kept], target[kept], weights[kept]
        if not len(source):
            raise DataError("no pair is short enough for a bucket", cure="raise data.max_source and data.max_target")
        # a shape one token long has room for EOS and nothing else: not worth the special cases
        source, target = np.clip(source, 2, max_source), np.clip(target, 2, max_target)
        sides, rows = _boundaries(source, weights)
        tops, columns = _boundaries(target, weights)
        histogram = np.zeros((len(sides), len(tops)))
        np.add.at(histogram, (rows, columns), weights.astype(np.float64))
        search = _Search(sides, tops, histogram)
        return cls(_sorted(search.best(count)))

    @classmethod
    def by_hand(cls, pairs: Sequence[tuple[int, int]]) -> BucketPlan:
        """A plan from given shapes, e.g. CS20's (19, 19), (28, 28), (33, 33), (40, 43), (50, 53), (60, 63).

        Raises:
            UsageError: no shape, a shape twice, or a side below 2.
        """
        buckets = [Bucket(int(source), int(target)) for source, target in pairs]
        if not buckets:
            raise UsageError("there must be at least one bucket", where="data.buckets")
        for bucket in buckets:
            if min(bucket) < 2:
                raise UsageError(
                    f"bucket ({bucket.source}, {bucket.target}) is too small",
                    where="data.buckets",
                    cure="both sides need at least 2 tokens: one and EOS",
                )
        if len(set(buckets)) < len(buckets):
            raise UsageError("a bucket is listed twice", where="data.buckets")
        return cls(_sorted(buckets))

    def assign(self, source_lengths: np.ndarray, target_lengths: np.ndarray) -> np.ndarray:
        """The cheapest bucket that holds each pair.

        Args:
            source_lengths: (n,) tokens with EOS.
            target_lengths: (n,) tokens with EOS.

        Returns:
            (n,) int64 index into ``buckets``; -1 where none holds the pair.
        """
        source, target = _lengths(source_lengths), _lengths(target_lengths)
        chosen = np.full(len(source), -1, np.int64)
        for index in reversed(range(len(self.buckets))):  # cheapest last, so that it wins
            bucket = self.buckets[index]
            chosen[(source <= bucket.source) & (target <= bucket.target)] = index
        return chosen

    def assign_cut(self, source_lengths: np.ndarray, target_lengths: np.ndarray) -> np.ndarray:
        """As `assign`, but a pair beyond every bucket goes where it loses the fewest tokens (ties: the cheapest)."""
        source, target = _lengths(source_lengths), _lengths(target_lengths)
        chosen = self.assign(source, target)
        beyond = np.flatnonzero(chosen < 0)
        if len(beyond):
            shapes = np.array(self.buckets)
            lost = np.maximum(source[beyond, None] - shapes[:, 0], 0) + np.maximum(
                target[beyond, None] - shapes[:, 1], 0
            )
            chosen[beyond] = lost.argmin(1)
        return chosen

    def report(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        *,
        rows: Sequence[int] | None = None,
        too_long: TooLong = "truncate",
        pairs: np.ndarray | None = None,
    ) -> BucketReport:
        """What the plan costs on these lengths (EOS counted).

        Args:
            rows: rows of a batch, for each bucket (`rows_per_bucket`); None: batches of one row.
            too_long: what is done with pairs beyond every bucket.
            pairs: (n,) how many pairs have each two lengths; None: one.
        """
        source, target = _lengths(source_lengths), _lengths(target_lengths)
        weights = np.ones(len(source), np.int64) if pairs is None else pairs
        beyond = int(weights[self.assign(source, target) < 0].sum())
        chosen = self.assign_cut(source, target) if too_long == "truncate" else self.assign(source, target)
        kept = chosen >= 0
        source, target, weights, chosen = source[kept], target[kept], weights[kept], chosen[kept]
        shapes = np.array(self.buckets)
        held = np.zeros(len(shapes), np.int64)
        np.add.at(held, chosen, weights)
        per_batch = np.ones(len(shapes), np.int64) if rows is None else np.asarray(rows)
        batches = -(-held // per_batch)
        room = held @ shapes  # (2,) positions of real rows
        fitted = np.minimum(source, shapes[chosen, 0]), np.minimum(target, shapes[chosen, 1])
        real = [int((weights * lengths).sum()) for lengths in fitted]
        everything = (batches * per_batch) @ shapes
        return BucketReport(
            buckets=self.buckets,
            pairs=tuple(held.tolist()),
            batches=tuple(batches.tolist()),
            padding_source=_share_lost(real[0], room[0]),
            padding_target=_share_lost(real[1], room[1]),
            padding=_share_lost(sum(real), room.sum()),
            filler=_share_lost(room.sum(), everything.sum()),
            shapes=int((held > 0).sum()),
            too_long=beyond,
        )


def rows_per_bucket(plan: BucketPlan, batch_tokens: int, batch_size: int | None = None) -> list[int]:
    """Rows of a batch, for each bucket.

    ``batch_size`` if given; else as many as fit ``batch_tokens`` positions of the longer side, a multiple of 8
    from 16 on (matrix kernels like it), never below 1.
    """
    if batch_size is not None:
        return [batch_size] * len(plan.buckets)
    rows = [max(1, batch_tokens // max(bucket)) for bucket in plan.buckets]
    return [count - count % 8 if count >= 16 else count for count in rows]


class _Search:
    """The exchange search over a grid of possible boundaries.

    Args:
        sides: possible S, ascending, (R,); the last holds every source.
        tops: possible T, ascending, (C,).
        histogram: pairs whose least holding grid point is (row, column), (R, C).
    """

    def __init__(self, sides: np.ndarray, tops: np.ndarray, histogram: np.ndarray) -> None:
        self.sides, self.tops, self.histogram = sides, tops, histogram
        self.costs = (sides[:, None] + tops[None, :]).astype(np.float64)
        self.everything = (len(sides) - 1, len(tops) - 1)
        # a pair that no bucket holds costs more than any plan could save by leaving it out
        self.unheld = float(self.costs[-1, -1] * (histogram.sum() + 1))

    def best(self, count: int) -> list[Bucket]:
        plan: list[tuple[int, int]] = []
        while len(plan) < count:
            work, spot = self._place(plan)
            if plan and work >= self._work(plan):
                break  # no padding left to save
            plan.append(spot)
        for together in (1, 2, 1) if count <= PAIRS_UP_TO else (1,):
            plan = self._exchange(plan, together)
        holder, _ = self._held_by(plan)
        used = set(holder[self.histogram > 0].tolist())
        plan = [spot for index, spot in enumerate(self._ordered(plan)) if index in used]
        return [Bucket(int(self.sides[row]), int(self.tops[column])) for row, column in plan]

    def _exchange(self, plan: list[tuple[int, int]], together: int) -> list[tuple[int, int]]:
        """Take out ``together`` buckets and put as many back, one after the other, while that lowers the work."""
        least, since, turn = self._work(plan), 0, 0
        groups = len(plan) * (len(plan) - 1) // 2 if together == 2 else len(plan)
        while since < groups:
            if together == 1:
                out = {turn % len(plan)}
            else:
                first, second = _pair(turn % groups, len(plan))
                out = {first, second}
            turn, since = turn + 1, since + 1
            trial = [spot for index, spot in enumerate(plan) if index not in out]
            work = least
            for _ in out:
                work, spot = self._place(trial)
                trial.append(spot)
            if work < least - 0.5:
                plan, least, since = trial, work, 0
        return plan

    def _held_by(self, plan: list[tuple[int, int]]) -> tuple[np.ndarray, list[float]]:
        """Of every grid point the bucket that takes it, (R, C), and the costs of the buckets; the last: none."""
        ordered = self._ordered(plan)
        holder = np.full(self.histogram.shape, len(ordered), np.int64)
        for index, (row, column) in enumerate(ordered):
            holder[: row + 1, : column + 1] = index
        return holder, [float(self.costs[spot]) for spot in ordered] + [self.unheld]

    def _ordered(self, plan: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Dearest first, so that of two buckets that hold a pair the cheaper, set later, takes it."""
        return sorted(plan, key=lambda spot: -self.costs[spot])

    def _work(self, plan: list[tuple[int, int]]) -> float:
        holder, costs = self._held_by(plan)
        return float((self.histogram * np.array(costs)[holder]).sum())

    def _place(self, plan: list[tuple[int, int]]) -> tuple[float, tuple[int, int]]:
        """The best spot for one more bucket, and the work of the plan with it."""
        holder, costs = self._held_by(plan)
        saved = np.zeros_like(self.costs)
        before = 0.0
        for index, cost in enumerate(costs):
            pairs = np.where(holder == index, self.histogram, 0.0)
            before += cost * float(pairs.sum())
            within = pairs.cumsum(0).cumsum(1)
            saved += within * np.maximum(cost - self.costs, 0.0)
        spot = np.unravel_index(int(saved.argmax()), saved.shape)
        return before - float(saved[spot]), (int(spot[0]), int(spot[1]))


def _pair(index: int, count: int) -> tuple[int, int]:
    """The index-th of all unordered pairs of ``count`` things."""
    first = 0
    while index >= count - 1 - first:
        index -= count - 1 - first
        first += 1
    return first, first + 1 + index


def _boundaries(lengths: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths that may become boundaries, ascending, and for each pair the least of them that holds it."""
    present, places = np.unique(lengths, return_inverse=True)
    counts = np.zeros(len(present), np.int64)
    np.add.at(counts, places, weights)
    if len(present) > GRID:
        # as many tokens in each group: short lengths, where a token matters most, stay apart
        tokens = np.cumsum(present * counts)
        ends = np.searchsorted(tokens, np.linspace(0, tokens[-1], GRID + 1)[1:])
        present = present[np.unique(np.minimum(ends, len(present) - 1))]
    return present, np.searchsorted(present, lengths)


def _lengths(lengths: np.ndarray) -> np.ndarray:
    return np.asarray(lengths, dtype=np.int64)


def _sorted(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    return tuple(sorted(buckets, key=lambda bucket: (sum(bucket), bucket)))


def _share_lost(real: float, room: float) -> float:
    return float(1 - real / room) if room else 0.0
