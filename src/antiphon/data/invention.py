"""Sources that could have been: made up from the sources there are, so that models can say what they would answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from antiphon.data.tokenizer import EOS

ORDER = 5
"""Tokens that the next one is chosen by, at most."""
LEAST = 5
"""Places where those tokens occur, at least; fewer tokens are looked at otherwise."""
ROUNDS = 20
"""So many times as many sources as wanted are drawn, at most, before there are no more to be found."""


def invent(rows: Sequence[Sequence[int]], count: int, *, vocabulary: int, seed: int) -> list[tuple[int, ...]]:
    """Rows of ids that are like the given ones and none of them, each once.

    Token after token is drawn from what follows, anywhere in the given rows, the longest context that occurs often
    enough: an n-gram model that backs off.

    Args:
        rows: what is to be imitated, without BOS and EOS; the empty ones are passed over.
        count: how many are wanted. Where so many cannot be found there are fewer.
        vocabulary: V.
        seed: decides everything.
    """
    known = {tuple(row) for row in rows if len(row)}
    found: dict[tuple[int, ...], None] = {}
    if not known:
        return []
    model = _Model(sorted(known), vocabulary)
    rng = np.random.default_rng([seed % 2**64, 7])
    for _ in range(ROUNDS):
        drawn = model.draw(max(count, 256), rng)
        found |= dict.fromkeys(row for row in drawn if row not in known)
        if len(found) >= count:
            break
    return list(found)[:count]


class _Model:
    """Every place of the rows, sorted by what stands before it, the nearest token first: contexts that end alike are
    neighbours, however long."""

    def __init__(self, rows: Sequence[tuple[int, ...]], vocabulary: int) -> None:
        self._start, base = vocabulary, vocabulary + 1
        self._order = max(1, min(ORDER, int(63 / math.log2(base))))
        self._powers = np.array([base**power for power in range(self._order, -1, -1)], np.uint64)
        self._longest = max(map(len, rows))
        before = [self._start] * self._order
        line = np.array([token for row in rows for token in (*before, *row, EOS)], np.uint64)
        places = np.flatnonzero(line != self._start)
        keys = np.zeros(len(places), np.uint64)
        for back in range(1, self._order + 1):
            keys += line[places - back] * self._powers[back]
        order = np.argsort(keys, kind="stable")
        self._keys, self._next = keys[order], line[places][order]

    def draw(self, count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """So many rows; those that would be longer than any known one are left out."""
        contexts = np.full((count, self._order), self._start, np.uint64)  # the nearest first
        tokens = np.full((count, self._longest + 1), EOS, np.int64)
        going = np.arange(count)
        for step in range(self._longest + 1):
            first, last = self._range(contexts[going])
            chosen = self._next[first + (rng.random(len(going)) * (last - first)).astype(np.int64)]
            tokens[going, step] = chosen
            contexts[going] = np.column_stack((chosen, contexts[going, :-1]))
            going = going[chosen != EOS]
            if not len(going):
                break
        lengths = (tokens == EOS).argmax(axis=1)
        ended = np.isin(np.arange(count), going, invert=True)
        return [tuple(row[:n].tolist()) for row, n in zip(tokens[ended], lengths[ended], strict=True) if n]

    def _range(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 of the places whose context agrees as far as it does often enough."""
        keys = (contexts * self._powers[1:]).sum(axis=1, dtype=np.uint64)
        first, last = np.zeros(len(keys), np.int64), np.full(len(keys), len(self._keys))
        for width in self._powers[1:]:  # one token of context, two, …
            low = keys // width * width
            start, end = (
                np.searchsorted(self._keys, low),
                np.searchsorted(self._keys, low + (width - np.uint64(1)), "right"),
            )
            often = end - start >= LEAST
            first, last = np.where(often, start, first), np.where(often, end, last)
        return first, last
