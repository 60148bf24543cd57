"""Products inside a loop over time whose weight gradients wait for its end.

A step of a loop multiplies by the same matrix as every other. Left alone, automatic differentiation makes one
small product for the matrix's gradient at every step and adds them up. Here each step notes its two factors, and when
the last of them has been differentiated one large product gives the same sum: on a CPU most of a feeding
decoder's backward time is saved.

How: `Shared.open` makes an empty token from the matrix; every step's product takes the token as an input, so autograd
comes to the token's own backward after those of all steps, in whatever order they ran. What notes the factors
does not hold the token: autograd's graph and Python objects that held each other would never be freed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.nn.kernels import column_sums, compare, read, tanh_scores, tanh_scores_backward
from antiphon.nn.products import LoopProduct, product, product_format, used


class Shared:
    """A matrix used at every step, with the noted factors of its gradient.

    Args:
        matrix: as the model holds it; the steps use it in autocast's number format, cast once.
        other: a vector that comes with it (bias, score), or None.
    """

    def __init__(self, matrix: Tensor, other: Tensor | None) -> None:
        self._originals = matrix, other
        self.matrix = used(matrix, product_format()).contiguous()
        self.inputs: list[Tensor] = []
        self.grads: list[Tensor] = []

    def open(self) -> Tensor:
        """The token that every step must be given."""
        return _Open.apply(*self._originals, self)

    def gradient(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of the matrix and of the vector, from what the steps noted."""
        raise NotImplementedError


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix: Tensor, other: Tensor | None, shared: Shared) -> Tensor:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        ctx.shared = shared
        return matrix.new_empty(0)

    @staticmethod
    def backward(ctx, _):  # type: ignore[override]
        return *ctx.shared.gradient(), None


class LoopLinear(Shared):
    """A weight (O, I) and bias (O) for the products of a loop."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.bias = None if bias is None else bias.detach().to(self.matrix.dtype)
        self._began = False
        self._laid_out: LoopProduct | None = None

    def product(self, x: Tensor) -> Tensor:
        """For a step that differentiates itself and adds the bias: x (B, I) in the matrix's format → (B, O)."""
        if not self._began:  # it may be the only step, and not worth laying the matrix out
            self._began = True
            return product(x, self.matrix.t())
        self._laid_out = self._laid_out or LoopProduct(self.matrix)
        return self._laid_out(x)

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """Notes a step's factors, x (B, I) and the gradient of its output (B, O) → the gradient of x (B, I)."""
        grad = grad.to(self.matrix.dtype)
        self.inputs.append(x.detach())  # without its history, which leads back to here
        self.grads.append(grad)
        return product(grad, self.matrix)  # laid out beforehand it would be faster by less than that costs

    def gradient(self) -> tuple[Tensor, Tensor | None]:
        inputs, grads = torch.cat(self.inputs), torch.cat(self.grads)
        bias = None if self.bias is None else column_sums(grads)
        return product(grads.t(), inputs), bias


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, token: Tensor, shared: LoopLinear) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, x.dtype
        x = x.to(shared.matrix.dtype)
        ctx.save_for_backward(x)
        out = shared.product(x)
        return out if shared.bias is None else out + shared.bias

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return ctx.shared.backward(*ctx.saved_tensors, grad).to(ctx.dtype), None, None


class LoopValues(Shared):
    """(B, S, D) read with weights (n, 1, S), or compared with queries (n, 1, D), at every step, by its first n rows."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix, None)
        self._dtype = matrix.dtype

    def read(self, weights: Tensor, token: Tensor) -> Tensor:
        """weights (n, 1, S) → (n, 1, D)."""
        return _Read.apply(weights, token, self)

    def compare(self, queries: Tensor, token: Tensor) -> Tensor:
        """queries (n, 1, D) → (n, 1, S)."""
        return _Compare.apply(queries, token, self)

    def gradient(self) -> tuple[Tensor, None]:
        """Σ over steps of (B, S, 1) times (B, 1, D); `inputs` are the (B, 1, S), `grads` the (B, 1, D)."""
        rows = self.matrix.shape[0]
        by_source, by_value = (stack_rows(parts, rows) for parts in (self.inputs, self.grads))
        return torch.bmm(by_source.transpose(1, 2), by_value).to(self._dtype), None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, token: Tensor, shared: LoopValues) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, weights.dtype
        weights = weights.to(shared.matrix.dtype)
        ctx.save_for_backward(weights)
        return read(weights, shared.matrix[: len(weights)])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared = ctx.shared
        (weights,) = ctx.saved_tensors
        grad = grad.to(shared.matrix.dtype)
        shared.inputs.append(weights.detach())
        shared.grads.append(grad)
        return compare(grad, shared.matrix[: len(grad)]).to(ctx.dtype), None, None


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries: Tensor, token: Tensor, shared: LoopValues) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, queries.dtype
        queries = queries.to(shared.matrix.dtype)
        ctx.save_for_backward(queries)
        return compare(queries, shared.matrix[: len(queries)])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared = ctx.shared
        (queries,) = ctx.saved_tensors
        grad = grad.to(shared.matrix.dtype)
        shared.inputs.append(grad)
        shared.grads.append(queries.detach())
        return read(grad, shared.matrix[: len(grad)]).to(ctx.dtype), None, None


class LoopTanh(Shared):
    """v · tanh(q + k) with keys k (B, S, A) and v (A), for queries (n, T, A) → (n, T, S): a step's, or all at once.

    The tanh values, (n, T, S, A), are computed again in the backward pass instead of being kept. All in f32.

    Args:
        keys: (B, S, A).
        score: (A,).
        mask: (B, S), True = real; elsewhere nothing is computed, and the result is 0.
    """

    def __init__(self, keys: Tensor, score: Tensor, mask: Tensor) -> None:
        super().__init__(keys, score)
        self.matrix, self.score, self.mask = keys.detach().float().contiguous(), score.detach(), mask.contiguous()
        self.to_keys = self.to_score = torch.zeros(0)
        self._dtype = keys.dtype

    def compare(self, queries: Tensor, token: Tensor) -> Tensor:
        """queries (n, T, A) → (n, T, S)."""
        return _Tanh.apply(queries, token, self)

    def gradient(self) -> tuple[Tensor, Tensor]:
        return self.to_keys.to(self._dtype), self.to_score.sum(0)


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries: Tensor, token: Tensor, shared: LoopTanh) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype, rows = shared, queries.dtype, len(queries)
        queries = queries.float().contiguous()
        ctx.save_for_backward(queries)
        with torch.autocast("cpu", enabled=False):
            return tanh_scores(queries, shared.matrix[:rows], shared.score, shared.mask[:rows])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared, (queries,) = ctx.shared, ctx.saved_tensors
        if not len(shared.to_keys):
            shared.to_keys, shared.to_score = torch.zeros_like(shared.matrix), torch.zeros_like(shared.matrix[:, 0])
        rows = len(queries)
        factors = queries, shared.matrix[:rows], shared.score, shared.mask[:rows]
        d_queries = tanh_scores_backward(*factors, grad, shared.to_keys[:rows], shared.to_score[:rows])
        return d_queries.to(ctx.dtype), None, None


def stack_rows(steps: list[Tensor], rows: int) -> Tensor:
    """Tensors (n, 1, D) of steps with n ≤ rows → (rows, steps, D), zero where a step had no such row."""
    return torch.cat([F.pad(step, (0, 0, 0, 0, 0, rows - len(step))) for step in steps], dim=1)


def loop_linear(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A layer made ready for one loop: (B, I) → (B, O) at every step."""
    shared = LoopLinear(layer.weight, layer.bias)
    token = shared.open()
    return lambda x: _Linear.apply(x, token, shared)
