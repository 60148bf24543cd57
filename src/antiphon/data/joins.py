"""More pairs out of few: two of them, one behind the other, are a pair too."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from antiphon.data.pairs import Pair


def with_joined(pairs: Iterable[Pair], times: int, *, seed: int, part: int) -> list[Pair]:
    """The pairs, and ``times`` as many that are each made of two random ones, with a space between them on both sides.

    What was said of a text must then be said of it behind or before another: a decoder that skips, repeats or counts
    positions is found out (Kondo et al. 2021; Nguyen et al. 2021). What it gives with 800 words is in docs/log.md.

    Args:
        pairs: of one part of the data.
        times: joined pairs for each pair; 0: none.
        seed, part: the same two give the same pairs.
    """
    found = list(pairs)
    rng = np.random.default_rng([seed % 2**64, part, 6])
    first, second = rng.integers(0, max(len(found), 1), (2, times * len(found)))
    joined = ((found[one], found[two]) for one, two in zip(first, second, strict=True))
    return found + [Pair(f"{a.source} {b.source}", f"{a.target} {b.target}") for a, b in joined]
