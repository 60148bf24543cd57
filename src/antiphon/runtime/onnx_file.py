"""Whether an ONNX file is one that Antiphon could have made, found out before any of it is run.

A graph from a stranger can name files elsewhere on the disk, ask for operators that load libraries, loop, or build
arrays of any size from small numbers. Ours do none of that: the operators are few, weights are inside the file, and no
weight is longer than the model's own sizes; the only graph inside a node is what a Scan does at each position of a
source. The file is read as what it is, protocol buffers, without a library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from antiphon.errors import FolderError

# fmt: off
OPERATORS = frozenset(
    {
        "Abs", "Add", "Cast", "Concat", "Flatten", "GRU", "Gather", "GatherElements", "GatherND", "Identity",
        "LSTM", "LayerNormalization", "LogSoftmax", "MatMul", "Max", "Min", "Mul", "OneHot", "QuantizeLinear",
        "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "ReverseSequence", "Scan", "Shape", "Sigmoid",
        "Softmax", "Split", "Squeeze", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where",
        "com.microsoft.MatMulIntegerToFloat",
    }
)
# fmt: on
BLOCK = 64
"""A step finds the likeliest word of each so many before it compares; vocabularies are filled up to whole blocks."""
LARGEST_FILE = 1 << 30
"""Bytes; a recurrent model of a hundred million weights has less than half of it."""
MOST_NODES = 2000
MOST_DIMENSIONS = 4

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CURE = "export the model again, or get it from someone you trust"


def read_onnx(path: Path, *, longest: int) -> bytes:
    """The content of an ONNX file that was found harmless.

    Args:
        path: the file.
        longest: the largest size any weight's axis may have.

    Raises:
        FolderError: missing, too large, damaged, or a graph that Antiphon does not make.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # a read takes the memory it asks for, however short the file
            content = file.read(min(size, LARGEST_FILE) + 1)
    except OSError as error:
        raise FolderError(f"cannot be read ({error.strerror})", where=str(path), cure=_CURE) from None
    if len(content) > LARGEST_FILE:
        raise FolderError("larger than any model of Antiphon", where=str(path), cure=_CURE)
    try:
        _check_model(memoryview(content), longest)
    except _Strange as error:
        raise FolderError(f"not a graph that Antiphon makes: {error}", where=str(path), cure=_CURE) from None
    return content


class _Strange(Exception):
    pass


def _check_model(model: memoryview, longest: int) -> None:
    graphs = 0
    for number, kind, value in _fields(model):
        if number == 7 and kind == _BYTES:  # ModelProto.graph
            graphs += 1
            _check_graph(_view(value), longest)
        elif number in (20, 25):  # training_info, functions
            raise _Strange("it holds training or functions of its own")
    if graphs != 1:
        raise _Strange("no graph in it" if not graphs else "more than one graph")


def _check_graph(graph: memoryview, longest: int, *, inside: bool = False) -> None:
    nodes = 0
    for number, kind, value in _fields(graph):
        if number == 1 and kind == _BYTES:  # node
            nodes += 1
            _check_node(_view(value), longest, inside=inside)
        elif number == 5 and kind == _BYTES:  # initializer
            _check_tensor(_view(value), longest)
        elif number == 15:  # sparse_initializer
            raise _Strange("sparse weights")
    if not 0 < nodes <= MOST_NODES:
        raise _Strange(f"{nodes:,} nodes")


def _check_node(node: memoryview, longest: int, *, inside: bool) -> None:
    operator = domain = ""
    graphs: list[memoryview] = []
    for number, kind, value in _fields(node):
        if number == 4 and kind == _BYTES:
            operator = _text(value)
        elif number == 7 and kind == _BYTES:
            domain = _text(value)
        elif number == 5 and kind == _BYTES:  # attribute
            for inner, _, content in _fields(_view(value)):
                if inner == 6:  # graph
                    graphs.append(_view(content))
                elif inner in (5, 10, 11, 22, 23):  # tensor and sparse tensor, one or several; several graphs
                    raise _Strange("a node that holds weights or graphs")
                elif inner == 8 and isinstance(content, memoryview) and len(content) > 1 << 16:
                    raise _Strange("a giant attribute")
    name = operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"
    if name not in OPERATORS:
        raise _Strange(f'operator "{name:.40}"')
    if graphs and (operator != "Scan" or inside or len(graphs) > 1):
        raise _Strange("a graph inside a node")
    for graph in graphs:
        _check_graph(graph, longest, inside=True)


def _check_tensor(tensor: memoryview, longest: int) -> None:
    dimensions: list[int] = []
    held = 0
    for number, kind, value in _fields(tensor):
        if number == 1:
            dimensions += [value] if isinstance(value, int) else _packed(value)
        elif number in (13, 14) and (kind == _BYTES or value):  # external_data, data_location
            raise _Strange("weights outside the file")
        elif kind == _BYTES and number in (4, 5, 6, 7, 9, 10, 11):
            held += len(_view(value))
        elif number in (4, 5, 7, 10, 11):
            held += 1
    count = 1
    for size in dimensions:
        if not 0 <= size <= longest:
            raise _Strange(f"a weight with an axis of {size:,}")
        count *= size
    if len(dimensions) > MOST_DIMENSIONS or count > 8 * held + 64:
        raise _Strange("a weight larger than what the file holds of it")


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of a protocol buffer message, one after the other."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > end:
                raise _Strange("cut off")
            yield number, kind, message[at : at + length]
            at += length
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
            if at > end:
                raise _Strange("cut off")
            yield number, kind, 1
        else:
            raise _Strange("damaged")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise _Strange("cut off")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _packed(message: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        found.append(value)
        if len(found) > MOST_DIMENSIONS:
            raise _Strange("a weight of many axes")
    return found


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Strange("damaged")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_view(value)[:100]).decode("utf-8", "replace")
