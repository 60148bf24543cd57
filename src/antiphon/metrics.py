"""How good answers are: pure functions over texts and numbers. No model here, and nothing that a library has.

Texts are compared in NFC with runs of white space as one space. `references[i]` holds every right answer to the
i-th source; the one that suits the answer best counts. Percentages are 0..100, shares 0..1, nats are >= 0 here.
"""

from __future__ import annotations

import importlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from types import ModuleType

import numpy as np

from antiphon.errors import MissingExtraError

References = Sequence[Collection[str]]


def plain(text: str) -> str:
    """A text as it is compared: NFC, runs of white space as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str) -> list[str]:
    """Runs of letters, marks, digits and underscores, and every other visible character by itself: ``don't`` is 3."""
    text = unicodedata.normalize("NFC", text)
    shape = text if text.isascii() else "".join(map(_shape, text))
    return [text[found.start() : found.end()] for found in re.finditer(r"\w+|[^\w\s]", shape)]


def _shape(character: str) -> str:
    """What `words` sees of a character: vowel signs of Indic scripts, and joiners, are parts of a word, though the
    regular expression knows nothing of it; other signs that nobody sees are nothing."""
    if unicodedata.category(character)[0] == "M" or character in "\u200c\u200d":
        return "_"
    return " " if unicodedata.category(character) == "Cf" else character


# --- right or wrong -----------------------------------------------------------------------------------------------


def accuracy(answers: Sequence[str], references: References) -> float:
    """Percent of answers that are one of their references, letter for letter."""
    right = sum(plain(a) in {plain(r) for r in own} for a, own in zip(answers, references, strict=True))
    return 100.0 * right / max(1, len(answers))


def error_rate(answers: Sequence[str], references: References, split: Callable[[str], Sequence[str]]) -> float:
    """Percent: edits (insert, delete, replace) that turn answers into references, over the references' units.

    The reference with the fewest edits counts, the longer one where edits are equal. May pass 100.

    Raises:
        MissingExtraError: rapidfuzz is not installed.
    """
    distance = _library("rapidfuzz.distance.Levenshtein", "an edit distance").distance
    edits = units = 0
    for answer, own in zip(answers, references, strict=True):
        said = split(plain(answer))
        meant = [split(plain(reference)) for reference in own]
        fewest, length = min((distance(said, reference), -len(reference)) for reference in meant)
        edits, units = edits + fewest, units - length
    return 100.0 * edits / max(1, units)


def wer(answers: Sequence[str], references: References, *, symbols: bool = False) -> float:
    """Word error rate in percent, as of speech recognition: `error_rate` over space-separated words.

    Of ``symbols`` (pronunciation) a whole text is one word, as in the SIGMORPHON tasks: the share of texts with any
    error, 100 - `accuracy`.
    """
    return 100.0 - accuracy(answers, references) if symbols else error_rate(answers, references, str.split)


def per(answers: Sequence[str], references: References) -> float:
    """Phoneme error rate in percent: `error_rate` over space-separated symbols."""
    return error_rate(answers, references, str.split)


def cer(answers: Sequence[str], references: References) -> float:
    """Character error rate in percent: `error_rate` over characters, spaces included."""
    return error_rate(answers, references, list)


def hits_at_1(scores: np.ndarray) -> float:
    """Percent of rows of scores (N, C) whose true answer, column 0, beats every other; a tie is no hit."""
    return 100.0 * float((scores[:, 0] > scores[:, 1:].max(axis=1)).mean()) if len(scores) else 0.0


# --- overlap with a reference -------------------------------------------------------------------------------------


def bleu(answers: Sequence[str], references: Sequence[str], *, tokenize: str = "13a") -> float:
    """Corpus BLEU, 0..100 (Papineni et al. 2002) by sacrebleu (Post 2018).

    Args:
        references: one for each answer.
        tokenize: sacrebleu's tokenizer: "13a", or "none" where texts are tokenized already.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    sacrebleu = _library("sacrebleu", "BLEU")
    said, meant = [plain(a) for a in answers], [plain(r) for r in references]
    return float(sacrebleu.corpus_bleu(said, [meant], tokenize=tokenize, force=True).score)


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2, 0..100 (Popović 2015) by sacrebleu; one reference for each answer. Raises MissingExtraError."""
    sacrebleu = _library("sacrebleu", "chrF")
    return float(sacrebleu.corpus_chrf([plain(a) for a in answers], [[plain(r) for r in references]]).score)


# --- likelihood ---------------------------------------------------------------------------------------------------


def perplexity(nats: float, units: int) -> float:
    """exp(nats / units): among how many equally likely units the model hesitates. Infinite where exp overflows."""
    try:
        return math.exp(nats / max(1, units))
    except OverflowError:
        return math.inf


def bits(nats: float, units: int) -> float:
    """nats / ln 2 / units."""
    return nats / math.log(2) / max(1, units)


def spelling_nats(unknown: int, characters: int, alphabet: int) -> float:
    """Nats to spell unknown words of so many characters in all: every character, and an end mark for each word, is
    one of alphabet + 1 equally likely signs."""
    return (unknown + characters) * math.log(alphabet + 1)


# --- sameness -----------------------------------------------------------------------------------------------------


def distinct(answers: Sequence[str], n: int) -> float:
    """Share 0..1: different n-grams of `words` over all n-grams, of all answers together (Li et al. 2016)."""
    return _variety([words(answer) for answer in answers], n)


def distinct_beside(answers: Sequence[str], human: Sequence[str], n: int) -> float:
    """`distinct` of answers over that of what people said, both over the same number of `words`: 1 is as varied.

    The more is said, the more of it has been said before: so the longer of the two is cut.
    """
    said, meant = ([words(text) for text in texts] for texts in (answers, human))
    most = min(sum(map(len, said)), sum(map(len, meant)))
    ours, theirs = (_variety(_first(texts, most), n) for texts in (said, meant))
    return ours / theirs if theirs else 0.0


def _variety(texts: Sequence[Sequence[str]], n: int) -> float:
    ngrams = [ngram for text in texts for ngram in _ngrams(text, n)]
    return len(set(ngrams)) / max(1, len(ngrams))


def _first(texts: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    found = []
    for text in texts:
        found.append(text[:most])
        most -= len(found[-1])
    return found


def commonest(answers: Sequence[str], top: int = 10) -> float:
    """Share 0..1 of answers that are one of the `top` commonest. 1 says the model has `top` things to say."""
    counts = Counter(plain(answer) for answer in answers)
    return sum(count for _, count in counts.most_common(top)) / max(1, len(answers))


def repeats(answers: Sequence[str], n: int = 4) -> float:
    """Share 0..1 of answers that say some n-gram of `words` twice."""
    ngrams = [_ngrams(words(answer), n) for answer in answers]
    return sum(len(set(own)) < len(own) for own in ngrams) / max(1, len(answers))


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _library(name: str, feature: str) -> ModuleType:
    """Imported when first needed: start-up is quick, and answering needs none of them."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingExtraError(feature, "train") from None
