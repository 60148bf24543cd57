"""Several models as one: the mean of their probabilities, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from antiphon.data.tokenizer import PAD
from antiphon.search.step import Engine, Rows, StepOutput

FEWEST = 256
"""Candidates asked of every model at least. Beyond a vocabulary of this size the mean is near, not exact: a token
that a model does not name counts there as likely as the last that it names."""


@dataclass(frozen=True)
class _Together:
    """What each engine keeps of the same rows."""

    parts: tuple[Rows, ...]

    def select(self, rows: np.ndarray) -> Self:
        return type(self)(tuple(part.select(rows) for part in self.parts))

    def join(self, other: Self) -> Self:
        return type(self)(tuple(mine.join(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True)))


class Ensemble:
    """Implements `antiphon.search.step.Engine` over engines with one vocabulary on each side.

    Attention is the mean of theirs that have any. Models of one kind trained from several seeds make other mistakes
    each; their mean is usually better than the best of them, for as many times the work.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        assert engines
        assert len({engine.vocabulary for engine in engines}) == 1
        self._engines = tuple(engines)
        self.vocabulary = engines[0].vocabulary

    def encode(self, src: np.ndarray, src_len: np.ndarray) -> tuple[_Together, _Together]:
        """src (N, S), src_len (N,) → memory and first state of each."""
        memories, states = zip(*(engine.encode(src, src_len) for engine in self._engines), strict=True)
        return _Together(memories), _Together(states)

    def step(self, y: np.ndarray, state: Any, memory: Any, k: int) -> StepOutput:
        """y (N,) → the k likeliest next tokens by the mean of probabilities, sorted."""
        asked = min(self.vocabulary, max(k, FEWEST))
        outs = [
            engine.step(y, mine, read, asked)
            for engine, mine, read in zip(self._engines, state.parts, memory.parts, strict=True)
        ]
        total = np.zeros((len(y), self.vocabulary), dtype=np.float32)
        named = np.zeros(total.shape, dtype=bool)
        for out in outs:
            probabilities = np.broadcast_to(np.exp(out.log_probs[:, -1:]), total.shape).copy()
            np.put_along_axis(probabilities, out.ids, np.exp(out.log_probs), axis=1)
            np.put_along_axis(named, out.ids, np.ones(out.ids.shape, dtype=bool), axis=1)
            total += probabilities
        total[~named] = 0.0
        with np.errstate(divide="ignore"):
            mean = np.log(total / len(outs))
        ids = np.argpartition(-mean, k - 1, axis=1)[:, :k] if k < self.vocabulary else np.argsort(-mean, axis=1)
        ids = np.sort(ids, axis=1)  # of equally likely tokens the first comes first, whatever the partition did
        top = np.take_along_axis(mean, ids, axis=1)
        order = np.argsort(-top, axis=1, kind="stable")
        return StepOutput(
            np.take_along_axis(top, order, axis=1),
            np.take_along_axis(ids, order, axis=1).astype(np.int64),
            _mean_attention([out.attention for out in outs]),
            _Together(tuple(out.state for out in outs)),
        )

    def score(self, src: np.ndarray, src_len: np.ndarray, tgt_in: np.ndarray, tgt_out: np.ndarray) -> np.ndarray:
        """(N, T): the log of the mean probability of each token of tgt_out, exactly; 0 at padding."""
        scores = np.stack([engine.score(src, src_len, tgt_in, tgt_out) for engine in self._engines])
        means = np.logaddexp.reduce(scores, axis=0) - np.float32(np.log(len(self._engines)))
        return np.where(tgt_out == PAD, np.float32(0), means)


def _mean_attention(looks: Sequence[np.ndarray]) -> np.ndarray:
    """(N, S) of several: each row sums to 1, or to 0 where no model looks."""
    total = np.sum(looks, axis=0)
    return total / np.maximum(total.sum(axis=1, keepdims=True), 1.0)
