"""`antiphon.train`: one model, or several one after the other that answer together, or that teach one more.

Models of one kind that began with other random numbers make other mistakes, and the mean of their probabilities is
better than the best of them. The first is the run folder itself, the others are run folders inside it; those that are
done are counted in its ``config.json``, and `antiphon.model.load` loads as many. The one that they have taught is a run
folder inside it as well, and is loaded in their place.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.config import BUDGETS, Config
from antiphon.data.automatic import Overrides
from antiphon.data.corpus import read_corpus
from antiphon.data.pairs import spread
from antiphon.evaluation import evaluate
from antiphon.model import load_one, together
from antiphon.runtime import folder as files
from antiphon.training.progress import Joined, Member, Observer, Student

if TYPE_CHECKING:
    from antiphon.training.trainer import Run

LINK_SECONDS = 60.0
"""Longest wait for an answer of another process while none trains."""
ENDS = BUDGETS | {"patience"}
"""Knobs that say when a model needs no more training."""
MOST_DEV = 1000
"""Dev pairs on which all together are judged."""
SENTENCE = "Not one model but several: "
TAUGHT = "It has learnt from others: "


def train(
    data: str | Path,
    out: str | Path,
    *,
    preset: str | None,
    overrides: Overrides,
    resume: bool,
    observer: Observer | None,
) -> Run:
    """As `antiphon.training.trainer.train`, of as many models as ``train.members`` says; with
    ``train.distilled`` of the one that they teach as well.

    What is resumed goes on where it stopped: with the model that was being trained; or, if the budget is another now,
    with each of them.
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
    from antiphon.training.checkpoint import RESUMABLE

    resting: dict[Path, Run] = {}
    again = None
    if resume and files.resumable(folder):
        from antiphon.training.opening import knobs_again

        again, _ = knobs_again(folder, preset, overrides)
        resting = _resting(folder, again)
    run = resting.get(folder) or trainer.train(
        data, folder, preset=preset, overrides=overrides, resume=resume, observer=observer
    )
    config, facts = files.read_config(folder)
    config = again or config
    runs, places = [run], _places(folder, config)
    for number, place in enumerate(places[1:], start=2):
        if not runs[-1].finished:
            break
        if place in resting:
            runs.append(resting[place])
            continue
        learns = number > config.train.members
        if leads and observer is not None:
            members = config.train.members
            observer(Student(members, str(place)) if learns else Member(number, members, str(place)))
        own, begun = config.of_one(number), files.resumable(place)
        how: dict[str, Any] = {"resume": True, "preset": None, "overrides": {"train": _of(own, RESUMABLE)}}
        if not begun:
            how = {"preset": facts.get("preset"), "like": own}
        teachers = places[: number - 1] if learns else ()
        runs.append(trainer.train(data, place, **how, observer=observer, teachers=teachers))
        if leads and runs[-1].finished:
            facts |= {files.STUDENT: True} if learns else {files.MEMBERS: number}
            files.write_config(folder, config, facts)
    return run if len(places) == 1 else _together(data, folder, config, runs, observer, leads=leads)


def _places(folder: Path, config: Config) -> list[Path]:
    """Of all models of a run, in the order of their training."""
    members = [files.member(folder, number) for number in range(1, config.train.members + 1)]
    return [*members, folder / files.STUDENT] if config.train.distilled else members


def _resting(folder: Path, config: Config) -> dict[Path, Run]:
    """The models of a run that need no more training: they ended with the budget that the run has now. None if that is
    all of them, which are then to say so themselves."""
    from antiphon.training import trainer

    places = _places(folder, config)
    resting = {}
    for number, place in enumerate(places, start=1):
        run = trainer.ended(place)
        wanted = config if number == 1 else config.of_one(number)
        if run is not None and _of(files.read_config(place)[0], ENDS) == _of(wanted, ENDS):
            resting[place] = run
    return resting if len(resting) < len(places) else {}


def _of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """These knobs of [train]."""
    return {name: getattr(config.train, name) for name in sorted(names)}


def _together(
    data: str | Path, folder: Path, config: Config, runs: list[Run], observer: Observer | None, *, leads: bool
) -> Run:
    """What all came to: how well they answer together, once all are done; else what the last one ended with."""
    first, last = runs[0], runs[-1]
    whole = dataclasses.replace(
        first, updates=sum(run.updates for run in runs), seconds=sum(run.seconds for run in runs), reason=last.reason
    )
    from antiphon.training import preparation

    if not last.finished:
        return dataclasses.replace(whole, finished=False)
    if not leads:
        return whole
    metric = config.train.dev_metric
    corpus = read_corpus(data, context=config.data.context, dev_pairs=config.data.dev_pairs)
    dev = spread(preparation.dev_pairs(corpus, config), MOST_DEV)  # of those that each was judged by alone
    places = _places(folder, config)
    teachers, taught = places[: config.train.members], places[config.train.members :]

    def score(those: list[Path]) -> float:
        return evaluate(together([load_one(place) for place in those]), dev, [metric])[metric]

    joined = Joined(len(teachers), metric, score([folder]), score(teachers), score(taught) if taught else None)
    if observer is not None:
        observer(joined)
    _write_cards(folder, joined)
    return dataclasses.replace(whole, best_dev=joined.together if joined.student is None else joined.student)


def _write_cards(folder: Path, joined: Joined) -> None:
    """The sentence about all models at the end of the first one's card, and of that of the one that has learnt."""
    score = f"dev {joined.metric}"
    if joined.student is None:
        of_all = f"{joined.members} models answer together: {score} {joined.together:.4f}"
        _add(folder, f"{SENTENCE}{of_all}, the first alone {joined.alone:.4f}.")
        return
    teachers = "a model" if joined.members == 1 else f"{joined.members} models together"
    learnt = f"{score} {joined.student:.4f}, that of {teachers} {joined.together:.4f}"
    _add(folder, f"{SENTENCE}the one in {files.STUDENT}/ answers, which has learnt from this: {learnt}.")
    _add(folder / files.STUDENT, f"{TAUGHT}{learnt}, the first alone {joined.alone:.4f}.", title=folder)


def _add(place: Path, sentence: str, *, title: Path | None = None) -> None:
    """Puts a sentence at the end of a card, where one of its kind may stand already; the card's title is the name of
    this folder then."""
    card, kind = place / files.CARD, sentence.partition(": ")[0]
    written = files.read_card(place, title=place)
    written = re.sub(rf"\n*^{re.escape(kind)}: .*$", "", written, flags=re.MULTILINE)
    if title is not None:
        written = f"# {title.resolve().name}\n{written.partition(chr(10))[2]}"
    files.write_text(card, f"{written.rstrip()}\n\n{sentence}\n")
