"""Dropout that stays the same over time (Gal & Ghahramani 2016), and of whole tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antiphon.nn.packing import Packing


class TimeConstantDropout(nn.Module):
    """Drops units of a row with one mask for all its positions; does nothing in evaluation."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Packed x (P, D) → the same shape, scaled so that its mean is kept."""
        if not self.training or self.chance == 0.0:
            return x
        return x * self.mask(packing.rows, x.shape[1], x.dtype).index_select(0, packing.row)

    def mask(self, rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(rows, width) of 0 and 1 / (1 − chance), for loops that must use one mask at every step.

        Sixteen random bits a unit: PyTorch's own Bernoulli numbers take four times as long.
        """
        drawn = torch.empty(-(-rows * width // 4), dtype=torch.int64).random_(-(2**63), None)
        units = drawn.view(torch.int16)[: rows * width].view(rows, width)
        return units.ge(round(self.chance * 2**16) - 2**15).to(dtype).div_(1 - self.chance)


def drop_words(x: Tensor, chance: float) -> Tensor:
    """Zeroes whole token embeddings of packed x (P, E) with this chance; the others are not scaled."""
    return x * torch.empty(len(x), 1, dtype=x.dtype).bernoulli_(1 - chance)
