"""What search asks of a model: to read sources, and to take one step. Search knows no more of it than this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np


class Rows(Protocol):
    """Something an engine keeps per row (its memory of the source, its decoder state), opaque to search."""

    def select(self, rows: np.ndarray) -> Self:
        """The given rows, in the given order; an index may come more than once or not at all."""
        ...

    def join(self, other: Self) -> Self:
        """These rows, then the other's; sources are as wide as the longest of them needs."""
        ...


@dataclass(frozen=True)
class StepOutput:
    """One decoder step of N rows: the K likeliest next tokens of each."""

    log_probs: np.ndarray
    """(N, K) float32, nats, descending; under the full softmax, so they need not sum to one."""
    ids: np.ndarray
    """(N, K) int64: the tokens of these."""
    attention: np.ndarray
    """(N, S) float32: where in the source each row looked; rows sum to 1, or are 0 where there is no attention."""
    state: Any
    """Rows: the decoder state after the step."""


class Engine(Protocol):
    """A trained model as search sees it; PyTorch and ONNX Runtime each supply one.

    Nothing here changes its inputs, so a step may be asked again; and calls from several threads may overlap.
    """

    @property
    def vocabulary(self) -> int:
        """V of the target: the most candidates a step can give."""
        ...

    def encode(self, src: np.ndarray, src_len: np.ndarray) -> tuple[Any, Any]:
        """Read sources: src (N, S) and src_len (N,), int64, to (memory, state), both Rows."""
        ...

    def step(self, y: np.ndarray, state: Any, memory: Any, k: int) -> StepOutput:
        """Feed the tokens y (N,) int64 and ask for the k likeliest that follow, k <= V.

        The state has N rows. The memory may have fewer, B, of which N is a multiple: then the first N / B rows look at
        the first source, the next at the second, and so on.
        """
        ...

    def score(self, src: np.ndarray, src_len: np.ndarray, tgt_in: np.ndarray, tgt_out: np.ndarray) -> np.ndarray:
        """(N, T) float32: log P of each token of tgt_out in nats, 0 where it is PAD."""
        ...
