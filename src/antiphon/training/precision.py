"""Which number format this CPU multiplies fast."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["f32", "bf16"]


def choose_precision(wish: Literal["auto", "f32", "bf16"]) -> Precision:
    """bf16 where PyTorch uses the CPU's instructions for it (AVX512_BF16 or AMX), unless the user decided."""
    if wish != "auto":
        return wish
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # ATEN_CPU_CAPABILITY may keep it to fewer
        return "f32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "f32"


def products_in(precision: Precision) -> AbstractContextManager[object]:
    """A context in which matrix products use this format; weights, softmax and sums stay f32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
