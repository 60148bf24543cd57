"""ONNX Runtime as the engine of a search: an exported model answers without PyTorch."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from antiphon.config import Config
from antiphon.data.tokenizer import PAD
from antiphon.errors import FolderError, UsageError
from antiphon.runtime.folder import ENCODER, GRAPHS, STEP
from antiphon.runtime.onnx_file import BLOCK, read_onnx
from antiphon.search.step import StepOutput

MOST_MEMORY = 4 << 30
"""Bytes that all graphs of a process may use together; what search and scoring ask for at once is far less."""


@dataclass(frozen=True)
class Arrays:
    """Arrays by name, each with the rows of the batch first."""

    values: dict[str, np.ndarray]
    sources: dict[str, int] = field(default_factory=dict)
    """Which axis of each is as long as the longest source; empty where none is. ``mask`` is one of them, if any is."""

    def select(self, rows: np.ndarray) -> Arrays:
        """The given rows, in the given order."""
        return Arrays({name: value.take(rows, axis=0) for name, value in self.values.items()}, self.sources)

    def join(self, other: Arrays) -> Arrays:
        """These rows, then the other's, as wide as the longest source needs."""
        parts = [self.values, other.values]
        width = max(int(part["mask"].sum(axis=1).max()) for part in parts) if self.sources else 0
        joined = {}
        for name in self.values:
            one, two = (part[name] for part in parts)
            axis = self.sources.get(name)
            if axis is None or one.shape[axis] == two.shape[axis] == width:
                joined[name] = np.concatenate([one, two])
                continue
            shape = list(one.shape)
            shape[0], shape[axis] = len(one) + len(two), width
            both = joined[name] = np.zeros(shape, one.dtype)
            for part, start in ((one, 0), (two, len(one))):
                some = (slice(None),) * (axis - 1) + (slice(min(width, part.shape[axis])),)
                both[(slice(start, start + len(part)), *some)] = part[(slice(None), *some)]
        return Arrays(joined, self.sources)


class OnnxEngine:
    """Implements `antiphon.search.step.Engine` over two graphs. Thread-safe: nothing is kept between calls.

    Args:
        encoder: the encoder's session.
        step: the decoder step's session.
        vocabulary: V of the target.
        folder: where the graphs are from, for what is told of them.
    """

    def __init__(
        self,
        encoder: onnxruntime.InferenceSession,
        step: onnxruntime.InferenceSession,
        vocabulary: int,
        folder: Path = Path(),
    ) -> None:
        self.vocabulary = vocabulary
        self._folder = folder
        self._encoder, self._step = encoder, step
        self._from_encoder = [output.name for output in encoder.get_outputs()]
        self._from_step = [output.name.removesuffix("_after") for output in step.get_outputs()]
        asked = {value.name: value for value in step.get_inputs()}
        self._memory = [name for name in ("keys", "values") if name in asked]
        self._state = [name for name in asked if name not in ("y", "k", "wanted", "mask", *self._memory)]
        self._sources = {name: asked[name].shape.index(asked["mask"].shape[1]) for name in ("mask", *self._memory)}
        self._context = int(asked["context"].shape[1]) if "context" in asked else 0

    def encode(self, src: np.ndarray, src_len: np.ndarray) -> tuple[Arrays, Arrays]:
        """src (N, S), src_len (N,) → memory and first state."""
        found = self._ask(self._encoder, self._from_encoder, {"src": src, "src_len": src_len})
        if self._context:
            found["context"] = np.zeros((len(src), self._context), np.float32)
        memory = {name: found[name] for name in self._memory}
        memory["mask"] = np.arange(src.shape[1]) < src_len[:, None]
        return Arrays(memory, self._sources), Arrays({name: found[name] for name in self._state})

    def step(self, y: np.ndarray, state: Arrays, memory: Arrays, k: int) -> StepOutput:
        """y (N,) → the k likeliest next tokens, sorted, with their log-probabilities."""
        found = self._run(y, state, memory, k, y)
        after = Arrays({name: found[name] for name in self._state})
        return StepOutput(found["log_probs"], found["ids"], found["attention"], after)

    def score(self, src: np.ndarray, src_len: np.ndarray, tgt_in: np.ndarray, tgt_out: np.ndarray) -> np.ndarray:
        """log P of every token of tgt_out: (N, T) nats, 0 at padding."""
        memory, state = self.encode(src, src_len)
        scores = np.zeros(tgt_out.shape, np.float32)
        rows = np.arange(len(src))
        for t in range(tgt_out.shape[1]):
            going = np.flatnonzero(tgt_out[rows, t] != PAD)
            if len(going) < len(rows):  # rows that have ended leave
                rows, memory, state = rows[going], memory.select(going), state.select(going)
            if not len(rows):
                break
            found = self._run(tgt_in[rows, t], state, memory, 1, tgt_out[rows, t])
            scores[rows, t] = found["wanted_log_prob"]
            state = Arrays({name: found[name] for name in self._state})
        return scores

    def _run(self, y: np.ndarray, state: Arrays, memory: Arrays, k: int, wanted: np.ndarray) -> dict[str, np.ndarray]:
        asked = {"y": y, "k": np.array([min(k, self.vocabulary)]), "wanted": wanted, **memory.values, **state.values}
        found = self._ask(self._step, self._from_step, asked)
        ids = found["ids"]
        if ids.shape != (len(y), asked["k"][0]) or not 0 <= ids.min() <= ids.max() < self.vocabulary:
            raise self._damaged("it gives what are no words")
        return found

    def _ask(
        self, session: onnxruntime.InferenceSession, names: list[str], asked: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        try:
            made: list[Any] = list(session.run(None, asked))
        except Exception as error:  # a graph that fits its weights may still not fit what it is asked
            if "Available memory" in str(error) or "Failed to allocate" in str(error):
                cure = "give fewer or shorter texts at once, or fewer threads"
                raise UsageError(
                    "this takes more memory than a model may have", where=str(self._folder), cure=cure
                ) from None
            raise self._damaged(_first_line(error)) from None
        return dict(zip(names, made, strict=True))

    def _damaged(self, why: str) -> FolderError:
        return FolderError(f"damaged graph ({why})", where=str(self._folder), cure="export it again")


def load_engine(folder: Path, config: Config, *, source_vocabulary: int, target_vocabulary: int) -> OnnxEngine:
    """The engine of an exported folder. It works in the thread that calls it: products of a step are so small that
    waking a second thread for each costs more than it saves; two threads had better call it with half the rows each.

    Raises:
        FolderError: a graph is missing, damaged, belongs to another model, or is none that Antiphon makes.
    """
    model = config.model
    widths = (8 * model.hidden, 8 * (model.encoder_hidden or 0), 4 * model.embedding)
    longest = max(source_vocabulary + BLOCK, target_vocabulary + BLOCK, *widths)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is told by the exception
    if _bounded_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    sessions = []
    for name in (ENCODER, STEP):
        path = folder / GRAPHS / name
        content = read_onnx(path, longest=longest)
        try:
            sessions.append(onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # onnxruntime has an exception type for every kind of fault, without a common base
            raise FolderError(
                f"damaged graph ({_first_line(error)})", where=str(path), cure="export it again"
            ) from None
    src, src_len = np.array([[3, 2]]), np.array([2])
    with contextlib.suppress(FolderError, UsageError, IndexError, KeyError, RuntimeError, ValueError):
        engine = OnnxEngine(sessions[0], sessions[1], target_vocabulary, folder / GRAPHS)
        found = engine.score(src, src_len, np.array([[1]]), np.array([[target_vocabulary - 1]]))
        if np.isfinite(found).all():
            return engine
    raise FolderError(
        "the graphs do not fit the config and the tokenizer", where=str(folder / GRAPHS), cure="export it again"
    )


@functools.cache
def _bounded_memory() -> bool:
    """Sees to it, once in a process, that graphs get no more than so much memory; whether that could be done.

    Nothing a graph says of itself is as sure: small weights can be joined with themselves again and again.
    """
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    exactly = {"arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    try:
        limit = onnxruntime.OrtArenaCfg({"max_mem": MOST_MEMORY, **exactly})
        onnxruntime.create_and_register_allocator(place, limit)
    except Exception:  # the program around us has set its own, or this version of the library has no limits
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{str(error).splitlines()[0]:.120}" if str(error) else type(error).__name__
