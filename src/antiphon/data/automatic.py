"""What the pairs themselves say about the knobs: preset `auto`.

Three kinds of data need different tokenizers; sizes, dropout and the budget follow from how much there is to learn.

- *conversation*: many an answer is the next pair's question. Subwords; answers are drawn, not searched.
- *words*: a text is a word, a date, a name, a form to inflect. Characters, or the symbols of a closed set (phones).
- *sentences*: everything else. Subwords, shared by both sides.

Every number here is from docs/log.md or docs/results.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from antiphon.config import Config, load_config, override, parse_config
from antiphon.data.corpus import Pairs
from antiphon.data.pairs import Pair
from antiphon.data.tokenizer import BUNDLE

AUTO = "auto"
"""Name of the preset that is no file."""
TOKENIZING = frozenset(("tokenizer", "target_tokenizer", "share_vocabulary"))
SAMPLE = 20_000
"""Pairs looked at, spread evenly over the data."""
ECHO = 0.2
"""Share of targets that occur as sources from which pairs are a conversation."""
PARTS = 6.0, 2.5
"""White-space-separated parts of a source and of a target, on average, up to which pairs are words."""
LETTERS = 60
"""Characters a text, on average, up to which the same holds."""
BUNDLES = 0.5
"""Share of sources with a bundle of features from which features are tokens."""

Kind = Literal["conversation", "words", "sentences"]
Tree = dict[str, dict[str, Any]]
Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Choice:
    """Knobs by group, and why."""

    kind: Kind
    knobs: Tree
    reason: str


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
    choice = _of(pairs)
    knobs, data = choice.knobs, asked.get("data", {})
    if not TOKENIZING.isdisjoint(data):  # then the user's tokenizers decide what can be shared
        knobs["data"] = {key: value for key, value in knobs["data"].items() if key not in TOKENIZING}
        one = data.get("share_vocabulary", True) and data.get("target_tokenizer") in (None, data.get("tokenizer"))
        knobs["model"]["tied"] = "all" if one else "target"
    override(knobs, asked)
    return parse_config(knobs), choice.reason


def _of(pairs: Sequence[Pair] | Pairs) -> Choice:
    sample = pairs.sample(SAMPLE) if isinstance(pairs, Pairs) else pairs[:: max(1, len(pairs) // SAMPLE)]
    source, target = [pair.source for pair in sample], [pair.target for pair in sample]
    if _echo(list(islice(pairs, SAMPLE))) >= ECHO:
        return _conversation(len(pairs))
    symbols = _closed(target)
    if _short(source, PARTS[0]) and _short(target, LETTERS if symbols else PARTS[1]):
        return _words(len(pairs), source, target, symbols=symbols)
    return _sentences(len(pairs))


def _echo(pairs: Sequence[Pair]) -> float:
    """Share of targets that are another pair's source."""
    asked = {pair.source for pair in pairs}
    return sum(pair.target in asked and pair.target != pair.source for pair in pairs) / max(len(pairs), 1)


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


def _conversation(pairs: int) -> Choice:
    knobs: Tree = {
        "data": {"tokenizer": "bpe", "vocabulary": 6000, "lower": True, "max_source": 80, "max_target": 60},
        "model": {**_sized(384 if pairs >= 50_000 else 256), "encoder_layers": 1, "dropout": 0.2},
        "train": {"warmup": 400, "label_smoothing": 0.0, "batch_tokens": 3000, "epochs": _epochs(pairs, 10)},
        "search": {"sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "no_repeat_ngram": 3},
    }
    return Choice("conversation", knobs, "a conversation (answers are questions too): subwords, answers are drawn")


def _words(pairs: int, source: Sequence[str], target: Sequence[str], *, symbols: bool) -> Choice:
    tagged = sum(BUNDLE.search(text) is not None for text in source) >= BUNDLES * len(source)
    reason = "words: characters" + " and features" * tagged + (" to symbols of a closed set" if symbols else "")
    one = not symbols and not tagged and _alike(source, target)
    few = pairs < 3000
    knobs: Tree = {
        "data": {
            "tokenizer": "tagged" if tagged else "char",
            "target_tokenizer": "symbol" if symbols else "char",
            "share_vocabulary": one,
            "vocabulary": 4000,
            "buckets": 8,
        },
        "model": {**_sized(256), "tied": "all" if one else "target", "dropout": 0.4 if few else 0.3},
        "train": {"batch_tokens": 400 if few else 1200, "epochs": _epochs(pairs, 60), "dev_metric": "accuracy"},
        "search": {"beam": 5, "length_penalty": 0.0},
    }
    knobs["train"]["dev_answers"] = 1000
    return Choice("words", knobs, reason)


def _sentences(pairs: int) -> Choice:
    knobs: Tree = {
        "data": {"tokenizer": "bpe", "vocabulary": 4000 if pairs < 10_000 else 8000},
        "model": {**_sized(256 if pairs < 50_000 else 384), "dropout": 0.3},
        "train": {"batch_tokens": 1500, "epochs": _epochs(pairs, 40)},
        "search": {"beam": 5, "length_penalty": 1.0},
    }
    return Choice("sentences", knobs, "sentences: subwords")


def _sized(width: int) -> dict[str, Any]:
    """One width everywhere, so that what is attended to can carry its word along (`Encoder`)."""
    return {"embedding": width, "hidden": width, "encoder_hidden": width // 2, "encoder_layers": 2, "decoder_layers": 2}


def _epochs(pairs: int, at_ten_thousand: int) -> int:
    """Times through the data: four times the pairs, half the times."""
    return max(4, round(at_ten_thousand * (10_000 / max(pairs, 100)) ** 0.5))


def _alike(source: Sequence[str], target: Sequence[str]) -> bool:
    """Whether most of what is written in the target's alphabet could be copied from the source's."""
    ours, theirs = (Counter(character for text in side for character in text) for side in (source, target))
    return sum(count for character, count in theirs.items() if character in ours) >= 0.5 * sum(theirs.values())
