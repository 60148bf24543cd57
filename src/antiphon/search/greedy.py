"""The likeliest token, every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import EOS
from antiphon.search.hypothesis import Hypothesis
from antiphon.search.step import Engine
from antiphon.search.walk import Taken, collect, walk


def greedy(
    engine: Engine, src: np.ndarray, src_len: np.ndarray, config: SearchConfig, max_steps: np.ndarray
) -> list[list[Hypothesis]]:
    """One hypothesis for each of src (N, S), src_len (N,); at most max_steps (N,) tokens, EOS counted.

    The same ids and scores as beam search with a beam of 1.
    """
    found = collect(_steps(engine, src, src_len, config, max_steps), src_len, config)
    return [[hypothesis] for hypothesis in found]


def stream_greedy(
    engine: Engine, src: np.ndarray, src_len: np.ndarray, config: SearchConfig, max_steps: np.ndarray
) -> Iterator[int]:
    """The ids `greedy` would find for one row (src (1, S)), without EOS, each as soon as it is known."""
    for step in _steps(engine, src, src_len, config, max_steps):
        if step.tokens[0] != EOS:
            yield int(step.tokens[0])


def _steps(
    engine: Engine, src: np.ndarray, src_len: np.ndarray, config: SearchConfig, max_steps: np.ndarray
) -> Iterator[Taken]:
    memory, state = engine.encode(src, src_len)
    return walk(engine, memory, state, likeliest, config, max_steps, wanted=1)


def likeliest(log_probs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A Choose: the likeliest candidate of each row."""
    return log_probs.argmax(axis=1)
