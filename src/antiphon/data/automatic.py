"""What the pairs themselves say about the knobs: preset `auto`.

Three kinds of data need different tokenizers; sizes, dropout and the budget follow from how much there is to learn.

- *conversation*: many an answer is the next pair's question. Subwords; a few answers are drawn, the best is given.
- *words*: a text is a word, a date, a name, a form to inflect. Characters, or the symbols of a closed set (phones).
- *sentences*: everything else. Subwords, shared by both sides.

What was measured is in docs/log.md: sentences most, words and conversations less; widths for many words are still a
guess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar, get_args

import numpy as np

from antiphon.config import Config, Features, TokenizerKind, load_config, override, parse_config
from antiphon.data.alignment import Alignment
from antiphon.data.augmentation import in_digits, in_letters, in_stems
from antiphon.data.corpus import Pairs
from antiphon.data.features import BUNDLE
from antiphon.data.pairs import TURN, Pair
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import UsageError

AUTO = "auto"
"""Name of the preset that this module completes."""
MARKS = (("model", "attention"), ("data", "too_long"), ("data", "reverse_source"), ("data", "reverse_target"))
"""Knobs that are set for monotonic attention alone."""
OF_TOKENIZERS = frozenset(("tokenizer", "target_tokenizer", "share_vocabulary", "placeholders", "features"))
"""The tokenizers, and what follows from them."""
SAMPLE = 20_000
"""Pairs looked at, spread evenly over the data."""
ECHO = 0.2
"""Share of targets that occur as sources from which pairs are a conversation."""
FORMS = 0.5
"""Share of the sources that comes again in their targets in one piece from which these are no answers but forms."""
PARTS = 6.0, 2.5
"""White-space-separated parts of a source and of a target, on average, up to which pairs are words."""
LETTERS = 60
"""Characters a text, on average, up to which the same holds."""
RATE = 10_000.0
"""Target tokens a second that two cores train on: a guess for budgets in minutes; a factor of two changes little."""
PLENTY = 30_000
"""Pairs from which on a small model has enough to learn not to learn them by heart."""
FILLED = 0.85
"""Share of a batch's positions that are real, about."""
PIECES = 1.3
"""Subwords a word, about."""
_UNSPACED = (
    (re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"), 1.7),
    (re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"), 3.0),
)
"""Letters of scripts that write no spaces, and how many of them a subword has, about: Han and kana; Thai, Lao, Burmese
and Khmer."""
SAMPLED_UNTIL = 0.8
"""Most of the budget in which subwords are learnt from sampled ones: half of an update's products would be theirs."""
SAMPLED_PASSES = 25
"""Passes after which sampled ones teach nothing more."""
OFTEN = 30
"""Passes through sentences from which on they would be learnt by heart, were not whole words dropped as well."""
ALIGNED = 0.7
"""Of the nats that targets cost by how common their tokens are, the share that an alignment with the sources may cost
where both run in one direction (pronunciations cost 0 to 0.44; forms with features around them 0.08 to 0.55; dates
0.92)."""
NUMBERS = 0.5
"""Share of digits in the sources, features apart, from which they are numbers: what is written then depends on how many
digits follow, and is learnt better by comparing (amounts, which an alignment costs 0.37)."""
ALIGNED_FROM = 2000
"""Pairs that this is found out from, about."""
FEW_FORMS = 1000
"""Pairs with features below which more are made up ..."""
HALLUCINATED = 4000
"""... about so many, ..."""
MOST_HALLUCINATED = 20
"""... at most so many for each, ..."""
STEMS = 0.7
"""... if so much of the sources, features apart, comes again in the targets in one piece (0.84 to 0.99 in German,
Estonian, French, Russian and Ukrainian, 0.37 in Arabic verbs, 0.52 in amounts), ..."""
CARRIED = 0.25
"""... or if both run in one direction and so much of the targets is letters that the sources have as often (0.28 in
Arabic verbs, 0.64 to 0.87 in Estonian and German, nothing in pronunciations)."""
HIDDEN = 400
"""Pairs that placeholders are learnt from, about, where so much of the targets is carried over."""
BUNDLES = 0.5
"""Share of sources with a bundle of features from which features are tokens."""


@dataclass(frozen=True)
class Scale:
    """What suits words by how many pairs there are; measured in docs/log.md."""

    below: float
    """Pairs from which on it suits no more."""
    rows: int
    """Positions a batch."""
    width: int
    encoder: int
    """Width of the encoder, a direction."""
    joined: int
    """Pairs joined of two for each pair: they teach not to skip, repeat or count."""
    passes: int
    """Through ten thousand pairs, where no budget is given; a joined pair counts twice."""
    rate: float
    """Highest learning rate ..."""
    quick: float
    """... of up to so many updates."""
    dropout: float
    """At most."""
    layers: int = 2
    """Of the encoder."""
    wait: int = 6
    """Validations without a better one that are waited for, at least: where pairs are few, so are dev pairs, and their
    score jumps."""


WORD_SCALES = (
    Scale(3_000, rows=800, width=128, encoder=64, joined=2, passes=60, rate=3e-3, quick=2_600, dropout=0.4, wait=20),
    Scale(PLENTY, rows=1200, width=192, encoder=192, joined=1, passes=30, rate=3e-3, quick=2_600, dropout=0.3),
    Scale(
        float("inf"),
        rows=1200,
        width=256,
        encoder=256,
        layers=3,
        joined=0,
        passes=60,
        rate=1.2e-3,
        quick=10_000,
        dropout=0.3,
    ),
)
FORM_SCALES = (
    WORD_SCALES[0],
    replace(WORD_SCALES[1], joined=0, passes=12),
    replace(WORD_SCALES[2], layers=2),
)
"""Words with features that run in one direction: ten thousand need no joined pairs, and fewer passes. A third layer has
not been tried for them."""

Tree = dict[str, dict[str, Any]]
Overrides = Mapping[str, Mapping[str, Any]]
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Choice:
    """Knobs by group, and why."""

    knobs: Tree
    kind: str
    """What the pairs are, in words."""
    tokens: str
    """What they are cut into."""
    more: str = ""
    """What else is done; begins with a semicolon."""

    @property
    def reason(self) -> str:
        """All of that."""
        return f"{self.kind}: {self.tokens}{self.more}"


def known(preset: str | None, asked: Overrides) -> Config:
    """The knobs of a run as far as they are known before its pairs are; of `auto`'s own the defaults stand there.

    Raises:
        UsageError: as `load_config`.
    """
    return load_config(preset, asked, settled=preset not in (None, AUTO))


def settle(pairs: Sequence[Pair] | Pairs, preset: str | None, asked: Overrides) -> tuple[Config, str]:
    """The knobs of a run, and in words what `auto` saw (empty with another preset).

    Args:
        pairs: to be trained on; the same pairs give the same knobs.
        preset: a bundled name or a TOML file; None: `auto`.
        asked: knobs by group that win over it.

    Raises:
        UsageError: as `load_config`.
    """
    if preset not in (None, AUTO):
        return load_config(preset, asked), ""
    data = asked.get("data", {})
    choice = _of(pairs, _Budget(asked.get("train", {})), data)
    knobs = choice.knobs
    if _other_tokenizers(data, knobs["data"]):  # then what goes with those that were looked at does not go with them
        knobs["data"] = {key: value for key, value in knobs["data"].items() if key not in OF_TOKENIZERS}
        for group, name in MARKS:
            knobs[group].pop(name, None)
        choice = replace(choice, tokens="your tokenizers")
    found = {**knobs["data"], **data}
    one = found.get("share_vocabulary", True) and found.get("target_tokenizer") in (None, found.get("tokenizer"))
    knobs["model"]["tied"] = "all" if one else "target"
    if asked.get("train", {}).get("dev_answers") == 0:  # then there are none to be judged
        knobs["train"].pop("dev_metric", None)
    own = asked.get("model", {}).get("attention")
    if own == "monotonic":
        knobs["data"]["too_long"] = "drop"
    elif own is None and "attention" in knobs["model"]:  # gives way to whatever does not go with it
        with suppress(UsageError):
            return _under(asked, knobs), choice.reason
    if own != "monotonic":
        for group, name in MARKS:
            knobs[group].pop(name, None)
    return _under(asked, knobs), choice.reason


def _other_tokenizers(asked: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Whether the user names other tokenizers than were chosen; one that is named alone is meant for both sides."""
    both = chosen["tokenizer"], chosen.get("target_tokenizer") or chosen["tokenizer"]
    source = asked.get("tokenizer", both[0])
    target = asked.get("target_tokenizer") or (source if "tokenizer" in asked else both[1])
    return (source, target) != both


def _under(asked: Overrides, knobs: Tree) -> Config:
    """These knobs with the user's over them. Raises UsageError."""
    tree = {group: dict(values) for group, values in knobs.items()}
    override(tree, asked)
    return parse_config(tree)


def _of(pairs: Sequence[Pair] | Pairs, budget: _Budget, data: Mapping[str, Any]) -> Choice:
    if _conversing(list(islice(pairs, SAMPLE))):
        return _conversation(len(pairs), budget)
    sample = pairs.sample(SAMPLE) if isinstance(pairs, Pairs) else pairs[:: max(1, len(pairs) // SAMPLE)]
    source, target = [pair.source for pair in sample], [pair.target for pair in sample]
    symbols = _closed(source), _closed(target)
    most = [LETTERS if closed else parts for closed, parts in zip(symbols, PARTS, strict=True)]
    if _short(source, most[0]) and _short(target, most[1]):
        return _words(len(pairs), source, target, symbols, budget, data)
    return _sentences(len(pairs), source, target, budget)


def _conversing(pairs: Sequence[Pair]) -> bool:
    """Whether enough answers are questions too. So are base forms (cats → cat, cat → cat), but they repeat theirs."""
    if _echo(pairs) < ECHO:
        return False
    some = pairs[:: max(1, len(pairs) // ALIGNED_FROM)]  # no form is long, and what is takes long to compare
    return in_stems([pair for pair in some if max(map(len, pair)) <= 4 * LETTERS]) < FORMS


def _echo(pairs: Sequence[Pair]) -> float:
    """Share of targets that are another pair's source, or the last turn of it."""
    asked = [pair.source.rpartition(TURN)[2].strip() for pair in pairs]
    known = set(asked)
    echoes = sum(pair.target in known and pair.target != last for pair, last in zip(pairs, asked, strict=True))
    return echoes / max(len(pairs), 1)


def _short(texts: Sequence[str], most: float) -> bool:
    """Whether texts have at most so many parts, and few characters, on average."""
    parts, letters = sum(len(text.split()) for text in texts), sum(map(len, texts))
    return parts <= most * len(texts) and letters <= LETTERS * len(texts)


def _closed(texts: Sequence[str]) -> bool:
    """Whether texts are spelt in a closed set of short symbols with white space between them, as phones are."""
    counts = Counter(symbol for text in texts for symbol in text.split())
    total = sum(counts.values())
    if total < 2 * len(texts):
        return False
    letters = sum(len(symbol) * count for symbol, count in counts.items())
    return len(counts) <= max(100, 0.03 * total) and len(counts) <= 1000 and letters <= 3.5 * total


def _subwords(text: str) -> float:
    """How many subwords a text has, about."""
    spaced = PIECES * len(text.split())
    if text.isascii():
        return spaced
    return spaced + sum(len(letters.findall(text)) / each for letters, each in _UNSPACED)


def _conversation(pairs: int, budget: _Budget) -> Choice:
    passes, updates = budget(pairs, positions=30.0, tokens=14.0, rows=3000, usual=_fewer(pairs, 10))
    knobs: Tree = {
        "data": {"tokenizer": "bpe", "vocabulary": 6000, "lower_source": True, "max_source": 80, "max_target": 60},
        "model": {
            **_sized(384 if pairs >= 50_000 else 256),
            "encoder_layers": 1,
            "dropout": _dropout(passes, pairs, 0.2),
        },
        "train": {
            "label_smoothing": 0.0,
            "batch_tokens": 3000,
            "sampled_until": _sampled_until(passes),
            **_pace(passes, updates),
        },
        "search": {
            "sample": True,
            "temperature": 1.1,
            "top_k": 100,
            "top_p": 1.0,
            "no_repeat_ngram": 3,
            "mmi": 1.0,
            "candidates": 4,
        },
    }
    kind, drawn = "a conversation (answers are questions too)", "; of four drawn the most fitting is given"
    return Choice(knobs, kind, "subwords", drawn)


def _words(
    pairs: int,
    source: Sequence[str],
    target: Sequence[str],
    symbols: tuple[bool, bool],
    budget: _Budget,
    data: Mapping[str, Any],
) -> Choice:
    tagged = sum(BUNDLE.search(text) is not None for text in source) >= BUNDLES * len(source)
    kinds: tuple[TokenizerKind, TokenizerKind] = (
        "symbol" if symbols[0] else "tagged" if tagged else "char",
        "symbol" if symbols[1] else "char",
    )
    names = {"symbol": "symbols of a closed set", "tagged": "characters and features", "char": "characters"}
    one = kinds == ("char", "char") and _alike(source, target)
    lengths = [
        sum(len(t.split() if kind == "symbol" else t) + 1 for t in texts) / len(texts)
        for kind, texts in zip(kinds, (source, target), strict=True)
    ]
    some = list(map(Pair, source, target))[:: max(1, len(source) // ALIGNED_FROM)]
    features = _features(data, usual="around" if tagged else "as_is")
    one_way = _alignment_cost(some, kinds, features) < ALIGNED and not (tagged and in_digits(some) >= NUMBERS)
    if not one_way:
        features = _features(data, usual="as_is")
    scale = next(scale for scale in (FORM_SCALES if tagged and one_way else WORD_SCALES) if pairs < scale.below)
    letters = in_letters(some) if "symbol" not in kinds else 0.0
    joined, hallucinated = scale.joined, 0
    if tagged and pairs < FEW_FORMS and (in_stems(some) >= STEMS or (one_way and letters >= CARRIED)):
        # so few do not even teach what is copied
        joined, hallucinated = 0, min(MOST_HALLUCINATED, round(HALLUCINATED / pairs))
    joined, hallucinated = _asked(data, "joined", joined), _asked(data, "hallucinated", hallucinated)
    placeholders = min(1.0, HIDDEN / (pairs * (1 + hallucinated))) if letters >= CARRIED else 0.0
    placeholders = _asked(data, "placeholders", round(placeholders, 3))
    texts = (1 + hallucinated) * (1 + placeholders) + 2 * joined  # of an epoch, for each pair
    passes, updates = budget(
        pairs,
        positions=texts * max(lengths),
        tokens=texts * lengths[1],
        rows=scale.rows,
        usual=max(4, round(_fewer(pairs, scale.passes) / texts)),
    )
    pace = _pace(passes, updates, rate=scale.rate, quick=scale.quick, patience=scale.wait)
    knobs: Tree = {
        "data": {
            "tokenizer": kinds[0],
            "target_tokenizer": kinds[1],
            "share_vocabulary": one,
            "features": features,
            "vocabulary": 4000,
            "joined": joined,
            "hallucinated": hallucinated,
            "placeholders": placeholders,
            "buckets": 8,
        },
        "model": {
            **_sized(scale.width),
            "encoder_hidden": scale.encoder,
            "encoder_layers": scale.layers,
            "dropout": _dropout(passes, pairs, scale.dropout),
        },
        "train": {"batch_tokens": scale.rows, "dev_metric": "accuracy", "dev_answers": 1000, **pace},
        "search": {"beam": 5, "length_penalty": 0.0},
    }
    direction = f", features {features}" if features != "as_is" else ""
    if one_way:
        # the marks among the tokens are not counted above: what suits such words was measured so
        knobs["data"]["too_long"], knobs["model"]["attention"] = "drop", "monotonic"
        direction += ", in one direction"
        # What a sound depends on stands behind it more often than before it. Many words teach it either way; with
        # features it has not been tried.
        if pairs < PLENTY and not tagged:
            knobs["data"] |= {"reverse_source": True, "reverse_target": True}
            direction += ", from the end"
    company = f"; pairs joined of two are added, {joined} for each" if joined else ""
    company += f"; pairs made up are added, {hallucinated} for each" if hallucinated else ""
    return Choice(knobs, "words", f"{names[kinds[0]]} to {names[kinds[1]]}{direction}", company)


def _asked(data: Mapping[str, Any], name: str, usual: _Number) -> _Number:
    """What the user asks for, if it is a number; nonsense is refused later, by name."""
    asked = data.get(name)
    return type(usual)(asked) if isinstance(asked, int | float) and asked >= 0 else usual


def _features(data: Mapping[str, Any], *, usual: Features) -> Features:
    """Where the user says that features are read; nonsense is refused later, by name."""
    places: tuple[Features, ...] = get_args(Features)
    found: list[Features] = [place for place in places if place == data.get("features")]
    return found[0] if found else usual


def _alignment_cost(pairs: Sequence[Pair], kinds: tuple[TokenizerKind, TokenizerKind], features: Features) -> float:
    """Of the nats that targets cost by how common their tokens are, the share that is left where the tokens of the
    sources, one after the other, say what comes next; 1 where there is nothing to be known."""
    texts = list(zip(*pairs, strict=True))
    source, target = (
        Tokenizer.train(side, kind=kind, vocabulary=4000) for side, kind in zip(texts, kinds, strict=True)
    )
    written = target.encode_batch(texts[1])
    counts = np.bincount(np.concatenate([np.array(row, np.int64) for row in written]))
    counts = counts[counts > 0]
    by_count = (counts * np.log(counts.sum() / counts)).sum()
    rows = list(zip(source.reading(features).encode_batch(texts[0]), written, strict=True))
    found = Alignment.learn(rows, source=source.size, target=target.size).nats(rows).sum()
    return float(found / by_count) if by_count else 1.0


def _sentences(pairs: int, source: Sequence[str], target: Sequence[str], budget: _Budget) -> Choice:
    lengths = [sum(map(_subwords, texts)) / len(texts) + 1 for texts in (source, target)]
    passes, updates = budget(pairs, positions=max(lengths), tokens=lengths[1], rows=1200, usual=_fewer(pairs, 40))
    knobs: Tree = {
        "data": {"tokenizer": "bpe", "vocabulary": 4000 if pairs < 10_000 else 6000},
        "model": {
            **_sized(256 if pairs < 50_000 else 384),
            "dropout": _dropout(passes, pairs, 0.3),
            "word_dropout": 0.1 if passes >= OFTEN else 0.0,
        },
        "train": {"batch_tokens": 1200, "sampled_until": _sampled_until(passes), **_pace(passes, updates)},
        "search": {"beam": 5, "length_penalty": 1.0},
    }
    return Choice(knobs, "sentences", "subwords")


@dataclass(frozen=True)
class _Budget:
    """How often the data will be gone through, by what the user asks for."""

    asked: Mapping[str, Any]

    def __call__(self, pairs: int, *, positions: float, tokens: float, rows: int, usual: int) -> tuple[float, float]:
        """(passes, updates) of so many pairs with so many positions and target tokens each, ``rows`` positions a batch;
        ``usual`` passes where nothing is asked for."""
        an_epoch = pairs * positions / (FILLED * rows)
        ways = []
        if self.asked.get("minutes"):
            models = self.asked.get("members", 1) + bool(self.asked.get("distilled"))
            of_one = 60 * self.asked["minutes"] / models
            ways.append(of_one * RATE / (pairs * tokens))
        if self.asked.get("max_updates"):
            ways.append(self.asked["max_updates"] / an_epoch)
        if self.asked.get("epochs"):
            ways.append(self.asked["epochs"])
        passes = float(min(ways, default=usual))
        return passes, passes * an_epoch


def _pace(
    passes: float, updates: float, *, rate: float = 3e-3, quick: float = 2600, patience: int = 6
) -> dict[str, Any]:
    """Budget, patience, rate, warm-up and average that fit so many updates: this rate for up to ``quick`` of them, and
    this patience at least."""
    horizon = min(max(updates / 25, 50), 1000)
    return {
        "epochs": max(1, round(passes)),
        # Adam's steps add up like a random walk: over many of them a high rate leaves weights that are mostly noise
        "learning_rate": round(rate * min(1.0, quick / max(updates, 1)) ** 0.5, 5),
        "warmup": round(min(max(updates / 25, 40), 400)),
        "average": round(1 - 1 / horizon, 4),
        # a validation an epoch, or a hundred updates: the rate needs its time to fall before a run gives up
        "patience": max(patience, round(min(passes, updates / 100) / 3)),
    }


def _sampled_until(passes: float) -> float:
    """Share of so many passes in which subwords are learnt from sampled ones."""
    return round(min(SAMPLED_UNTIL, SAMPLED_PASSES / passes), 2)


def _dropout(passes: float, pairs: int, most: float) -> float:
    """The more often the same pairs come, the more; the more of them there are, the less."""
    return round(min(max(0.07 * passes**0.45 * min(1.0, PLENTY / pairs) ** 0.5, 0.05), most), 2)


def _sized(width: int) -> dict[str, Any]:
    """One width everywhere, so that what is attended to can carry its word along (`Seq2Seq.carries_words`)."""
    return {"embedding": width, "hidden": width, "encoder_hidden": width // 2, "encoder_layers": 2, "decoder_layers": 2}


def _fewer(pairs: int, at_ten_thousand: int) -> int:
    """Passes: of four times the pairs half as many."""
    return max(4, round(at_ten_thousand * (10_000 / max(pairs, 100)) ** 0.5))


def _alike(source: Sequence[str], target: Sequence[str]) -> bool:
    """Whether most of what is written in the target's alphabet could be copied from the source's."""
    ours, theirs = (Counter(character for text in side for character in text) for side in (source, target))
    return sum(count for character, count in theirs.items() if character in ours) >= 0.5 * sum(theirs.values())
