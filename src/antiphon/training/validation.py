"""How good the model is now: dev loss over the full vocabulary, real answers, and whether it has become a bore."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from antiphon import metrics
from antiphon.config import Config
from antiphon.data.pairs import Pair, spread
from antiphon.data.tokenizer import PAD
from antiphon.model import Model
from antiphon.nn.engine import TorchEngine
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.nn.state import DecoderState, Memory
from antiphon.search.step import StepOutput
from antiphon.training.precision import Precision, products_in
from antiphon.training.preparation import Prepared
from antiphon.training.progress import Sample

SAMPLES = 4
"""Dev pairs shown at each validation."""
BORE = 0.1
"""Share of all answers from which one answer dominates."""

_LESS = ("loss", "wer")
"""Metrics of which less is better."""


@dataclass(frozen=True)
class Verdict:
    """What a validation found."""

    loss: float
    """Nats per target token over the full vocabulary."""
    bucket_losses: list[tuple[int, int, float, int]]
    """(S, T, nats per token, tokens) per bucket with dev pairs."""
    metric: str
    score: float
    samples: list[Sample]
    dominating: tuple[str, float] | None


class InterruptedValidation(Exception):
    """A validation was left before its end."""


class _Pausing:
    """An engine whose every step may be the last: what ``interrupted`` says is asked before it."""

    def __init__(self, engine: TorchEngine, interrupted: Callable[[], bool]) -> None:
        self._engine, self._interrupted = engine, interrupted
        self.vocabulary = engine.vocabulary
        self.encode, self.score = engine.encode, engine.score

    def step(self, y: np.ndarray, state: DecoderState, memory: Memory, k: int) -> StepOutput:
        _go_on(self._interrupted)
        return self._engine.step(y, state, memory, k)


def validate(
    model: Seq2Seq,
    prepared: Prepared,
    config: Config,
    *,
    precision: Precision,
    interrupted: Callable[[], bool] = lambda: False,
) -> Verdict:
    """Scores ``model``, in evaluation mode, on dev.

    Args:
        model: the averaged weights.
        prepared: dev, and the tokenizers.
        config: which score decides.
        precision: of matrix products.
        interrupted: asked between batches and between steps of answers.

    Raises:
        InterruptedValidation: as soon as ``interrupted`` says so.
    """
    losses = dev_losses(model, prepared, precision=precision, interrupted=interrupted)
    loss = mean_loss(losses)
    metric = config.train.dev_metric
    pairs = spread(prepared.dev_pairs, config.train.dev_answers)
    found: dict[str, str] = {}
    if pairs:
        face = Model(
            _Pausing(TorchEngine(model), interrupted),
            prepared.source_tokenizer,
            prepared.target_tokenizer,
            config,
            None,
        )
        greedily = {"beam": 1, "nbest": 1, "sample": False, "mmi": 0.0}
        asked = list(dict.fromkeys(pair.source for pair in pairs))
        found = dict(zip(asked, (p.text for p in face.predict(asked, **greedily)), strict=True))
    references = [pair.target for pair in pairs]
    return Verdict(
        loss=loss,
        bucket_losses=losses,
        metric=metric,
        score=loss if metric == "loss" else _score(metric, pairs, found, prepared),
        samples=[Sample(p.source, found[p.source], p.target) for p in pairs[:SAMPLES]],
        dominating=dominating_answer(list(found.values()), references),
    )


@torch.inference_mode()
def dev_losses(
    model: Seq2Seq, prepared: Prepared, *, precision: Precision, interrupted: Callable[[], bool] = lambda: False
) -> list[tuple[int, int, float, int]]:
    """(S, T, nats per token, tokens) of every bucket that has dev pairs."""
    nats, tokens = defaultdict[int, float](float), defaultdict[int, int](int)
    with products_in(precision):
        for batch in prepared.dev_stream().in_order():
            _go_on(interrupted)
            arrays = (torch.from_numpy(a) for a in (batch.src, batch.src_len, batch.tgt_in, batch.tgt_out))
            nats[batch.bucket] -= float(model.log_probs(*arrays).sum(dtype=torch.float64))
            tokens[batch.bucket] += int((batch.tgt_out != PAD).sum())
    shapes = prepared.plan.buckets
    return [
        (shapes[bucket].source, shapes[bucket].target, nats[bucket] / count, count)
        for bucket, count in sorted(tokens.items())
        if count
    ]


def mean_loss(losses: list[tuple[int, int, float, int]]) -> float:
    """Nats per token over all buckets, from `dev_losses`."""
    return sum(nats * count for *_, nats, count in losses) / max(sum(count for *_, count in losses), 1)


def dominating_answer(answers: list[str], references: list[str]) -> tuple[str, float] | None:
    """The commonest answer and its share, if it is given too often and far more often than it is right.

    Args:
        answers: one for each different source.
        references: of all pairs.
    """
    if len(answers) < 20:
        return None
    answer, count = Counter(answers).most_common(1)[0]
    share, rightly = count / len(answers), references.count(answer) / len(references)
    return (answer, share) if share >= BORE and share > 2 * rightly else None


def better(metric: str, score: float, best: float | None) -> bool:
    """Whether ``score`` beats ``best`` under this metric."""
    if best is None or math.isnan(best):
        return best is None or not math.isnan(score)
    return score < best if metric in _LESS else score > best


def perfect(metric: str, score: float | None) -> bool:
    """Whether nothing can beat ``score`` under this metric; of a loss nobody knows."""
    if score is None or metric == "loss":
        return False
    return score <= 0 if metric in _LESS else score >= 100


def _go_on(interrupted: Callable[[], bool]) -> None:
    if interrupted():
        raise InterruptedValidation


def _score(metric: str, pairs: list[Pair], found: dict[str, str], prepared: Prepared) -> float:
    """Of the answer to each source, as `antiphon.evaluation.evaluate` scores: of several right ones any will do."""
    if metric not in ("accuracy", "wer"):
        return getattr(metrics, metric)([found[pair.source] for pair in pairs], [pair.target for pair in pairs])
    right: dict[str, list[str]] = {source: [] for source in found}
    for source, target in prepared.dev_pairs:
        if source in right:
            right[source].append(target)
    answers, references = list(found.values()), list(right.values())
    if metric == "accuracy":
        return metrics.accuracy(answers, references)
    return metrics.wer(answers, references, symbols=prepared.target_tokenizer.kind == "symbol")
