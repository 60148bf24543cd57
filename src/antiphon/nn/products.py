"""Matrix products of training: in which number format, and which library is fastest at them on this processor."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.nn import kernels
from antiphon.nn.kernels import column_sums


def product_format() -> torch.dtype:
    """The number format of matrix products: autocast's."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (n, k) times b (k, m), of one format, transposed views or not → (n, m)."""
    if a.dtype == torch.float32 and onednn_leads() and a.numel() and b.numel():
        return torch.ops.mkldnn._linear_pointwise(_in_rows(a), _in_rows(b.t()), None, "none", [], "")
    return torch.mm(a, b)


def _in_rows(x: Tensor) -> Tensor:
    """The same matrix, row after row in memory, as oneDNN wants it. PyTorch would turn it over too, by one thread."""
    return kernels.transposed(x.t()) if x.t().is_contiguous() and not x.is_contiguous() else x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,) → (..., O) in autocast's format; differentiable, as PyTorch's."""
    number = product_format()
    if number == torch.float32 and not onednn_leads():
        return F.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias, number).unflatten(0, x.shape[:-1])


def multiplies(weight: Tensor) -> None:
    """Makes a matrix one that products in bf16 are made with: what would be rounded or widened at every update is kept.

    Its gradient stays in the format of the product that it is (PyTorch before 2.10 widens it), and the optimizer may
    leave its bf16 numbers beside it, `leave_rounded`: half as many bytes are written and read.
    """
    weight.grad_dtype = None
    setattr(weight, _ROUNDED, None)


def used(weight: Tensor, number: torch.dtype) -> Tensor:
    """A weight in the format of products, without its history."""
    version, rounded = getattr(weight, _ROUNDED, None) or (-1, None)
    if rounded is not None and number == torch.bfloat16 and version == weight._version:
        return rounded
    return weight.detach().to(number)


def room_to_round(weight: Tensor) -> Tensor | None:
    """Where the bf16 numbers of a weight belong that is about to change; None if nobody will ask for them."""
    if not hasattr(weight, _ROUNDED):
        return None
    left: tuple[int, Tensor] | None = getattr(weight, _ROUNDED)
    return torch.empty_like(weight, dtype=torch.bfloat16) if left is None else left[1]


def leave_rounded(weight: Tensor, rounded: Tensor) -> None:
    """Says that these are a weight's bf16 numbers, until one of PyTorch's operations changes it."""
    setattr(weight, _ROUNDED, (weight._version, rounded))


_ROUNDED = "antiphon_rounded"
"""Name of a weight's attribute: its version, PyTorch's count of changes, and its bf16 numbers then."""


class Linear(nn.Linear):
    """PyTorch's layer with this module's product."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        multiplies(self.weight)

    def forward(self, input: Tensor) -> Tensor:  # the base class's name
        """input (..., I) → (..., O)."""
        return linear(input, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, number: torch.dtype) -> Tensor:  # type: ignore[override]
        ctx.dtype, x, weight = x.dtype, x.to(number), used(weight, number)
        ctx.save_for_backward(x, weight)
        if bias is not None and number != torch.float32:
            return torch.addmm(bias.to(number), x, weight.t())
        out = product(x, weight.t())
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        d_x = product(grad, weight).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return d_x, product(grad.t(), x), column_sums(grad) if ctx.needs_input_grad[2] else None, None


class LoopProduct:
    """x → x Wᵀ for a loop over steps with ever fewer rows: W is laid out once as the processor likes it.

    Args:
        weight: (O, I), f32 or bf16; a transposed view or not.
    """

    GRAIN = 8
    """Rows are rounded up to this, where a kernel is made and kept for each number of rows."""

    def __init__(self, weight: Tensor) -> None:
        self._outputs, self.grain = len(weight), 1
        self._laid_out = kernels.lay_out(weight.t()) if weight.dtype == torch.float32 else None
        self._packed = self._turned = None
        if weight.dtype != torch.float32:
            try:
                self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, 64)
                self.grain = self.GRAIN
            except (AttributeError, RuntimeError, NotImplementedError):
                pass  # a build without oneDNN
        if self._laid_out is None and self._packed is None:
            self._turned = weight.t().contiguous()  # few rows: MKL is up to twice as fast with it

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, I) → (n, O)."""
        if self._laid_out is not None:
            return kernels.laid_out_product(x, self._laid_out, self._outputs)
        if self._turned is not None:
            return torch.mm(x, self._turned)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")


@functools.cache
def onednn_leads() -> bool:
    """Whether oneDNN's product in f32 is the faster one: MKL keeps AVX-512 to Intel's processors, oneDNN does not.

    On an AMD EPYC of 2024 it is 2.2 times as fast. Both are within rounding of each other.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512") or "ONEDNN_MAX_CPU_ISA" in os.environ:
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
