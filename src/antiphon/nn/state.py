"""What passes between encoder, decoder and search. Rows first, so that a search can pick rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, from_numpy

LayerState = tuple[Tensor, ...]
"""The state of one RNN layer: (h,) for a GRU, (h, c) for an LSTM, each (B, H)."""


def _rows(tensor: Tensor, rows: np.ndarray) -> Tensor:
    return tensor.index_select(0, from_numpy(np.ascontiguousarray(rows, dtype=np.int64)))


def _as_wide(tensor: Tensor, width: int) -> Tensor:
    """(B, S, …) cut or filled up with zeros to (B, width, …)."""
    missing = width - tensor.shape[1]
    if missing <= 0:
        return tensor[:, :width]
    return torch.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)


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

    def join(self, other: Memory) -> Memory:
        """These rows, then the other's, as wide as the longest source needs."""
        width = max(int(part.mask.sum(dim=1).max()) for part in (self, other))
        pairs = (self.values, other.values), (self.keys, other.keys), (self.mask, other.mask)
        return Memory(*(torch.cat([_as_wide(one, width), _as_wide(two, width)]) for one, two in pairs))


@dataclass(frozen=True)
class DecoderState:
    """Where the decoder stands after a step."""

    layers: tuple[LayerState, ...]
    """One state per RNN layer, lowest first."""
    context: Tensor | None
    """(B, M): the last context, when it is fed to the next step."""
    pointer: Tensor | None = None
    """(B,) int64: the source position looked at, when attention is monotonic."""

    def select(self, rows: np.ndarray) -> DecoderState:
        """The state of these rows, in this order, repetitions allowed."""
        layers = tuple(tuple(_rows(part, rows) for part in layer) for layer in self.layers)
        context, pointer = (None if part is None else _rows(part, rows) for part in (self.context, self.pointer))
        return DecoderState(layers, context, pointer)

    def join(self, other: DecoderState) -> DecoderState:
        """These rows, then the other's."""
        both = zip(self.layers, other.layers, strict=True)
        layers = tuple(tuple(map(torch.cat, zip(one, two, strict=True))) for one, two in both)
        context, pointer = (
            None if one is None or two is None else torch.cat((one, two))
            for one, two in ((self.context, other.context), (self.pointer, other.pointer))
        )
        return DecoderState(layers, context, pointer)
