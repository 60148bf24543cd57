"""The encoder and one decoder step as ONNX graphs, written node by node from the weights.

Nothing is traced, so no shape is frozen: rows (N), source length (S) and the number of candidates (K) stay free.
Every function here mirrors one of `antiphon.nn`; law tests hold both to the same hypotheses.

Quantised, a matrix is whole numbers of 7 bits with a scale for each output, and what it is multiplied with is whole
numbers of 8 bits with a scale for each row: so a row's answer does not depend on the other rows of its batch. 7 bits,
since processors without VNNI add products of 8 bits in 16 bits, which then overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from antiphon.config import Config

OPSET = 18
WHOLE = 63
"""A quantised weight is a whole number from -63 to 63."""
SMALL = 4096
"""Weights of fewer numbers stay f32."""
Weights = dict[str, np.ndarray]


class Graph:
    """A graph as it grows: every method adds nodes and returns the name of what they compute."""

    def __init__(self, name: str, *, quantised: bool) -> None:
        self._name = name
        self._quantised = quantised
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        """A value from outside; letters in its shape are free sizes."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, kind: int, *shape: int | str) -> None:
        """Gives a value to the outside under this name."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def constant(self, value: np.ndarray, name: str = "") -> str:
        """A weight; the same name twice is the same weight."""
        name = name or f"constant{len(self._constants)}"
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        return self.nodes(op, *inputs, **attributes)[0]

    def nodes(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """One node, all of its outputs."""
        names = [f"value{len(self._nodes)}" + (f"_{number}" if number else "") for number in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None, name: str) -> str:
        """x (..., I) → (..., O) with weight (O, I)."""
        if self._small(weight):
            product = self.node("MatMul", x, self.constant(weight.T, name))
        else:
            product = self._whole_product(x, weight, name)
        return product if bias is None else self.node("Add", product, self.constant(bias, f"{name}.bias"))

    def table_product(self, x: str, table: np.ndarray, bias: np.ndarray, name: str) -> str:
        """x (N, E) → (N, V) with a table (V, E) that also gives rows, kept once for both."""
        if self._small(table):
            product = self.node("MatMul", x, self.node("Transpose", self.constant(table, name), perm=[1, 0]))
        else:
            product = self._whole_product(x, table, name)
        return self.node("Add", product, self.constant(bias, f"{name}.bias"))

    def rows(self, table: np.ndarray, ids: str, name: str) -> str:
        """Rows of a table (V, E): ids (...) → (..., E)."""
        if self._small(table):
            return self.node("Gather", self.constant(table, name), ids, axis=0)
        whole, scale = self._whole(table, name)
        found = self.node("Cast", self.node("Gather", whole, ids, axis=0), to=TensorProto.FLOAT)
        return self.node("Mul", found, self.unsqueeze(self.node("Gather", scale, ids, axis=0), -1))

    def _small(self, weight: np.ndarray) -> bool:
        return not self._quantised or weight.size < SMALL

    def _whole(self, weight: np.ndarray, name: str) -> tuple[str, str]:
        """weight (O, I) as int8 (O, I) and the scale of each row (O,)."""
        scale = (np.abs(weight).max(axis=1) / WHOLE).astype(np.float32)
        scale[scale == 0] = 1
        whole = np.rint(weight / scale[:, None]).astype(np.int8)
        return self.constant(whole, name), self.constant(scale, f"{name}.scale")

    def _whole_product(self, x: str, weight: np.ndarray, name: str) -> str:
        whole, scale = self._whole(weight, name)
        last = self.constant(np.array([-1], np.int64), "axis-1")
        largest = self.node("ReduceMax", self.node("Abs", x), last, keepdims=1)
        largest = self.node("Max", largest, self.constant(_f32(1e-9), "tiny"))
        per_unit = self.node("Div", self.constant(_f32(127), "127"), largest)
        middle = self.constant(_f32(128), "128")
        steps = self.node("Round", self.node("Add", self.node("Mul", x, per_unit), middle))
        steps = self.node("Cast", steps, to=TensorProto.UINT8)
        zero = self.constant(np.array(128, np.uint8), "middle")
        product = self.node("MatMulInteger", steps, self.node("Transpose", whole, perm=[1, 0]), zero)
        by_row = self.node("Mul", self.node("Cast", product, to=TensorProto.FLOAT), self.node("Reciprocal", per_unit))
        return self.node("Mul", by_row, scale)

    def _from_whole(self, parts: list[np.ndarray], name: str) -> str:
        """Matrices (O, I) of the directions, stacked (D, O, I): kept as whole numbers, f32 from loading on."""
        stacked = np.stack(parts)
        if self._small(stacked):
            return self.constant(stacked, name)
        whole, scale = self._whole(stacked.reshape(-1, stacked.shape[2]), name)
        wide = self.node("Mul", self.node("Cast", whole, to=TensorProto.FLOAT), self.unsqueeze(scale, -1))
        return self.reshape(wide, *stacked.shape)

    def squeeze(self, x: str, axis: int) -> str:
        """Without an axis of size 1."""
        return self.node("Squeeze", x, self.constant(np.array([axis], np.int64), f"axis{axis}"))

    def unsqueeze(self, x: str, axis: int) -> str:
        """With a new axis of size 1."""
        return self.node("Unsqueeze", x, self.constant(np.array([axis], np.int64), f"axis{axis}"))

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a size, -1 is what is left."""
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def layer_norm(self, x: str, weights: Weights, name: str) -> str:
        """Over the last axis."""
        scale, shift = (self.constant(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def recurrent(
        self, cell: str, x: str, layers: list[str], weights: Weights, initial: list[str], lengths: str = ""
    ) -> list[str]:
        """A layer over x (S, N, I), one direction or two: [outputs (S, D, N, H), h (D, N, H), and c of an LSTM]."""
        hidden = weights[f"{layers[0]}.rnn.weight_hh_l0"].shape[1]
        parts: list[list[np.ndarray]] = [[], [], []]
        for layer in layers:
            own = {key: weights[f"{layer}.rnn.{key}_l0"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            own = {key: _gates_as_onnx(cell, value, hidden) for key, value in own.items()}
            parts[0].append(own["weight_ih"])
            parts[1].append(own["weight_hh"])
            parts[2].append(np.concatenate((own["bias_ih"], own["bias_hh"])))
        constants = [self._from_whole(parts[0], f"{layers[0]}.input"), self._from_whole(parts[1], f"{layers[0]}.state")]
        constants.append(self.constant(np.stack(parts[2]), f"{layers[0]}.bias"))
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

    def cell(self, cell: str, x: str, layer: str, weights: Weights, state: list[str]) -> list[str]:
        """One step x (N, I) → the new state, (N, H) each: a layer's fused operator, or products of whole numbers."""
        if self._small(weights[f"{layer}.rnn.weight_hh_l0"]):
            initial = [self.unsqueeze(part, 0) for part in state]
            _, *after = self.recurrent(cell, self.unsqueeze(x, 0), [layer], weights, initial)
            return [self.squeeze(part, 0) for part in after]
        own = {key: weights[f"{layer}.rnn.{key}_l0"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        a = self.linear(x, own["weight_ih"], own["bias_ih"], f"{layer}.input")
        b = self.linear(state[0], own["weight_hh"], own["bias_hh"], f"{layer}.state")
        hidden = own["weight_hh"].shape[1]
        if cell == "lstm":
            both = self.node("Add", a, b)
            i, f, g, o = self._split(both, [hidden] * 4)
            kept = self.node("Mul", self.node("Sigmoid", f), state[1])
            c = self.node("Add", kept, self.node("Mul", self.node("Sigmoid", i), self.node("Tanh", g)))
            return [self.node("Mul", self.node("Sigmoid", o), self.node("Tanh", c)), c]
        a_gates, a_new = self._split(a, [2 * hidden, hidden])
        b_gates, b_new = self._split(b, [2 * hidden, hidden])
        r, z = self._split(self.node("Sigmoid", self.node("Add", a_gates, b_gates)), [hidden] * 2)
        new = self.node("Tanh", self.node("Add", a_new, self.node("Mul", r, b_new)))
        return [self.node("Add", new, self.node("Mul", z, self.node("Sub", state[0], new)))]

    def _split(self, x: str, sizes: list[int]) -> list[str]:
        return self.nodes("Split", x, self.constant(np.array(sizes, np.int64)), outputs=len(sizes), axis=1)

    def model(self) -> onnx.ModelProto:
        """The whole, checked."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="antiphon")
        model.ir_version = 9
        onnx.checker.check_model(model, full_check=True)
        return model


def encoder_graph(config: Config, weights: Weights, *, quantised: bool = False) -> onnx.ModelProto:
    """src (N, S) int64, src_len (N,) int64 → the memory's keys and values, and the decoder's first state."""
    model, graph = config.model, Graph("encoder", quantised=quantised)
    src = graph.input("src", TensorProto.INT64, "N", "S")
    lengths = graph.node("Cast", graph.input("src_len", TensorProto.INT64, "N"), to=TensorProto.INT32)
    tables = _tables(config, weights)
    x = _embedded(graph, graph.node("Transpose", src, perm=[1, 0]), *tables["source"])  # (S, N, E)
    directions = 2 if model.bidirectional else 1
    width = directions * (model.encoder_hidden or model.hidden)
    words, finals = x, list[list[str]]()
    for index in range(model.encoder_layers):
        layers = [f"encoder.forwards.{index}"]
        layers += [f"encoder.backwards.{index}"] if model.bidirectional else []
        outputs, *last = graph.recurrent(model.cell, x, layers, weights, [], lengths)
        outputs = graph.reshape(graph.node("Transpose", outputs, perm=[0, 2, 1, 3]), 0, 0, width)  # (S, N, D H)
        if model.layer_norm:
            outputs = graph.layer_norm(outputs, weights, f"encoder.norms.{index}")
        x = graph.node("Add", outputs, x) if index and model.residual else outputs
        finals.append([graph.reshape(graph.node("Transpose", part, perm=[1, 0, 2]), 0, width) for part in last])
    if "encoder.project.weight" in weights:
        x = graph.linear(x, weights["encoder.project.weight"], None, "encoder.project")
        width = model.hidden
    if model.attention != "none":
        compared = graph.node("Transpose", x, perm=[1, 0, 2])
        carries = model.residual and model.embedding == width
        read = graph.node("Transpose", graph.node("Add", x, words), perm=[1, 0, 2]) if carries else compared
        _memory(graph, config, weights, compared, read, width)
    _first_state(graph, config, weights, finals, width)
    return graph.model()


def step_graph(config: Config, weights: Weights, *, quantised: bool = False) -> onnx.ModelProto:
    """One decoder step.

    y (N,) int64, k (1,) int64, wanted (N,) int64, mask (N, S) bool, keys, values, and the state →
    log_probs (N, K), ids (N, K), wanted_log_prob (N,), attention (N, S), and the state after the step.
    """
    model, graph = config.model, Graph("step", quantised=quantised)
    hidden = model.hidden
    y, k = graph.input("y", TensorProto.INT64, "N"), graph.input("k", TensorProto.INT64, 1)
    wanted = graph.input("wanted", TensorProto.INT64, "N")
    mask = graph.input("mask", TensorProto.BOOL, "N", "S")
    width = _context_width(config, weights)
    keys = values = context = ""
    if model.attention != "none":
        keys, values = _memory_inputs(graph, config, weights)
    tables = _tables(config, weights)
    x = _embedded(graph, y, *tables["target"])
    parts = ("h", "c") if model.cell == "lstm" else ("h",)
    state = [
        [graph.input(f"{part}{layer}", TensorProto.FLOAT, "N", hidden) for part in parts]
        for layer in range(model.decoder_layers)
    ]
    side = "encoder.forwards" if model.share_rnn else "decoder.layers"

    def layer(index: int, x: str) -> str:
        state[index] = graph.cell(model.cell, x, f"{side}.{index}", weights, state[index])
        outputs = state[index][0]
        return graph.layer_norm(outputs, weights, f"decoder.norms.{index}") if model.layer_norm else outputs

    feed = model.feed and model.attention != "none"
    if feed:
        context = graph.input("context", TensorProto.FLOAT, "N", width)
        h = graph.node(
            "Add",
            graph.linear(x, weights["decoder.join_input.weight"], weights["decoder.join_input.bias"], "join_input"),
            graph.linear(context, weights["decoder.join_context.weight"], None, "join_context"),
        )
        for index in range(model.decoder_layers):
            outputs = layer(index, h)
            h = graph.node("Add", outputs, h) if index and model.residual else outputs
        context, attention = _attend(graph, config, weights, h, keys, values, mask)
        parts_read = [h, context]
    else:
        h = layer(0, x)
        parts_read = [h]
        if model.attention != "none":
            context, attention = _attend(graph, config, weights, h, keys, values, mask)
            parts_read.append(context)
        else:
            attention = graph.node("Mul", graph.node("Cast", mask, to=TensorProto.FLOAT), graph.constant(_f32(0)))
        for index in range(1, model.decoder_layers):
            inputs = h
            if index == 1 and len(parts_read) > 1:
                joined = graph.node("Concat", *parts_read, axis=1)
                inputs = graph.linear(joined, weights["decoder.merge.weight"], weights["decoder.merge.bias"], "merge")
            outputs = layer(index, inputs)
            h = graph.node("Add", outputs, h) if model.residual else outputs
        parts_read[0] = h
    joined = graph.node("Concat", *parts_read, axis=1) if len(parts_read) > 1 else parts_read[0]
    features = graph.linear(joined, weights["decoder.features.weight"], weights["decoder.features.bias"], "features")
    if model.features == "norm":
        features = graph.layer_norm(features, weights, "decoder.features_norm")
    else:
        features = graph.node("Tanh", features)
    name, table = tables["softmax"]
    logits = graph.table_product(features, table, weights["softmax_bias"][:, 0], name)
    # log sum exp x = max x - log max softmax x: the softmax is the library's fast one, and its maximum is at least 1/V.
    axis = graph.constant(np.array([1], np.int64), "axis1")
    largest = graph.node("ReduceMax", graph.node("Softmax", logits, axis=1), axis, keepdims=1)
    total = graph.node("Sub", graph.node("ReduceMax", logits, axis, keepdims=1), graph.node("Log", largest))
    top, ids = graph.nodes("TopK", logits, k, outputs=2, axis=1)
    graph.output(graph.node("Sub", top, total), "log_probs", TensorProto.FLOAT, "N", "K")
    graph.output(ids, "ids", TensorProto.INT64, "N", "K")
    asked = graph.node("GatherElements", logits, graph.unsqueeze(wanted, 1), axis=1)
    graph.output(graph.squeeze(graph.node("Sub", asked, total), 1), "wanted_log_prob", TensorProto.FLOAT, "N")
    graph.output(attention, "attention", TensorProto.FLOAT, "N", "S")
    for index, layer_state in enumerate(state):
        for part, value in zip(parts, layer_state, strict=True):
            graph.output(value, f"{part}{index}_after", TensorProto.FLOAT, "N", hidden)
    if feed:
        graph.output(context, "context_after", TensorProto.FLOAT, "N", width)
    return graph.model()


def _f32(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _gates_as_onnx(cell: str, value: np.ndarray, hidden: int) -> np.ndarray:
    """PyTorch's order of gates (i f g o; r z n) → ONNX's (i o f g; z r n)."""
    gates = [value[start : start + hidden] for start in range(0, len(value), hidden)]
    order = (0, 3, 1, 2) if cell == "lstm" else (1, 0, 2)
    return np.concatenate([gates[index] for index in order])


def _tables(config: Config, weights: Weights) -> dict[str, tuple[str, np.ndarray]]:
    """The three tables (V, E) with their names; tied ones are one. A shared parameter is saved under its first name."""
    softmax = ("softmax", weights["softmax_weight"])
    target = ("target", weights["target_embedding.weight"]) if config.model.tied == "none" else softmax
    source = target if config.model.tied == "all" else ("source", weights["source_embedding.weight"])
    return {"source": source, "target": target, "softmax": softmax}


def _embedded(graph: Graph, ids: str, name: str, table: np.ndarray) -> str:
    return graph.node("Mul", graph.rows(table, ids, name), graph.constant(_f32(table.shape[1] ** 0.5)))


def _context_width(config: Config, weights: Weights) -> int:
    model = config.model
    if model.attention == "multihead":
        return model.hidden
    if "encoder.project.weight" in weights:
        return model.hidden
    return (2 if model.bidirectional else 1) * (model.encoder_hidden or model.hidden)


def _heads(graph: Graph, x: str, heads: int, hidden: int, perm: list[int]) -> str:
    return graph.node("Transpose", graph.reshape(x, 0, 0, heads, hidden // heads), perm=perm)


def _memory(graph: Graph, config: Config, weights: Weights, compared: str, read: str, width: int) -> None:
    """What is compared and what is read (N, S, M) → keys and values as the step wants them, transposed beforehand."""
    model = config.model
    keys, values = compared, read
    if model.attention != "dot":
        bias = weights.get("decoder.attention.key.bias")
        keys = graph.linear(compared, weights["decoder.attention.key.weight"], bias, "key")
    if model.attention == "multihead":
        values = graph.linear(read, weights["decoder.attention.value.weight"], None, "value")
        keys = _heads(graph, keys, model.heads, model.hidden, [0, 2, 3, 1])
        values = _heads(graph, values, model.heads, model.hidden, [0, 2, 1, 3])
    elif model.attention != "additive":
        keys = graph.node("Transpose", keys, perm=[0, 2, 1])
    shapes = _memory_shapes(config, width)
    graph.output(keys, "keys", TensorProto.FLOAT, *shapes[0])
    graph.output(values, "values", TensorProto.FLOAT, *shapes[1])


def _memory_shapes(config: Config, width: int) -> tuple[list[int | str], list[int | str]]:
    model = config.model
    if model.attention == "multihead":
        part = model.hidden // model.heads
        return ["N", model.heads, part, "S"], ["N", model.heads, "S", part]
    if model.attention == "additive":
        return ["N", "S", model.hidden], ["N", "S", width]
    return ["N", model.hidden, "S"], ["N", "S", width]


def _memory_inputs(graph: Graph, config: Config, weights: Weights) -> tuple[str, str]:
    keys, values = _memory_shapes(config, _context_width(config, weights))
    return graph.input("keys", TensorProto.FLOAT, *keys), graph.input("values", TensorProto.FLOAT, *values)


def _attend(
    graph: Graph, config: Config, weights: Weights, query: str, keys: str, values: str, mask: str
) -> tuple[str, str]:
    """query (N, H) → context (N, M) and weights (N, S)."""
    model = config.model
    if "decoder.attention.query.weight" in weights:
        query = graph.linear(query, weights["decoder.attention.query.weight"], None, "query")
    never = graph.constant(_f32(-np.inf), "never")
    if model.attention == "multihead":
        part = model.hidden // model.heads
        scores = graph.node("MatMul", graph.reshape(query, 0, model.heads, 1, part), keys)  # (N, heads, 1, S)
        scores = graph.node("Mul", scores, graph.constant(_f32(part**-0.5)))
        real = graph.unsqueeze(graph.unsqueeze(mask, 1), 1)
        looked = graph.node("Softmax", graph.node("Where", real, scores, never), axis=-1)
        context = graph.reshape(graph.node("MatMul", looked, values), 0, model.hidden)
        mean = graph.node("ReduceMean", looked, graph.constant(np.array([1], np.int64), "axis1"), keepdims=0)
        return context, graph.squeeze(mean, 1)
    if model.attention == "additive":
        squashed = graph.node("Tanh", graph.node("Add", graph.unsqueeze(query, 1), keys))
        score = graph.constant(weights["decoder.attention.score"][:, None], "score")
        scores = graph.squeeze(graph.node("MatMul", squashed, score), 2)
    else:
        scores = graph.squeeze(graph.node("MatMul", graph.unsqueeze(query, 1), keys), 1)
    looked = graph.node("Softmax", graph.node("Where", mask, scores, never), axis=-1)  # (N, S)
    return graph.squeeze(graph.node("MatMul", graph.unsqueeze(looked, 1), values), 1), looked


def _first_state(graph: Graph, config: Config, weights: Weights, finals: list[list[str]], width: int) -> None:
    """The decoder's state before the first word, as `Decoder.start`."""
    model = config.model
    parts = ("h", "c") if model.cell == "lstm" else ("h",)
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
