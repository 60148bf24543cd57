"""Letters that training has not seen, carried over from a source into its answer.

A model of characters has no token for them: it can write `Hexenjagd` only if some word of training had a j. So the
first letter of a source that is not known is read as the first of four *placeholders*, the next as the second; where
the answer has a placeholder, the letter is put back. What placeholders are, a model learns from pairs in which known
letters are hidden behind them (`augmented`). Luong et al. 2015, "Addressing the rare word problem", number the
unknown words of both sides in this way.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Self

from antiphon.data.features import without, words
from antiphon.data.pairs import Pair
from antiphon.data.tokenizer import UNK, Tokenizer

SIGNS = "\ufdd0\ufdd1\ufdd2\ufdd3"
"""Noncharacters: Unicode keeps them for use inside a program, so that no text has them."""


class Placeholders(NamedTuple):
    """What stands for what in one source and its target."""

    signs: str = ""
    """Those that a model knows."""
    letters: str = ""
    """As many at most: of the source, in its order, unknown."""

    @classmethod
    def of(cls, source: str, tokenizers: tuple[Tokenizer, Tokenizer]) -> Self:
        """Those of a source; without letters where all are known, and without signs where none was learnt."""
        signs = known_signs(tokenizers)
        if not signs:
            return cls()
        spelt = without(source) if tokenizers[0].kind == "tagged" else source  # features are not carried over
        return cls(signs, "".join(tokenizers[0].unknown(spelt)[: len(signs)]))

    def hide(self, text: str, tokenizer: Tokenizer) -> str:
        """A source or its target, as its tokenizer is to see it."""
        if not self.letters:
            return text
        table = str.maketrans(dict(zip(self.letters, self.signs, strict=False)))
        parts = tokenizer.normalise(text).split(" ")
        spelt = words(parts) if tokenizer.kind == "tagged" else [True] * len(parts)
        return " ".join(part.translate(table) if own else part for part, own in zip(parts, spelt, strict=True))

    def show(self, text: str) -> str:
        """An answer, as a user is to see it; what stands for nothing is left out."""
        if not self.signs:
            return text
        names = dict.fromkeys(self.signs, "") | dict(zip(self.signs, self.letters, strict=False))
        shown = text.translate(str.maketrans(names))
        return shown if shown == text else unicodedata.normalize("NFC", shown)


def known_signs(tokenizers: tuple[Tokenizer, Tokenizer]) -> str:
    """The placeholders that both vocabularies have."""
    return "".join(sign for sign in SIGNS if all(one.token_id(sign) != UNK for one in tokenizers))


def hidden(pairs: Sequence[Pair], tokenizers: tuple[Tokenizer, Tokenizer]) -> Sequence[Pair]:
    """The pairs as a model is to see them."""
    if not known_signs(tokenizers):
        return pairs
    own = ((pair, Placeholders.of(pair.source, tokenizers)) for pair in pairs)
    source, target = tokenizers
    return [Pair(stand.hide(pair.source, source), stand.hide(pair.target, target)) for pair, stand in own]
