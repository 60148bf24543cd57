"""Bundles of features (`V;PST;3;SG`) in a text, and where they stand: before the words they are asked of, behind them,
or both.

Who writes one letter after the other, and looks at one after the other, finds the features of an ending behind the word
and those of a prefix before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from antiphon.config import Features

BUNDLE = re.compile(r"(?<!\S)[^\s;]+(?:;[^\s;]+)+(?!\S)")
"""Features joined by semicolons, as UniMorph and SIGMORPHON write them."""


_ALONE = re.compile(r"[A-Z]+(?:\.[A-Z0-9]+)+")
"""One feature without others: ``V.MSDR``, a verbal noun."""


def words(parts: Sequence[str]) -> list[bool]:
    """Of each part of a text whether it is one of the words that features are asked of.

    A feature alone counts as one only beside words, and a text of features only is all words.
    """
    outside = [not BUNDLE.fullmatch(part) for part in parts]
    fewer = [out and not _ALONE.fullmatch(part) for part, out in zip(parts, outside, strict=True)]
    return next((marks for marks in (fewer, outside) if any(marks)), [True] * len(parts))


def without(text: str) -> str:
    """The text without its features: the words that they are asked of."""
    if ";" not in text and "." not in text:
        return text
    parts = text.split()
    return " ".join(itertools.compress(parts, words(parts)))


def arranged(text: str, features: Features) -> str:
    """The text with its features before or behind its words, or around them; as it is, if it has none.

    Where there are several words with features, a text that begins with features has them all before their words. One
    that has the same features on both sides has them once.

    Args:
        text: normalised, as tokenizers do: a space between words.
        features: where to put them.
    """
    if features == "as_is" or not BUNDLE.search(text):
        return text
    runs = [list(run) for _, run in itertools.groupby(text.split(" "), lambda part: bool(BUNDLE.fullmatch(part)))]
    before = BUNDLE.match(text) is not None
    if before and len(runs) == 3 and runs[0] == runs[2]:
        del runs[2]
    pairs = itertools.zip_longest(runs[::2], runs[1::2], fillvalue=[])
    found = (_placed(one, other, features) if before else _placed(other, one, features) for one, other in pairs)
    return " ".join(itertools.chain.from_iterable(found))


def _placed(bundles: list[str], words: list[str], features: Features) -> list[str]:
    if features == "around" and words:
        return [*bundles, *words, *bundles]
    return [*words, *bundles] if features == "behind" else [*bundles, *words]
