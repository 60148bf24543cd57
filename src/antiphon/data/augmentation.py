"""More pairs out of few: two of them side by side, stems and roots made up, letters that are hidden."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

import numpy as np

from antiphon.data.features import BUNDLE
from antiphon.data.pairs import Pair
from antiphon.data.placeholders import SIGNS

STEM = 3
"""Fewest characters that a source and its target share, one after the other, to be taken for a stem."""
KEPT = 3
"""Most characters at the end of a stem that stay: what an ending depends on is mostly there."""
EXCHANGED = 0.7
"""Chance of a letter of a root to become another one."""


def augmented(
    pairs: Iterable[Pair],
    *,
    joined: int = 0,
    hallucinated: int = 0,
    placeholders: float = 0.0,
    seed: int,
    part: int,
) -> list[Pair]:
    """The pairs, and others made of them.

    *Joined*: two random ones, a space between them on both sides. What was said of a text must then be said of it
    behind or before another: a decoder that skips, repeats or counts positions is found out (Kondo et al. 2021; Nguyen
    et al. 2021).

    *Hallucinated*, one half: the longest piece that a source (without its features) and its target share begins like
    another source: of ``N;DAT;PL Zuschlag`` → ``Zuschlägen`` and ``Mauer`` comes ``N;DAT;PL Mauchlag`` →
    ``Mauchlägen``. So copying is learnt apart from the words that are copied. (Silfverberg et al. 2017 and
    Anastasopoulos & Neubig 2019 fill stems with random letters; those of another word were better here.)

    *Hallucinated*, the other half, and all where no stem is shared: letters that source and target have as often become
    others, seven in ten, the same ones on both sides: of ``V;PRS;3;SG kataba`` → ``yaktubu`` comes ``daraba`` →
    ``yadrubu``. So where vowels change inside of a word, its root is copied.

    *With placeholders*: letters that source and target have as often, one or a few, are hidden behind signs that stand
    for any letter (`Placeholders`).

    What they give is in docs/log.md.

    Args:
        pairs: of one part of the data.
        joined: so many for each pair.
        hallucinated: so many for each pair, at most.
        placeholders: this share of the pairs, made-up ones among them, comes once more with placeholders.
        seed, part: the same two give the same pairs.
    """
    found = list(pairs)
    side_by_side = _joined(found, joined, np.random.default_rng([seed % 2**64, part, 6]))
    made_up = _hallucinated(found, hallucinated, np.random.default_rng([seed % 2**64, part, 7]))
    hidden = _hidden([*found, *made_up], placeholders, np.random.default_rng([seed % 2**64, part, 8]))
    return [*found, *side_by_side, *made_up, *hidden]


def in_stems(pairs: Sequence[Pair]) -> float:
    """Share of the sources' characters, features apart, that stand in stems: where forms are made by what comes before
    and behind a stem it is nearly all, where they are made inside of it half."""
    words, stems = _stems(pairs)
    return sum(stem[2] for stem in stems if stem) / max(sum(end - start for start, end in words), 1)


def in_letters(pairs: Sequence[Pair]) -> float:
    """Share of the targets' characters that their sources, features apart, have as often."""
    found = sum(pair.target.count(letter) for pair in pairs for letter in _carried(pair))
    return found / max(sum(len(pair.target) for pair in pairs), 1)


def in_digits(pairs: Sequence[Pair]) -> float:
    """Share of the sources' characters, features apart, that are digits."""
    words = [pair.source[slice(*_word(pair.source))] for pair in pairs]
    return sum(one.isnumeric() for word in words for one in word) / max(sum(map(len, words)), 1)


def _joined(pairs: Sequence[Pair], times: int, rng: np.random.Generator) -> list[Pair]:
    first, second = rng.integers(0, max(len(pairs), 1), (2, times * len(pairs)))
    both = ((pairs[one], pairs[two]) for one, two in zip(first, second, strict=True))
    return [Pair(f"{a.source} {b.source}", f"{a.target} {b.target}") for a, b in both]


def _hallucinated(pairs: Sequence[Pair], times: int, rng: np.random.Generator) -> list[Pair]:
    if not times:
        return []
    words, stems = _stems(pairs)
    roots = [_carried(pair) for pair in pairs]
    letters = [letter for root in roots for letter in root]
    found = []
    for turn in range(times):
        for pair, word, stem, root in zip(pairs, words, stems, roots, strict=True):
            made = None
            if turn % 2 == 0 and stem is not None:
                other = int(rng.integers(len(pairs)))
                start, end = words[other]
                made = _with_stem(pair, word, stem, like=pairs[other].source[start:end], rng=rng)
            if made is None:
                made = _with_root(pair, root, letters, rng)
            if made is not None:
                found.append(made)
    return found


def _with_stem(
    pair: Pair, word: tuple[int, int], stem: tuple[int, int, int], *, like: str, rng: np.random.Generator
) -> Pair | None:
    """The pair with a stem that begins as another word does; None if that is too short."""
    source, target, length = stem
    beginning = _beginning(like, inside=source > word[0], rng=rng)
    if not beginning:
        return None
    cut = length - int(rng.integers(1, min(KEPT, length - 1), endpoint=True))
    while cut < length and unicodedata.combining(pair.source[source + cut]):  # a mark goes with its letter
        cut += 1
    return Pair(*(text[:at] + beginning + text[at + cut :] for text, at in zip(pair, (source, target), strict=True)))


def _with_root(pair: Pair, root: Sequence[str], letters: Sequence[str], rng: np.random.Generator) -> Pair | None:
    """The pair with others of these letters in its root; None if all of them are its own."""
    others = dict[str, str]()
    for letter in root:
        other = letters[int(rng.integers(len(letters)))]
        if rng.random() < EXCHANGED and not any(other in text for text in (*pair, *others.values())):
            others[letter] = other
    return _rewritten(pair, others) if others else None


def _hidden(pairs: Sequence[Pair], share: float, rng: np.random.Generator) -> list[Pair]:
    if not share:
        return []
    found = []
    for place in np.flatnonzero(rng.random(len(pairs)) < share).tolist():
        letters = _carried(pairs[place])
        if not letters:
            continue
        count = min(len(letters), len(SIGNS), int(rng.geometric(0.5)))  # one in half of the cases, two in a quarter ...
        some = sorted(rng.choice(len(letters), count, replace=False).tolist())
        found.append(_rewritten(pairs[place], {letters[at]: sign for at, sign in zip(some, SIGNS, strict=False)}))
    return found


def _carried(pair: Pair) -> list[str]:
    """The letters that a target has as often as its source, features apart, in the source's order. Digits are none: of
    another number the form may be another."""
    start, end = _word(pair.source)
    ours, theirs = Counter(pair.source[start:end]), Counter(pair.target)
    return [one for one in ours if ours[one] == theirs[one] and _is_letter(one)]


def _is_letter(one: str) -> bool:
    return not (one.isspace() or one.isnumeric() or unicodedata.combining(one))


def _rewritten(pair: Pair, letters: dict[str, str]) -> Pair:
    """With these letters instead, in the target and in the source, features apart."""
    start, end = _word(pair.source)
    table = str.maketrans(letters)
    source = pair.source[:start] + pair.source[start:end].translate(table) + pair.source[end:]
    return Pair(source, pair.target.translate(table))


def _stems(pairs: Sequence[Pair]) -> tuple[list[tuple[int, int]], list[tuple[int, int, int] | None]]:
    """Of each pair its `_word` and its `_stem`."""
    words = [_word(pair.source) for pair in pairs]
    return words, [_stem(pair, word) for pair, word in zip(pairs, words, strict=True)]


def _word(source: str) -> tuple[int, int]:
    """Where the longest stretch without features begins and ends."""
    longest = begun = 0, 0
    for start, end in [*(match.span() for match in BUNDLE.finditer(source)), (len(source), len(source))]:
        text = source[begun[1] : start]
        stretch = start - len(text.lstrip()), begun[1] + len(text.rstrip())
        longest = max(longest, stretch, key=lambda edges: edges[1] - edges[0])
        begun = start, end
    return longest


def _stem(pair: Pair, word: tuple[int, int]) -> tuple[int, int, int] | None:
    """Where the longest piece that the word and the target share begins in both, and its length."""
    start, end = word
    source, target, size = SequenceMatcher(None, *pair, autojunk=False).find_longest_match(start, end)
    while size and unicodedata.combining(pair.source[source]):
        source, target, size = source + 1, target + 1, size - 1
    return (source, target, size) if size >= STEM else None


def _beginning(word: str, *, inside: bool, rng: np.random.Generator) -> str:
    """Of a word its beginning; for what stands inside of one, one to three characters of it."""
    if inside:
        start = int(rng.integers(max(len(word) - 1, 1)))
        while start < len(word) - 1 and unicodedata.combining(word[start]):
            start += 1
        return word[start : start + int(rng.integers(1, 3, endpoint=True))]
    return word[: int(rng.integers(2, max(2, len(word) - 2), endpoint=True))]
