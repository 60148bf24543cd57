"""Laws of the plan: a bucket holds what it is given, and fitting pays."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data.buckets import Bucket, BucketPlan, rows_per_bucket
from antiphon.errors import DataError, UsageError

CS20 = [(19, 19), (28, 28), (33, 33), (40, 43), (50, 53), (60, 63)]
LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=60)


def work(plan: BucketPlan, source: np.ndarray, target: np.ndarray) -> int:
    return sum(sum(plan.buckets[index]) for index in plan.assign_cut(source, target))


@settings(max_examples=60)
@given(pairs=LENGTHS, count=st.integers(1, 8), longest=st.integers(2, 70))
def test_fit_holds_everything_within_the_limits(pairs: list[tuple[int, int]], count: int, longest: int) -> None:
    source, target = np.array(pairs).T
    plan = BucketPlan.fit(source, target, count=count, max_source=longest, max_target=longest)
    assert 1 <= len(plan.buckets) <= count
    chosen = plan.assign(source, target)
    for s, t, index in zip(source, target, chosen, strict=True):
        holding = [sum(bucket) for bucket in plan.buckets if s <= bucket.source and t <= bucket.target]
        assert (index >= 0) == bool(holding)
        assert max(s, t) > longest or holding
        if holding:
            assert sum(plan.buckets[index]) == min(holding)
    assert all(max(bucket) <= longest for bucket in plan.buckets)


@settings(max_examples=40)
@given(pairs=LENGTHS, count=st.integers(1, 6))
def test_more_buckets_never_cost_more(pairs: list[tuple[int, int]], count: int) -> None:
    source, target = np.array(pairs).T
    few, more = (BucketPlan.fit(source, target, count=k, max_source=60, max_target=60) for k in (1, count))
    assert work(more, source, target) <= work(few, source, target)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 8), related=st.floats(0, 1))
def test_fit_is_never_worse_than_a_chain_by_quantiles(seed: int, count: int, related: float) -> None:
    rng = np.random.default_rng(seed)
    source = 2 + rng.geometric(0.08, 300)
    target = np.where(rng.random(300) < related, source, 2 + rng.geometric(0.08, 300))
    cuts = np.linspace(0, 1, count + 1)[1:]
    chain = {(int(np.quantile(source, cut)), int(np.quantile(target, cut))) for cut in cuts[:-1]}
    chain.add((int(source.max()), int(target.max())))
    fitted = BucketPlan.fit(source, target, count=count, max_source=1000, max_target=1000)
    assert work(fitted, source, target) <= work(BucketPlan.by_hand(sorted(chain)), source, target)


def test_fit_is_near_the_true_optimum_where_it_can_be_searched() -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(15):
        source, target = rng.integers(2, 8, (2, 40))
        shapes = list(itertools.product(sorted(set(source.tolist())), sorted(set(target.tolist()))))
        costs = np.array([[s + t if s >= a and t >= b else 10**6 for s, t in shapes]
                          for a, b in zip(source, target, strict=True)])  # fmt: skip
        triples = itertools.combinations(range(len(shapes)), 3)
        best = min(int(costs[:, triple].min(1).sum()) for triple in triples)
        plan = BucketPlan.fit(source, target, count=3, max_source=99, max_target=99)
        ratios.append(work(plan, source, target) / best)
    assert min(ratios) >= 1
    assert max(ratios) < 1.02


def test_enough_buckets_leave_no_padding() -> None:
    source, target = np.array([[3, 3, 9], [4, 8, 2]])
    plan = BucketPlan.fit(source, target, count=12, max_source=200, max_target=200)
    assert plan.buckets == (Bucket(3, 4), Bucket(3, 8), Bucket(9, 2))
    report = plan.report(source, target)
    assert (report.padding, report.padding_source, report.shapes, report.too_long) == (0, 0, 3, 0)


def test_fit_is_fast_and_deterministic() -> None:
    rng = np.random.default_rng(1)
    source, target = np.minimum(2 + rng.geometric(0.06, (2, 220_000)), 300)
    start = time.perf_counter()
    plan = BucketPlan.fit(source, target, count=12, max_source=200, max_target=200)
    assert time.perf_counter() - start < 5  # 0.15 s on an idle machine
    assert plan == BucketPlan.fit(source, target, count=12, max_source=200, max_target=200)
    assert plan.report(source, target).padding < 0.36 < BucketPlan.by_hand(CS20).report(source, target).padding


def test_too_long_pairs_are_planned_for_as_configured() -> None:
    source, target = np.array([[5, 5, 500], [5, 5, 5]])
    cut = BucketPlan.fit(source, target, count=3, max_source=50, max_target=50)
    assert cut.buckets == (Bucket(5, 5), Bucket(50, 5))
    assert cut.assign(source, target).tolist() == [0, 0, -1]
    assert cut.assign_cut(source, target).tolist() == [0, 0, 1]
    assert cut.report(source, target).too_long == 1
    dropped = BucketPlan.fit(source, target, count=3, max_source=50, max_target=50, too_long="drop")
    assert dropped.buckets == (Bucket(5, 5),)
    report = dropped.report(source, target, too_long="drop")
    assert report.pairs == (2,)
    assert report.too_long == 1


def test_report_counts_positions() -> None:
    plan = BucketPlan.by_hand([(4, 4), (8, 10)])
    report = plan.report(np.array([2, 4, 8]), np.array([4, 3, 5]), rows=[4, 1])
    assert report.pairs == (2, 1)
    assert report.batches == (1, 1)
    assert report.padding_source == pytest.approx(1 - 14 / 16)
    assert report.padding_target == pytest.approx(1 - 12 / 18)
    assert report.padding == pytest.approx(1 - 26 / 34)
    assert report.filler == pytest.approx(1 - 34 / 50)
    empty = plan.report(np.array([], int), np.array([], int))
    assert (empty.padding, empty.shapes) == (0, 0)


def test_by_hand_sorts_and_checks() -> None:
    assert BucketPlan.by_hand(CS20[::-1]).buckets == tuple(Bucket(*pair) for pair in CS20)
    with pytest.raises(UsageError, match="at least one bucket"):
        BucketPlan.by_hand([])
    with pytest.raises(UsageError, match="listed twice"):
        BucketPlan.by_hand([(4, 4), (4, 4)])
    with pytest.raises(UsageError, match=r"\(1, 4\) is too small"):
        BucketPlan.by_hand([(1, 4)])


def test_fit_refuses_the_impossible() -> None:
    one = np.array([9])
    with pytest.raises(UsageError, match="at least one bucket"):
        BucketPlan.fit(one, one, count=0, max_source=9, max_target=9)
    with pytest.raises(UsageError, match="at least 2 tokens"):
        BucketPlan.fit(one, one, count=1, max_source=1, max_target=9)
    with pytest.raises(DataError, match="no pair is short enough"):
        BucketPlan.fit(one, one, count=1, max_source=5, max_target=5, too_long="drop")


def test_rows_follow_the_budget() -> None:
    plan = BucketPlan.by_hand([(10, 12), (60, 63), (500, 20), (50, 50)])
    assert rows_per_bucket(plan, 1000) == [80, 16, 15, 2]
    assert rows_per_bucket(plan, 10) == [1, 1, 1, 1]
    assert rows_per_bucket(plan, 1000, 64) == [64] * 4
