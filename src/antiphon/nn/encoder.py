"""From source tokens to a memory, exact under padding, without packing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.nn.dropout import TimeConstantDropout
from antiphon.nn.recurrent import RecurrentLayer, RecurrentLayers
from antiphon.nn.state import LayerState


class Encoder(nn.Module):
    """L recurrent layers, one or two directions.

    The backward direction runs forward over each source reversed within its own length, so padding is always
    behind the tokens and changes nothing, the fused kernels serve both directions, and the graph exports.

    Args:
        config: cell, widths, layers, direction, dropout.
        inputs: width of the embeddings (E).
    """

    def __init__(self, config: ModelConfig, inputs: int) -> None:
        super().__init__()
        directions = 2 if config.bidirectional else 1
        widths = [inputs] + [directions * config.hidden] * (config.encoder_layers - 1)
        self.forwards = RecurrentLayers(RecurrentLayer(config.cell, width, config.hidden) for width in widths)
        self.backwards = RecurrentLayers(
            RecurrentLayer(config.cell, width, config.hidden) for width in (widths if config.bidirectional else [])
        )
        self.width = directions * config.hidden
        """Width of the outputs (M)."""
        self.norms = nn.ModuleList(nn.LayerNorm(self.width) for _ in widths) if config.layer_norm else None
        self.dropout = TimeConstantDropout(config.dropout)
        self.residual = config.residual
        # Dot attention compares the decoder's state with the outputs themselves: widths must agree.
        self.project = nn.Identity()
        if config.attention == "dot" and self.width != config.hidden:
            self.project = nn.Linear(self.width, config.hidden, bias=False)
            self.width = config.hidden
        self.copies_cells = config.bridge == "copy" and config.cell == "lstm"

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, list[LayerState]]:
        """Embedded sources x (B, S, E) with lengths (B,) → outputs (B, S, M), and each layer's last state.

        A layer's last state is that after its last real token: forward direction first, backward appended.
        """
        backward_order = _reversal(lengths, x.shape[1]) if len(self.backwards) else None
        finals: list[LayerState] = []
        for index, forward in enumerate(self.forwards):
            if index:
                x = self.dropout(x)
            if self.copies_cells:
                outputs, final = _stepwise(forward, x, lengths)
            else:
                outputs, _ = forward.sequence(x, forward.zeros(x))
                final = (_last(outputs, lengths),)
            if backward_order is not None:
                backward = self.backwards[index]
                against, _ = backward.sequence(_Reverse.apply(x, backward_order), backward.zeros(x))
                final = (torch.cat((final[0], _last(against, lengths)), dim=1),)
                outputs = torch.cat((outputs, _Reverse.apply(against, backward_order)), dim=2)
            if self.norms is not None:
                outputs = self.norms[index](outputs)
            x = outputs + x if index and self.residual else outputs
            finals.append(tuple(part.float() for part in final))
        return self.project(self.dropout(x)), finals


def source_mask(lengths: Tensor, longest: int) -> Tensor:
    """lengths (B,) → (B, longest) bool, True = real token."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)


def _reversal(lengths: Tensor, longest: int) -> Tensor:
    """Index (B S,) over flattened rows that reverses each row within its length and leaves its padding."""
    position = torch.arange(longest, device=lengths.device).unsqueeze(0)
    length = lengths.unsqueeze(1)
    within = torch.where(position < length, length - 1 - position, position)
    return (within + torch.arange(len(lengths), device=lengths.device).unsqueeze(1) * longest).flatten()


class _Reverse(torch.autograd.Function):
    """Reordering by an index that is its own inverse: the gradient takes the same way back."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(order)
        return x.flatten(0, 1).index_select(0, order).view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (order,) = ctx.saved_tensors
        return grad.flatten(0, 1).index_select(0, order).view_as(grad), None


def _last(outputs: Tensor, lengths: Tensor) -> Tensor:
    row = torch.arange(len(lengths), device=lengths.device) * outputs.shape[1]
    return outputs.flatten(0, 1).index_select(0, row + lengths - 1)


def _stepwise(layer: RecurrentLayer, x: Tensor, lengths: Tensor) -> tuple[Tensor, LayerState]:
    """As `RecurrentLayer.sequence`, but the state stops at each row's length.

    Fused LSTM kernels give the cell state after the last position only, which padding has passed through;
    copying it to the decoder needs the one after the last real token.
    """
    state, outputs, step = layer.zeros(x), [], layer.stepper()
    real = source_mask(lengths, x.shape[1])
    for t in range(x.shape[1]):
        now = step(x[:, t], state)
        state = tuple(torch.where(real[:, t, None], new, old) for new, old in zip(now, state, strict=True))
        outputs.append(now[0])
    return torch.stack(outputs, dim=1), state
