"""What passes between encoder, decoder and search. Rows first, so that a search can pick rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, from_numpy

LayerState = tuple[Tensor, ...]
"""The state of one RNN layer: (h,) for a GRU, (h, c) for an LSTM, each (B, H)."""


def _rows(tensor: Tensor, rows: np.ndarray) -> Tensor:
    return tensor.index_select(0, from_numpy(np.ascontiguousarray(rows, dtype=np.int64)))


@dataclass(frozen=True)
class Memory:
    """What the encoder remembers of the source."""

    values: Tensor
    """(B, S, M): what is read."""
    keys: Tensor
    """(B, S, A): what is compared with the query."""
    mask: Tensor
    """(B, S) bool, True = real token."""

    def first(self, rows: int) -> Memory:
        """The memory of the first rows."""
        return Memory(self.values[:rows], self.keys[:rows], self.mask[:rows])

    def select(self, rows: np.ndarray) -> Memory:
        """The memory of these rows, in this order, repetitions allowed."""
        return Memory(_rows(self.values, rows), _rows(self.keys, rows), _rows(self.mask, rows))


@dataclass(frozen=True)
class DecoderState:
    """Where the decoder stands after a step."""

    layers: tuple[LayerState, ...]
    """One state per RNN layer, lowest first."""
    context: Tensor | None
    """(B, M): the last context, when it is fed to the next step."""

    def select(self, rows: np.ndarray) -> DecoderState:
        """The state of these rows, in this order, repetitions allowed."""
        layers = tuple(tuple(_rows(part, rows) for part in layer) for layer in self.layers)
        return DecoderState(layers, None if self.context is None else _rows(self.context, rows))
