"""One recurrent layer, run over a whole sequence by the library's fused kernel, or by one step with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from antiphon.nn.deferred import LoopLinear
from antiphon.nn.state import LayerState


class RecurrentLayer(nn.Module):
    """A GRU (Cho et al. 2014, as in cuDNN) or LSTM layer with two roads to one result.

    Args:
        cell: the kind of cell.
        inputs: width of the input (I).
        hidden: width of the state (H).
    """

    def __init__(self, cell: Literal["gru", "lstm"], inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = cell
        self.hidden = hidden
        self.rnn: nn.GRU | nn.LSTM = (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, hidden, batch_first=True)
        for name, weight in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                for gate in weight.data.split(hidden):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight.data)
            else:
                nn.init.zeros_(weight.data)
        if cell == "lstm":  # a forget gate that starts open (Jozefowicz et al. 2015)
            self.rnn.bias_ih_l0.data[hidden : 2 * hidden] = 1.0

    def zeros(self, like: Tensor) -> LayerState:
        """The state before anything was read, for the rows of ``like`` (B, ...)."""
        zero = like.new_zeros(like.shape[0], self.hidden, dtype=torch.float32)
        return (zero, zero) if self.cell == "lstm" else (zero,)

    def sequence(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """All positions at once: x (B, T, I) → outputs (B, T, H) and the state after position T."""
        parts = tuple(part.unsqueeze(0) for part in state)
        if self.cell == "lstm":
            outputs, (h, c) = self.rnn(x, parts)
            return outputs, (h[0], c[0])
        outputs, h = self.rnn(x, parts[0])
        return outputs, (h[0],)

    def step(self, x: Tensor, state: LayerState) -> LayerState:
        """One position: x (B, I) → the new state, whose first part is the output (B, H)."""
        return self.stepper()(x, state)

    def stepper(self) -> Callable[[Tensor, LayerState], LayerState]:
        """`step` made ready for one loop over time, where weight gradients wait for the loop's end."""
        rnn, kind = self.rnn, self.cell
        from_input = LoopLinear(rnn.weight_ih_l0, rnn.bias_ih_l0)
        from_state = LoopLinear(rnn.weight_hh_l0, rnn.bias_hh_l0)

        def step(x: Tensor, state: LayerState) -> LayerState:
            a, b = from_input(x), from_state(state[0])
            return _LSTMGates.apply(a, b, state[1]) if kind == "lstm" else (_GRUGates.apply(a, b, state[0]),)

        return step


class _GRUGates(torch.autograd.Function):
    """The elementwise part of a GRU step as one node, since a step on a CPU costs its number of operations.

    z = σ(a_z + b_z), r = σ(a_r + b_r), n = tanh(a_n + r b_n), h' = n + z (h − n),
    with a (B, 3H) from the input, b (B, 3H) from the state, in the order r, z, n of the library.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        hidden = h.shape[1]
        b_new = b[:, 2 * hidden :].float()
        gates = torch.sigmoid_((a[:, : 2 * hidden] + b[:, : 2 * hidden]).float())
        r, z = gates[:, :hidden], gates[:, hidden:]
        new = torch.addcmul(a[:, 2 * hidden :].float(), r, b_new).tanh_()
        ctx.save_for_backward(gates, new, b_new, h)
        ctx.dtypes = a.dtype, b.dtype
        return torch.lerp(new, h, z)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        gates, new, b_new, h = ctx.saved_tensors
        hidden = h.shape[1]
        r, z = gates[:, :hidden], gates[:, hidden:]
        d_new = grad * (1 - z) * (1 - new * new)
        d_a = torch.empty(grad.shape[0], 3 * hidden)
        d_a[:, 2 * hidden :] = d_new
        d_gates = d_a[:, : 2 * hidden]
        torch.mul(d_new, b_new, out=d_gates[:, :hidden])
        torch.mul(grad, h - new, out=d_gates[:, hidden:])
        d_gates.mul_(gates).mul_(1 - gates)
        d_b = d_a.clone()
        d_b[:, 2 * hidden :].mul_(r)
        return d_a.to(ctx.dtypes[0]), d_b.to(ctx.dtypes[1]), grad * z


class _LSTMGates(torch.autograd.Function):
    """The elementwise part of an LSTM step as one node.

    i, f, o = σ, g = tanh of a + b (B, 4H) in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        hidden = c.shape[1]
        gates = (a + b).float()
        torch.sigmoid_(gates[:, : 2 * hidden])
        torch.tanh_(gates[:, 2 * hidden : 3 * hidden])
        torch.sigmoid_(gates[:, 3 * hidden :])
        i, f, g, o = gates.split(hidden, dim=1)
        cell = torch.addcmul(f * c, i, g)
        squashed = torch.tanh(cell)
        ctx.save_for_backward(gates, c, squashed)
        ctx.dtypes = a.dtype, b.dtype
        return o * squashed, cell

    @staticmethod
    def backward(ctx, d_h: Tensor, d_cell: Tensor):  # type: ignore[override]
        gates, c, squashed = ctx.saved_tensors
        i, f, g, o = gates.split(c.shape[1], dim=1)
        d_cell = d_cell + d_h * o * (1 - squashed * squashed)
        d_gates = torch.cat(
            (
                d_cell * g * i * (1 - i),
                d_cell * c * f * (1 - f),
                d_cell * i * (1 - g * g),
                d_h * squashed * o * (1 - o),
            ),
            dim=1,
        )
        return d_gates.to(ctx.dtypes[0]), d_gates.to(ctx.dtypes[1]), d_cell * f
