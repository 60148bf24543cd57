"""Text to ids and back, five kinds of it, one legible JSON file.

    kind      "I don't."             decode gives back
    word      I don 't .             what a person would write (quotes, brackets and stops set by rule)
    bpe       ▁I ▁don't .            exactly the normalised text
    unigram   ▁I ▁don 't .           exactly the normalised text
    char      I ␣ d o n ' t .        exactly the normalised text
    tagged    I ␣ d o n ' t .        exactly the normalised text; of "V;PST;3;SG walk" V PST 3 SG are one token each
    symbol    I don't.               the symbols, joined by spaces (phones, text tokenised elsewhere)

Characters are what Unicode composes (NFC), but a Hangul syllable is spelt with its two or three letters: most of the
11,172 syllables are never seen in a small corpus, their 67 letters are.

Byte-pair encoding and the unigram model are applied by the ``tokenizers`` library; what surrounds them (normalising,
cutting into words, the file) is ours, so that a file from a stranger is data and never a program. How texts are cut by
rule is in `antiphon.data.cutting`, how a vocabulary is learnt in `antiphon.data.vocabulary`.

The first five ids are PAD BOS EOS UNK and TURN. Only TURN is read from text: a user who types ``</s>`` gets the
characters, not the end of the sentence.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from antiphon.config import Features, TokenizerKind
from antiphon.data import cutting
from antiphon.data.alignment import Alignment
from antiphon.data.cutting import CUTS, SPACED, SURROGATE, WRITE, cut_subwords
from antiphon.data.features import arranged
from antiphon.data.pairs import TURN, write_whole
from antiphon.data.vocabulary import LONGEST_PIECE, census, learn_bpe, learn_unigram
from antiphon.errors import DataError, FolderError, UsageError

PAD, BOS, EOS, UNK = 0, 1, 2, 3
TURN_ID = 4
NEXT = "<next>"
"""The last token of an aligned vocabulary: the next source token's turn."""
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", TURN)

LONGEST_TOKEN = 200  # characters; a longer word or symbol is UNK
LONGEST_FILE = 64 << 20  # characters of JSON we agree to read
MOST_TOKENS = 1_000_000
KEPT_UNITS = 200_000  # distinct words whose ids are remembered ...
KEPT_LETTERS = 4_000_000  # ... and how many letters they may have together: 40 MB, about
SAMPLES = 8  # sampled segmentations a distinct word gets in one call
SHARPNESS = 0.2  # exponent on P(segmentation) when sampling a unigram model (alpha in Kudo 2018)


class Tokenizer:
    """Text ↔ ids. Made by `train`, `from_json` or `load`.

    Args:
        kind: word, bpe, unigram, char, tagged or symbol.
        tokens: the vocabulary after the specials: ``tokens[i]`` has id ``i + 5``.
        lower: lower-case first.
        digits: write every digit as # first.
        merges: (bpe) pairs of tokens, the first merged first.
        scores: (unigram) log-probability of each token, in nats.
        alignment: of these tokens with a source's, for `encode_beside`; they are followed by NEXT.
        backwards: ids begin with the last token of a text, for a decoder that writes from the end.
        features: (tagged) where those of a text are read, wherever they are written.
    """

    def __init__(
        self,
        kind: TokenizerKind,
        tokens: Sequence[str],
        *,
        lower: bool = False,
        digits: bool = False,
        merges: Sequence[tuple[str, str]] = (),
        scores: Sequence[float] = (),
        alignment: Alignment | None = None,
        backwards: bool = False,
        features: Features = "as_is",
    ) -> None:
        self.kind: TokenizerKind = kind
        self.lower, self.digits, self.alignment, self.backwards = lower, digits, alignment, backwards
        self.features: Features = features
        self._tokens = [*SPECIALS, *tokens, *([NEXT] if alignment else [])]
        self._ids = {token: index for index, token in enumerate(tokens, len(SPECIALS))}
        self._merges, self._scores = list(merges), list(scores)
        self._ranks: dict[tuple[str, str], int] = {}
        # the library looks tokens up by their text: a space, which no subword holds, keeps specials out of reach
        hidden = [f" {name}" for name in SPECIALS]
        self._library: LibraryTokenizer | None = None
        if kind == "bpe":
            vocabulary = {token: index for index, token in enumerate([*hidden, *tokens])}
            self._library = LibraryTokenizer(models.BPE(vocabulary, self._merges, unk_token=hidden[UNK]))
            self._ranks = {pair: rank for rank, pair in enumerate(self._merges)}
        elif kind == "unigram":
            pieces = [(name, 0.0) for name in hidden] + list(zip(tokens, self._scores, strict=True))
            self._library = LibraryTokenizer(models.Unigram(pieces, unk_id=UNK, byte_fallback=False))
        self._known: dict[str, list[int]] = {}
        self._known_chunks: dict[str, list[int]] = {TURN: [TURN_ID]}
        self._kept_letters = 0

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: TokenizerKind,
        vocabulary: int,
        min_count: int = 1,
        lower: bool = False,
        digits: bool = False,
    ) -> Tokenizer:
        """Learn a vocabulary; the same texts give the same tokenizer.

        Args:
            texts: gone through once.
            kind: see the module's head. bpe: Sennrich et al. 2016; unigram: Kudo 2018.
            vocabulary: most tokens, the five specials counted; small data gives fewer.
            min_count: (word, char, tagged, symbol) rarer tokens become UNK.
            lower: lower-case first.
            digits: write every digit as # first.

        Raises:
            UsageError: no such kind, or no room beside the specials.
            DataError: there is no text.
        """
        counts = census(texts, kind, lower=lower, digits=digits)
        return cls.from_counts(
            counts, kind=kind, vocabulary=vocabulary, min_count=min_count, lower=lower, digits=digits
        )

    @classmethod
    def from_counts(
        cls,
        counted: Mapping[str, int],
        *,
        kind: TokenizerKind,
        vocabulary: int,
        min_count: int = 1,
        lower: bool = False,
        digits: bool = False,
    ) -> Tokenizer:
        """`train` from a `census` of the texts, which may be the sum of many."""
        if kind not in get_args(TokenizerKind):
            raise UsageError(f'no tokenizer "{kind}"', cure=f"kinds: {', '.join(get_args(TokenizerKind))}")
        room = vocabulary - len(SPECIALS)
        if room < 1:
            raise UsageError(
                f"a vocabulary of {vocabulary} tokens has no room beside {len(SPECIALS)} specials",
                where="data.vocabulary",
            )
        cut = CUTS.get(kind, cut_subwords)
        counts: Counter[str] = Counter()
        for chunk, count in counted.items():
            for unit in [chunk] if kind in SPACED else cut(chunk):
                counts[unit] += count
        if not counts:
            raise DataError("there is no text to learn a vocabulary from")
        if kind == "bpe":
            tokens, merges = learn_bpe(counts, room)
            return cls(kind, tokens, lower=lower, digits=digits, merges=merges)
        if kind == "unigram":
            tokens, scores = learn_unigram(counts, room)
            return cls(kind, tokens, lower=lower, digits=digits, scores=scores)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        tokens = [token for token, count in ranked if count >= min_count and len(token) <= LONGEST_TOKEN]
        return cls(kind, tokens[:room], lower=lower, digits=digits)

    def lowering(self) -> Tokenizer:
        """The same vocabulary for text that is lower-cased first."""
        return self._like(lower=True)

    def aligned(self, alignment: Alignment) -> Tokenizer:
        """The same vocabulary and NEXT, for targets that are written beside their sources."""
        return self._like(alignment=alignment)

    def turned(self) -> Tokenizer:
        """The same vocabulary for text that is written from its end."""
        return self._like(backwards=not self.backwards)

    def reading(self, features: Features) -> Tokenizer:
        """The same vocabulary for text whose features are read there."""
        return self._like(features=features)

    def _like(self, **changed: Any) -> Tokenizer:
        mine = self._tokens[len(SPECIALS) : self.next_id]
        ways = {"lower": self.lower, "digits": self.digits, "merges": self._merges, "scores": self._scores}
        ways |= {"alignment": self.alignment, "backwards": self.backwards, "features": self.features}
        return Tokenizer(self.kind, mine, **{**ways, **changed})

    @property
    def size(self) -> int:
        """V: tokens in the vocabulary, the specials counted."""
        return len(self._tokens)

    @property
    def next_id(self) -> int | None:
        """The id of NEXT; None: not aligned."""
        return self.size - 1 if self.alignment else None

    def normalise(self, text: str) -> str:
        """The text as this tokenizer sees it: NFC, white space collapsed, the options ``lower`` and ``digits``."""
        return cutting.with_turns(self._parts(text))

    def encode(self, text: str) -> list[int]:
        """Ids without BOS and EOS; never PAD, BOS, EOS, whatever the text says."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts; what stands between two spaces is cut once, however often it occurs."""
        return self._in_order(self._cut_batch(texts))

    def _in_order(self, rows: list[list[int]]) -> list[list[int]]:
        return [row[::-1] for row in rows] if self.backwards else rows

    def _cut_batch(self, texts: Sequence[str]) -> list[list[int]]:
        if self.kind in SPACED:
            table, cut = self._ids, self._cut_tagged if self.kind == "tagged" else self._spell
            parts = [self._parts(text) for text in texts]
            return [_joined([[table.get(token, UNK) for token in cut(part)] for part in each]) for each in parts]
        words = [cutting.chunks(text, self.kind, self.lower, self.digits) for text in texts]
        known = self._known_by_chunk(itertools.chain.from_iterable(words))
        rows = []
        for chunks in words:
            ids: list[int] = []
            for chunk in chunks:
                ids += known[chunk]
            rows.append(ids)
        return rows

    def encode_beside(self, texts: Sequence[str], sources: Sequence[Sequence[int]]) -> list[list[int]]:
        """`encode_batch` of targets; aligned ones hold NEXT wherever the next token of their source has its turn.

        Args:
            texts: n targets.
            sources: the ids of their sources, as written: who writes from the end reads from the end.
        """
        targets = self.encode_batch(texts)
        if self.alignment is None:
            return targets
        read = [source[::-1] for source in sources] if self.backwards else sources
        return self.alignment.marked(list(zip(read, targets, strict=True)), self.size - 1)

    def encode_sampled(self, texts: Sequence[str], *, dropout: float, rng: np.random.Generator) -> list[list[int]]:
        """Ids under subword regularisation: a word may be cut differently each time.

        bpe: each possible merge is left out with chance ``dropout`` (BPE-dropout, Provilkov et al. 2020). unigram:
        with chance ``dropout`` a word is cut by drawing from P(segmentation)^0.2 (Kudo 2018). For the sake of
        speed a distinct word gets at most 8 drawn segmentations in one call, and each occurrence takes one of
        them. Other kinds have one segmentation only, as has dropout 0: then this is `encode_batch`.

        Args:
            dropout: from 0 to below 1.
            rng: decides everything that is random.
        """
        if dropout == 0 or self.kind in CUTS:
            return self.encode_batch(texts)
        words = [[cut_subwords(part) for part in self._parts(text)] for text in texts]
        flat = [unit for each in words for units in each for unit in units]
        known = self._segment(flat)
        choices = _Draws(rng)
        drawn: dict[str, list[list[int]]] = {}
        for unit, count in Counter(flat).items():
            best = known[unit]
            if len(unit) == 1 or UNK in best:
                drawn[unit] = [best] * SAMPLES
                continue
            sample = self._sampler(unit, dropout, choices)
            few = [sample() for _ in range(min(count, SAMPLES))]
            drawn[unit] = [few[turn % len(few)] for turn in range(SAMPLES)]
        picks = iter(rng.integers(SAMPLES, size=len(flat)).tolist())
        rows = []
        for each in words:
            segments = []
            for units in each:
                ids: list[int] = []
                for unit in units:
                    ids += drawn[unit][next(picks)]
                segments.append(ids)
            rows.append(_joined(segments))
        return self._in_order(rows)

    def unknown(self, text: str) -> list[str]:
        """(char, tagged) The characters of a text that have no token, each once, in the order they come."""
        if self.kind not in SPACED:
            return []
        letters = (letter for part in self._parts(text) for letter in self._spell(part))
        return [letter for letter in dict.fromkeys(letters) if letter not in self._ids]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """A readable name of each id, for axes and tables: ▁ marks a space, specials are in angle brackets."""
        names = [self._tokens[index] for index in ids]
        return ["␣" if name == " " else name for name in names]

    def decode(self, ids: Sequence[int]) -> str:
        """Text, as a person would write it, from any ids in range.

        PAD, BOS, EOS and NEXT are skipped; UNK is shown as ``<unk>`` and TURN as ``<turn>``, lest they go unseen.
        """
        parts: list[list[str]] = [[]]
        marks = self.next_id
        for index in reversed(ids) if self.backwards else ids:
            if index == TURN_ID:
                parts.append([])
            elif index >= UNK and index != marks:
                parts[-1].append(self._tokens[index])
        write = WRITE[self.kind]
        return cutting.with_turns([write(tokens) for tokens in parts])

    def token_id(self, token: str) -> int:
        """The id of a token or of a special (``</s>``); UNK if there is none. A token of that name goes first."""
        found = self._ids.get(token)
        if found is None:
            found = SPECIALS.index(token) if token in SPECIALS else UNK
        return found

    def to_json(self) -> str:
        """One JSON object; `from_json` reads it."""
        content: dict[str, Any] = {
            "antiphon_tokenizer": 1,
            "kind": self.kind,
            "lower": self.lower,
            "digits": self.digits,
            "tokens": self._tokens[: self.next_id],
        }
        if self.kind == "bpe":
            content["merges"] = [f"{left} {right}" for left, right in self._merges]
        if self.kind == "unigram":
            content["scores"] = self._scores
        if self.backwards:
            content["backwards"] = True
        if self.features != "as_is":
            content["features"] = self.features
        if self.alignment:
            content["alignment"] = {**self.alignment.tree(), "source": self.alignment.source}
        return json.dumps(content, ensure_ascii=False, indent=0)

    @classmethod
    def from_json(cls, text: str, *, where: str = "") -> Tokenizer:
        """A tokenizer from what `to_json` wrote. Nothing in it is run; its size is bounded.

        Args:
            where: the file, for the error.

        Raises:
            FolderError: it is not such a JSON, or damaged.
        """
        try:
            return cls._from_content(_read_json(text))
        except _Damaged as fault:
            raise FolderError(f"not a tokenizer of Antiphon: {fault}", where=where, cure=_CURE) from None

    def save(self, path: str | Path) -> None:
        """Write `to_json`; a file that is there is replaced only once all is written.

        Raises:
            SaveError: the disk is full or refuses.
        """
        write_whole(Path(path), [self.to_json()])

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read what `save` wrote.

        Raises:
            FolderError: the file is missing or damaged.
        """
        path = Path(path)
        try:
            if path.stat().st_size > LONGEST_FILE:
                raise FolderError("the tokenizer file is too large to be one", where=str(path), cure=_CURE)
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise FolderError(f"cannot read the tokenizer ({error})", where=str(path), cure=_CURE) from None
        return cls.from_json(text, where=str(path))

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> Tokenizer:
        """Every promise the rest of the class relies on, checked."""
        kind, lower, digits = content.get("kind"), content.get("lower"), content.get("digits")
        if content.get("antiphon_tokenizer") != 1:
            raise _Damaged('it says no "antiphon_tokenizer": 1')
        kinds: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
        if kind not in kinds or not isinstance(lower, bool) or not isinstance(digits, bool):
            raise _Damaged("its kind or options are not ours")
        kind = kinds[kinds.index(kind)]
        wanted = {"antiphon_tokenizer", "kind", "lower", "digits", "tokens"}
        wanted |= {"bpe": {"merges"}, "unigram": {"scores"}}.get(kind, set())
        wanted |= {"alignment", "backwards", *(["features"] if kind == "tagged" else [])} & set(content)
        if set(content) != wanted:
            raise _Damaged(f"its keys are not {', '.join(sorted(wanted))}")
        tokens = _strings(content["tokens"], "tokens")
        if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
            raise _Damaged("it does not begin with the special tokens")
        tokens = tokens[len(SPECIALS) :]
        if not tokens or len(set(tokens)) < len(tokens):
            raise _Damaged("its tokens are none, or not all different")
        if any(not token or len(token) > LONGEST_TOKEN for token in tokens):
            raise _Damaged("a token is empty or too long")
        if kind in ("bpe", "unigram") and any(len(token.split()) != 1 or " " in token for token in tokens):
            raise _Damaged("a subword holds white space")
        backwards = content.get("backwards", False)
        if not isinstance(backwards, bool):
            raise _Damaged('its "backwards" is neither true nor false')
        places: tuple[Features, ...] = get_args(Features)
        features = content.get("features", "as_is")
        if features not in places:
            raise _Damaged('its "features" are in no place that we know')
        alignment = _alignment(content.get("alignment"), len(SPECIALS) + len(tokens))
        ways = {"lower": lower, "digits": digits, "alignment": alignment, "backwards": backwards}
        ways["features"] = places[places.index(features)]
        if kind == "bpe":
            known, merges = set(tokens), []
            for line in _strings(content["merges"], "merges"):
                left, _, right = line.partition(" ")
                if left not in known or right not in known or left + right not in known:
                    raise _Damaged("a merge is not of its tokens")
                merges.append((left, right))
            return cls(kind, tokens, merges=merges, **ways)
        if kind == "unigram":
            scores = content["scores"]
            if not isinstance(scores, list) or len(scores) != len(tokens):
                raise _Damaged("it has not one score for each token")
            if not all(type(score) in (int, float) and math.isfinite(score) and abs(score) < 1e4 for score in scores):
                raise _Damaged("a score is not a log-probability")
            return cls(kind, tokens, scores=[float(score) for score in scores], **ways)
        return cls(kind, tokens, **ways)

    def _parts(self, text: str) -> list[str]:
        return cutting.parts(text, self.kind, self.lower, self.digits)

    def _known_by_chunk(self, chunks: Iterable[str]) -> dict[str, list[int]]:
        """Ids of at least these pieces of text, none with a space in it. No token goes over a space but its own."""
        if len(self._known_chunks) > KEPT_UNITS or self._kept_letters > KEPT_LETTERS:
            self._known_chunks, self._kept_letters = {TURN: [TURN_ID]}, 0
        known = self._known_chunks
        new = list(dict.fromkeys(chunk for chunk in chunks if chunk not in known))
        if not new:
            return known
        self._kept_letters += sum(map(len, new))  # where no spaces are written a chunk is a whole text
        if self.kind in CUTS:
            cut, table = CUTS[self.kind], self._ids
            known.update((chunk, [table.get(token, UNK) for token in cut(chunk)]) for chunk in new)
        else:
            cuts = [cut_subwords(chunk) for chunk in new]
            ids = self._segment(itertools.chain.from_iterable(cuts))
            rows = ([token for unit in units for token in ids[unit]] for units in cuts)
            known.update(zip(new, rows, strict=True))
        return known

    def _cut_tagged(self, text: str) -> list[str]:
        """Tags of the vocabulary whole, the others spelt; where they are read."""
        tokens = cutting.cut_tagged(arranged(text, self.features))
        return [piece for token in tokens for piece in ([token] if token in self._ids else self._spell(token))]

    def _spell(self, text: str) -> list[str]:
        """Characters; a syllable that the vocabulary has (old ones have) is one."""
        if text.isascii():
            return list(text)
        return [letter for one in text for letter in ([one] if one in self._ids else cutting.letters(one))]

    def _segment(self, units: Iterable[str]) -> dict[str, list[int]]:
        """Subword ids of at least these words."""
        assert self._library is not None
        known = self._known
        new = list(dict.fromkeys(unit for unit in units if unit not in known))
        if not new:
            return known
        found = self._library.encode_batch(new, add_special_tokens=False)
        fresh = {unit: encoding.ids for unit, encoding in zip(new, found, strict=True)}
        if len(known) + len(fresh) <= KEPT_UNITS:
            known.update(fresh)
            return known
        return {**known, **fresh}

    def _sampler(self, unit: str, dropout: float, draws: _Draws) -> Callable[[], list[int]]:
        if self.kind == "bpe":
            return lambda: self._sample_bpe(unit, dropout, draws)
        return self._unigram_sampler(unit, dropout, draws)

    def _sample_bpe(self, unit: str, dropout: float, draws: _Draws) -> list[int]:
        symbols, ranks = list(unit), self._ranks
        while len(symbols) > 1:
            best, place = len(ranks), -1
            for index, pair in enumerate(itertools.pairwise(symbols)):
                rank = ranks.get(pair)
                if rank is not None and rank < best and draws.next() >= dropout:
                    best, place = rank, index
            if place < 0:
                break
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        return [self._ids[symbol] for symbol in symbols]

    def _unigram_sampler(self, unit: str, dropout: float, draws: _Draws) -> Callable[[], list[int]]:
        """Forward filtering once, backward sampling at each call."""
        size, ids, scores = len(unit), self._ids, self._scores
        forward = [0.0] + [-math.inf] * size  # log of the summed weight of all ways to cut unit[:end]
        ways: list[list[tuple[int, int, float]]] = [[] for _ in range(size + 1)]  # (start, id, log weight) by end
        for end in range(1, size + 1):
            for start in range(max(0, end - LONGEST_PIECE), end):
                index = ids.get(unit[start:end])
                if index is not None and forward[start] > -math.inf:
                    ways[end].append((start, index, forward[start] + SHARPNESS * scores[index - len(SPECIALS)]))
            if ways[end]:
                top = max(weight for _, _, weight in ways[end])
                forward[end] = top + math.log(sum(math.exp(weight - top) for _, _, weight in ways[end]))
        best = self._known.get(unit) or self._segment([unit])[unit]

        def sample() -> list[int]:
            if forward[size] == -math.inf or draws.next() >= dropout:
                return best
            found, end = [], size
            while end:
                left, pick = draws.next(), 0
                while pick < len(ways[end]) - 1:
                    left -= math.exp(ways[end][pick][2] - forward[end])
                    if left < 0:
                        break
                    pick += 1
                end, index, _ = ways[end][pick]
                found.append(index)
            return found[::-1]

        return sample


class _Draws:
    """Uniform numbers in [0, 1) one by one, drawn from the generator by the thousand."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: Iterator[float] = iter(())

    def next(self) -> float:
        for value in self._block:
            return value
        self._block = iter(self._rng.random(4096).tolist())
        return next(self._block)


class _Damaged(Exception):
    """What is wrong with the content of a tokenizer file."""


_CURE = "copy the model folder again from where it came"


def _joined(segments: list[list[int]]) -> list[int]:
    """The ids of the parts of a text, TURN between them."""
    ids = segments[0]
    for segment in segments[1:]:
        ids.append(TURN_ID)
        ids += segment
    return ids


def _read_json(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_FILE:
        raise _Damaged("it is too large")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise _Damaged("it is not JSON") from None
    if not isinstance(content, dict):
        raise _Damaged("it is not a JSON object")
    return content


def _alignment(tree: object, target: int) -> Alignment | None:
    if tree is None:
        return None
    source = tree.get("source") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or type(source) is not int or not 0 < source <= MOST_TOKENS:
        raise _Damaged("its alignment is none")
    try:
        return Alignment.from_tree({key: tree[key] for key in tree if key != "source"}, source=source, target=target)
    except ValueError as error:
        raise _Damaged(f"it holds {error}") from None


def _strings(values: object, name: str) -> list[str]:
    if not isinstance(values, list) or len(values) > MOST_TOKENS:
        raise _Damaged(f'its "{name}" are no list, or too many')
    for value in values:
        if not isinstance(value, str) or SURROGATE.search(value):
            raise _Damaged(f'its "{name}" are not all text')
    return values
