"""Bundles of features (`V;PST;3;SG`) in a text, and where they stand: before the words they are asked of, or behind.

Who writes one letter after the other, and looks at one after the other, finds the features of an ending behind the word
and those of a prefix before it.
"""

from __future__ import annotations

import itertools
import re

from antiphon.config import Features

BUNDLE = re.compile(r"(?<!\S)[^\s;]+(?:;[^\s;]+)+(?!\S)")
"""Features joined by semicolons, as UniMorph and SIGMORPHON write them."""


def arranged(text: str, features: Features) -> str:
    """The text with its features before or behind its words; as it is, if it has none.

    Where there are several words with features, a text that begins with features has them all before their words.

    Args:
        text: normalised, as tokenizers do: a space between words.
        features: where to put them.
    """
    if features == "as_is" or not BUNDLE.search(text):
        return text
    runs = [list(run) for _, run in itertools.groupby(text.split(" "), lambda part: bool(BUNDLE.fullmatch(part)))]
    before = BUNDLE.match(text) is not None
    pairs = itertools.zip_longest(runs[::2], runs[1::2], fillvalue=[])
    turn = before != (features == "before")
    return " ".join(part for one, other in pairs for part in ([*other, *one] if turn else [*one, *other]))
