"""What tokens a vocabulary has: counted, or learnt from counts (byte-pair encoding, the unigram model)."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, pre_tokenizers, trainers

from antiphon.config import TokenizerKind
from antiphon.data import cutting
from antiphon.data.cutting import SPACED
from antiphon.data.pairs import TURN

MOST_COUNTED = 1 << 19
"""Distinct words counted at once; beyond it the rarer half is forgotten."""
MOST_LEARNT = 1 << 21
"""Words that merges are learnt from; of more an even sample."""
RARE = 1e-4
"""Share of all text whose characters may stay outside a subword vocabulary, the rarest first."""
LONGEST_PIECE = 16
"""Characters of a unigram piece, the library's default."""


def census(texts: Iterable[str], kind: TokenizerKind, *, lower: bool, digits: bool) -> Counter[str]:
    """How often everything between two spaces occurs (char, tagged: every token), for `Tokenizer.from_counts`."""
    counts: Counter[str] = Counter()
    for text in texts:
        if kind in SPACED:
            for part in cutting.parts(text, kind, lower, digits):
                tokens = part if kind == "char" else cutting.cut_tagged(part)
                tags = [token for token in tokens if len(token) > 1]
                counts.update(cutting.letters("".join(token for token in tokens if len(token) == 1)))
                counts.update(tags)
                counts.update(set(cutting.letters("".join(tags))))  # a tag that is not known is spelt
        else:
            counts.update(cutting.chunks(text, kind, lower, digits))
        if len(counts) > MOST_COUNTED:
            forget_rare(counts)
    counts.pop(TURN, None)
    return counts


def forget_rare(counts: Counter[str]) -> None:
    """Keeps the commoner half of what `census` counted, so that counting needs bounded memory."""
    kept = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: MOST_COUNTED // 2]
    counts.clear()
    counts.update(dict(kept))


def _alphabet(counts: Counter[str], room: int) -> set[str]:
    """The characters worth a token: all of them while they take at most an eighth of the vocabulary; of a larger
    alphabet the rarest are left out, as long as they make up less than a ten-thousandth of the text."""
    letters: Counter[str] = Counter()
    for unit, count in counts.items():
        for letter in unit:
            letters[letter] += count
    ranked = sorted(letters.items(), key=lambda item: (-item[1], item[0]))[:room]
    spare = RARE * letters.total()
    while len(ranked) > room // 8 and len(ranked) > 1 and ranked[-1][1] <= spare:
        spare -= ranked.pop()[1]
    return {letter for letter, _ in ranked}


def _within(counts: Counter[str], alphabet: set[str]) -> Iterator[str]:
    """Lines for the library's trainers: each word of the alphabet, as often as it was seen.

    The trainer's time is by the word that it reads, not by the different word: of more than `MOST_LEARNT` an even
    sample is taken, so that learning takes no longer the more text there is.
    """
    units = sorted((unit, count) for unit, count in counts.items() if alphabet.issuperset(unit))
    total, seen, given = sum(count for _, count in units), 0, 0
    for unit, count in units:
        seen += count
        due = seen if total <= MOST_LEARNT else seen * MOST_LEARNT // total
        for start in range(given, due, 1024):
            yield " ".join([unit] * min(1024, due - start))
        given = due


def learn_bpe(counts: Counter[str], room: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges. Sennrich et al. 2016."""
    alphabet = _alphabet(counts, room)
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(vocab_size=room, initial_alphabet=sorted(alphabet), show_progress=False)
    library.train_from_iterator(_within(counts, alphabet), trainer)
    learnt = json.loads(library.to_str())["model"]
    tokens = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    return tokens, [(left, right) for left, right in learnt["merges"]]


def learn_unigram(counts: Counter[str], room: int) -> tuple[list[str], list[float]]:
    """Tokens and log-probabilities: Kudo 2018 with two short cuts.

    The library's own trainer is passed over: it takes its seeds from distinct words without their counts, so that
    the commonest words are no candidates, and its result changes from run to run. Instead the seeds are the
    tokens of a BPE three times as large, and expectation-maximisation counts the pieces of the best
    segmentations (Viterbi, by the library); after each round the least used pieces go.
    """
    pieces, _ = learn_bpe(counts, 3 * room)
    pieces = [piece for piece in pieces if len(piece) <= LONGEST_PIECE]
    needed = _alphabet(counts, room)
    pieces = [piece for piece in pieces if len(piece) > 1 or piece in needed]
    words = sorted(counts)
    weight = np.array([counts[word] for word in words], np.float64)
    uses = _substring_counts(counts, pieces)
    for size in (None, 2.25, 1.5, 1.2, 1.0, 1.0):
        if size is not None:
            keep = max(int(size * room), len(needed))
            # the characters stay whatever their use: without them a word could not be spelt
            order = sorted(range(len(pieces)), key=lambda at: (pieces[at] not in needed, -uses[at], pieces[at]))
            pieces, uses = [pieces[at] for at in order[:keep]], uses[order[:keep]]
        scores = np.log(np.maximum(uses, 0.5) / np.maximum(uses, 0.5).sum())
        model = models.Unigram([(" <unk>", 0.0), *zip(pieces, scores.tolist(), strict=True)], 0, False)
        found = LibraryTokenizer(model).encode_batch(words, add_special_tokens=False)
        lengths = [len(encoding.ids) for encoding in found]
        ids = np.fromiter(itertools.chain.from_iterable(encoding.ids for encoding in found), np.int64, sum(lengths))
        uses = np.bincount(ids, np.repeat(weight, lengths), len(pieces) + 1)[1:]
    scores = np.log(np.maximum(uses, 0.5) / np.maximum(uses, 0.5).sum())
    order = sorted(range(len(pieces)), key=lambda at: (-scores[at], pieces[at]))
    return [pieces[at] for at in order], [float(scores[at]) for at in order]


def _substring_counts(counts: Counter[str], pieces: Sequence[str]) -> np.ndarray:
    """How often each piece occurs anywhere in the words, (pieces,)."""
    place = {piece: index for index, piece in enumerate(pieces)}
    uses = [0] * len(pieces)
    for word, count in counts.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + LONGEST_PIECE, len(word)) + 1):
                index = place.get(word[start:end])
                if index is not None:
                    uses[index] += count
    return np.array(uses, np.float64)
