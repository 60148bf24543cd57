"""A model against pairs it has not seen: numbers by name."""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from antiphon import metrics as measure
from antiphon.config import parse_config
from antiphon.data.corpus import Part, read_part
from antiphon.data.cutting import SPACE
from antiphon.data.pairs import Pair
from antiphon.data.tokenizer import UNK, Tokenizer
from antiphon.errors import DataError, UsageError
from antiphon.model import Model, Prediction

METRICS = ("accuracy", "bleu", "chrf", "distinct", "hits", "loss", "per", "perplexity", "wer")
"""What can be asked of `evaluate`."""

_CANDIDATES = 20  # answers to choose from in hits@1
_HITS_PAIRS = 4000  # most pairs it is measured on

_OF_ANSWERS = {"accuracy", "bleu", "chrf", "distinct", "per", "wer"}
_OF_LIKELIHOOD = {"loss", "perplexity"}


def evaluate(
    model: Model,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str] | None = None,
    *,
    seed: int = 1,
    tokenize: str = "13a",
    limit: int | None = None,
    **search: Any,
) -> dict[str, float]:
    """Measure a model on pairs; a dict ready for JSON.

    ========== ====================================================================================================
    accuracy   percent of sources whose answer is one of their targets, letter for letter
    wer        percent. Symbol targets (pronunciation): sources with any error, 100 - accuracy, as in the SIGMORPHON
               tasks. Other targets: word error rate by edit distance
    per        percent: edits over symbols; over characters, where targets are not symbols
    bleu, chrf corpus scores 0..100, pair by pair
    loss       nats per target token, EOS counted
    perplexity exp(loss) as ``perplexity``; and, fit to compare models of different tokenizers, both with one end mark
               a text, ``perplexity_per_word`` and ``bits_per_character``; see below
    distinct   ``distinct_1`` and ``distinct_2``, over n-grams (Li et al. 2016 divide by words);
               ``distinct_2_beside_human``, the latter over that of the targets, as many words of either; and the shares
               of answers that are one of the ``ten_commonest`` and that say a 4-gram twice, ``repeats_4gram``; all but
               the third 0..1
    hits       ``hits_at_1``: percent of sources for which the true target is likelier, per token, than each of 19
               drawn from the other targets; on at most 4,000 pairs. With ``mmi``, also ``hits_at_1_mmi``:
               log P(T | S) less that share of log P(T), per token
    ========== ====================================================================================================

    Sources that repeat are answered once, and any of their targets is right (accuracy, wer, per).

    Perplexity per word counts the words of `metrics.words`: punctuation is split off, whatever the tokenizer does.
    A tokenizer with UNK flatters a model, since P(UNK) does not spell the word. So in per-word and per-character
    figures each UNK is charged for its spelling: each character and an end mark as one of A + 1 equally likely signs,
    A the number of different characters in the targets. ``bits_per_character_uncharged`` leaves the charge out, and
    ``unknown_share`` is the share 0..1 of target tokens that are UNK.

    Args:
        model: what to measure.
        pairs: (source, target); sources may repeat.
        metrics: names above; None: accuracy, perplexity, and wer and per for symbol targets, else bleu and chrf.
        seed: draws the pairs and distractors of hits, and sampled answers.
        tokenize: the tokenizer of BLEU, "13a" or "none".
        limit: look at the first so many pairs only.
        search: knobs of SearchConfig for the answers.

    Returns:
        The figures by name; and ``pairs``, ``sources`` (different ones), ``truncated`` (sources cut, if there were
        answers), ``target_tokens`` (if likelihoods) and ``seconds``.

    Raises:
        UsageError: no such metric or search knob.
        DataError: no pairs, or too few different targets for hits.
        MissingExtraError: sacrebleu or rapidfuzz is needed and not installed.
    """
    started = time.perf_counter()
    names = _default(model) if metrics is None else named(metrics)
    pairs = pairs[:limit]
    if not pairs:
        raise DataError("no pairs to evaluate")
    targets_of: dict[str, list[str]] = {}
    for source, target in pairs:
        targets_of.setdefault(source, []).append(target)

    figures: dict[str, float] = {}
    hits: dict[str, float] = {}
    if "hits" in names:  # first, since there may be too few pairs for it
        weight = parse_config({"search": {**model.config.search.model_dump(), **search}}).search.mmi
        hits = _hits(model, pairs, targets_of, np.random.default_rng(abs(seed)), weight)
    if _OF_ANSWERS & set(names):
        predictions = dict(zip(targets_of, model.predict(list(targets_of), seed=seed, **search), strict=True))
        figures |= _of_answers(model, names, pairs, targets_of, predictions, tokenize)
    if _OF_LIKELIHOOD & set(names):
        figures |= _of_likelihood(model, names, pairs, *model.score_tokens(pairs))
    return {
        **figures,
        **hits,
        "pairs": len(pairs),
        "sources": len(targets_of),
        "seconds": round(time.perf_counter() - started, 3),
    }


def pairs_for(
    model: Model, data: str | Path, part: Part | None = None, *, unseen: bool = False
) -> tuple[str, list[Pair]]:
    """DATA, or one part of it, as this model reads it: where it is, in words, and its pairs (`read_part`).

    Args:
        model: how many turns it reads, and what is held out, follows from its knobs.
        data: a file or a folder.
        part: train, dev, test; None: see `read_part`.
        unseen: of a file that the model has learnt from, what was held out.

    Raises:
        DataError, UsageError: as `read_part`.
    """
    knobs = model.config.data
    learnt = model.learnt_from if unseen else ()
    return read_part(data, part, context=knobs.context, dev_pairs=knobs.dev_pairs, learnt=learnt)


def _default(model: Model) -> list[str]:
    by_kind = ["wer", "per"] if model.target_tokenizer.kind == "symbol" else ["bleu", "chrf"]
    return ["accuracy", *by_kind, "perplexity"]


def named(metrics: Sequence[str]) -> list[str]:
    """These names, if there are such metrics. Raises UsageError."""
    metrics = [str(name).strip() for name in ([metrics] if isinstance(metrics, str) else metrics)]
    metrics = [name for name in metrics if name]
    if not metrics:
        raise UsageError(
            "no metric is named", where="--metrics", cure=f"leave it out, or name some: {', '.join(METRICS)}"
        )
    for name in metrics:
        if name not in METRICS:
            near = difflib.get_close_matches(name.lower(), METRICS, n=1)
            cure = f'did you mean "{near[0]}"?' if near else f"metrics: {', '.join(METRICS)}"
            raise UsageError(f'no metric "{name}"', where="--metrics", cure=cure)
    return metrics


def _of_answers(
    model: Model,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    targets_of: dict[str, list[str]],
    predictions: dict[str, Prediction],
    tokenize: str,
) -> dict[str, float]:
    answers = [predictions[source].text for source in targets_of]
    references = list(targets_of.values())
    each = [predictions[source].text for source, _ in pairs]
    targets = [target for _, target in pairs]
    symbols = model.target_tokenizer.kind == "symbol"
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "accuracy": lambda: {"accuracy": measure.accuracy(answers, references)},
        "wer": lambda: {"wer": measure.wer(answers, references, symbols=symbols)},
        "per": lambda: {"per": (measure.per if symbols else measure.cer)(answers, references)},
        "bleu": lambda: {"bleu": measure.bleu(each, targets, tokenize=tokenize)},
        "chrf": lambda: {"chrf": measure.chrf(each, targets)},
        "distinct": lambda: {
            "distinct_1": measure.distinct(answers, 1),
            "distinct_2": measure.distinct(answers, 2),
            "distinct_2_beside_human": measure.distinct_beside(answers, [own[0] for own in references], 2),
            "ten_commonest": measure.commonest(answers, 10),
            "repeats_4gram": measure.repeats(answers, 4),
        },
    }
    figures: dict[str, float] = {}
    for name in names:
        if name in ways:
            figures |= ways[name]()
    return {**figures, "truncated": sum(prediction.truncated for prediction in predictions.values())}


def _of_likelihood(
    model: Model, names: Sequence[str], pairs: Sequence[tuple[str, str]], log_probs: np.ndarray, tokens: np.ndarray
) -> dict[str, float]:
    nats, total = -float(log_probs.sum()), int(tokens.sum())
    figures: dict[str, float] = {"target_tokens": total}
    if "loss" in names:
        figures["loss"] = nats / total
    if "perplexity" in names:
        texts = [measure.plain(target) for _, target in pairs]
        characters = sum(len(text) + 1 for text in texts)
        told = model.with_placeholders([(source, text) for (source, _), text in zip(pairs, texts, strict=True)])
        unknown, hidden = unknown_text(model.target_tokenizer, [target for _, target in told])
        charged = nats + measure.spelling_nats(unknown, hidden, len(set().union(*texts)))
        figures |= {
            "perplexity": measure.perplexity(nats, total),
            "perplexity_per_word": measure.perplexity(charged, sum(len(measure.words(t)) + 1 for t in texts)),
            "bits_per_character": measure.bits(charged, characters),
            "bits_per_character_uncharged": measure.bits(nats, characters),
            "unknown_share": unknown / total,
        }
    return figures


def unknown_text(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[int, int]:
    """How many UNK the texts become, and how many characters these stand for."""
    counts = Counter(chunk for text in texts for chunk in tokenizer.normalise(text).split())
    unknown = hidden = 0
    for (chunk, count), ids in zip(counts.items(), tokenizer.encode_batch(list(counts)), strict=True):
        if UNK in ids:
            known = "".join(tokenizer.tokens([token for token in ids if token != UNK])).replace(SPACE, "")
            unknown += count * ids.count(UNK)
            hidden += count * max(0, len(chunk) - len(known))
    return unknown, hidden


def _hits(
    model: Model,
    pairs: Sequence[tuple[str, str]],
    targets_of: dict[str, list[str]],
    rng: np.random.Generator,
    mmi: float,
) -> dict[str, float]:
    """Per token, as ParlAI ranks for a generating model: the sum would choose the shortest."""
    pool = list(dict.fromkeys(target for _, target in pairs))
    measured = np.sort(rng.permutation(len(pairs))[:_HITS_PAIRS])
    rows: list[tuple[str, str]] = []
    for source, target in (pairs[place] for place in measured):
        right = set(targets_of[source])
        needed = len(right) + _CANDIDATES - 1  # so many hold enough wrong ones, even if all right ones are among them
        drawn = [pool[place] for place in rng.choice(len(pool), min(needed, len(pool)), replace=False)]
        wrong = [other for other in drawn if other not in right][: _CANDIDATES - 1]
        if len(wrong) < _CANDIDATES - 1:
            raise DataError(
                f"hits needs {_CANDIDATES - 1} wrong answers to every source, to one there are {len(wrong)}",
                cure="evaluate on more pairs, or leave hits out of --metrics",
            )
        rows += [(source, candidate) for candidate in (target, *wrong)]
    nats, tokens = model.score_tokens(rows)
    figures = {"hits_at_1": measure.hits_at_1((nats / tokens).reshape(-1, _CANDIDATES))}
    if mmi:
        candidates = list(dict.fromkeys(candidate for _, candidate in rows))
        alone = dict(zip(candidates, model.score([("", candidate) for candidate in candidates]), strict=True))
        less = nats - mmi * np.array([alone[candidate] for _, candidate in rows])
        figures["hits_at_1_mmi"] = measure.hits_at_1((less / tokens).reshape(-1, _CANDIDATES))
    return figures
