"""How a text is cut into tokens by rule, and how tokens become a text that a person would write.

What is learnt beside the rules is `antiphon.data.vocabulary`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence

from antiphon.config import TokenizerKind
from antiphon.data.features import BUNDLE
from antiphon.data.pairs import TURN

SPACE = "▁"
"""Stands for the space before a word, inside subwords."""
_KEPT = 64  # letters between two spaces up to which their words are remembered
SURROGATE = re.compile("[\ud800-\udfff]")
_SYLLABLE = re.compile("[\uac00-\ud7a3]")
_DIGIT = re.compile(r"\d")
_PLAIN_QUOTES = str.maketrans("’‘ʼ“”„", "'''\"\"\"")

# What is not white space, punctuation or a symbol. Python's \w would do, but for the vowel signs of Indic scripts.
_W = (
    r"[^\s!-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7"
    r"\u060c\u061b\u061f\u0964\u0965\u2010-\u205e\u2190-\u2bff\u3001-\u3003\u3008-\u3011\u3014-\u301f"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\U0001f000-\U0001faff]"
)
_SUBWORD_UNIT = re.compile(
    rf"{SPACE}?(?:{_W}{{1,64}}(?:['’]{_W}{{1,64}}){{0,3}}"  # don't, l'homme: merges decide
    r"|&[a-z]{2,6};"  # entities of text tokenised elsewhere
    r"|\.{2,8}|-{2,8}|!{2,8}|\?{2,8}|[^▁])"
    rf"|{SPACE}"
)
_WORD_UNIT = re.compile(
    r"@-@"
    rf"|(?:(?<!{_W})[^\W\d_]\.){{2,}}"  # u.s.
    r"|[\d#]+(?:[.,:][\d#]+)+"  # 3.5 10:30
    rf"|{_W}+in'(?!{_W})"  # goin'
    rf"|(?<!{_W})n't(?!{_W})"  # do n't
    rf"|(?:#|{_W})+"
    rf"|(?<={_W})'{_W}+"  # 't after don, 's, 'm
    rf"|'(?:s|m|re|ve|ll|d)(?!{_W})"  # the same, set apart by a tokenizer before us
    r"|\.{2,}|-{2,}|\S"
)
_HYPHEN = re.compile(rf"(?<={_W})-(?={_W})")  # becomes @-@, as in Moses, to tell it from a dash
_NO_SPACE_BEFORE = frozenset((*".,!?;:)]}%…»、。，！？；：", "...", "n't"))
_NO_SPACE_AFTER = frozenset("([{$£€¿¡«")
_NO_SPACE_AROUND = frozenset(("@-@", "/"))
_CLITICS = frozenset(("s", "t", "m", "d", "re", "ve", "ll"))


def parts(text: str, kind: TokenizerKind, lower: bool, digits: bool) -> list[str]:
    """The normalised text, cut at TURN."""
    return [" ".join(part.split()) for part in _clean(text, kind, lower, digits).split(TURN)]


def chunks(text: str, kind: TokenizerKind, lower: bool, digits: bool) -> list[str]:
    """The normalised text, cut at spaces; TURN is a chunk by itself."""
    text = _clean(text, kind, lower, digits)
    return text.replace(TURN, f" {TURN} ").split() if TURN in text else text.split()


def _clean(text: str, kind: TokenizerKind, lower: bool, digits: bool) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", SURROGATE.sub("\ufffd", text))
        if lower:
            text = unicodedata.normalize("NFC", text.lower())
        if kind in ("bpe", "unigram"):
            text = text.replace(SPACE, "_")
        elif kind == "word":
            text = text.translate(_PLAIN_QUOTES)
    elif lower:
        text = text.lower()
    if digits:
        text = _DIGIT.sub("#", text)
    return text


def with_turns(parts: Sequence[str]) -> str:
    """The parts of a text as one, TURN between them."""
    return " ".join(f" {TURN} ".join(parts).split())


def _cut_words(text: str) -> list[str]:
    """The lecture's cut, at white space and punctuation, with what `_write_words` needs to undo it."""
    cut = (_cut_known(chunk) if len(chunk) <= _KEPT else _cut_chunk(chunk) for chunk in text.split())
    return [token for tokens in cut for token in tokens]


@functools.lru_cache(maxsize=1 << 17)
def _cut_known(chunk: str) -> tuple[str, ...]:
    """As `_cut_chunk`, whose chunks have mostly been seen before."""
    return _cut_chunk(chunk)


def _cut_chunk(chunk: str) -> tuple[str, ...]:
    """The words of what stands between two spaces."""
    tokens = _WORD_UNIT.findall(_HYPHEN.sub(" @-@ ", chunk) if "-" in chunk else chunk)
    return tuple("..." if len(token) > 3 and not token.strip(".") else token for token in tokens)


def cut_subwords(text: str) -> list[str]:
    """The words, each with the space before it, within which subwords lie."""
    return _SUBWORD_UNIT.findall(SPACE + text.replace(" ", SPACE)) if text else []


def _cut_symbols(text: str) -> list[str]:
    return text.split()


def cut_tagged(text: str) -> list[str]:
    """Characters, but the parts of a bundle of features are one token each."""
    tokens: list[str] = []
    end = 0
    for bundle in BUNDLE.finditer(text):
        tokens += text[end : bundle.start()]
        tokens += re.split("(;)", bundle.group())
        end = bundle.end()
    return tokens + list(text[end:])


SPACED = ("char", "tagged")
"""Kinds to which a space is a token."""
CUTS: dict[str, Callable[[str], list[str]]] = {
    "word": _cut_words,
    "char": list,
    "tagged": cut_tagged,
    "symbol": _cut_symbols,
}
"""How each kind is cut; subwords by `cut_subwords` first."""


def _write_words(tokens: Sequence[str]) -> str:
    """Words and punctuation, spaced as a person would."""
    pieces: list[str] = []
    glue, open_quotes = True, set()
    for index, token in enumerate(tokens):
        before, glue_next = tokens[index - 1] if index else "", False
        if token in _NO_SPACE_AROUND:
            glue = glue_next = True
        elif token == '"' or token == "'":
            following = tokens[index + 1] if index + 1 < len(tokens) else ""
            if token in open_quotes:
                open_quotes.remove(token)
                glue = True
            elif token == "'" and following in _CLITICS and before[-1:].isalpha():
                glue = glue_next = True  # don ' t, as some tokenizers cut it
            else:
                open_quotes.add(token)
                glue_next = True
        elif token in _NO_SPACE_BEFORE or (token[0] == "'" and len(token) > 1):
            glue = True
        elif token in _NO_SPACE_AFTER:
            glue_next = True
        if not glue:
            pieces.append(" ")
        pieces.append("-" if token == "@-@" else token)
        glue = glue_next
    return "".join(pieces)


def letters(text: str) -> str:
    """The same with Hangul syllables taken apart."""
    if text.isascii():
        return text
    return _SYLLABLE.sub(lambda found: unicodedata.normalize("NFD", found[0]), text)


def _write_characters(tokens: Sequence[str]) -> str:
    text = "".join(tokens)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _write_subwords(tokens: Sequence[str]) -> str:
    return "".join(tokens).replace(SPACE, " ")


WRITE: dict[str, Callable[[Sequence[str]], str]] = {
    "word": _write_words,
    "bpe": _write_subwords,
    "unigram": _write_subwords,
    "char": _write_characters,
    "tagged": _write_characters,
    "symbol": " ".join,
}
"""How each kind is written."""
