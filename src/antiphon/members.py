"""`antiphon.train`: one model, or several one after the other that answer together.

Models of one kind that began with other random numbers make other mistakes, and the mean of their probabilities is
better than the best of them. The first is the run folder itself, the others are run folders inside it; those that are
done are counted in its ``config.json``, and `antiphon.model.load` loads as many.
"""

from __future__ import annotations

import dataclasses
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.config import Config
from antiphon.data.automatic import Overrides
from antiphon.data.corpus import read_corpus
from antiphon.evaluation import evaluate
from antiphon.model import load, load_one
from antiphon.runtime import folder as files
from antiphon.training.progress import Joined, Member, Observer

if TYPE_CHECKING:
    from antiphon.training.trainer import Run

LINK_SECONDS = 60.0
"""Longest wait for an answer of another process while none trains."""
MOST_DEV = 1000
"""Dev pairs on which all together are judged."""
SENTENCE = "Not one model but several: "


def train(
    data: str | Path,
    out: str | Path,
    *,
    preset: str | None,
    overrides: Overrides,
    resume: bool,
    observer: Observer | None,
) -> Run:
    """As `antiphon.training.trainer.train`, of as many models as ``train.members`` says.

    What is resumed goes on where it stopped: with the model that was being trained; or, if all were done, with each of
    them, as far as its budget is larger now.
    """
    from antiphon.training.distributed import joined

    with joined(LINK_SECONDS, time.monotonic()) as peers:  # once for all models
        return _trained(data, Path(out), preset, overrides, resume, observer, leads=peers.leads)


def _trained(
    data: str | Path,
    folder: Path,
    preset: str | None,
    overrides: Overrides,
    resume: bool,
    observer: Observer | None,
    *,
    leads: bool,
) -> Run:
    from antiphon.training import trainer

    resting = _done(folder) if resume and files.resumable(folder) else {}
    run = resting.get(folder) or trainer.train(
        data, folder, preset=preset, overrides=overrides, resume=resume, observer=observer
    )
    config, facts = files.read_config(folder)
    if config.train.members == 1:
        return run
    runs = [run]
    for number in range(2, config.train.members + 1):
        if not runs[-1].finished:
            break
        place = files.member(folder, number)
        if place in resting:
            runs.append(resting[place])
            continue
        if leads and observer is not None:
            observer(Member(number, config.train.members, str(place)))
        again = files.resumable(place)
        knobs = _given_again(config, overrides) if again else config.of_one(number).model_dump(mode="json")
        runs.append(trainer.train(data, place, preset=None, overrides=knobs, resume=again, observer=observer))
        if leads and runs[-1].finished:
            files.write_config(folder, config, {**facts, files.MEMBERS: number})
    return _together(data, folder, config, runs, observer, leads=leads)


def _done(folder: Path) -> dict[Path, Run]:
    """The models of a run that need no more training; none if that is all of them, which are then to go on."""
    from antiphon.training import trainer

    config, _ = files.read_config(folder)
    places = [files.member(folder, number) for number in range(1, config.train.members + 1)]
    done = {place: run for place in places if (run := trainer.ended(place)) is not None}
    return done if len(done) < len(places) else {}


def _given_again(config: Config, overrides: Overrides) -> Overrides:
    """What a resumed run is given anew, for one of its models."""
    train = dict(overrides.get("train", {}))
    if train.get("minutes"):
        train["minutes"] = train["minutes"] / config.train.members
    return {"train": train} if train else {}


def _together(
    data: str | Path, folder: Path, config: Config, runs: list[Run], observer: Observer | None, *, leads: bool
) -> Run:
    """What all came to: how well they answer together, once all are done; else what the last one ended with."""
    first, last = runs[0], runs[-1]
    whole = dataclasses.replace(
        first, updates=sum(run.updates for run in runs), seconds=sum(run.seconds for run in runs), reason=last.reason
    )
    if not last.finished:
        return dataclasses.replace(whole, finished=False)
    if not leads:
        return whole
    metric = config.train.dev_metric
    dev = list(islice(read_corpus(data, context=config.data.context, dev_pairs=config.data.dev_pairs).dev, MOST_DEV))
    alone, together = (evaluate(model, dev, [metric])[metric] for model in (load_one(folder), load(folder)))
    joined = Joined(len(runs), metric, alone, together)
    if observer is not None:
        observer(joined)
    _write_card(folder, joined)
    return dataclasses.replace(whole, best_dev=together)


def _write_card(folder: Path, joined: Joined) -> None:
    """The sentence about all models at the end of the first one's card."""
    card = folder / files.CARD
    written = card.read_text(encoding="utf-8").partition(f"\n{SENTENCE}")[0]
    of_all = f"{joined.members} models answer together: dev {joined.metric} {joined.together:.4f}"
    files.write_text(card, f"{written}\n{SENTENCE}{of_all}, the first alone {joined.alone:.4f}.\n")
