"""One hypothesis per row, one token at a time: what greedy search and sampling share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import BOS, EOS
from antiphon.search.candidates import candidates
from antiphon.search.hypothesis import Hypothesis, hypothesis
from antiphon.search.step import Engine

Choose = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(log_probs (n, K) with -inf for the forbidden, rows (n,), step) to the places (n,) of the chosen in K."""


class Taken(NamedTuple):
    """The tokens of one step, for the n rows that were still going."""

    rows: np.ndarray
    """(n,) which rows of the start these are."""
    tokens: np.ndarray
    """(n,) int64."""
    log_probs: np.ndarray
    """(n,) float32, nats."""
    attention: np.ndarray
    """(n, S) float32."""


def walk(
    engine: Engine, memory: Any, state: Any, choose: Choose, config: SearchConfig, max_steps: np.ndarray, wanted: int
) -> Iterator[Taken]:
    """Choose a token for every row, step by step, until each took EOS or its max_steps (N,).

    Rows that are done leave the batch. `wanted` is how many allowed candidates `choose` needs to see.
    """
    rows = np.arange(len(max_steps))
    y = np.full(len(rows), BOS, dtype=np.int64)
    prefixes = np.empty((len(rows), 0), dtype=np.int64)
    step = 0
    while len(rows):
        out = candidates(engine, y, state, memory, prefixes, config, wanted)
        here = np.arange(len(rows))
        chosen = choose(out.log_probs, rows, step)
        y = out.ids[here, chosen]
        yield Taken(rows, y, out.log_probs[here, chosen], out.attention)

        step += 1
        state = out.state
        prefixes = np.concatenate([prefixes, y[:, None]], axis=1)
        going = np.flatnonzero((y != EOS) & (step < max_steps[rows]))
        if len(going) < len(rows):
            memory, state = memory.select(going), state.select(going)
            rows, y, prefixes = rows[going], y[going], prefixes[going]


def collect(steps: Iterable[Taken], src_len: np.ndarray, config: SearchConfig) -> list[Hypothesis]:
    """The hypothesis of every row at the end of a walk; src_len (N,) says how much of its attention is source."""
    taken = list(steps)
    width = taken[0].attention.shape[1] if taken else 0
    tokens = np.zeros((len(src_len), len(taken)), dtype=np.int64)
    log_probs = np.zeros(tokens.shape, dtype=np.float32)
    attention = np.zeros((*tokens.shape, width), dtype=np.float32)
    lengths = np.zeros(len(src_len), dtype=np.int64)
    for t, step in enumerate(taken):
        tokens[step.rows, t] = step.tokens
        log_probs[step.rows, t] = step.log_probs
        attention[step.rows, t] = step.attention
        lengths[step.rows] += 1
    return [
        hypothesis(tokens[n, :T], log_probs[n, :T], attention[n, :T, :S].copy(), config.length_penalty)
        for n, (T, S) in enumerate(zip(lengths, src_len, strict=True))
    ]
