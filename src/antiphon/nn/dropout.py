"""Dropout that stays the same over time (Gal & Ghahramani 2016), and of whole tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TimeConstantDropout(nn.Module):
    """Drops units of (B, T, D) with one mask (B, 1, D) for all positions; does nothing in evaluation."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) → the same shape, scaled so that its mean is kept."""
        if not self.training or self.chance == 0.0:
            return x
        return x * self.mask(x.shape[0], x.shape[2]).unsqueeze(1).to(x.dtype)

    def mask(self, rows: int, width: int) -> Tensor:
        """(rows, width) of 0 and 1 / (1 − chance), for loops that must use one mask at every step."""
        return torch.empty(rows, width).bernoulli_(1 - self.chance).div_(1 - self.chance)


def drop_words(x: Tensor, chance: float) -> Tensor:
    """Zeroes whole token embeddings of x (B, T, E) with this chance; the others are not scaled."""
    return x * torch.empty(x.shape[0], x.shape[1], 1, dtype=x.dtype).bernoulli_(1 - chance)
