"""Answers that are decoded together, a token each a step, though they began at different times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import EOS
from antiphon.search import Lottery, Walk, likeliest

if TYPE_CHECKING:
    from antiphon.model import Model

READ = 32
"""Texts read together: enough to use the machine, few enough to be of like length."""

SLACK = 0.2
"""Share of rows that may be computed in vain before those still going are copied together."""


class Entry(NamedTuple):
    """A text to be answered."""

    number: int
    """By which its tokens are told from others'; nobody going has it."""
    text: str
    seed: int | None = None
    """Of its draws; None: none that could be told."""
    max_length: int | None = None
    """Most tokens of the answer, EOS counted; None: what the model allows."""


class Token(NamedTuple):
    """What a step gave one answer."""

    number: int
    id: int | None
    """None: the answer ended by itself."""
    ended: bool
    """Whether it was the last: by itself, or since no more tokens are allowed."""


class Read(NamedTuple):
    """Texts that were read, and may be answered."""

    entries: list[Entry]
    lengths: list[int]
    """Tokens of each source, the end mark counted."""
    limits: np.ndarray
    """(N,) most tokens of each answer."""
    memory: Any
    state: Any


def read(model: Model, entries: Sequence[Entry]) -> list[Read]:
    """Read texts, those of like length together; may be done in another thread than the answering.

    Raises:
        UsageError: a text is none.
    """
    src, src_len = model.read([entry.text for entry in entries])
    each = zip(src_len, entries, strict=True)
    limits = np.concatenate([model.limits(np.array([length]), entry.max_length) for length, entry in each])
    order = np.argsort(src_len, kind="stable")
    found = []
    for start in range(0, len(order), READ):
        rows = order[start : start + READ]
        lengths = src_len[rows]
        memory, state = model.engine.encode(src[rows, : lengths.max()], lengths)
        found.append(Read([entries[row] for row in rows], lengths.tolist(), limits[rows], memory, state))
    return found


class Streams:
    """Answers to texts that come and go between any two steps: greedy, or drawn at random.

    An answer is what `Model.stream` gives for the same text, settings and seed, whoever is decoded beside it.
    Not thread-safe.

    Args:
        model: who answers.
        settings: of the search, as `Model.settings` gives them; ``seed`` and ``max_length`` are each text's own.
    """

    def __init__(self, model: Model, settings: SearchConfig) -> None:
        self._lottery = Lottery(settings) if settings.sample else None
        wanted = settings.top_k if settings.sample else 1
        self._walk = Walk(model.engine, self._lottery or likeliest, settings, wanted, slack=SLACK)

    def __len__(self) -> int:
        """How many answers are being decoded."""
        return len(self._walk.rows)

    def join(self, texts: Read) -> None:
        """Let texts in that were read; their answers begin with the next step."""
        if self._lottery is not None:
            for entry in texts.entries:
                self._lottery.enter(entry.number, (0, 0) if entry.seed is not None else (entry.number, 0), entry.seed)
        numbers = np.array([entry.number for entry in texts.entries], dtype=np.int64)
        self._walk.join(texts.memory, texts.state, numbers, texts.limits)

    def step(self) -> list[Token]:
        """A token of every answer; those that ended have left."""
        taken = self._walk.step()
        rows = zip(taken.rows.tolist(), taken.tokens.tolist(), taken.ended.tolist(), strict=True)
        tokens = [Token(row, None if token == EOS else token, ended) for row, token, ended in rows]
        self._forget([token.number for token in tokens if token.ended])
        return tokens

    def leave(self, numbers: Sequence[int]) -> None:
        """Give up these answers; those not being decoded are passed over."""
        going = set(self._walk.rows.tolist()).intersection(numbers)
        self._walk.leave(np.array(sorted(going), dtype=np.int64))
        self._forget(going)

    def _forget(self, numbers: Sequence[int] | set[int]) -> None:
        if self._lottery is not None:
            for number in numbers:
                self._lottery.leave(number)
