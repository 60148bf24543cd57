"""One hypothesis per row, one token at a time: what greedy search, sampling and streams share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import BOS, EOS
from antiphon.search.candidates import candidates
from antiphon.search.hypothesis import Hypothesis, hypothesis
from antiphon.search.step import Engine

Choose = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(log_probs (n, K) with -inf for the forbidden, rows (n,)) to the places (n,) of the chosen in K."""

_NOTHING = -1  # stands before the first token of a row that joined later than others; no token has this id


class Taken(NamedTuple):
    """The tokens of one step, for the n rows that were still going."""

    rows: np.ndarray
    """(n,) the numbers they joined with."""
    tokens: np.ndarray
    """(n,) int64."""
    log_probs: np.ndarray
    """(n,) float32, nats."""
    attention: np.ndarray
    """(n, S) float32."""
    ended: np.ndarray
    """(n,) bool: EOS was taken, or the last token allowed."""


class Walk:
    """Rows that take a token each a step. They may join before any step; whoever ended has left after it.

    What a row is given never depends on who walks beside it.

    Args:
        choose: takes one of the candidates of every row.
        wanted: how many allowed candidates `choose` needs to see.
        slack: share of the engine's rows that may be of those who left: computed in vain, until they are so many
            that copying what the others keep costs less.
    """

    def __init__(
        self, engine: Engine, choose: Choose, config: SearchConfig, wanted: int, *, slack: float = 0.0
    ) -> None:
        self._engine, self._choose, self._config, self._wanted = engine, choose, config, wanted
        self._slack = slack
        self._memory: Any = None
        self._state: Any = None
        # Of each row (n,) of the engine: who it is, whether it is still going, its last token, how many more it may
        # take, and how many it has.
        self._rows = np.empty(0, dtype=np.int64)
        self._going = np.empty(0, dtype=bool)
        self._y = np.empty(0, dtype=np.int64)
        self._left = np.empty(0, dtype=np.int64)
        self._taken = np.empty(0, dtype=np.int64)
        self._prefixes = np.empty((0, 0), dtype=np.int64)  # (n, t), kept only for the rule that reads them

    @property
    def rows(self) -> np.ndarray:
        """The numbers of those still going."""
        return self._rows[self._going]

    def join(self, memory: Any, state: Any, rows: np.ndarray, max_steps: np.ndarray) -> None:
        """Let rows (m,) in, with an engine's memory and first state, for at most max_steps (m,) >= 1 tokens each."""
        self._keep(self._going)
        first = not len(self._rows)
        self._memory = memory if first else self._memory.join(memory)
        self._state = state if first else self._state.join(state)
        nothing = np.full((len(rows), 0 if first else self._prefixes.shape[1]), _NOTHING, dtype=np.int64)
        self._prefixes = nothing if first else np.concatenate([self._prefixes, nothing])
        self._rows = np.concatenate([self._rows, rows])
        self._going = np.concatenate([self._going, np.ones(len(rows), dtype=bool)])
        self._y = np.concatenate([self._y, np.full(len(rows), BOS, dtype=np.int64)])
        self._left = np.concatenate([self._left, max_steps])
        self._taken = np.concatenate([self._taken, np.zeros(len(rows), dtype=np.int64)])

    def step(self) -> Taken:
        """One token for every row, of which there must be one at least."""
        out = candidates(self._engine, self._y, self._state, self._memory, self._prefixes, self._config, self._wanted)
        going = np.flatnonzero(self._going)
        rows = self._rows[going]
        places = self._choose(out.log_probs[going], rows)
        tokens = out.ids[going, places]
        self._state = out.state
        self._y[going] = tokens
        self._left[going] -= 1
        self._taken += 1
        ended = (tokens == EOS) | (self._left[going] <= 0)
        if self._config.no_repeat_ngram:
            self._prefixes = np.concatenate([self._prefixes, self._y[:, None]], axis=1)
        taken = Taken(rows, tokens, out.log_probs[going, places], out.attention[going], ended)
        self._let_go(going[ended])
        return taken

    def leave(self, rows: np.ndarray) -> None:
        """Let those of these rows that are still going go."""
        self._let_go(np.flatnonzero(self._going & np.isin(self._rows, rows)))

    def _let_go(self, places: np.ndarray) -> None:
        if len(places):
            self._going[places] = False
            if self._going.sum() <= (1 - self._slack) * len(self._going):
                self._keep(self._going)

    def _keep(self, going: np.ndarray) -> None:
        """Keep these rows (n,) bool of the engine only."""
        if going.all():
            return
        places = np.flatnonzero(going)
        if len(places):
            self._memory, self._state = self._memory.select(places), self._state.select(places)
        else:
            self._memory = self._state = None
        self._rows, self._y, self._left = self._rows[places], self._y[places], self._left[places]
        self._taken, self._going = self._taken[places], going[places]
        # Where others always join, some row is always going: what was before the oldest of them must not be kept.
        longest = min(int(self._taken.max(initial=0)), self._prefixes.shape[1])
        self._prefixes = self._prefixes[places, self._prefixes.shape[1] - longest :]


def walk(
    engine: Engine, memory: Any, state: Any, choose: Choose, config: SearchConfig, max_steps: np.ndarray, wanted: int
) -> Iterator[Taken]:
    """Choose a token for every row, step by step, until each took EOS or its max_steps (N,)."""
    going = Walk(engine, choose, config, wanted)
    going.join(memory, state, np.arange(len(max_steps)), max_steps)
    while len(going.rows):
        yield going.step()


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
