"""From source tokens to a memory, over packed positions: padding is never computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.nn.dropout import TimeConstantDropout
from antiphon.nn.packing import Packing
from antiphon.nn.products import Linear
from antiphon.nn.recurrent import RecurrentLayer, RecurrentLayers
from antiphon.nn.state import LayerState


class Encoder(nn.Module):
    """L recurrent layers, one or two directions.

    The backward direction runs forward over each source reversed within its own length: one kind of layer serves both
    directions, and both can be exported.

    Args:
        config: cell, widths, layers, direction, dropout.
        inputs: width of the embeddings (E).
    """

    def __init__(self, config: ModelConfig, inputs: int) -> None:
        super().__init__()
        directions = 2 if config.bidirectional else 1
        hidden = config.encoder_hidden or config.hidden
        self.finals = directions * hidden
        """Width of a layer's last states."""
        self.width = self.finals
        """Width of the outputs (M)."""
        widths = [inputs] + [self.width] * (config.encoder_layers - 1)
        self.forwards = RecurrentLayers(RecurrentLayer(config.cell, width, hidden) for width in widths)
        self.backwards = RecurrentLayers(
            RecurrentLayer(config.cell, width, hidden) for width in (widths if config.bidirectional else [])
        )
        self.norms = nn.ModuleList(nn.LayerNorm(self.width) for _ in widths) if config.layer_norm else None
        self.dropout = TimeConstantDropout(config.dropout)
        self.residual = config.residual
        # Dot attention compares the decoder's state with the outputs themselves: widths must agree.
        self.project = nn.Identity()
        if config.attention == "dot" and self.width != config.hidden:
            self.project = Linear(self.width, config.hidden, bias=False)
            self.width = config.hidden

    def forward(self, x: Tensor, packing: Packing) -> tuple[Tensor, list[LayerState]]:
        """Embedded packed sources x (P, E) → packed outputs (P, M), and each layer's last state.

        A layer's last state is that after its last real token: forward direction first, backward appended; the output
        alone, unless one direction of an LSTM gives its cell state too.
        """
        order = packing.reversal() if len(self.backwards) else None
        finals: list[LayerState] = []
        for index, forward in enumerate(self.forwards):
            if index:
                x = self.dropout(x, packing)
            outputs, final = forward.sequence(x, forward.zeros(packing.rows), packing)
            if order is not None:
                backward = self.backwards[index]
                turned = packing.reorder(x, order)
                against, first = backward.sequence(turned, backward.zeros(packing.rows), packing)
                final = (torch.cat((final[0], first[0]), dim=1),)
                outputs = torch.cat((outputs, packing.reorder(against, order)), dim=1)
            if self.norms is not None:
                outputs = self.norms[index](outputs)
            x = outputs + x if index and self.residual else outputs
            finals.append(final)
        return self.project(self.dropout(x, packing)), finals


def source_mask(lengths: Tensor, longest: int) -> Tensor:
    """lengths (B,) → (B, longest) bool, True = real token."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
