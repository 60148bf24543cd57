"""Rows of different lengths without their padding, step after step, so that a loop over time computes no padding."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

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
        ranks = np.empty_like(ranked)
        ranks[ranked] = np.arange(len(ranked))
        self._ranks = torch.from_numpy(ranks)
        self.last = torch.from_numpy(np.where(of_row > 0, starts[np.maximum(of_row, 1) - 1] + ranks, 0))
        """(B,) the packed position of each row's last real one; 0 for a row without any."""

    def reversal(self) -> Tensor:
        """(P,) an index, its own inverse, that reverses each row within its length."""
        return self._filled(self._starts[self._length - 1 - self._step] + self._rank)

    def earlier(self) -> Tensor:
        """(real − rows at step 0,) the packed position one step before, of each position from step 1 on."""
        first = self.counts[0] if self.counts else 0
        return torch.from_numpy(self._starts[self._step[first:] - 1] + self._rank[first:])

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
        return _Pack.apply(x.flatten(0, 1), self.order, self.real).view(self.size, *x.shape[2:])

    def unpack(self, x: Tensor) -> Tensor:
        """(P, D) → (B, T, D), zero at padding."""
        return _Unpack.apply(x, self.order, self.real, self.rows * self.width).view(self.rows, self.width, x.shape[1])

    def reorder(self, x: Tensor, order: Tensor) -> Tensor:
        """Packed positions (P, D) in an order that is its own inverse."""
        return _Reorder.apply(x, order, self.real)

    def _filled(self, index: np.ndarray) -> Tensor:
        filled = np.zeros(self.size, dtype=np.int64)
        filled[: self.real] = index
        return torch.from_numpy(filled)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, real: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(order)
        ctx.real, ctx.shape = real, x.shape
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (order,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, order[: ctx.real], grad[: ctx.real]), None, None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, real: int, places: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(order)
        ctx.real = real
        return x.new_zeros(places, x.shape[1]).index_copy_(0, order[:real], x[:real])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (order,) = ctx.saved_tensors
        packed = grad.index_select(0, order)
        packed[ctx.real :].zero_()
        return packed, None, None, None


class _Reorder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, real: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(order)
        ctx.real = real
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (order,) = ctx.saved_tensors
        back = grad.index_select(0, order)
        back[ctx.real :].zero_()
        return back, None, None
