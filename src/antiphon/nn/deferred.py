"""Products inside a loop over time whose weight gradients wait for its end.

A step of a loop multiplies by the same matrix as every other. Left alone, automatic differentiation makes one
small product for the matrix's gradient at every step and adds them up. Here each step notes its two factors, and when
the last of them has been differentiated one large product gives the same sum: on a CPU most of a feeding
decoder's backward time is saved.

How: `_Open` makes an empty token from the matrix; every step's product takes the token as an input, so autograd
comes to `_Open`'s backward after those of all steps, in whatever order they ran.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Shared:
    """A matrix used at every step, with the noted factors of its gradient."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.detach()
        if torch.is_autocast_enabled("cpu"):
            self.matrix = self.matrix.to(torch.get_autocast_dtype("cpu"))
        self.inputs: list[Tensor] = []
        self.grads: list[Tensor] = []

    def gradient(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of the matrix and of the bias, from what the steps noted."""
        raise NotImplementedError


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix: Tensor, bias: Tensor | None, shared: _Shared) -> Tensor:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        ctx.shared = shared
        return matrix.new_empty(0)

    @staticmethod
    def backward(ctx, _):  # type: ignore[override]
        return *ctx.shared.gradient(), None


class LoopLinear(_Shared):
    """`nn.Linear` for a loop: call it at every step, on (B, I) → (B, O)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight)
        self.bias = None if bias is None else bias.detach().to(self.matrix.dtype)
        self.token = _Open.apply(weight, bias, self)

    def __call__(self, x: Tensor) -> Tensor:
        return _Linear.apply(x, self.token, self)

    def gradient(self) -> tuple[Tensor, Tensor | None]:
        inputs, grads = torch.cat(self.inputs), torch.cat(self.grads)
        bias = None if self.bias is None else grads.sum(0, dtype=torch.float32)
        return torch.mm(grads.t(), inputs).float(), bias


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, token: Tensor, shared: LoopLinear) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, x.dtype
        x = x.to(shared.matrix.dtype)
        ctx.save_for_backward(x)
        return F.linear(x, shared.matrix, shared.bias)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared = ctx.shared
        (x,) = ctx.saved_tensors
        grad = grad.to(shared.matrix.dtype)
        shared.inputs.append(x)
        shared.grads.append(grad)
        return torch.mm(grad, shared.matrix).to(ctx.dtype), None, None


class LoopValues(_Shared):
    """(B, S, D) read with weights (B, 1, S), or compared with queries (B, 1, D), at every step."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix)
        self.token = _Open.apply(matrix, None, self)
        self._dtype = matrix.dtype

    def read(self, weights: Tensor) -> Tensor:
        """weights (B, 1, S) → (B, 1, D)."""
        return _Read.apply(weights, self.token, self)

    def compare(self, queries: Tensor) -> Tensor:
        """queries (B, 1, D) → (B, 1, S)."""
        return _Compare.apply(queries, self.token, self)

    def gradient(self) -> tuple[Tensor, None]:
        """Σ over steps of (B, S, 1) times (B, 1, D); `inputs` are the (B, 1, S), `grads` the (B, 1, D)."""
        return torch.bmm(torch.cat(self.inputs, 1).transpose(1, 2), torch.cat(self.grads, 1)).to(self._dtype), None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, token: Tensor, shared: LoopValues) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, weights.dtype
        weights = weights.to(shared.matrix.dtype)
        ctx.save_for_backward(weights)
        return torch.bmm(weights, shared.matrix)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared = ctx.shared
        (weights,) = ctx.saved_tensors
        grad = grad.to(shared.matrix.dtype)
        shared.inputs.append(weights)
        shared.grads.append(grad)
        return torch.bmm(grad, shared.matrix.transpose(1, 2)).to(ctx.dtype), None, None


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries: Tensor, token: Tensor, shared: LoopValues) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, queries.dtype
        queries = queries.to(shared.matrix.dtype)
        ctx.save_for_backward(queries)
        return torch.bmm(queries, shared.matrix.transpose(1, 2))

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared = ctx.shared
        (queries,) = ctx.saved_tensors
        grad = grad.to(shared.matrix.dtype)
        shared.inputs.append(grad)
        shared.grads.append(queries)
        return torch.bmm(grad, shared.matrix).to(ctx.dtype), None, None


class LoopTanh(_Shared):
    """v · tanh(q + k) with keys k (B, S, A) and v (A), for queries (B, 1, A) → (B, 1, S) at every step.

    The tanh values, (B, S, A) a step, are computed again in the backward pass instead of being kept.
    """

    def __init__(self, keys: Tensor, score: Tensor) -> None:
        super().__init__(keys)
        self.score = score.detach().to(self.matrix.dtype)
        self._dtypes = keys.dtype, score.dtype
        self.token = _Open.apply(keys, score, self)
        self.to_keys: Tensor | None = None
        self.to_score: Tensor | None = None

    def compare(self, queries: Tensor) -> Tensor:
        """queries (B, 1, A) → (B, 1, S)."""
        return _Tanh.apply(queries, self.token, self)

    def gradient(self) -> tuple[Tensor, Tensor]:
        assert self.to_keys is not None and self.to_score is not None
        return self.to_keys.to(self._dtypes[0]), self.to_score.to(self._dtypes[1])


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries: Tensor, token: Tensor, shared: LoopTanh) -> Tensor:  # type: ignore[override]
        ctx.shared, ctx.dtype = shared, queries.dtype
        queries = queries.to(shared.matrix.dtype)
        ctx.save_for_backward(queries)
        return torch.mv(torch.tanh_(shared.matrix + queries).flatten(0, 1), shared.score).view(queries.shape[0], 1, -1)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        shared = ctx.shared
        (queries,) = ctx.saved_tensors
        if shared.to_keys is None:
            shared.to_keys = torch.zeros(shared.matrix.shape)
            shared.to_score = torch.zeros(shared.score.shape)
        tanh = torch.tanh_(shared.matrix + queries)
        grad = grad.to(tanh.dtype).transpose(1, 2)  # (B, S, 1)
        shared.to_score += torch.mv(tanh.flatten(0, 1).t(), grad.flatten())
        slope = torch.addcmul(shared.score, tanh * shared.score, tanh, value=-1).mul_(grad)
        shared.to_keys += slope
        return slope.sum(dim=1, keepdim=True, dtype=torch.float32).to(ctx.dtype), None, None


def loop_linear(layer: nn.Linear) -> LoopLinear:
    """A layer made ready for one loop."""
    return LoopLinear(layer.weight, layer.bias)
