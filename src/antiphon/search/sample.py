"""Answers drawn at random from the model's own distribution, sharpened and cut."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import EOS
from antiphon.search.hypothesis import Hypothesis
from antiphon.search.step import Engine
from antiphon.search.walk import Taken, collect, walk

_BLOCK = 64  # random numbers of a row made at a time


def sample(
    engine: Engine,
    src: np.ndarray,
    src_len: np.ndarray,
    config: SearchConfig,
    max_steps: np.ndarray,
    *,
    numbers: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """``config.nbest`` draws for each of src (N, S), src_len (N,), the same ones merged, sorted by score.

    A draw: divide log-probabilities by the temperature, keep the top_k likeliest (Fan et al. 2018), of these the
    fewest that hold top_p of their probability (Holtzman et al. 2020). Scores are the model's own, without all that.

    Args:
        max_steps: (N,) most tokens of a row, EOS counted.
        numbers: what the randomness of each row depends on, with the seed; by default 0, 1, 2 … A row gives the
            same answers in any batch, if its number is the same.
    """
    numbers = range(len(src)) if numbers is None else numbers
    draws = config.nbest
    owners = np.repeat(np.arange(len(src)), draws)
    seeds = [(number, draw) for number in numbers for draw in range(draws)]
    steps = _steps(engine, src, src_len, config, max_steps, owners, seeds)
    found = collect(steps, src_len[owners], config)
    return [_distinct(found[start : start + draws]) for start in range(0, len(found), draws)]


def stream_sample(
    engine: Engine, src: np.ndarray, src_len: np.ndarray, config: SearchConfig, max_steps: np.ndarray
) -> Iterator[int]:
    """The ids of the first draw of `sample` for one row (src (1, S)), without EOS, each as soon as it is known."""
    for step in _steps(engine, src, src_len, config, max_steps, np.zeros(1, dtype=np.int64), [(0, 0)]):
        if step.tokens[0] != EOS:
            yield int(step.tokens[0])


def _steps(
    engine: Engine,
    src: np.ndarray,
    src_len: np.ndarray,
    config: SearchConfig,
    max_steps: np.ndarray,
    owners: np.ndarray,
    seeds: list[tuple[int, int]],
) -> Iterator[Taken]:
    memory, state = engine.encode(src, src_len)
    if len(owners) > len(src):
        memory, state = memory.select(owners), state.select(owners)
    limits = max_steps[owners]
    lottery = Lottery(config)
    for row, own in enumerate(seeds):
        lottery.enter(row, own, config.seed)
    return walk(engine, memory, state, lottery, config, limits, wanted=config.top_k)


class Lottery:
    """A Choose in which every row has its own random numbers, so that it knows nothing of the other rows."""

    def __init__(self, config: SearchConfig) -> None:
        self._config = config
        self._seed = secrets.randbits(63)
        self._luck: dict[int, Iterator[float]] = {}

    def enter(self, row: int, own: tuple[int, int], seed: int | None) -> None:
        """A row whose numbers follow from a seed (None: this lottery's own, never the same) and from two numbers."""
        seed = self._seed if seed is None else seed
        self._luck[row] = _numbers(np.random.default_rng([abs(seed), int(seed < 0), *own]))

    def leave(self, row: int) -> None:
        """A row that draws no more."""
        del self._luck[row]

    def __call__(self, log_probs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        order = np.argsort(-log_probs, axis=1, kind="stable")[:, : self._config.top_k]
        cumulated = np.cumsum(_sharpened(np.take_along_axis(log_probs, order, axis=1), self._config), axis=1)
        luck = np.array([next(self._luck[row]) for row in rows.tolist()])
        place = (cumulated < luck[:, None] * cumulated[:, -1:]).sum(axis=1)
        return order[np.arange(len(rows)), place]


def _numbers(generator: np.random.Generator) -> Iterator[float]:
    while True:
        yield from generator.random(_BLOCK).tolist()


def _sharpened(log_probs: np.ndarray, config: SearchConfig) -> np.ndarray:
    """Weights (n, K) of candidates (n, K) sorted downwards, after temperature and top_p; not normalised."""
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to -inf, as it should
        weights = np.exp((log_probs - log_probs[:, :1]).astype(np.float64) / config.temperature)
    held = np.cumsum(weights, axis=1)
    before = held - weights
    return np.where(before < config.top_p * held[:, -1:], weights, 0.0)


def _distinct(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    unique = {(tuple(h.ids), h.finished): h for h in hypotheses}
    return sorted(unique.values(), key=lambda h: -h.score)
