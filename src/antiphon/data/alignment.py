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
LEARNT_CELLS = 1 << 22
"""Source x target positions, likewise: of longer texts fewer."""
CELLS = 1 << 21
"""Source x target positions worked on at once; a pair of more is not aligned."""
TABLE = 1 << 22
"""Pairs of tokens that are looked up in a table; more are searched for."""
MANY = 256
"""Pairs of one length of source that are worked on by themselves; fewer together with those of like length,"""
LIKE = 1.25
"""at most so many times as long."""
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
        groups = [_Group(x, y) for x, y, _ in _alike(_few(pairs))]
        keys = np.unique(np.concatenate([np.empty(0, np.int64), *(g.seen(target) for g in groups)]))
        found = cls(keys, np.ones((2, len(keys))), np.full((2, source), float(target)), target)
        for _ in range(ROUNDS):
            gave, left = np.zeros((2, len(keys) + 1)), np.zeros_like(found.left)  # what padding gives comes last
            for group in groups:
                group.count(found, gave, left)
            found = cls(keys, gave[:, :-1], left, target)
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
                found[place] = row[: len(pairs[place][0])]
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
        """Of giving, (2, n, S, T), and of making way, (2, n, S); keys are (n, S, T), x is (n, S)."""
        total = self._total
        leaving = (self.left + SMOOTH * self.target) / total
        # One more column, for what was never seen together.
        counts = np.concatenate((self.gave, np.zeros((2, 1))), axis=1)[:, self.places(keys)]
        return (counts + SMOOTH) / total[:, x][..., None], leaving[:, x]

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Where these keys are among all; n where they are not."""
        if self._table is not None:
            return self._table[keys]
        places = np.searchsorted(self.keys, keys)
        found = np.append(self.keys, -1)[places] == keys
        return np.where(found, places, len(self.keys))

    @functools.cached_property
    def _table(self) -> np.ndarray | None:
        """The place of every key there can be, if that are not too many."""
        if self.source * self.target > TABLE:
            return None
        table = np.full(self.source * self.target, len(self.keys))
        table[self.keys] = np.arange(len(self.keys))
        return table

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
    """n pairs: x, padded to (n, S), and y, padded to (n, T). Padding of a source gives nothing and makes way."""

    def __init__(self, x: list[Row], y: list[Row]) -> None:
        self.x, self.read = _padded(x)
        self.y, self.real = _padded(y)
        self.lengths = self.real.sum(axis=1)
        self._rows = np.arange(len(y))

    def keys(self, target: int) -> np.ndarray:
        """(n, S, T)."""
        return self.x[:, :, None] * target + self.y[:, None, :]

    def seen(self, target: int) -> np.ndarray:
        """The keys that occur, each once."""
        return np.unique(self.keys(target)[self.read[:, :, None] & self.real[:, None, :]])

    def nats(self, alignment: Alignment) -> np.ndarray:
        """(n,)"""
        *_, scales, end = self._forward(*self._probabilities(alignment, self.keys(alignment.target)))
        return -(np.log(scales).sum(axis=0) + np.log(np.maximum(end, 1e-300)))

    def count(self, alignment: Alignment, gave: np.ndarray, left: np.ndarray) -> None:
        """Adds the expected counts of all ways to align these pairs; gave is (2, number of keys + 1)."""
        keys = self.keys(alignment.target)
        give, leave = self._probabilities(alignment, keys)
        places = alignment.places(keys)
        none, some, scales, end = self._forward(give, leave)
        (n, S), T = self.x.shape, self.y.shape[1]
        # what is still to come, of the position after: it ends well if all of the target has been given
        after = (np.arange(T + 1) == self.lengths[:, None]) / np.maximum(end, 1e-300)[:, None]
        for i in reversed(range(S)):
            first, further = (give[k, :, i] * self.real for k in (0, 1))
            gone = leave[:, :, i, None] * (after / scales[i][:, None])
            going = gone[1].copy()
            chain(going[:, ::-1], np.concatenate((np.zeros((n, 1)), further[:, ::-1]), axis=1))
            np.add.at(left[0], self.x[:, i], (none[i] * gone[0]).sum(axis=1) * self.read[:, i])
            np.add.at(left[1], self.x[:, i], (some[i] * gone[1]).sum(axis=1) * self.read[:, i])
            np.add.at(gave[0], places[:, i], none[i][:, :T] * first * going[:, 1:])
            np.add.at(gave[1], places[:, i], some[i][:, :T] * further * going[:, 1:])
            after = gone[0]
            after[:, :T] += first * going[:, 1:]

    def likeliest(self, alignment: Alignment) -> np.ndarray:
        """(n, S): how many each gives."""
        with np.errstate(divide="ignore"):  # what padding gives
            give, leave = (np.log(part) for part in self._probabilities(alignment, self.keys(alignment.target)))
        (n, S), T = self.x.shape, self.y.shape[1]
        best = np.full((n, T + 1), -np.inf)
        best[:, 0] = 0
        begun = np.zeros((S, n, T + 1), np.int64)  # where in the target each began that has given all before j
        for i in range(S):
            some, start = np.full((n, T + 1), -np.inf), np.tile(np.maximum(np.arange(T + 1) - 1, 0), (n, 1))
            some[:, 1:] = best[:, :T] + give[0, :, i]
            longest(some[:, 1:], give[1, :, i].copy(), start[:, 1:])
            nothing, something = best + leave[0, :, i, None], some + leave[1, :, i, None]
            begun[i] = np.where(something > nothing, start, np.arange(T + 1))
            best = np.maximum(nothing, something)
        counts = np.zeros((n, S), np.int64)
        place = self.lengths.copy()
        for i in reversed(range(S)):
            earlier = begun[i][self._rows, place]
            counts[:, i], place = place - earlier, earlier
        return counts

    def _probabilities(self, alignment: Alignment, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        give, leave = alignment.probabilities(keys, self.x)
        return np.where(self.read[:, :, None], give, 0.0), np.where(self.read, leave, 1.0)

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
            given[:, 1:] = entering[:, :T] * give[0, :, i]
            chain(given[:, 1:], give[1, :, i].copy())
            none.append(entering)
            some.append(given)
            entering = entering * leave[0, :, i, None] + given * leave[1, :, i, None]
            scales[i] = np.maximum(entering.max(axis=1), 1e-300)
            entering = entering / scales[i][:, None]
        return none, some, scales, entering[self._rows, self.lengths]


def chain(values: np.ndarray, factors: np.ndarray) -> None:
    """values[:, j] += factors[:, j] * values[:, j - 1], from left to right, in place; (n, T) both, factors are lost.

    A step doubles what each column knows of those before it, so that there are log2(T) steps instead of T (a prefix
    sum of affine maps, Blelloch 1990). Nothing is subtracted: the result is as exact as one column after the other.
    """
    step = 1
    while step < values.shape[1]:
        values[:, step:] += factors[:, step:] * values[:, :-step]
        factors[:, step:] *= factors[:, :-step].copy()
        step *= 2


def longest(values: np.ndarray, nats: np.ndarray, start: np.ndarray) -> None:
    """values[:, j] = max(values[:, j], nats[:, j] + values[:, j - 1]), as `chain`, with the start of the way that is
    taken; of two equally good the one that starts later."""
    step = 1
    while step < values.shape[1]:
        onward = nats[:, step:] + values[:, :-step]
        better = onward > values[:, step:]
        values[:, step:] = np.where(better, onward, values[:, step:])
        start[:, step:] = np.where(better, start[:, :-step], start[:, step:])
        nats[:, step:] += nats[:, :-step].copy()
        step *= 2


def _padded(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids padded to (n, length), and which of them are real."""
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.zeros((len(rows), int(lengths.max(initial=0))), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return ids, np.arange(ids.shape[1]) < lengths[:, None]


def _few(pairs: Sequence[tuple[Row, Row]]) -> Sequence[tuple[Row, Row]]:
    """Pairs of at most `LEARNT_CELLS`, drawn: every second one might be the plural of the one before."""
    cells = np.array([len(x) * (len(y) + 1) for x, y in pairs], np.int64)
    cells[cells > CELLS] = 0  # not aligned
    if cells.sum() <= LEARNT_CELLS:
        return pairs
    drawn = np.random.default_rng(1).permutation(len(pairs))
    few = drawn[cells[drawn].cumsum() <= LEARNT_CELLS]
    return [pairs[place] for place in np.sort(few)]


def _alike(pairs: Sequence[tuple[Row, Row]]) -> Iterator[tuple[list[Row], list[Row], list[int]]]:
    """Sources of like length together, targets of like length beside each other: sources, targets, their places.

    Pairs with an empty source, and giant ones, are left out.
    """
    lengths = [(len(source), len(target)) for source, target in pairs]
    order = [place for place, (source, target) in enumerate(lengths) if 0 < source * (target + 1) <= CELLS]
    order.sort(key=lambda place: lengths[place][0])
    start = 0
    while start < len(order):
        shortest = lengths[order[start]][0]
        end = start + 1
        # Many of one length need no company; few have it, since a group takes its time however few they are.
        while end < len(order) and (
            (length := lengths[order[end]][0]) == lengths[order[end - 1]][0]
            or (end - start < MANY and length <= LIKE * shortest)
        ):
            end += 1
        near = sorted(order[start:end], key=lambda place: lengths[place][1])
        start = end
        while near:
            count, most = 1, max(lengths[place][0] for place in near)
            while count < len(near) and (count + 1) * most * (lengths[near[count]][1] + 1) <= CELLS:
                count += 1
            some, near = near[:count], near[count:]
            yield [pairs[place][0] for place in some], [pairs[place][1] for place in some], some
