"""An engine in numpy whose every distribution depends on the source and on the whole prefix."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from antiphon.data.tokenizer import BOS, PAD
from antiphon.search import StepOutput

_PRIME = 1_000_003


@dataclass
class FakeRows:
    values: np.ndarray  # (N, …)

    def select(self, rows: np.ndarray) -> FakeRows:
        return FakeRows(self.values[rows])

    def join(self, other: FakeRows) -> FakeRows:
        both = [self.values, other.values]
        if both[0].ndim == 2:  # a mask
            width = max(int(mask.sum(axis=1).max()) for mask in both)
            both = [np.pad(mask, [(0, 0), (0, max(0, width - mask.shape[1]))])[:, :width] for mask in both]
        return FakeRows(np.concatenate(both))


@dataclass
class FakeEngine:
    """log P(y | prefix, source) = log softmax(sharpness x sin(hash of both, y)): fixed, and different everywhere."""

    vocabulary: int = 12
    sharpness: float = 3.0
    asked: list[tuple[int, int]] = field(default_factory=list)  # (rows, k) of every step
    read: list[tuple[int, ...]] = field(default_factory=list)  # shape of every src

    def encode(self, src: np.ndarray, src_len: np.ndarray) -> tuple[FakeRows, FakeRows]:
        self.read.append(src.shape)
        real = np.arange(src.shape[1]) < src_len[:, None]
        state = np.full(len(src), 17, dtype=np.int64)
        for column in range(src.shape[1]):
            state = np.where(real[:, column], (state * 31 + src[:, column] + 1) % _PRIME, state)
        return FakeRows(real), FakeRows(state)

    def step(self, y: np.ndarray, state: FakeRows, memory: FakeRows, k: int) -> StepOutput:
        assert 1 <= k <= self.vocabulary
        assert len(y) == len(state.values)
        assert len(y) % len(memory.values) == 0
        sources = np.repeat(memory.values, len(y) // len(memory.values), axis=0)
        self.asked.append((len(y), k))
        hashed, log_probs = self._after(y, state.values)
        ids = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
        places = np.arange(sources.shape[1])
        weights = np.where(sources, np.exp(np.sin(hashed[:, None] * 0.7 + places)), 0.0)
        attention = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return StepOutput(np.take_along_axis(log_probs, ids, axis=1), ids, attention, FakeRows(hashed))

    def score(self, src: np.ndarray, src_len: np.ndarray, tgt_in: np.ndarray, tgt_out: np.ndarray) -> np.ndarray:
        state = self.encode(src, src_len)[1].values
        scores = np.zeros(tgt_in.shape, dtype=np.float32)
        for t in range(tgt_in.shape[1]):
            state, log_probs = self._after(tgt_in[:, t], state)
            scores[:, t] = np.where(tgt_out[:, t] == PAD, 0.0, log_probs[np.arange(len(state)), tgt_out[:, t]])
        return scores

    def _after(self, y: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hashed = (state * 31 + y * 7919 + BOS) % _PRIME
        logits = self.sharpness * np.sin(hashed[:, None] * (np.arange(self.vocabulary) * 0.37 + 1.1))
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return hashed, log_probs.astype(np.float32)
