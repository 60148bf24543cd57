"""Hard monotonic attention: one source position is looked at, from left to right (Aharoni & Goldberg 2017).

The target itself says where: it holds a mark wherever the next position's turn comes (`data/alignment.py`). So in
training all positions are known before the decoder has read a word, and what is looked at can enter the decoder's first
layer without one step waiting for another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from antiphon.nn.state import Memory


def pointers(marks: Tensor, src_len: Tensor) -> Tensor:
    """marks (B, T) bool, True where a token read by the decoder is the mark → the source position (B, T) it looks at
    when it has read it: never beyond EOS."""
    return torch.minimum(marks.long().cumsum(dim=1), src_len.unsqueeze(1) - 1)


def moved(pointer: Tensor, marks: Tensor, mask: Tensor) -> Tensor:
    """The same for one step: pointer (N,) and marks (N,) → (N,), N a multiple of the sources of mask (B, S)."""
    last = mask.sum(dim=1).repeat_interleave(len(pointer) // len(mask)) - 1
    return torch.minimum(pointer + marks.long(), last)


def looked_at(memory: Memory, rows: Tensor, pointer: Tensor) -> Tensor:
    """What stands at these positions (P,) of these sources (P,) → (P, M)."""
    width = memory.values.shape[1]
    return memory.values.flatten(0, 1).index_select(0, rows * width + pointer)
