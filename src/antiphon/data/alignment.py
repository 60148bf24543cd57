"""Which tokens of a target belong to which token of its source, where both run in one direction.

A small model: reading the source from left to right, each token x gives out target tokens one by one, then makes way
for the next.

    P(y | x, none yet)   P(next | x, none yet)        the first
    P(y | x, some yet)   P(next | x, some yet)        each further one

Its probabilities are learnt by expectation-maximisation over all ways to align the pairs (forward and backward, as in a
hidden Markov model; Ristad & Yianilos 1998 align strings so), and the likeliest way is read off (Viterbi).
Decoders with monotonic attention learn from targets written with a mark wherever the next source token's turn comes
(Aharoni & Goldberg 2017).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 10
"""Of expectation-maximisation."""
SMOOTH = 0.02
"""Added to every count."""
LEARNT_FROM = 10_000
"""Pairs; more teach nothing new."""
CELLS = 1 << 21
"""Source x target positions worked on at once; a pair of more is not aligned."""
MOST = 1e12
"""Expected count beyond which none is believed."""
LEAST = 1e-3
"""Expected count below which a pair of tokens is not remembered."""
Row = Sequence[int]


@dataclass(frozen=True, eq=False)
class Alignment:
    """What was learnt, as expected counts: of n token pairs, and of every source token.

    Args:
        keys: (n,) int64, rising: source token x times ``target`` plus target token y.
        gave: (2, n): how often x gave y, as its first and later.
        left: (2, X): how often x made way, having given nothing and something.
        target: tokens of the target vocabulary (Y).
    """

    keys: np.ndarray
    gave: np.ndarray
    left: np.ndarray
    target: int

    @property
    def source(self) -> int:
        """Tokens of the source vocabulary (X)."""
        return self.left.shape[1]

    @classmethod
    def learn(cls, pairs: Sequence[tuple[Row, Row]], *, source: int, target: int) -> Alignment:
        """From pairs of ids; the same pairs give the same alignment.

        Args:
            pairs: without BOS and EOS.
            source, target: sizes of the vocabularies (X, Y).
        """
        groups = [_Group(x, y) for x, y, _ in _alike(pairs)]
        keys = np.unique(np.concatenate([np.empty(0, np.int64), *(np.unique(g.keys(target)) for g in groups)]))
        found = cls(keys, np.ones((2, len(keys))), np.full((2, source), float(target)), target)
        for _ in range(ROUNDS):
            gave, left = np.zeros_like(found.gave), np.zeros_like(found.left)
            for group in groups:
                group.count(found, gave, left)
            found = cls(keys, gave, left, target)
        return cls.from_tree(found.tree(), source=source, target=target)  # what is saved is what is used

    def nats(self, pairs: Sequence[tuple[Row, Row]]) -> np.ndarray:
        """-log P(target | source) of each pair, (n,), over all ways to align it."""
        found = np.zeros(len(pairs))
        for x, y, places in _alike(pairs):
            found[places] = _Group(x, y).nats(self)
        return found

    def given(self, pairs: Sequence[tuple[Row, Row]]) -> list[list[int]]:
        """How many target tokens each source token gives, the likeliest way; in a giant pair, as many each."""
        found: list[list[int]] = [[] for _ in pairs]
        for x, y, places in _alike(pairs):
            for place, row in zip(places, _Group(x, y).likeliest(self).tolist(), strict=True):
                found[place] = row
        for place, (source, target) in enumerate(pairs):
            if len(source) > len(found[place]):
                found[place] = np.diff(np.linspace(0, len(target), len(source) + 1).astype(int)).tolist()
        return found

    def marked(self, pairs: Sequence[tuple[Row, Row]], mark: int) -> list[list[int]]:
        """The targets, with a mark wherever a source token makes way for the next."""
        found = []
        for (_, target), counts in zip(pairs, self.given(pairs), strict=True):
            row: list[int] = []
            start = 0
            for count in counts:
                row += target[start : start + count]
                row.append(mark)
                start += count
            found.append([*row, *target[start:]])
        return found

    def probabilities(self, keys: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of giving, (2, *keys.shape), and of making way, (2, *x.shape)."""
        total = self._total
        if len(self.keys):
            places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            counts = np.where(self.keys[places] == keys, self.gave[:, places], 0.0)
        else:
            counts = np.zeros((2, *keys.shape))
        leaving = (self.left + SMOOTH * self.target) / total
        return (counts + SMOOTH) / total[:, keys // self.target], leaving[:, x]

    @functools.cached_property
    def _total(self) -> np.ndarray:
        """(2, X): how often each source token did anything, smoothed; asked for by every group of pairs."""
        total = np.zeros_like(self.left)
        for some in (0, 1):
            np.add.at(total[some], self.keys // self.target, self.gave[some])
        return total + (self.left + 2 * SMOOTH * self.target)

    def tree(self) -> dict[str, Any]:
        """JSON-ready."""
        kept = self.gave.max(axis=0) >= LEAST if len(self.keys) else np.zeros(0, bool)
        x, y = np.divmod(self.keys[kept], self.target)
        gave, left = (np.round(part, 3) for part in (self.gave[:, kept], self.left))
        return {
            "gave": [list(row) for row in zip(x.tolist(), y.tolist(), *gave.tolist(), strict=True)],
            "left": left.tolist(),
        }

    @classmethod
    def from_tree(cls, tree: Any, *, source: int, target: int) -> Alignment:
        """What `tree` gave.

        Raises:
            ValueError: it is none, or of other vocabularies.
        """
        if not isinstance(tree, dict) or set(tree) != {"gave", "left"}:
            raise ValueError("not an alignment")
        try:
            gave = np.array(tree["gave"], np.float64).reshape(-1, 4)
            left = np.array(tree["left"], np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("an alignment of other things than numbers") from None
        x, y = gave[:, 0], gave[:, 1]
        if left.shape != (2, source) or not (x >= 0).all() or not (x < source).all():
            raise ValueError("an alignment of another vocabulary")
        if not (y >= 0).all() or not (y < target).all() or (x % 1).any() or (y % 1).any():
            raise ValueError("an alignment of another vocabulary")
        counts = np.concatenate((gave[:, 2:].ravel(), left.ravel()))
        if not np.isfinite(counts).all() or (counts < 0).any() or (counts > MOST).any():
            raise ValueError("an alignment with counts that cannot be")
        keys = x.astype(np.int64) * target + y.astype(np.int64)
        if (np.diff(keys) <= 0).any():
            raise ValueError("an alignment with pairs twice, or in another order")
        return cls(keys, np.ascontiguousarray(gave[:, 2:].T), left, target)


class _Group:
    """n pairs with sources of one length: x (n, S), and y, padded to (n, T)."""

    def __init__(self, x: np.ndarray, y: list[Row]) -> None:
        self.x = x
        self.lengths = np.array([len(row) for row in y], np.int64)
        self.y = np.zeros((len(y), int(self.lengths.max(initial=0))), np.int64)
        for n, row in enumerate(y):
            self.y[n, : len(row)] = row
        self.real = np.arange(self.y.shape[1]) < self.lengths[:, None]
        self._rows = np.arange(len(y))

    def keys(self, target: int) -> np.ndarray:
        """(n, S, T)."""
        return self.x[:, :, None] * target + self.y[:, None, :]

    def nats(self, alignment: Alignment) -> np.ndarray:
        """(n,)"""
        *_, scales, end = self._forward(*alignment.probabilities(self.keys(alignment.target), self.x))
        return -(np.log(scales).sum(axis=0) + np.log(np.maximum(end, 1e-300)))

    def count(self, alignment: Alignment, gave: np.ndarray, left: np.ndarray) -> None:
        """Adds the expected counts of all ways to align these pairs."""
        keys = self.keys(alignment.target)
        give, leave = alignment.probabilities(keys, self.x)
        places = np.searchsorted(alignment.keys, keys)
        none, some, scales, end = self._forward(give, leave)
        (n, S), T = self.x.shape, self.y.shape[1]
        # what is still to come, of the position after: it ends well if all of the target has been given
        after = (np.arange(T + 1) == self.lengths[:, None]) / np.maximum(end, 1e-300)[:, None]
        for i in reversed(range(S)):
            first, further = (give[k, :, i] * self.real for k in (0, 1))
            going = np.zeros((n, T + 1))
            gone = leave[:, :, i, None] * (after / scales[i][:, None])
            going[:, T] = gone[1, :, T]
            for j in reversed(range(T)):
                going[:, j] = gone[1, :, j] + further[:, j] * going[:, j + 1]
            np.add.at(left[0], self.x[:, i], (none[i] * gone[0]).sum(axis=1))
            np.add.at(left[1], self.x[:, i], (some[i] * gone[1]).sum(axis=1))
            np.add.at(gave[0], places[:, i], none[i][:, :T] * first * going[:, 1:])
            np.add.at(gave[1], places[:, i], some[i][:, :T] * further * going[:, 1:])
            after = gone[0]
            after[:, :T] += first * going[:, 1:]

    def likeliest(self, alignment: Alignment) -> np.ndarray:
        """(n, S): how many each gives."""
        give, leave = (np.log(part) for part in alignment.probabilities(self.keys(alignment.target), self.x))
        (n, S), T = self.x.shape, self.y.shape[1]
        best = np.full((n, T + 1), -np.inf)
        best[:, 0] = 0
        begun = np.zeros((S, n, T + 1), np.int64)  # where in the target each began that has given all before j
        for i in range(S):
            some, start = np.full((n, T + 1), -np.inf), np.zeros((n, T + 1), np.int64)
            for j in range(1, T + 1):
                first = best[:, j - 1] + give[0, :, i, j - 1]
                further = some[:, j - 1] + give[1, :, i, j - 1]
                goes_on = further > first
                some[:, j] = np.where(goes_on, further, first)
                start[:, j] = np.where(goes_on, start[:, j - 1], j - 1)
            nothing, something = best + leave[0, :, i, None], some + leave[1, :, i, None]
            begun[i] = np.where(something > nothing, start, np.arange(T + 1))
            best = np.maximum(nothing, something)
        counts = np.zeros((n, S), np.int64)
        place = self.lengths.copy()
        for i in reversed(range(S)):
            earlier = begun[i][self._rows, place]
            counts[:, i], place = place - earlier, earlier
        return counts

    def _forward(
        self, give: np.ndarray, leave: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
        """Probabilities (n, T + 1) of having come to each place of the target at each source position, with nothing
        and with something given there; by how much each position's were scaled (S, n); what is left at the end (n,)."""
        (n, S), T = self.x.shape, self.y.shape[1]
        entering = np.zeros((n, T + 1))
        entering[:, 0] = 1
        none, some, scales = [], [], np.ones((S, n))
        for i in range(S):
            given = np.zeros((n, T + 1))
            for j in range(T):
                given[:, j + 1] = entering[:, j] * give[0, :, i, j] + given[:, j] * give[1, :, i, j]
            none.append(entering)
            some.append(given)
            entering = entering * leave[0, :, i, None] + given * leave[1, :, i, None]
            scales[i] = np.maximum(entering.max(axis=1), 1e-300)
            entering = entering / scales[i][:, None]
        return none, some, scales, entering[self._rows, self.lengths]


def _alike(pairs: Sequence[tuple[Row, Row]]) -> Iterator[tuple[np.ndarray, list[Row], list[int]]]:
    """Sources of one length together, targets of like length beside each other: x (n, S), the targets, the places.

    Pairs with an empty source, and giant ones, are left out.
    """
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for place, (source, target) in enumerate(pairs):
        if 0 < len(source) * (len(target) + 1) <= CELLS:
            by_length[len(source)].append(place)
    for length, places in sorted(by_length.items()):
        places.sort(key=lambda place: len(pairs[place][1]))
        start = 0
        while start < len(places):
            end = start + 1
            while end < len(places) and (end - start) * length * (len(pairs[places[end]][1]) + 1) < CELLS:
                end += 1
            some = places[start:end]
            yield np.array([pairs[place][0] for place in some], np.int64), [pairs[place][1] for place in some], some
            start = end
