"""Where to look: a query compared with every source position, the positions read in proportion.

All kinds are masked: a padded position gets weight 0, always.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.nn.deferred import LoopTanh, LoopValues, loop_linear
from antiphon.nn.products import Linear
from antiphon.nn.state import Memory


class Attention(nn.Module):
    """Scores, weights and context of a query over the memory. (``monotonic`` compares nothing: `nn/pointer.py`.)

    - ``additive``: v · tanh(W q + U k), Bahdanau et al. 2015, appendix A.1.2
    - ``dot``: q · k, and ``general``: q · (W k), Luong et al. 2015, section 3.1
    - ``multihead``: Vaswani et al. 2017, section 3.2.2, scaled by the square root of a head's width

    Args:
        config: ``attention``, ``hidden`` (width of the query, H) and ``heads``.
        width: width of the encoder's outputs (M).
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.kind = config.attention
        self.heads = config.heads if config.attention == "multihead" else 1
        hidden = config.hidden
        compares = self.kind in ("additive", "general", "multihead")
        self.key = Linear(width, hidden, bias=self.kind == "additive") if compares else nn.Identity()
        self.query = Linear(hidden, hidden, bias=False) if self.kind in ("additive", "multihead") else nn.Identity()
        self.value = Linear(width, hidden, bias=False) if self.kind == "multihead" else nn.Identity()
        self.width = hidden if self.kind == "multihead" else width
        """Width of the context."""
        if self.kind == "additive":
            self.score = nn.Parameter(torch.empty(hidden).uniform_(-1, 1) * (3 / hidden) ** 0.5)

    def memory(self, compared: Tensor, read: Tensor, mask: Tensor) -> Memory:
        """What is compared and what is read, (B, S, M) each, and mask (B, S), True = real → Memory, once per source."""
        return Memory(values=self.value(read), keys=self.key(compared), mask=mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """queries (B, T, H) → context (B, T, M) and weights (B, T, S), each row of weights summing to 1."""
        q, keys, values = self.query(queries), memory.keys, memory.values
        if self.kind == "multihead":
            return self._multihead(q, memory)
        if self.kind == "additive":
            compared = LoopTanh(keys, self.score, memory.mask)
            scores = compared.compare(q, compared.open())
        else:
            scores = torch.bmm(q.to(keys.dtype), keys.transpose(1, 2))
        weights = _masked_softmax(scores, memory.mask.unsqueeze(1))
        return torch.bmm(weights.to(values.dtype), values), weights

    def looker(self, memory: Memory) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """`forward` made ready for one loop over time: queries (n, 1, H) of the first n rows at a step."""
        if self.kind == "multihead":
            return lambda query: self(query, memory.first(len(query)))
        project = loop_linear(self.query) if isinstance(self.query, nn.Linear) else None
        keys = LoopTanh(memory.keys, self.score, memory.mask) if self.kind == "additive" else LoopValues(memory.keys)
        values = LoopValues(memory.values)
        keys_token, values_token = keys.open(), values.open()
        outside = ~memory.mask.unsqueeze(1)

        def look(query: Tensor) -> tuple[Tensor, Tensor]:
            if project is not None:
                query = project(query.squeeze(1)).unsqueeze(1)
            scores = keys.compare(query, keys_token).float().masked_fill(outside[: len(query)], float("-inf"))
            weights = torch.softmax(scores, dim=-1)
            return values.read(weights, values_token), weights

        return look

    def _multihead(self, q: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        def split(x: Tensor) -> Tensor:  # (B, L, H) → (B, heads, L, H / heads)
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        keys, values = split(memory.keys), split(memory.values)
        scores = split(q).to(keys.dtype) @ keys.transpose(2, 3) * (keys.shape[-1] ** -0.5)
        weights = _masked_softmax(scores, memory.mask[:, None, None])
        context = (weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)
        return context, weights.mean(dim=1)


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(scores.float().masked_fill(~mask, float("-inf")), dim=-1)
