"""Rows looked up in a table, with a gradient that goes straight into the table's.

A table is used several times in an update: for sources, for targets, and as a tied softmax. Automatic differentiation
would make a table of zeros for each, put rows into it, and add the tables up: of 10,000 words and 500 numbers, 20 MB
each time. Here what comes first is the gradient, and the rest is added where it belongs. (`torch.autograd.grad` with
respect to a table does not see any of it; `backward` does.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def look_up(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table (V, E), a leaf, for ids (P,) → (P, E)."""
    return _LookUp.apply(table, ids)


def add_gradient(table: Tensor, grad: Tensor) -> None:
    """Adds (V, E), which must not be used afterwards, to a leaf's gradient."""
    if table.grad is None:
        table.grad = grad
    else:
        table.grad.add_(grad)


def add_rows(table: Tensor, rows: Tensor) -> None:
    """Adds sparse rows (V, E) to a leaf's gradient, which is dense."""
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    table.grad.add_(rows)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, ids: Tensor) -> Tensor:  # type: ignore[override]
        ctx.table = table
        ctx.save_for_backward(ids)
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        table, (ids,) = ctx.table, ctx.saved_tensors
        add_rows(
            table,
            torch.sparse_coo_tensor(ids.unsqueeze(0), grad.to(table.dtype), table.shape, check_invariants=False),
        )
        return None, None
