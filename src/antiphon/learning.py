"""Learning from what people said of the answers: corrections and liked answers, from a store of conversations.

The new model is kept only if it is better: more of the corrections that it did not learn from are answered as they
should be, and the loss on the run's own dev part has hardly risen. Else the old one stays what it was.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from antiphon.config import Config
from antiphon.data.buckets import BucketPlan
from antiphon.data.pairs import Pair, read_pairs, write_pairs
from antiphon.data.store import encode, is_there
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import DataError, FolderError, MissingExtraError
from antiphon.runtime import folder as files

if TYPE_CHECKING:
    from antiphon.conversations import Conversations, Turn
    from antiphon.training.tuning import Look

WORSE = 0.02
"""Share by which the loss on the original dev part may rise."""
HELD = 0.2
"""Share of the corrections that are held out to judge by, once there are ten."""
FEWEST = 10
LEARNT = "learnt.tsv"
"""In a folder that learnt: all pairs it learnt from people, so that it keeps them when it learns again."""


@dataclass(frozen=True)
class Lessons:
    """What a store has to teach one model."""

    corrections: list[Pair]
    """What was asked, and what a person would rather have been answered."""
    liked: list[Pair]
    """What was asked, and an answer that was liked."""


@dataclass(frozen=True)
class Report:
    """The old model and the new."""

    better: bool
    reason: str
    corrections: int
    held_out: int
    liked: int
    too_long: int
    """Corrections and liked answers that fit no bucket and were left out, where training cuts none either."""
    replayed: int
    """Pairs of the original training data that were learnt again."""
    seconds: float
    before: dict[str, float]
    """``dev_loss`` in nats per token; ``learnt`` and ``held_out``: shares answered as corrected, 0..1."""
    after: dict[str, float]


def lessons(turns: Iterable[Turn], name: str) -> Lessons:
    """What turns teach the model of this name; of two corrections of one source the last counts.

    Raises:
        DataError: nothing for it.
    """
    corrections: dict[str, str] = {}
    liked: dict[str, str] = {}
    others: set[str] = set()
    for turn in turns:
        wished = turn.better if turn.better else turn.answer if turn.thumb > 0 else None
        if not wished or not wished.strip() or not turn.source.strip():
            continue
        if turn.model != name:
            others.add(turn.model)
        elif turn.better:
            corrections[turn.source] = wished
        else:
            liked[turn.source] = wished
    liked = {source: answer for source, answer in liked.items() if source not in corrections}
    if not corrections and not liked:
        cure = "correct answers first: on the page, or by /better in antiphon chat"
        if others:
            cure = f"there are some for {', '.join(sorted(others))}: --model {min(others)}"
        raise DataError(f'no corrections or liked answers for "{name}"', where="--from", cure=cure)
    return Lessons([Pair(*pair) for pair in corrections.items()], [Pair(*pair) for pair in liked.items()])


def fitting(found: Lessons, config: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> tuple[Lessons, int]:
    """What the model can learn from, and how many are too long for it. Raises DataError where all are."""
    if config.data.too_long != "drop":
        return found, 0
    assert not isinstance(config.data.buckets, int), "a run's config has its buckets resolved"
    plan, kept, count = BucketPlan.by_hand(config.data.buckets), [], 0
    for pairs in (found.corrections, found.liked):
        encoded = encode(pairs, *tokenizers)
        places = plan.assign(encoded.source_lengths.astype(np.int64) + 1, encoded.target_lengths.astype(np.int64) + 1)
        kept.append([pair for pair, place in zip(pairs, places.tolist(), strict=True) if place >= 0])
        count += len(pairs) - len(kept[-1])
    if not any(kept):
        raise DataError(
            "all that people taught is longer than what the model was trained on",
            where="--from",
            cure="correct answers to shorter texts, or train with larger data.buckets",
        )
    return Lessons(*kept), count


def split(corrections: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Corrections to learn from, and to judge by: a fifth, or none of fewer than ten."""
    if len(corrections) < FEWEST:
        return corrections, []
    shuffled = corrections[:]
    random.Random(seed).shuffle(shuffled)
    count = round(len(shuffled) * HELD)
    return shuffled[count:], shuffled[:count]


def learn(
    run: str | Path,
    conversations: Conversations,
    out: str | Path,
    *,
    name: str | None = None,
    minutes: float = 3.0,
    seed: int = 1,
    observer: Callable[[Look], None] = lambda _look: None,
) -> Report:
    """Make a run folder that has learnt from people, if it is better than the run it comes from.

    Args:
        run: a run folder, as training leaves it.
        conversations: where the corrections are.
        out: the folder to make; it is not there afterwards, unless the new model is better.
        name: the name the model was served by; None: the run folder's own.
        minutes: time budget of learning.
        seed: decides what is held out, and the order of learning.
        observer: told how the model does now and then.

    Raises:
        FolderError: ``run`` is no run folder, or ``out`` holds something.
        DataError: nothing to learn from.
        MissingExtraError: PyTorch is not installed.
        SaveError: the disk refuses.
    """
    source, target = Path(run), Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderError("the folder exists already", where=str(target), cure="choose another --out")
    source, *others = files.members(source, files.read_config(source)[1])
    config, facts = files.read_config(source)
    tokenizers = files.read_tokenizers(source)
    if not is_there(files.ids_of(config, source), "train"):
        raise FolderError("no run folder: it has no training data to replay", where=str(source), cure="give a run")
    if others:
        raise FolderError(
            "several models that answer together cannot learn from corrections",
            where=str(source),
            cure="train one alone (--train.members 1), or let them teach one (--train.distilled)",
        )
    if other := files.changed(source, files.sums_of(facts)):
        cure = "let antiphon train --resume mend it"
        raise FolderError("not what training wrote there", where=str(source / other[0]), cure=cure)
    found = lessons(conversations.every_turn(), name or Path(run).resolve().name)
    found, too_long = fitting(found, config, tokenizers)
    earlier = dict(read_pairs(source / LEARNT)) if (source / LEARNT).is_file() else {}
    taught, held = split([pair for pair in found.corrections if pair.source not in earlier], seed)
    again = [pair for pair in found.corrections if pair.source in earlier]  # known: they cannot be judged by
    new = [Pair(*pair) for pair in (earlier | dict(found.liked) | dict(again) | dict(taught)).items()]
    try:
        from antiphon.training import checkpoint, tuning
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "safetensors"):
            raise
        raise MissingExtraError("learning", "train") from None
    tuned = tuning.tune(
        source, config, tokenizers, new, held, minutes=minutes, seed=seed, worse=WORSE, observer=observer
    )
    better, reason = verdict(tuned.before, tuned.best, held=len(held))
    report = Report(
        better=better,
        reason=reason,
        corrections=len(again) + len(taught),
        held_out=len(held),
        liked=len(found.liked),
        too_long=too_long,
        replayed=facts.get("train_pairs", 0),
        seconds=tuned.looks[-1].seconds,
        before=_figures(tuned.before),
        after=_figures(tuned.best),
    )
    if better:
        try:
            target.mkdir(parents=True, exist_ok=True)
            for held_file in (files.TOKENIZER, files.SOURCE_TOKENIZER, files.TARGET_TOKENIZER):
                if (source / held_file).is_file():
                    shutil.copyfile(source / held_file, target / held_file)
            if config.data.ids is None:
                shutil.copytree(source / files.IDS, target / files.IDS)
            write_pairs(target / LEARNT, new)
            files.write_config(target, config, {**facts, "learnt": asdict(report)})
            checkpoint.save_weights(target, tuned.weights)
            written = files.read_card(source, title=target)
            files.write_text(target / files.CARD, f"{written.rstrip()}\n\n{_sentence(report)}\n")
        except BaseException as error:
            shutil.rmtree(target, ignore_errors=True)
            if isinstance(error, OSError):
                raise FolderError(f"cannot be made ({error})", where=str(target), cure="choose another --out") from None
            raise
    return report


def verdict(before: Look, after: Look, *, held: int) -> tuple[bool, str]:
    """Whether the new is better than the old, and why."""
    from antiphon.training.tuning import allowed

    if after is before:
        return False, "nothing that was tried was better"
    if after.dev_loss > allowed(before.dev_loss, WORSE):
        return False, f"its loss on the original dev part rose from {before.dev_loss:.4f} to {after.dev_loss:.4f}"
    if held and after.held <= before.held:
        return False, f"of the corrections held out it answers {after.held:.0%} as corrected, as many as before"
    if not held and after.learnt <= before.learnt:
        return False, f"of the corrections it answers {after.learnt:.0%} as corrected, as many as before"
    what, share, old = ("held out", after.held, before.held) if held else ("", after.learnt, before.learnt)
    return True, f"corrections {what} answered as corrected: {share:.0%}, before {old:.0%}".replace("  ", " ")


def _figures(look: Look) -> dict[str, float]:
    return {"dev_loss": look.dev_loss, "learnt": look.learnt, "held_out": look.held}


def _sentence(report: Report) -> str:
    return (
        f"Learnt from people: {report.corrections} corrections and {report.liked} liked answers, beside a replay of "
        f"the original data. Dev loss {report.before['dev_loss']:.4f} nats per token before, "
        f"{report.after['dev_loss']:.4f} after; {report.reason}."
    )
