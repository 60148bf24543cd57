"""The encoder and one decoder step as ONNX graphs, written node by node from the weights.

Nothing is traced, so no shape is frozen: rows (N), source length (S) and the number of candidates (K) stay free.
Every function here mirrors one of `antiphon.nn`; law tests hold both to the same hypotheses.

Quantised, a matrix is whole numbers of 7 bits with a scale for each output, and what it is multiplied with is whole
numbers of 8 bits: with one scale for all where no value can be beyond a bound (a state is between -1 and 1), rows of a
table with the scale they are kept with, and everything else with a scale for each row. So a row's answer does not
depend on the other rows of its batch. 7 bits, since processors without VNNI add products of 8 bits in 16 bits, which
then overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from antiphon.config import Config
from antiphon.runtime.onnx_file import BLOCK

OPSET = 18
MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators: a product of whole numbers that gives f32 without a pass of its own."""
WHOLE = 63
"""A quantised weight is a whole number from -63 to 63."""
MIDDLE = 128
"""What stands for 0 among unsigned whole numbers."""
DEVIATIONS = 5
"""Standard deviations beyond which whole numbers do not reach."""
SMALL = 4096
"""Weights of fewer numbers stay f32."""
NEVER = -1e9
"""Logit of a word that cannot be: finite, since products of infinity and 0 are none."""
Weights = dict[str, np.ndarray]


class Graph:
    """A graph as it grows: every method adds nodes and returns the name of what they compute."""

    def __init__(self, name: str, *, quantised: bool) -> None:
        self._name = name
        self._quantised = quantised
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: dict[str, str] = {}  # of values that are given to the outside
        self._bounds: dict[str, float] = {}  # values of which no number is beyond it
        self._whole_rows: dict[str, tuple[str, str, float]] = {}  # rows of a table: whole numbers, scales, a factor
        self._rounded: dict[str, tuple[str, str, str]] = {}  # values that were made whole already

    def input(self, name: str, kind: int, *shape: int | str, bound: float | None = None) -> str:
        """A value from outside; letters in its shape are free sizes."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return self.bounded(name, bound)

    def output(self, value: str, name: str, kind: int, *shape: int | str) -> None:
        """Gives a value to the outside under this name."""
        if value in self._names or not any(value in node.output for node in self._nodes):
            value = self.node("Identity", value)
        self._names[value] = name
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def constant(self, value: np.ndarray, name: str = "") -> str:
        """A weight; the same name twice is the same weight."""
        name = name or f"constant{len(self._constants)}"
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        return self.nodes(op, *inputs, **attributes)[0]

    def nodes(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """One node, all of its outputs."""
        self._count += 1
        names = [f"value{self._count}" + (f"_{number}" if number else "") for number in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def bounded(self, value: str, bound: float | None) -> str:
        """The same value; from now on it is known that no number in it is beyond the bound."""
        if bound is not None:
            self._bounds[value] = bound
        return value

    def bound(self, *values: str) -> float | None:
        """The largest bound of these, if all have one."""
        found = [self._bounds.get(value) for value in values]
        return max((bound for bound in found if bound is not None), default=None) if None not in found else None

    def tanh(self, x: str) -> str:
        """Between -1 and 1."""
        return self.bounded(self.node("Tanh", x), 1.0)

    def add(self, one: str, other: str) -> str:
        """The sum; bounded if both are."""
        bounds = self._bounds.get(one), self._bounds.get(other)
        total = None if None in bounds else sum(bound for bound in bounds if bound is not None)
        return self.bounded(self.node("Add", one, other), total)

    def join(self, *parts: str) -> str:
        """Beside each other in the last axis; one part is itself."""
        return parts[0] if len(parts) == 1 else self.bounded(self.node("Concat", *parts, axis=-1), self.bound(*parts))

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None, name: str) -> str:
        """x (..., I) → (..., O) with weight (O, I)."""
        if self._small(weight):
            product = self.node("MatMul", x, self.constant(weight.T, name))
            return product if bias is None else self.node("Add", product, self.constant(bias, f"{name}.bias"))
        whole, scale = _whole(weight)
        return self._product(x, self.constant(whole.T, name), self.constant(scale, f"{name}.scale"), bias, name)

    def table_product(self, x: str, table: np.ndarray, bias: np.ndarray, name: str) -> str:
        """x (N, E) → (N, V) with a table (V, E) that also gives rows, kept once for both."""
        if self._small(table):
            product = self.node("MatMul", x, self.node("Transpose", self.constant(table, name), perm=[1, 0]))
            return self.node("Add", product, self.constant(bias, f"{name}.bias"))
        whole, scale = self._whole_table(table, name)
        turned = self.node("Transpose", whole, perm=[1, 0])
        return self._product(x, turned, self.reshape(scale, -1), bias, name)

    def rows(self, table: np.ndarray, ids: str, name: str) -> str:
        """Rows of a table (V, E), times the root of E: ids (...) → (..., E)."""
        factor = table.shape[1] ** 0.5
        if self._small(table):
            return self.node(
                "Mul", self.node("Gather", self.constant(table, name), ids, axis=0), self.constant(_f32(factor))
            )
        whole, scales = self._whole_table(table, name)
        around = self.node("Cast", self.node("Gather", whole, ids, axis=0), to=TensorProto.FLOAT)
        scale = self.node("Gather", scales, ids, axis=0)
        found = self.node("Mul", self.node("Mul", around, self.constant(_f32(factor))), scale)
        steps = self.node("QuantizeLinear", around, self.constant(_f32(1), "one"), self._middle())
        self._whole_rows[found] = steps, scale, factor
        return found

    def _small(self, weight: np.ndarray) -> bool:
        return not self._quantised or weight.size < SMALL

    def _middle(self) -> str:
        return self.constant(np.array(MIDDLE, np.uint8), "middle")

    def _whole_table(self, table: np.ndarray, name: str) -> tuple[str, str]:
        """Whole numbers (V, E), and the scale of each row (V, 1)."""
        whole, scale = _whole(table)
        return self.constant(whole, name), self.constant(scale[:, None], f"{name}.scale")

    def _product(self, x: str, matrix: str, scale: str, bias: np.ndarray | None, name: str) -> str:
        """x (..., I) times whole numbers (I, O) with a scale for each column → (..., O), f32."""
        if x not in self._rounded:
            self._rounded[x] = self._round(x)
        whole, unit, by_row = self._rounded[x]
        last = [] if bias is None else [self.constant(bias, f"{name}.bias")]
        fused = ["", *last] if last and not by_row else []
        inputs = [whole, matrix, unit, scale, self._middle(), *fused]
        product = self.node("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
        if not by_row:
            return product
        product = self.node("Mul", product, by_row)
        return self.node("Add", product, *last) if last else product

    def _round(self, x: str) -> tuple[str, str, str]:
        """x as whole numbers, the unit they are counted in, and (or none) by what each row is to be multiplied."""
        if x in self._whole_rows:
            whole, by_row, factor = self._whole_rows[x]
            return whole, self.constant(_f32(factor)), by_row
        if x in self._bounds:
            unit = self.constant(_f32(self._bounds[x] / 127))
            return self.node("QuantizeLinear", x, unit, self._middle()), unit, ""
        last = self.constant(np.array([-1], np.int64), "axis-1")
        largest = self.node("ReduceMax", self.node("Abs", x), last, keepdims=1)
        largest = self.node("Max", largest, self.constant(_f32(1e-9), "tiny"))
        share, unit = self.node("Mul", x, self.node("Reciprocal", largest)), self.constant(_f32(1 / 127), "1/127")
        return self.node("QuantizeLinear", share, unit, self._middle()), unit, largest

    def squeeze(self, x: str, axis: int) -> str:
        """Without an axis of size 1."""
        return self.node("Squeeze", x, self.constant(np.array([axis], np.int64), f"axis{axis}"))

    def unsqueeze(self, x: str, *axes: int) -> str:
        """With new axes of size 1."""
        name = f"axis{''.join(map(str, axes))}"
        return self.node("Unsqueeze", x, self.constant(np.array(axes, np.int64), name))

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a size, -1 is what is left."""
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def layer_norm(self, x: str, weights: Weights, name: str) -> str:
        """Over the last axis; where it is made whole, what is beyond so many standard deviations is cut."""
        scale, shift = (weights[f"{name}.{part}"] for part in ("weight", "bias"))
        constants = self.constant(scale, f"{name}.weight"), self.constant(shift, f"{name}.bias")
        found = self.node("LayerNormalization", x, *constants, axis=-1, epsilon=1e-5)
        return self.bounded(found, float((DEVIATIONS * np.abs(scale) + np.abs(shift)).max()))

    def sequence(self, cell: str, x: str, layers: list[str], weights: Weights, lengths: str) -> tuple[str, list[str]]:
        """A layer over x (S, N, I), one direction or two → outputs (S, N, D H), and the last state, (N, D H) each.

        What stands beyond the lengths (N,), int64, changes nothing before; outputs there mean nothing. The cell state
        of an LSTM is only given where there is one direction: with two nobody asks for it.
        """
        hidden = weights[f"{layers[0]}.rnn.weight_hh_l0"].shape[1]
        if self._small(weights[f"{layers[0]}.rnn.weight_hh_l0"]):
            short = self.node("Cast", lengths, to=TensorProto.INT32)
            outputs, *last = self._fused(cell, x, layers, weights, [], short)
            outputs = self.reshape(self.node("Transpose", outputs, perm=[0, 2, 1, 3]), 0, 0, len(layers) * hidden)
            last = [
                self.reshape(self.node("Transpose", part, perm=[1, 0, 2]), 0, len(layers) * hidden) for part in last
            ]
            return self.bounded(outputs, 1.0), [self.bounded(last[0], 1.0), *last[1:]]
        outputs, last = [], []
        for turned, layer in enumerate(layers):
            gates = self._input_gates(cell, self._turned(x, lengths) if turned else x, layer, weights)
            states = self._scan(cell, gates, lengths, layer, weights, shown=3 - len(layers))
            others = [self._turned(part, lengths) for part in states]
            outputs.append(others[0] if turned else states[0])
            start = self.constant(np.array(0, np.int64), "start")
            last.append([self.bounded(self.node("Gather", part, start), self.bound(part)) for part in others])
        return self.join(*outputs), [self.join(*parts) for parts in zip(*last, strict=True)]

    def _turned(self, x: str, lengths: str) -> str:
        """x (S, N, ...) backwards within each length; what is known of it stays known."""
        found = self.node("ReverseSequence", x, lengths, batch_axis=1, time_axis=0)
        if x in self._whole_rows:  # else they would be made whole once more
            whole, scale, factor = self._whole_rows[x]
            whole = self.node("ReverseSequence", whole, lengths, batch_axis=1, time_axis=0)
            scale = self.node("ReverseSequence", scale, lengths, batch_axis=1, time_axis=0)
            self._whole_rows[found] = whole, scale, factor
        return self.bounded(found, self._bounds.get(x))

    def _input_gates(self, cell: str, x: str, layer: str, weights: Weights) -> str:
        """What x (..., I) adds to the gates, (..., 4 H) or (..., 3 H), in the order `_step` wants them.

        An LSTM's bias is left to the state's product, which adds it at no cost.
        """
        bias = None if cell == "lstm" else weights[f"{layer}.rnn.bias_ih_l0"]
        return self.linear(x, _gates(cell, weights[f"{layer}.rnn.weight_ih_l0"]), bias, f"{layer}.input")

    def _scan(self, cell: str, gates: str, lengths: str, layer: str, weights: Weights, *, shown: int) -> list[str]:
        """Step after step: gates (S, N, G) → so many parts of the state after each, (S, N, H)."""
        hidden = weights[f"{layer}.rnn.weight_hh_l0"].shape[1]
        rows = self.unsqueeze(self.node("Cast", lengths, to=TensorProto.FLOAT), 1)
        zeros = self.node("Mul", rows, self.constant(np.zeros(hidden, np.float32), f"zeros{hidden}"))
        parts = 2 if cell == "lstm" else 1
        outside, self._nodes = self._nodes, []
        self._count += 1
        before = [f"inner{self._count}_{part}" for part in ("h", "c")[:parts]]
        now = f"inner{self._count}_gates"
        self.bounded(before[0], 1.0)
        after = self._step(cell, now, layer, weights, before)
        seen = [self.node("Identity", part) for part in after[:shown]]
        inner, self._nodes = self._nodes, outside
        widths = {now: (4 if cell == "lstm" else 3) * hidden}
        information = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", widths.get(name, hidden)])
            for name in (*before, now, *after, *seen)
        }
        asked, given = ([information[name] for name in names] for names in ((*before, now), (*after, *seen)))
        body = helper.make_graph(inner, "step", asked, given)
        found = self.nodes("Scan", *[zeros] * parts, gates, outputs=parts + len(seen), body=body, num_scan_inputs=1)
        return [self.bounded(found[parts], 1.0), *found[parts + 1 :]]

    def cell(self, cell: str, x: str, layer: str, weights: Weights, state: list[str]) -> list[str]:
        """One step x (N, I) → the new state, (N, H) each: a layer's fused operator, or products of whole numbers."""
        if self._small(weights[f"{layer}.rnn.weight_hh_l0"]):
            initial = [self.unsqueeze(part, 0) for part in state]
            _, *after = self._fused(cell, self.unsqueeze(x, 0), [layer], weights, initial, "")
            after = [self.squeeze(part, 0) for part in after]
            return [self.bounded(after[0], 1.0), *after[1:]]
        return self._step(cell, self._input_gates(cell, x, layer, weights), layer, weights, state)

    def _step(self, cell: str, gates: str, layer: str, weights: Weights, state: list[str]) -> list[str]:
        """What an input adds to the gates (N, G), and the state → the new state, (N, H) each."""
        bias = _gates(cell, weights[f"{layer}.rnn.bias_hh_l0"])
        if cell == "lstm":
            bias = bias + _gates(cell, weights[f"{layer}.rnn.bias_ih_l0"])
        own = self.linear(state[0], _gates(cell, weights[f"{layer}.rnn.weight_hh_l0"]), bias, f"{layer}.state")
        hidden = weights[f"{layer}.rnn.weight_hh_l0"].shape[1]
        if cell == "lstm":
            opens, g = self._split(self.node("Add", gates, own), [3 * hidden, hidden])
            i, f, o = self._split(self.node("Sigmoid", opens), [hidden] * 3)
            c = self.node("Add", self.node("Mul", f, state[1]), self.node("Mul", i, self.node("Tanh", g)))
            return [self.bounded(self.node("Mul", o, self.node("Tanh", c)), 1.0), c]
        a_gates, a_new = self._split(gates, [2 * hidden, hidden])
        b_gates, b_new = self._split(own, [2 * hidden, hidden])
        r, z = self._split(self.node("Sigmoid", self.node("Add", a_gates, b_gates)), [hidden] * 2)
        new = self.node("Tanh", self.node("Add", a_new, self.node("Mul", r, b_new)))
        after = self.node("Add", new, self.node("Mul", z, self.node("Sub", state[0], new)))
        return [self.bounded(after, 1.0)]

    def _fused(
        self, cell: str, x: str, layers: list[str], weights: Weights, initial: list[str], lengths: str
    ) -> list[str]:
        """The library's own layer over x (S, N, I), in f32: [outputs (S, D, N, H), h (D, N, H), and c of an LSTM]."""
        hidden = weights[f"{layers[0]}.rnn.weight_hh_l0"].shape[1]
        parts: list[list[np.ndarray]] = [[], [], []]
        for layer in layers:
            own = {key: weights[f"{layer}.rnn.{key}_l0"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            own = {key: _gates_as_onnx(cell, value, hidden) for key, value in own.items()}
            parts[0].append(own["weight_ih"])
            parts[1].append(own["weight_hh"])
            parts[2].append(np.concatenate((own["bias_ih"], own["bias_hh"])))
        names = [f"{layers[0]}.{part}" for part in ("input", "state", "bias")]
        constants = [self.constant(np.stack(part), name) for part, name in zip(parts, names, strict=True)]
        more: dict[str, Any] = {} if cell == "lstm" else {"linear_before_reset": 1}
        return self.nodes(
            cell.upper(),
            x,
            *constants,
            lengths,
            *initial,
            outputs=3 if cell == "lstm" else 2,
            hidden_size=hidden,
            direction="bidirectional" if len(layers) > 1 else "forward",
            **more,
        )

    def _split(self, x: str, sizes: list[int]) -> list[str]:
        return self.nodes("Split", x, self.constant(np.array(sizes, np.int64)), outputs=len(sizes), axis=-1)

    def model(self) -> onnx.ModelProto:
        """The whole, checked; what nobody reads is left out."""
        wanted, kept = set(self._names), []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
                wanted.update(name for part in node.attribute for inner in part.g.node for name in inner.input)
        for node in kept:
            for names in (node.input, node.output):
                names[:] = [self._names.get(name, name) for name in names]
        weights = [tensor for name, tensor in self._constants.items() if name in wanted]
        inputs = [value for value in self._inputs if value.name in wanted]
        graph = helper.make_graph(kept[::-1], self._name, inputs, self._outputs, initializer=weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="antiphon")
        model.ir_version = 9
        onnx.checker.check_model(model, full_check=True)
        return model


def encoder_graph(config: Config, weights: Weights, *, quantised: bool = False) -> onnx.ModelProto:
    """src (N, S) int64, src_len (N,) int64 → the memory's keys and values, and the decoder's first state."""
    model, graph = config.model, Graph("encoder", quantised=quantised)
    src = graph.input("src", TensorProto.INT64, "N", "S")
    lengths = graph.input("src_len", TensorProto.INT64, "N")
    table = _tables(config, weights)["source"]
    x = graph.rows(table[1], graph.node("Transpose", src, perm=[1, 0]), table[0])  # (S, N, E)
    words, finals = x, list[list[str]]()
    for index in range(model.encoder_layers):
        layers = [f"encoder.forwards.{index}"]
        layers += [f"encoder.backwards.{index}"] if model.bidirectional else []
        outputs, last = graph.sequence(model.cell, x, layers, weights, lengths)
        if model.layer_norm:
            outputs = graph.layer_norm(outputs, weights, f"encoder.norms.{index}")
        x = graph.add(outputs, x) if index and model.residual else outputs
        finals.append(last)
    if "encoder.project.weight" in weights:
        x = graph.linear(x, weights["encoder.project.weight"], None, "encoder.project")
    if model.attention != "none":
        _memory(graph, config, weights, x, graph.add(x, words) if _carries(config, weights) else x)
    _first_state(graph, config, weights, finals)
    return graph.model()


def step_graph(config: Config, weights: Weights, *, quantised: bool = False) -> onnx.ModelProto:
    """One decoder step.

    y (N,) int64, k (1,) int64, wanted (N,) int64, mask (B, S) bool, keys, values of B sources, and the state of N rows,
    N / B of them for each source → log_probs (N, K), ids (N, K), wanted_log_prob (N,), attention (N, S), and the state
    after the step.
    """
    model, graph = config.model, Graph("step", quantised=quantised)
    hidden = model.hidden
    y, k = graph.input("y", TensorProto.INT64, "N"), graph.input("k", TensorProto.INT64, 1)
    wanted = graph.input("wanted", TensorProto.INT64, "N")
    mask = graph.input("mask", TensorProto.BOOL, "B", "S")
    width = _context_width(config, weights)
    keys = values = context = pointer = ""
    if model.attention == "monotonic":
        values = graph.input("values", TensorProto.FLOAT, *_memory_shapes(config, width)[1])
    elif model.attention != "none":
        keys, values = _memory_inputs(graph, config, weights)
    tables = _tables(config, weights)
    x = graph.rows(tables["target"][1], y, tables["target"][0])
    parts = ("h", "c") if model.cell == "lstm" else ("h",)
    bounds = {"h": 1.0, "c": None}
    state = [
        [graph.input(f"{part}{layer}", TensorProto.FLOAT, "N", hidden, bound=bounds[part]) for part in parts]
        for layer in range(model.decoder_layers)
    ]
    side = "encoder.forwards" if model.share_rnn else "decoder.layers"

    def layer(index: int, x: str, weights: Weights = weights) -> str:
        state[index] = graph.cell(model.cell, x, f"{side}.{index}", weights, state[index])
        outputs = state[index][0]
        return graph.layer_norm(outputs, weights, f"decoder.norms.{index}") if model.layer_norm else outputs

    feed = model.feed and model.attention != "none"
    if feed:
        context = graph.input("context", TensorProto.FLOAT, "N", width, bound=_context_bound(config, weights))
        h = graph.node(
            "Add",
            graph.linear(x, weights["decoder.join_input.weight"], weights["decoder.join_input.bias"], "join_input"),
            graph.linear(context, weights["decoder.join_context.weight"], None, "join_context"),
        )
        for index in range(model.decoder_layers):
            outputs = layer(index, h)
            h = graph.add(outputs, h) if index and model.residual else outputs
        context, attention = _attend(graph, config, weights, h, keys, values, mask)
        parts_read = [h, context]
    elif model.attention == "monotonic":
        pointer = graph.input("pointer", TensorProto.INT64, "N")
        context, attention, pointer = _point(graph, config, weights, pointer, y, values, mask)
        point = graph.linear(context, weights["decoder.point.weight"], None, "point")
        h = layer(0, graph.node("Add", x, point))
        parts_read = [h, context]
    else:
        h = layer(0, x)
        parts_read = [h]
        if model.attention != "none":
            context, attention = _attend(graph, config, weights, h, keys, values, mask)
            parts_read.append(context)
        else:
            nowhere = graph.node("Mul", graph.node("Cast", y, to=TensorProto.FLOAT), graph.constant(_f32(0)))
            real = graph.node("Cast", graph.unsqueeze(mask, 1), to=TensorProto.FLOAT)
            attention = graph.node("Flatten", graph.node("Mul", _by_source(graph, nowhere, mask, 1), real), axis=2)
    if not feed:
        for index in range(1, model.decoder_layers):
            if index == 1 and len(parts_read) > 1:
                joined, merge = graph.join(*parts_read), weights["decoder.merge.weight"]
                if quantised and merge.size >= SMALL:
                    outputs = layer(index, joined, _merged(weights, f"{side}.{index}"))
                else:
                    outputs = layer(index, graph.linear(joined, merge, weights["decoder.merge.bias"], "merge"))
            else:
                outputs = layer(index, h)
            h = graph.add(outputs, h) if model.residual else outputs
        parts_read[0] = h
    features = _features(graph, config, weights, graph.join(*parts_read))
    log_probs = graph.node("LogSoftmax", _logits(graph, features, *tables["softmax"], weights), axis=1)
    top, ids = _likeliest(graph, log_probs, k, _padded_vocabulary(len(weights["softmax_bias"])))
    graph.output(top, "log_probs", TensorProto.FLOAT, "N", "K")
    graph.output(ids, "ids", TensorProto.INT64, "N", "K")
    asked = graph.node("GatherElements", log_probs, graph.unsqueeze(wanted, 1), axis=1)
    graph.output(graph.squeeze(asked, 1), "wanted_log_prob", TensorProto.FLOAT, "N")
    graph.output(attention, "attention", TensorProto.FLOAT, "N", "S")
    for index, layer_state in enumerate(state):
        for part, value in zip(parts, layer_state, strict=True):
            graph.output(value, f"{part}{index}_after", TensorProto.FLOAT, "N", hidden)
    if feed:
        graph.output(context, "context_after", TensorProto.FLOAT, "N", width)
    if model.attention == "monotonic":
        graph.output(pointer, "pointer_after", TensorProto.INT64, "N")
    return graph.model()


def _merged(weights: Weights, layer: str) -> Weights:
    """The weights with a layer that reads what `Decoder.merge` reads: two products without anything between are one."""
    w_input, merge = weights[f"{layer}.rnn.weight_ih_l0"], weights["decoder.merge.weight"]
    bias = weights[f"{layer}.rnn.bias_ih_l0"] + w_input @ weights["decoder.merge.bias"]
    return {**weights, f"{layer}.rnn.weight_ih_l0": w_input @ merge, f"{layer}.rnn.bias_ih_l0": bias}


def _features(graph: Graph, config: Config, weights: Weights, joined: str) -> str:
    """What the logits are made of, (N, E)."""
    features = graph.linear(joined, weights["decoder.features.weight"], weights["decoder.features.bias"], "features")
    if config.model.features == "norm":
        return graph.layer_norm(features, weights, "decoder.features_norm")
    return graph.tanh(features)


def _logits(graph: Graph, features: str, name: str, table: np.ndarray, weights: Weights) -> str:
    """features (N, E) → (N, V), one for each row of the table."""
    bias = weights["softmax_bias"][:, 0]
    bias = np.pad(bias, (0, len(table) - len(bias)), constant_values=NEVER)
    return graph.table_product(features, table, bias, name)


def _padded_vocabulary(size: int) -> int:
    """Few words are compared one by one and need no blocks."""
    return size if size < 8 * BLOCK else -(-size // BLOCK) * BLOCK


def _likeliest(graph: Graph, log_probs: str, k: str, size: int) -> tuple[str, str]:
    """The k largest of (N, V) and their places; exact.

    The k likeliest words are in those k blocks whose likeliest words are the likeliest. A maximum is much faster found
    than an order.
    """
    if size % BLOCK or size < 8 * BLOCK:
        top, ids = graph.nodes("TopK", log_probs, k, outputs=2, axis=1)
        return top, ids
    blocks = graph.reshape(log_probs, 0, size // BLOCK, BLOCK)
    best = graph.node("ReduceMax", blocks, graph.constant(np.array([2], np.int64), "axis2"), keepdims=0)
    few = graph.node("Min", k, graph.constant(np.array([size // BLOCK], np.int64)))
    _, chosen = graph.nodes("TopK", best, few, outputs=2, axis=1)
    inside = graph.reshape(graph.node("GatherND", blocks, graph.unsqueeze(chosen, 2), batch_dims=1), 0, -1)
    top, places = graph.nodes("TopK", inside, k, outputs=2, axis=1)
    ids = graph.constant(np.arange(size).reshape(-1, BLOCK), "ids_of_blocks")
    ids = graph.reshape(graph.node("Gather", ids, chosen, axis=0), 0, -1)
    return top, graph.node("GatherElements", ids, places, axis=1)


def _f32(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _whole(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """weight (O, I) as int8 (O, I) and the scale of each row (O,)."""
    scale = (np.abs(weight).max(axis=1) / WHOLE).astype(np.float32)
    scale[scale == 0] = 1
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def _gates(cell: str, value: np.ndarray) -> np.ndarray:
    """PyTorch's order of gates (i f g o) → those that are squashed alike beside each other (i f o g); r z n stay."""
    if cell == "gru":
        return value
    i, f, g, o = np.split(value, 4)
    return np.concatenate((i, f, o, g))


def _gates_as_onnx(cell: str, value: np.ndarray, hidden: int) -> np.ndarray:
    """PyTorch's order of gates (i f g o; r z n) → ONNX's (i o f g; z r n)."""
    gates = [value[start : start + hidden] for start in range(0, len(value), hidden)]
    order = (0, 3, 1, 2) if cell == "lstm" else (1, 0, 2)
    return np.concatenate([gates[index] for index in order])


def _tables(config: Config, weights: Weights) -> dict[str, tuple[str, np.ndarray]]:
    """The three tables (V, E) with their names; tied ones are one. A shared parameter is saved under its first name.

    That of the softmax is filled up to whole blocks with words that cannot be.
    """
    softmax = weights["softmax_weight"]
    softmax = ("softmax", np.pad(softmax, [(0, _padded_vocabulary(len(softmax)) - len(softmax)), (0, 0)]))
    target = ("target", weights["target_embedding.weight"]) if config.model.tied == "none" else softmax
    source = target if config.model.tied == "all" else ("source", weights["source_embedding.weight"])
    return {"source": source, "target": target, "softmax": softmax}


def _context_width(config: Config, weights: Weights) -> int:
    return config.model.hidden if config.model.attention == "multihead" else _encoder_width(config, weights)


def _encoder_width(config: Config, weights: Weights) -> int:
    model = config.model
    if "encoder.project.weight" in weights:
        return model.hidden
    return (2 if model.bidirectional else 1) * (model.encoder_hidden or model.hidden)


def _context_bound(config: Config, weights: Weights) -> float | None:
    """What no number of the encoder's outputs, and so of a context, is beyond; None: not known."""
    model = config.model
    unknown = model.layer_norm or "encoder.project.weight" in weights or _carries(config, weights)
    if model.attention == "multihead" or unknown:
        return None
    return float(model.encoder_layers) if model.residual else 1.0


def _carries(config: Config, weights: Weights) -> bool:
    """Whether attention also reads the words themselves, as `Seq2Seq.encode` decides."""
    return config.model.residual and config.model.embedding == _encoder_width(config, weights)


def _memory(graph: Graph, config: Config, weights: Weights, compared: str, read: str) -> None:
    """What is compared and what is read (S, N, M) → keys and values as the step wants them, turned already."""
    model, part = config.model, config.model.hidden // config.model.heads
    keys, values = compared, read
    shapes = _memory_shapes(config, _context_width(config, weights))
    if model.attention == "monotonic":
        graph.output(graph.node("Transpose", values, perm=[1, 0, 2]), "values", TensorProto.FLOAT, *shapes[1])
        return
    if model.attention != "dot":
        bias = weights.get("decoder.attention.key.bias")
        keys = graph.linear(compared, weights["decoder.attention.key.weight"], bias, "key")
    if model.attention == "multihead":
        values = graph.linear(read, weights["decoder.attention.value.weight"], None, "value")
        keys, values = (graph.reshape(parts, 0, 0, model.heads, part) for parts in (keys, values))
        keys = graph.node("Transpose", keys, perm=[1, 2, 3, 0])
        values = graph.node("Transpose", values, perm=[1, 2, 0, 3])
    else:
        keys = graph.node("Transpose", keys, perm=[1, 0, 2] if model.attention == "additive" else [1, 2, 0])
        values = graph.node("Transpose", values, perm=[1, 0, 2])
    graph.output(keys, "keys", TensorProto.FLOAT, *shapes[0])
    graph.output(values, "values", TensorProto.FLOAT, *shapes[1])


def _memory_shapes(config: Config, width: int) -> tuple[list[int | str], list[int | str]]:
    model = config.model
    if model.attention == "multihead":
        part = model.hidden // model.heads
        return ["B", model.heads, part, "S"], ["B", model.heads, "S", part]
    if model.attention == "additive":
        return ["B", "S", model.hidden], ["B", "S", width]
    return ["B", model.hidden, "S"], ["B", "S", width]


def _memory_inputs(graph: Graph, config: Config, weights: Weights) -> tuple[str, str]:
    keys, values = _memory_shapes(config, _context_width(config, weights))
    return graph.input("keys", TensorProto.FLOAT, *keys), graph.input("values", TensorProto.FLOAT, *values)


def _by_source(graph: Graph, x: str, mask: str, *shape: int) -> str:
    """x (N, ...) → (B, R, ...), those rows together that look at one source."""
    rest = graph.constant(np.array((-1, *shape), np.int64))
    return graph.node("Reshape", x, graph.node("Concat", graph.node("Shape", mask, end=1), rest, axis=0))


def _point(
    graph: Graph, config: Config, weights: Weights, pointer: str, y: str, values: str, mask: str
) -> tuple[str, str, str]:
    """pointer (N,) and the last words y (N,) → what is looked at (N, M), weights (N, S), the pointer now (N,)."""
    marks = np.zeros(len(weights["softmax_bias"]), np.int64)
    marks[-1] = 1
    moved = graph.node("Add", pointer, graph.node("Gather", graph.constant(marks, "marks"), y))
    one = graph.constant(np.array([1], np.int64), "axis1")
    lengths = graph.node("ReduceSum", graph.node("Cast", mask, to=TensorProto.INT64), one, keepdims=1)
    now = graph.node("Min", _by_source(graph, moved, mask), graph.node("Sub", lengths, one))  # (B, R)
    context = graph.node("Flatten", graph.node("GatherND", values, graph.unsqueeze(now, 2), batch_dims=1), axis=2)
    sources = graph.node("Shape", mask, start=1)
    looked = graph.node("OneHot", now, sources, graph.constant(np.array([0, 1], np.float32), "off_on"), axis=-1)
    pointer = graph.reshape(now, -1)
    return graph.bounded(context, _context_bound(config, weights)), graph.node("Flatten", looked, axis=2), pointer


def _attend(
    graph: Graph, config: Config, weights: Weights, query: str, keys: str, values: str, mask: str
) -> tuple[str, str]:
    """query (N, H) → context (N, M) and weights (N, S); R = N / B rows look at each source."""
    model, part = config.model, config.model.hidden // config.model.heads
    if "decoder.attention.query.weight" in weights:
        scale = np.float32(part**-0.5 if model.attention == "multihead" else 1)  # of the scores, sooner
        query = graph.linear(query, scale * weights["decoder.attention.query.weight"], None, "query")
    never = graph.constant(_f32(-np.inf), "never")
    if model.attention == "multihead":
        asked = graph.node("Transpose", _by_source(graph, query, mask, model.heads, part), perm=[0, 2, 1, 3])
        scores, real = graph.node("MatMul", asked, keys), graph.unsqueeze(mask, 1, 2)  # (B, 1, 1, S)
        looked = graph.node("Softmax", graph.node("Where", real, scores, never), axis=-1)
        context = graph.node(
            "Transpose", graph.node("MatMul", looked, values), perm=[0, 2, 1, 3]
        )  # (B, R, heads, part)
        looked = graph.node("ReduceMean", looked, graph.constant(np.array([1], np.int64), "axis1"), keepdims=0)
        return graph.reshape(context, -1, model.hidden), graph.node("Flatten", looked, axis=2)
    if model.attention == "additive":
        asked = graph.unsqueeze(_by_source(graph, query, mask, model.hidden), 2)  # (B, R, 1, A)
        squashed = graph.node("Tanh", graph.node("Add", asked, graph.unsqueeze(keys, 1)))
        score = graph.constant(weights["decoder.attention.score"][:, None], "score")
        scores = graph.squeeze(graph.node("MatMul", squashed, score), 3)
    else:
        scores = graph.node("MatMul", _by_source(graph, query, mask, model.hidden), keys)
    looked = graph.node("Softmax", graph.node("Where", graph.unsqueeze(mask, 1), scores, never), axis=-1)  # (B, R, S)
    context = graph.node("Flatten", graph.node("MatMul", looked, values), axis=2)
    return graph.bounded(context, _context_bound(config, weights)), graph.node("Flatten", looked, axis=2)


def _first_state(graph: Graph, config: Config, weights: Weights, finals: list[list[str]]) -> None:
    """The decoder's state before the first word, as `Decoder.start`."""
    model = config.model
    parts = ("h", "c") if model.cell == "lstm" else ("h",)
    if model.attention == "monotonic":
        graph.output(graph.node("Sub", "src_len", "src_len"), "pointer", TensorProto.INT64, "N")
    for index in range(model.decoder_layers):
        if model.bridge == "copy":
            made = finals[index]
        else:
            name = f"decoder.bridges.{index}"
            bridged = graph.linear(finals[-1][0], weights[f"{name}.weight"], weights[f"{name}.bias"], name)
            squashed = graph.node("Tanh", bridged)
            sizes = graph.constant(np.array([model.hidden] * len(parts), np.int64), "sizes")
            made = graph.nodes("Split", squashed, sizes, outputs=len(parts), axis=1)
        for part, value in zip(parts, made, strict=True):
            graph.output(value, f"{part}{index}", TensorProto.FLOAT, "N", model.hidden)
