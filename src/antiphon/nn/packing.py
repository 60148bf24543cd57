"""Rows of different lengths without their padding, step after step, so that a loop over time computes no padding."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from antiphon.nn.kernels import take_rows

GRAIN = 32
"""The number of positions is rounded up to a multiple of this: products over them have few shapes, and small batches
little padding."""


class Packing:
    """Where each real position of a rectangle (B, T) stands among the packed positions (P, ...).

    Packed order is by step, within a step by rank: rows sorted by falling length, so the rows of step t + 1 are the
    first of the rows of step t, and a state needs no moving. P is rounded up to a multiple of 32; what stands behind
    the ``real`` positions is arbitrary, and gets no gradient.

    Args:
        lengths: (B,) real positions of each row, each a row's first.
        width: T.
    """

    def __init__(self, lengths: Tensor, width: int) -> None:
        of_row = lengths.numpy()
        ranked = np.argsort(-of_row, kind="stable")
        falling = of_row[ranked]
        steps = int(falling[0]) if len(falling) else 0
        counts = np.searchsorted(-falling, -np.arange(steps), side="left")  # rows longer than t
        starts = np.concatenate(([0], np.cumsum(counts)))
        self.rows, self.width = len(of_row), width
        self.counts: list[int] = counts.tolist()
        """Rows at each step."""
        self.alive = torch.from_numpy(counts.astype(np.int64))
        """The same as a tensor (steps,)."""
        self.spans: list[tuple[int, int]] = list(itertools.pairwise(starts.tolist()))
        """First and last + 1 packed position of each step."""
        self.real = int(starts[-1])
        """Real positions."""
        self.size = self.real + -self.real % GRAIN
        """P."""
        step = np.repeat(np.arange(steps), counts)
        rank = np.arange(self.real) - starts[step]
        row = ranked[rank]
        self._starts, self._step, self._rank, self._length = starts, step, rank, falling[rank]
        self.ranked = None if np.array_equal(ranked, np.arange(len(ranked))) else torch.from_numpy(ranked)
        """(B,) the row of each rank; None if rows came sorted."""
        self.row = self._filled(row)
        """(P,) the row of each packed position."""
        self.order = self._filled(row * width + step)
        """(P,) the place of each packed position in the flattened rectangle."""
        self._places: tuple[Tensor, Tensor] | None = None
        ranks = np.empty_like(ranked)
        ranks[ranked] = np.arange(len(ranked))
        self._ranks = torch.from_numpy(ranks)
        self.last = torch.from_numpy(np.where(of_row > 0, starts[np.maximum(of_row, 1) - 1] + ranks, 0))
        """(B,) the packed position of each row's last real one; 0 for a row without any."""

    def reversal(self) -> Tensor:
        """(P,) an index, its own inverse, that reverses each row within its length; −1 behind the real positions."""
        return self._filled(self._starts[self._length - 1 - self._step] + self._rank, -1)

    def earlier(self) -> Tensor:
        """(P,) the packed position one step before each; −1 at the first step and behind the real positions."""
        first = self.counts[0] if self.counts else 0
        before = self._starts[self._step - 1] + self._rank
        before[:first] = -1
        return self._filled(before, -1)

    def by_rank(self, x: Tensor) -> Tensor:
        """(B, ...) with rows in the order of their rank."""
        return x if self.ranked is None else x.index_select(0, self.ranked)

    def by_row(self, x: Tensor) -> Tensor:
        """The inverse of `by_rank`."""
        return x if self.ranked is None else x.index_select(0, self._ranks)

    def steps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Views of (P, D) by step: (rows at the step, D) each."""
        return x[: self.real].split(self.counts)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) → (P, ...)."""
        flat = x.flatten(0, 1).flatten(1)
        return _Moved.apply(flat, *reversed(self._moves())).view(self.size, *x.shape[2:])

    def unpack(self, x: Tensor) -> Tensor:
        """(P, D) → (B, T, D), zero at padding."""
        return _Moved.apply(x, *self._moves()).view(self.rows, self.width, x.shape[1])

    def reorder(self, x: Tensor, order: Tensor) -> Tensor:
        """Packed positions (P, D) in an order that is its own inverse, as `reversal` is."""
        return _Moved.apply(x, order, order)

    def _moves(self) -> tuple[Tensor, Tensor]:
        """The packed position of each place (B T,), and the place of each packed position (P,); −1: there is none."""
        if self._places is None:
            real = self.order[: self.real].numpy()
            places = np.full(self.rows * self.width, -1, dtype=np.int64)
            places[real] = np.arange(self.real)
            self._places = torch.from_numpy(places), self._filled(real, -1)
        return self._places

    def _filled(self, index: np.ndarray, rest: int = 0) -> Tensor:
        filled = np.full(self.size, rest, dtype=np.int64)
        filled[: self.real] = index
        return torch.from_numpy(filled)


class _Moved(torch.autograd.Function):
    """Rows that change places: to gather them, forward and backward, is many times as fast as to scatter them."""

    @staticmethod
    def forward(ctx, x: Tensor, there: Tensor, back: Tensor) -> Tensor:  # type: ignore[override]
        """Row j of the result is row there[j] of x, and back is the inverse; −1: it comes from nowhere, and is zero."""
        ctx.back = back
        return take_rows(x, there)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return take_rows(grad, ctx.back), None, None
