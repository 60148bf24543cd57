"""From a memory and the target so far to features of the next word: all positions at once, or one step.

Two roads, one result: training runs `Decoder.forward`, search runs `Decoder.step`; a law test holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.nn.attention import Attention
from antiphon.nn.deferred import loop_linear
from antiphon.nn.dropout import TimeConstantDropout
from antiphon.nn.packing import Packing
from antiphon.nn.pointer import looked_at
from antiphon.nn.products import Linear
from antiphon.nn.recurrent import RecurrentLayer, RecurrentLayers
from antiphon.nn.state import DecoderState, LayerState, Memory


class Decoder(nn.Module):
    """L recurrent layers and an attention, parallel or feeding.

    Parallel: layer 1 reads the target alone, so all its positions, then the attention of all positions, then layer 2,
    which reads state and context, and each layer above it are one call. (RNMT+, Chen et al. 2018, gives all layers
    the context.)
    Feeding: the context of step t-1 enters step t (Bahdanau et al. 2015; Luong et al. 2015, section 3.3), the
    top layer's state is the query, and positions must wait for each other.
    Monotonic attention is parallel, and what it looks at enters layer 1 too: it does not depend on any state.

    Args:
        config: cell, widths, layers, kind of attention, feed, residual, layer norm, dropout.
        inputs: width of the embeddings (E).
        memory: width of the encoder's outputs (M).
        finals: width of each of the encoder's last states.
        layers: the encoder's layers when they are shared; else None.
    """

    def __init__(
        self, config: ModelConfig, *, inputs: int, memory: int, finals: int, layers: RecurrentLayers | None
    ) -> None:
        super().__init__()
        hidden = config.hidden
        widths = [inputs] + [hidden] * (config.decoder_layers - 1)
        self.layers = layers or RecurrentLayers(RecurrentLayer(config.cell, width, hidden) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in widths) if config.layer_norm else None
        self.attention = None if config.attention == "none" else Attention(config, memory)
        context = 0 if self.attention is None else self.attention.width
        self.feed = config.feed and self.attention is not None
        self.points = config.attention == "monotonic"
        if self.feed:
            self.join_input = Linear(inputs, inputs)
            self.join_context = Linear(context, inputs, bias=False)
        elif self.attention is not None and config.decoder_layers > 1:
            self.merge = Linear(hidden + context, hidden)
        if self.points:
            self.point = Linear(context, inputs, bias=False)
        self.features = Linear(hidden + context, inputs)
        self.features_norm = nn.LayerNorm(inputs) if config.features == "norm" else None
        self.dropout = TimeConstantDropout(config.dropout)
        self.residual = config.residual
        self.context_width = context
        parts = 2 if config.cell == "lstm" else 1
        self.bridges = None
        if config.bridge == "linear":
            self.bridges = nn.ModuleList(Linear(finals, parts * hidden) for _ in widths)

    def start(self, finals: list[LayerState]) -> DecoderState:
        """The encoder's last states, one per encoder layer → the state before the first target token.

        A linear bridge projects the encoder's top state (Bahdanau et al. 2015, A.2.2); ``copy`` hands each layer's
        state to its twin.
        """
        if self.bridges is None:
            layers = tuple(finals)
        else:
            top = finals[-1][0]
            layers = tuple(
                tuple(torch.tanh(bridge(top).float()).split(layer.hidden, dim=1))
                for bridge, layer in zip(self.bridges, self.layers, strict=True)
            )
        rows = layers[0][0]
        context = rows.new_zeros(rows.shape[0], self.context_width) if self.feed else None
        return DecoderState(layers, context, rows.new_zeros(len(rows), dtype=torch.int64) if self.points else None)

    def forward(
        self, x: Tensor, packing: Packing, state: DecoderState, memory: Memory, looked: Tensor | None = None
    ) -> Tensor:
        """Embedded packed targets x (P, E), each the word before the one to predict → features (P, E).

        State and memory have the rows of the batch, (B, ...). With monotonic attention what is looked at, (P, M), is
        given too.
        """
        if self.feed:
            return self._feeding(x, packing, state, memory)
        return self._parallel(x, packing, state, memory, looked)

    def _parallel(
        self, x: Tensor, packing: Packing, state: DecoderState, memory: Memory, looked: Tensor | None
    ) -> Tensor:
        if looked is not None:
            x = x + self.point(looked).to(x.dtype)
        h, _ = self.layers[0].sequence(x, state.layers[0], packing)
        h = self._norm(0, h)
        parts = [h]
        if looked is not None:
            parts.append(looked.to(h.dtype))
        elif self.attention is not None:
            context, _ = self.attention(packing.unpack(h), memory)
            parts.append(packing.pack(context.to(h.dtype)))
        for index, layer in enumerate(self.layers):
            if index == 0:
                continue
            inputs = self.merge(torch.cat(parts, dim=1)) if index == 1 and len(parts) > 1 else h
            outputs, _ = layer.sequence(self.dropout(inputs, packing), state.layers[index], packing)
            outputs = self._norm(index, outputs)
            h = outputs + h if self.residual else outputs
        return self.dropout(self._features(torch.cat([h, *parts[1:]], dim=1)), packing)

    def _feeding(self, x: Tensor, packing: Packing, state: DecoderState, memory: Memory) -> Tensor:
        assert self.attention is not None
        assert state.context is not None
        joined = self.join_input(x)  # the part of every step's input that need not wait
        between = None
        if self.training and self.dropout.chance:
            between = [self.dropout.mask(packing.rows, self.layers[0].hidden) for _ in range(1, len(self.layers))]
        memory = Memory(*(packing.by_rank(part) for part in (memory.values, memory.keys, memory.mask)))
        join, look = loop_linear(self.join_context), self.attention.looker(memory)
        steppers = [layer.stepper() for layer in self.layers]
        layers = [tuple(packing.by_rank(part) for part in layer) for layer in state.layers]
        context = packing.by_rank(state.context)
        tops, contexts = [], []
        for start, end in packing.spans:
            rows = end - start
            if rows < len(context):  # rows that have ended leave the loop
                context, layers = context[:rows], [tuple(part[:rows] for part in layer) for layer in layers]
                between = None if between is None else [mask[:rows] for mask in between]
            h, layers = self._stack(steppers, joined[start:end] + join(context), layers, between)
            context = look(h.unsqueeze(1))[0].squeeze(1)
            tops.append(h)
            contexts.append(context)
        behind = packing.size - packing.real
        h, looked = (F.pad(torch.cat(parts), (0, 0, 0, behind)) for parts in (tops, contexts))
        return self.dropout(self._features(torch.cat((h, looked.to(h.dtype)), dim=1)), packing)

    def step(self, x: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, Tensor, DecoderState]:
        """One embedded word x (N, E) → features (N, E), attention weights (N, S), the state after it.

        The memory has N sources, or fewer, of which N is a multiple: rows beside each other then share one. Without
        attention the weights are zero. With monotonic attention the state's pointer says where to look.
        """
        if self.feed:
            assert self.attention is not None
            assert state.context is not None
            h, layers = self._stack(
                [layer.step for layer in self.layers],
                self.join_input(x) + self.join_context(state.context),
                list(state.layers),
                None,
            )
            context, weights = self._look(h, memory)
            features = self._features(torch.cat((h, context.to(h.dtype)), dim=1))
            return features, weights, DecoderState(tuple(layers), context)
        looked = None
        weights = memory.mask.new_zeros(len(x), memory.mask.shape[1], dtype=torch.float32)
        if state.pointer is not None:
            rows = torch.arange(len(x)) // (len(x) // len(memory.mask))
            looked = looked_at(memory, rows, state.pointer)
            weights.scatter_(1, state.pointer.unsqueeze(1), 1.0)
            x = x + self.point(looked).to(x.dtype)
        layers = [self.layers[0].step(x, state.layers[0])]
        h = self._norm(0, layers[0][0])
        parts = [h]
        if looked is not None:
            parts.append(looked.to(h.dtype))
        elif self.attention is not None:
            context, weights = self._look(h, memory)
            parts.append(context.to(h.dtype))
        for index, layer in enumerate(self.layers):
            if index == 0:
                continue
            inputs = self.merge(torch.cat(parts, dim=1)) if index == 1 and len(parts) > 1 else h
            layers.append(layer.step(inputs, state.layers[index]))
            outputs = self._norm(index, layers[-1][0])
            h = outputs + h if self.residual else outputs
        features = self._features(torch.cat([h, *parts[1:]], dim=1))
        return features, weights, DecoderState(tuple(layers), None, state.pointer)

    def _look(self, h: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """States h (N, H) → contexts (N, M) and weights (N, S)."""
        assert self.attention is not None
        context, weights = self.attention(h.unflatten(0, (len(memory.mask), -1)), memory)
        return context.flatten(0, 1), weights.flatten(0, 1)

    def _stack(
        self,
        steps: Sequence[Callable[[Tensor, LayerState], LayerState]],
        x: Tensor,
        layers: list[LayerState],
        between: Sequence[Tensor] | None,
    ) -> tuple[Tensor, list[LayerState]]:
        """One step of all layers over the joined input x (B, E) → top output (B, H) and the new states."""
        states, h = [], x
        for index, step in enumerate(steps):
            inputs = h * between[index - 1] if index and between is not None else h
            states.append(step(inputs, layers[index]))
            outputs = self._norm(index, states[-1][0])
            h = outputs + h if index and self.residual else outputs
        return h, states

    def _norm(self, index: int, outputs: Tensor) -> Tensor:
        return outputs if self.norms is None else self.norms[index](outputs)

    def _features(self, joined: Tensor) -> Tensor:
        features = self.features(joined)
        return torch.tanh(features) if self.features_norm is None else self.features_norm(features)
