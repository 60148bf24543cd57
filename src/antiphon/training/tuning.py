"""More training for a trained model: new pairs learnt beside a replay of the old, so that the old is kept."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from antiphon.config import Config
from antiphon.data.batches import Batch
from antiphon.data.buckets import BucketPlan
from antiphon.data.pairs import Pair
from antiphon.data.store import Shards, encode, in_memory
from antiphon.data.tokenizer import Tokenizer
from antiphon.model import Model
from antiphon.nn.engine import TorchEngine, copy_weights, load_weights
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime import folder as files
from antiphon.training.loss import batch_loss, optimizer_for, sampler_for
from antiphon.training.precision import choose_precision
from antiphon.training.preparation import Prepared
from antiphon.training.schedule import learning_rate
from antiphon.training.validation import dev_losses, mean_loss

WARMUP = 30
"""Updates over which the rate rises."""
RATE = 0.3
"""Of the run's own highest learning rate."""
AVERAGE = 0.98
"""Decay of the moving average of the weights: short, for there are few updates."""
NEW_ROWS = 32
"""New pairs in an update, beside a whole batch of the old."""
LOOKS = 12
"""Times the model is looked at, evenly over the budget."""


@dataclass(frozen=True)
class Look:
    """The model at some moment."""

    update: int
    seconds: float
    dev_loss: float
    """Nats per token over the run's own dev part."""
    learnt: float
    """Share of the new pairs answered as they should be, 0..1."""
    held: float
    """The same of those that were not learnt; 0 where there are none."""


@dataclass(frozen=True)
class Tuned:
    """What came of it."""

    before: Look
    best: Look
    """The look whose weights were kept."""
    weights: dict[str, torch.Tensor]
    looks: list[Look]


def tune(
    run: Path,
    config: Config,
    tokenizers: tuple[Tokenizer, Tokenizer],
    learn: Sequence[Pair],
    held: Sequence[Pair],
    *,
    minutes: float,
    seed: int,
    worse: float,
    observer: Callable[[Look], None],
) -> Tuned:
    """Learn new pairs for some minutes; keep the weights that answer most of them and have not lost the old.

    Every update is the mean of two losses: over a batch of the run's own training pairs, which are replayed, and
    over some of the new.

    Args:
        run: a run folder with its ids.
        config: the run's.
        tokenizers: the run's.
        learn: new pairs.
        held: new pairs to judge by.
        minutes: time budget, looks included.
        seed: decides the order.
        worse: share by which the dev loss may rise.
        observer: told every look.

    Raises:
        FolderError: the run has no ids or weights, or damaged ones.
        SaveError: the disk refuses.
    """
    begun = time.monotonic()
    torch.manual_seed(seed % 2**63)
    train = config.train.model_copy(
        update={
            "minutes": minutes,
            "max_updates": None,
            "warmup": WARMUP,
            "schedule": "cosine",
            "optimizer": "adam",
            "learning_rate": config.train.learning_rate * RATE if config.train.optimizer == "adam" else 5e-4,
            "average": AVERAGE,
            "seed": seed,
        }
    )
    config = config.model_copy(update={"train": train})
    prepared, new = _prepare(run, config, tokenizers, learn)
    precision = choose_precision(train.precision)
    vocabularies = {"source_vocabulary": tokenizers[0].size, "target_vocabulary": tokenizers[1].size}
    model = Seq2Seq(config.model, **vocabularies)
    copy_weights(model, load_weights(run))
    averaged = copy.deepcopy(model).eval()
    optimizer = optimizer_for(model, config)
    sampler = sampler_for(prepared)

    def look(update: int) -> Look:
        copy_weights(averaged, optimizer.averaged())
        face = Model(TorchEngine(averaged), *tokenizers, config, None)
        found = Look(
            update=update,
            seconds=time.monotonic() - begun,
            dev_loss=mean_loss(dev_losses(averaged, prepared, precision=precision)),
            learnt=answered(face, learn),
            held=answered(face, held),
        )
        observer(found)
        return found

    before = look(0)
    best, kept, looks = before, _copied(optimizer.averaged()), [before]
    due = begun + 60 * minutes / LOOKS
    replayed, fresh = _endless(prepared), _endless(new)
    update = 0
    while (now := time.monotonic()) < begun + 60 * minutes:
        rate = learning_rate(train, update=update, progress=(now - begun) / (60 * minutes))
        model.train()
        for batch in (next(replayed), next(fresh)):
            loss, _, _ = batch_loss(model, batch, config, precision=precision, sampler=sampler, update=update)
            (0.5 * loss).backward()
        optimizer.update(rate)
        update += 1
        if time.monotonic() >= due:
            looks.append(look(update))
            due = time.monotonic() + 60 * minutes / LOOKS
            if _rank(looks[-1], before, worse) > _rank(best, before, worse):
                best, kept = looks[-1], _copied(optimizer.averaged())
            if best.learnt == 1 and best.held in (1, 0) and best is not before and not (held and best.held == 0):
                break  # nothing more to learn
    if looks[-1].update < update:
        looks.append(look(update))
        if _rank(looks[-1], before, worse) > _rank(best, before, worse):
            best, kept = looks[-1], _copied(optimizer.averaged())
    return Tuned(before, best, kept, looks)


def answered(model: Model, pairs: Sequence[Pair]) -> float:
    """Share of the pairs whose source is answered with their target, spaces aside, by the likeliest answer; 0..1."""
    if not pairs:
        return 0.0
    found = model.predict([pair.source for pair in pairs], sample=False, nbest=1, mmi=0.0, beam=4)
    right = [" ".join(p.text.split()) == " ".join(pair.target.split()) for p, pair in zip(found, pairs, strict=True)]
    return sum(right) / len(pairs)


def _rank(look: Look, before: Look, worse: float) -> tuple[bool, float, float]:
    """What the best is chosen by: nothing old lost, then what was not learnt by heart, then what was."""
    return look.dev_loss <= allowed(before.dev_loss, worse), look.held + 0.1 * look.learnt, -look.dev_loss


def allowed(dev_loss: float, worse: float) -> float:
    """The most a dev loss may become, in nats per token; a loss of almost nothing has almost nothing to compare."""
    return max(dev_loss * (1 + worse), dev_loss + 1e-4)


def _prepare(
    run: Path, config: Config, tokenizers: tuple[Tokenizer, Tokenizer], learn: Sequence[Pair]
) -> tuple[Prepared, Prepared]:
    """The old pairs as the run left them, and the new."""
    assert not isinstance(config.data.buckets, int), "a run's config has its buckets resolved"
    old, dev = (Shards.open(files.ids_of(config, run), name) for name in ("train", "dev"))
    plan = BucketPlan.by_hand(config.data.buckets)
    # Texts of the old pairs are not kept, so subword dropout is left out.
    data = config.data.model_copy(update={"subword_dropout": 0.0})
    prepared = Prepared(config.model_copy(update={"data": data}), *tokenizers, plan, old, dev, [])
    new = in_memory(encode(learn, *tokenizers), tokenizers[1].size)
    rows = min(NEW_ROWS, max(1, len(learn)))
    few = config.train.model_copy(update={"batch_size": rows})
    small = replace(prepared, config=prepared.config.model_copy(update={"train": few}), train=new)
    return prepared, small


def _endless(prepared: Prepared) -> Iterator[Batch]:
    return (batch for epoch in itertools.count() for batch in prepared.batches(epoch))


def _copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
