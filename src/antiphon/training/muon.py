"""Muon: momentum made orthogonal, for the matrices of the hidden layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
"""Decay of the mean gradient."""
ROUNDS = 3
"""Rounds of the Newton-Schulz iteration. Five bring singular values nearer to 1; three trained as well, for less."""
FACTORS = 3.4445, -4.7750, 2.0315
"""Of the iteration's odd polynomial a x + b x³ + c x⁵: steepest at 0 (Jordan et al. 2024)."""
SIZE = 0.4
"""An update's root mean square relative to the learning rate; Adam's is about 0.2 to 0.4 (Liu et al. 2025, eq. 4), so
one learning rate serves both."""


class Muon:
    """Descends along the orthogonal matrix nearest to the mean gradient (Jordan et al. 2024, Muon).

    Every direction in which a matrix can learn moves by the same amount, however small its part of the gradient. At
    short budgets it needs about half of Adam's updates (docs/log.md). Each gate of a recurrent layer is a matrix by
    itself.

    Args:
        parameters: the matrices by name.
        blocks: how many matrices of equal height are stacked in each.
        number: the format of the iteration's products; bf16 is enough.
        decay: decoupled weight decay.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], blocks: Mapping[str, int], *, number: torch.dtype, decay: float
    ) -> None:
        self._parameters = dict(parameters)
        self._blocks, self._number, self._decay = blocks, number, decay
        self.means = {name: torch.zeros_like(p) for name, p in parameters.items()}
        """The mean gradients by name."""
        # matrices of one shape, lying, go through the iteration together
        self._alike: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        for name, p in parameters.items():
            height, width = p.shape[0] // blocks[name], p.shape[1]
            self._alike[min(height, width), max(height, width)].append(name)

    @torch.no_grad()
    def step(self, rate: float, gradients: Mapping[str, Tensor]) -> None:
        """One update from gradients by name; what has none stays."""
        moving = {name: self._parameters[name] for name in gradients}
        means, grads = [self.means[name] for name in moving], [grad.float() for grad in gradients.values()]
        torch._foreach_lerp_(means, grads, 1 - MOMENTUM)
        ahead = dict(zip(moving, torch._foreach_lerp(grads, means, MOMENTUM), strict=True))  # Nesterov's
        if self._decay:
            torch._foreach_mul_([p.data for p in moving.values()], 1 - rate * self._decay)
        for (_, longer), names in self._alike.items():
            stacks = {name: self._lying(name, ahead[name]) for name in names if name in moving}
            if not stacks:
                continue
            straight = orthogonal(torch.cat(list(stacks.values())))
            for name, part in zip(stacks, straight.split([len(stack) for stack in stacks.values()]), strict=True):
                parameter = moving[name].data
                turned = self._stands(name)
                update = (part.transpose(1, 2) if turned else part).reshape(parameter.shape)
                parameter.add_(update, alpha=-rate * SIZE * longer**0.5)

    def _lying(self, name: str, matrix: Tensor) -> Tensor:
        """(blocks, shorter, longer), in the iteration's format."""
        blocks = matrix.to(self._number).view(self._blocks[name], -1, matrix.shape[1])
        return blocks.transpose(1, 2) if self._stands(name) else blocks

    def _stands(self, name: str) -> bool:
        height, width = self._parameters[name].shape
        return height // self._blocks[name] > width


def orthogonal(x: Tensor) -> Tensor:
    """(N, r, c), r ≤ c → about U Vᵀ of each x = U Σ Vᵀ, its singular values within 0.2 and 1.3 unless very small.

    A Newton-Schulz iteration of fifth order: x ← a x + (b A + c A²) x with A = x xᵀ.
    """
    a, b, c = FACTORS
    norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)
    x = x * norms.clamp_min(1e-12).reciprocal().to(x.dtype)
    for _ in range(ROUNDS):
        square = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x
