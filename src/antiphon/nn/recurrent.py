"""One recurrent layer: a whole sequence by the library's fused kernel, or one step with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
            self.rnn.get_parameter("bias_ih_l0").data[hidden : 2 * hidden] = 1.0

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
        own = self.rnn.get_parameter
        from_input = LoopLinear(own("weight_ih_l0"), own("bias_ih_l0"))
        from_state = LoopLinear(own("weight_hh_l0"), own("bias_hh_l0"))
        tokens = from_input.open(), from_state.open()

        def gru(x: Tensor, state: LayerState) -> LayerState:
            return (_GRUStep.apply(x, state[0], from_input, from_state, *tokens),)

        def lstm(x: Tensor, state: LayerState) -> LayerState:
            return _LSTMStep.apply(x, *state, from_input, from_state, *tokens)

        return lstm if self.cell == "lstm" else gru


class RecurrentLayers(nn.ModuleList):
    """Recurrent layers, lowest first."""

    def __iter__(self) -> Iterator[RecurrentLayer]:
        return super().__iter__()  # pyright: ignore[reportReturnType]

    def __getitem__(self, index: int) -> RecurrentLayer:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__getitem__(index)  # pyright: ignore[reportReturnType]


class _GRUStep(torch.autograd.Function):
    """A GRU step as one node: on a CPU a step costs its number of operations.

    z = σ(a_z + b_z), r = σ(a_r + b_r), n = tanh(a_n + r b_n), h' = n + z (h − n),
    with a (B, 3H) from the input, b (B, 3H) from the state, in the order r, z, n of the library.
    """

    @staticmethod
    def forward(ctx, x: Tensor, h: Tensor, from_input: LoopLinear, from_state: LoopLinear, *_tokens: Tensor) -> Tensor:  # type: ignore[override]
        number, hidden = from_input.matrix.dtype, h.shape[1]
        x_used, h_used = x.to(number), h.to(number)
        a, b = from_input.forward(x_used), from_state.forward(h_used)
        b_new = b[:, 2 * hidden :].float()
        gates = torch.sigmoid_((a[:, : 2 * hidden] + b[:, : 2 * hidden]).float())
        new = torch.addcmul(a[:, 2 * hidden :].float(), gates[:, :hidden], b_new).tanh_()
        ctx.save_for_backward(gates, new, b_new, h, x_used, h_used)
        ctx.shared, ctx.dtype = (from_input, from_state), x.dtype
        return torch.lerp(new, h, gates[:, hidden:])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        gates, new, b_new, h, x_used, h_used = ctx.saved_tensors
        from_input, from_state = ctx.shared
        hidden = h.shape[1]
        r, z = gates[:, :hidden], gates[:, hidden:]
        through = grad * z
        d_b = torch.empty(len(h), 3 * hidden)
        d_gates, d_new = d_b[:, : 2 * hidden], (grad - through).mul_(1 - new * new)
        torch.mul(d_new, b_new, out=d_gates[:, :hidden])
        torch.mul(grad, h - new, out=d_gates[:, hidden:])
        d_gates.mul_(torch.addcmul(gates, gates, gates, value=-1))
        torch.mul(d_new, r, out=d_b[:, 2 * hidden :])
        d_b = d_b.to(from_state.matrix.dtype)
        d_a = d_b.clone()
        d_a[:, 2 * hidden :] = d_new
        d_x = from_input.backward(x_used, d_a).to(ctx.dtype)
        d_h = through.add_(from_state.backward(h_used, d_b))
        return d_x, d_h, None, None, None, None


class _LSTMStep(torch.autograd.Function):
    """An LSTM step as one node.

    i, f, o = σ, g = tanh of a + b (B, 4H), in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        from_input: LoopLinear,
        from_state: LoopLinear,
        *_tokens: Tensor,  # type: ignore[override]
    ) -> tuple[Tensor, Tensor]:
        number, hidden = from_input.matrix.dtype, c.shape[1]
        x_used, h_used = x.to(number), h.to(number)
        gates = (from_input.forward(x_used) + from_state.forward(h_used)).float()
        torch.sigmoid_(gates[:, : 2 * hidden])
        torch.tanh_(gates[:, 2 * hidden : 3 * hidden])
        torch.sigmoid_(gates[:, 3 * hidden :])
        i, f, g, o = gates.split(hidden, dim=1)
        cell = torch.addcmul(f * c, i, g)
        squashed = torch.tanh(cell)
        ctx.save_for_backward(gates, c, squashed, x_used, h_used)
        ctx.shared, ctx.dtype = (from_input, from_state), x.dtype
        return o * squashed, cell

    @staticmethod
    def backward(ctx, d_h: Tensor, d_cell: Tensor):  # type: ignore[override]
        gates, c, squashed, x_used, h_used = ctx.saved_tensors
        from_input, from_state = ctx.shared
        i, f, g, o = gates.split(c.shape[1], dim=1)
        d_cell = d_cell + d_h * o * (1 - squashed * squashed)
        d_input = d_cell * g * i * (1 - i)
        d_forget = d_cell * c * f * (1 - f)
        d_new = d_cell * i * (1 - g * g)
        d_output = d_h * squashed * o * (1 - o)
        d_gates = torch.cat((d_input, d_forget, d_new, d_output), dim=1).to(from_input.matrix.dtype)
        d_x = from_input.backward(x_used, d_gates).to(ctx.dtype)
        d_before = from_state.backward(h_used, d_gates).float()
        return d_x, d_before, d_cell * f, None, None, None, None
