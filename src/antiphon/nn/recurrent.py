"""One recurrent layer: a whole packed sequence, or one step with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from antiphon.nn.deferred import LoopLinear
from antiphon.nn.kernels import (
    Cell,
    cell_backward,
    cell_bias,
    cell_forward,
    column_sums,
    layer_backward,
    layer_forward,
    take_rows,
)
from antiphon.nn.packing import Packing
from antiphon.nn.products import LoopProduct, multiplies, product, product_format, used
from antiphon.nn.state import LayerState


class RecurrentLayer(nn.Module):
    """A GRU (Cho et al. 2014, as in cuDNN) or LSTM layer with two roads to one result.

    Args:
        cell: the kind of cell.
        inputs: width of the input (I).
        hidden: width of the state (H).
    """

    def __init__(self, cell: Cell, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.hidden = hidden
        # holds the weights, in the names and the order of gates that everyone knows
        self.rnn: nn.GRU | nn.LSTM = (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, hidden, batch_first=True)
        for name, weight in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                for gate in weight.data.split(hidden):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight.data)
            else:
                nn.init.zeros_(weight.data)
            if weight.dim() > 1:
                multiplies(weight)
        if cell == "lstm":  # a forget gate that starts open (Jozefowicz et al. 2015)
            self.rnn.get_parameter("bias_ih_l0").data[hidden : 2 * hidden] = 1.0

    def zeros(self, rows: int) -> LayerState:
        """The state before anything was read."""
        zero = torch.zeros(rows, self.hidden)
        return (zero, zero) if self.cell == "lstm" else (zero,)

    def sequence(self, x: Tensor, state: LayerState, packing: Packing) -> tuple[Tensor, LayerState]:
        """All positions at once.

        Args:
            x: packed positions (P, I).
            state: (B, H) each, before the first position.
            packing: which position is where.

        Returns:
            Outputs (P, H), and each row's state after its own last position, (B, H) each, f32.
        """
        own = self.rnn.get_parameter
        weights = own("weight_ih_l0"), own("weight_hh_l0"), own("bias_ih_l0"), own("bias_hh_l0")
        ranked = [packing.by_rank(part) for part in state]
        outputs, last = _Sequence.apply(x, ranked[0], ranked[-1], *weights, packing, self.cell)
        last = packing.by_row(last)
        if self.cell == "gru":
            return outputs, (last,)
        return outputs, (outputs.index_select(0, packing.last).float(), last)

    def step(self, x: Tensor, state: LayerState) -> LayerState:
        """One position: x (B, I) → the new state, whose first part is the output (B, H)."""
        return self.stepper()(x, state)

    def stepper(self) -> Callable[[Tensor, LayerState], LayerState]:
        """`step` made ready for one loop over time, where weight gradients wait for the loop's end."""
        own = self.rnn.get_parameter
        from_input = LoopLinear(own("weight_ih_l0"), own("bias_ih_l0"))
        from_state = LoopLinear(own("weight_hh_l0"), own("bias_hh_l0"))
        tokens = from_input.open(), from_state.open()
        bias = cell_bias(self.cell, own("bias_ih_l0").detach(), own("bias_hh_l0").detach())

        def gru(x: Tensor, state: LayerState) -> LayerState:
            return (_Step.apply(x, state[0], state[0], from_input, from_state, bias, "gru", *tokens)[0],)

        def lstm(x: Tensor, state: LayerState) -> LayerState:
            return _Step.apply(x, *state, from_input, from_state, bias, "lstm", *tokens)

        return lstm if self.cell == "lstm" else gru


class RecurrentLayers(nn.ModuleList):
    """Recurrent layers, lowest first."""

    def __iter__(self) -> Iterator[RecurrentLayer]:
        return super().__iter__()  # pyright: ignore[reportReturnType]

    def __getitem__(self, index: int) -> RecurrentLayer:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__getitem__(index)  # pyright: ignore[reportReturnType]


class _Sequence(torch.autograd.Function):
    """A layer over packed positions.

    What the input brings to all gates is one product over all positions; the loop holds one product and one kernel a
    step, over the rows that are still alive. Backward likewise: the loop gives the gradient of the gates, then the
    weights' gradients are two products.
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        w_input: Tensor,
        w_state: Tensor,
        b_input: Tensor,
        b_state: Tensor,
        packing: Packing,
        cell: Cell,
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        number, hidden, size = product_format(), h0.shape[1], packing.size
        c0 = c0.float().contiguous()
        x_used, w_used, first = x.to(number), used(w_input, number), h0.to(number).contiguous()
        bias = cell_bias(cell, b_input, b_state)
        a = product(x_used, w_used.t())
        gates = a if cell == "lstm" else a.new_empty(size, 4 * hidden)
        h = a.new_empty(size, hidden)
        h[packing.real :].zero_()
        carried = torch.empty(size, hidden)
        last = c0.clone()
        w_loop = used(w_state, number)
        if not layer_forward(cell, packing.alive, a, w_loop, bias, first, c0, gates, carried, h, last):
            _loop_forward(cell, packing, a, w_loop, bias, first, c0, gates, carried, h, last)
        ctx.save_for_backward(x_used, w_used, w_loop, gates, h, carried, first, c0)  # weights are not cast twice
        ctx.packing, ctx.cell, ctx.dtype = packing, cell, x.dtype
        return h, last

    @staticmethod
    def backward(ctx, d_h: Tensor, d_last: Tensor):  # type: ignore[override]
        x, w_input, w_loop, gates, h, carried, first, c0 = ctx.saved_tensors
        packing, cell, number = ctx.packing, ctx.cell, gates.dtype
        d_h = d_h.to(number).contiguous()
        d_carried = d_last.float().clone()
        width = len(w_loop)
        d_a = gates.new_empty(packing.size, width)
        d_a[packing.real :].zero_()
        d_b = d_a
        if cell == "gru":
            d_b = torch.empty_like(d_a)
            d_b[packing.real :].zero_()
        d_h0 = torch.empty_like(d_carried)
        if not layer_backward(cell, packing.alive, gates, w_loop, c0, carried, d_h, d_carried, d_a, d_b, d_h0):
            _loop_backward(cell, packing, gates, w_loop, c0, carried, d_h, d_carried, d_a, d_b, d_h0)
        d_x = product(d_a, w_input).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        d_w_input = product(d_a.t(), x)
        h_before, rows = take_rows(h, packing.earlier()), packing.counts[0]
        h_before[:rows] = first[:rows]
        d_w_state = product(d_b.t(), h_before)
        d_bias = column_sums(d_a)
        d_bias_state = d_bias if cell == "lstm" else column_sums(d_b)
        d_c0 = d_carried
        if cell == "gru":  # there the two are one
            d_h0, d_c0 = d_h0.add_(d_carried), None
        return d_x, d_h0, d_c0, d_w_input, d_w_state, d_bias, d_bias_state, None, None


def _loop_forward(
    cell: Cell,
    packing: Packing,
    a: Tensor,
    weight: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    gates: Tensor,
    carried: Tensor,
    h: Tensor,
    last: Tensor,
) -> None:
    """Step after step: fills gates, carried, h and last."""
    from_state, before, counts = LoopProduct(weight), c0, packing.counts
    by_step = zip(*map(packing.steps, (a, gates, carried, h)), strict=True)
    for step, (now_a, now_gates, now, now_h) in enumerate(by_step):
        if step:  # the outputs of the step before, of the rows alive at this step
            b = from_state(_from(h, packing.spans[step - 1][0], counts[step], from_state.grain))
        else:
            b = from_state(h0[: counts[0]])
        cell_forward(cell, now_a, b, bias, before, now_gates, now, now_h)
        ends = counts[step + 1] if step + 1 < len(counts) else 0
        if ends < counts[step]:
            last[ends : counts[step]] = now[ends:]
        before = now


def _loop_backward(
    cell: Cell,
    packing: Packing,
    gates: Tensor,
    weight: Tensor,
    c0: Tensor,
    carried: Tensor,
    d_h: Tensor,
    d_carried: Tensor,
    d_a: Tensor,
    d_b: Tensor,
    d_h0: Tensor,
) -> None:
    """Step after step, from the last: fills d_a, d_b and d_h0; d_carried is in and out."""
    to_state, d_state, later = LoopProduct(weight.t()), None, 0
    now_carried = packing.steps(carried)
    by_step = zip(*map(packing.steps, (gates, d_h, d_a, d_b)), now_carried, (c0, *now_carried[:-1]), strict=True)
    for step, (now_gates, now_d_h, now_d_a, now_d_b, now, before) in reversed(list(enumerate(by_step))):
        cell_backward(cell, now_gates, before, now, now_d_h, d_state, later, d_carried, now_d_a, now_d_b)
        later = packing.counts[step]
        d_state = to_state(_from(d_b, packing.spans[step][0], later, to_state.grain))
    d_h0.zero_()
    if d_state is not None:
        d_h0[:later] = d_state[:later]


class _Step(torch.autograd.Function):
    """One step as one node: on a CPU a step costs its number of operations."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        h: Tensor,
        carried: Tensor,
        from_input: LoopLinear,
        from_state: LoopLinear,
        bias: Tensor,
        cell: Cell,
        *_tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        number, (rows, hidden) = from_input.matrix.dtype, carried.shape
        x_used, h_used = x.to(number), h.to(number)
        carried = carried.contiguous()
        a, b = from_input.product(x_used), from_state.product(h_used)
        gates = a if cell == "lstm" else a.new_empty(rows, 4 * hidden)
        now, output = torch.empty(rows, hidden), a.new_empty(rows, hidden)
        cell_forward(cell, a, b, bias, carried, gates, now, output)
        ctx.save_for_backward(gates, carried, now, x_used, h_used)
        ctx.shared, ctx.cell, ctx.dtype = (from_input, from_state), cell, x.dtype
        if cell == "gru":
            ctx.mark_non_differentiable(output)
            return now, output
        return output.float(), now

    @staticmethod
    def backward(ctx, d_first: Tensor, d_second: Tensor):  # type: ignore[override]
        gates, before, now, x_used, h_used = ctx.saved_tensors
        (from_input, from_state), cell, number = ctx.shared, ctx.cell, gates.dtype
        if cell == "gru":  # the output is the state: one gradient
            d_h, d_carried = gates.new_zeros(now.shape), d_first.clone(memory_format=torch.contiguous_format)
        else:
            d_h, d_carried = d_first.to(number).contiguous(), d_second.clone(memory_format=torch.contiguous_format)
        d_a = gates.new_empty(len(gates), len(from_state.matrix))
        d_b = d_a if cell == "lstm" else torch.empty_like(d_a)
        cell_backward(cell, gates, before, now, d_h, None, 0, d_carried, d_a, d_b)
        d_x = from_input.backward(x_used, d_a).to(ctx.dtype)
        d_state = from_state.backward(h_used, d_b).float()
        if cell == "gru":
            return d_x, d_state.add_(d_carried), *[None] * 7
        return d_x, d_state, d_carried, *[None] * 6


def _from(x: Tensor, start: int, rows: int, grain: int) -> Tensor:
    """``rows`` rows from ``start`` on, rounded up to a multiple of ``grain`` as far as there are rows."""
    return x[start : min(start + rows + -rows % grain, len(x))]
