"""Several models that answer together: what is trained, what is kept, how it goes on, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import antiphon
from antiphon.config import Config, load_config
from antiphon.conversations import Conversations
from antiphon.data.automatic import settle
from antiphon.data.pairs import Pair
from antiphon.errors import DataError, FolderError, UsageError
from antiphon.export.folder import export
from antiphon.learning import learn
from antiphon.members import _write_cards
from antiphon.model import load_one
from antiphon.runtime import folder as files
from antiphon.training.progress import Joined, Member, Started, Stopped, Student
from small_runs import Watcher, knobs, write_pairs

MANY = 3


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Pairs, a run of several models, and each of them trained alone."""
    home = tmp_path_factory.mktemp("members")
    write_pairs(home / "pairs.tsv", 120)
    trained(home, "run")
    config, _ = files.read_config(home / "run")
    wanted = knobs(updates=20, data={"buckets": config.data.buckets})  # all have the shapes of the first
    for number in range(1, MANY + 1):
        antiphon.train(home / "pairs.tsv", home / f"alone{number}", seed=number, knobs=wanted)
    return home


def trained(home, name, observer=None, **given):
    wanted = knobs(updates=20, train={"members": MANY}) if not given.get("resume") else None
    return antiphon.train(home / "pairs.tsv", home / name, observer=observer, knobs=wanted, **given)


def weights(folder):
    return [(files.member(folder, n) / files.WEIGHTS).read_bytes() for n in range(1, MANY + 1)]


def test_each_is_what_its_own_seed_makes_and_all_answer_together(home):
    sources = ["a b c", "h", "d d e f"]
    assert weights(home / "run") == [(home / f"alone{n}" / files.WEIGHTS).read_bytes() for n in (1, 2, 3)]
    together, several = antiphon.load(home / "run"), antiphon.load(*(home / f"alone{n}" for n in (1, 2, 3)))
    assert [p.text for p in together.predict(sources)] == [p.text for p in several.predict(sources)]
    pairs = [(source, source) for source in sources]
    np.testing.assert_array_equal(together.score(pairs), several.score(pairs))
    assert load_one(home / "run").score(pairs) == antiphon.load(home / "alone1").score(pairs)


def test_the_second_has_the_knobs_and_the_name_of_the_first(home, tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text("[train]\nmax_updates = 10\n")
    watcher, wanted = Watcher(), knobs(updates=0, train={"members": 2})
    del wanted["train"]["max_updates"]
    antiphon.train(home / "pairs.tsv", tmp_path / "run", preset=str(preset), knobs=wanted, observer=watcher)
    assert [event.chosen for event in watcher.of(Started)] == ["", ""]
    configs = [files.read_config(files.member(tmp_path / "run", number)) for number in (1, 2)]
    assert [facts["preset"] for _, facts in configs] == [str(preset)] * 2
    assert configs[0][0].of_one(2) == configs[1][0]


def test_all_are_judged_by_what_each_was_judged_by(home, tmp_path):
    """A dev part that is sorted: its first thousand pairs are of one kind."""
    write_pairs(tmp_path / "train.tsv", 120)
    lines = (tmp_path / "train.tsv").read_text().splitlines()
    (tmp_path / "dev.tsv").write_text("".join(f"{line}\n" for line in [lines[0]] * 1200 + lines))
    run = antiphon.train(tmp_path, tmp_path / "run", knobs=knobs(updates=5, train={"members": 2}))
    dev = antiphon.read_pairs(tmp_path / "dev.tsv")
    asked = [dev[place * len(dev) // 1000] for place in range(1000)]
    assert run.best_dev == antiphon.evaluate(tmp_path / "run", asked, metrics=["loss"])["loss"]


def test_a_run_tells_of_each_and_of_what_they_came_to(home):
    watcher = Watcher()
    run = trained(home, "told", watcher)
    assert [event.number for event in watcher.of(Member)] == [2, 3]
    assert len(watcher.of(Started)) == len(watcher.of(Stopped)) == MANY
    [joined] = watcher.of(Joined)
    assert (joined.members, joined.metric) == (MANY, "loss")
    assert joined.together == run.best_dev != joined.alone
    assert (run.folder, run.updates, run.finished) == (home / "told", 20 * MANY, True)
    card = (home / "told" / files.CARD).read_text(encoding="utf-8")
    sentence = f"3 models answer together: dev loss {joined.together:.4f}, the first alone {joined.alone:.4f}."
    assert sentence in card
    of_mine = "\n\nMine: for the old spelling only."
    (home / "told" / files.CARD).write_text(card.replace("| data |", "| my data |") + of_mine, encoding="utf-8")
    _write_cards(home / "told", dataclasses.replace(joined, together=0.5))
    again = (home / "told" / files.CARD).read_text(encoding="utf-8")
    assert "dev loss 0.5000" in again
    assert sentence not in again
    assert "| my data |" in again
    assert of_mine in again
    (home / "told" / files.CARD).unlink()
    _write_cards(home / "told", joined)
    assert sentence in (home / "told" / files.CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize("stop_at", [(1, 10), (2, 10), (3, 20)])
def test_interrupted_anywhere_and_resumed_it_is_as_if_nobody_had(home, stop_at):
    member, update = stop_at
    name = f"stopped{member}"

    class Stopper(Watcher):
        def __call__(self, event) -> None:
            self.stop_at = update if len(self.of(Started)) == member else 0
            super().__call__(event)

    first = trained(home, name, Stopper())
    assert not first.finished
    assert first.reason == "interrupted"
    done = json.loads((home / name / files.CONFIG).read_text())["facts"].get(files.MEMBERS, 1)
    assert done == max(1, member - 1)
    antiphon.load(home / name)  # as many as are done answer
    again = Watcher()
    assert trained(home, name, again, resume=True).finished
    assert len(again.of(Started)) == MANY - member + 1  # those that were done rest
    assert weights(home / name) == weights(home / "run")


def test_when_all_are_done_a_larger_budget_goes_to_each(home):
    trained(home, "longer")
    watcher = Watcher()
    wanted = {"train": {"max_updates": 30}}
    run = antiphon.train(home / "pairs.tsv", home / "longer", resume=True, knobs=wanted, observer=watcher)
    assert [event.update for event in watcher.of(Stopped)] == [30] * MANY
    assert run.updates == 30 * MANY


def test_a_larger_budget_that_is_interrupted_still_goes_to_each(home):
    trained(home, "raised")
    wanted = knobs(updates=30, train={"members": MANY})  # the command that it was begun with, but for its budget
    watcher = Watcher(stop_at=25)
    half = antiphon.train(home / "pairs.tsv", home / "raised", resume=True, knobs=wanted, observer=watcher)
    assert not half.finished
    watcher = Watcher()
    run = antiphon.train(home / "pairs.tsv", home / "raised", resume=True, observer=watcher)
    assert [event.update for event in watcher.of(Stopped)] == [30] * MANY
    assert run.updates == 30 * MANY


def test_a_run_of_several_goes_on_by_the_command_that_began_it_and_by_no_other(home):
    class Stopper(Watcher):
        def __call__(self, event) -> None:
            self.stop_at = 10 if self.of(Member) else 0
            super().__call__(event)

    assert not trained(home, "same", Stopper()).finished
    for group, name, value in (("model", "hidden", 99), ("train", "members", 2), ("train", "seed", 7)):
        with pytest.raises(UsageError, match=f"cannot change, --{group}.{name}"):
            antiphon.train(home / "pairs.tsv", home / "same", resume=True, knobs={group: {name: value}})
    wanted = knobs(updates=20, train={"members": MANY})
    assert antiphon.train(home / "pairs.tsv", home / "same", resume=True, knobs=wanted, seed=1).finished
    assert weights(home / "same") == weights(home / "run")


def test_all_are_exported_and_answer_alike(home):
    made = export(home / "run", home / "exported")
    assert made.size == sum(p.stat().st_size for p in (home / "exported").rglob("*.onnx"))
    pairs = [("a b c", "c b a"), ("h", "h")]
    run, exported = antiphon.load(home / "run"), antiphon.load(home / "exported")
    np.testing.assert_allclose(run.score(pairs), exported.score(pairs), atol=1e-3)
    (home / "run" / "members" / "3" / files.WEIGHTS).rename(home / "weights")
    with pytest.raises(FolderError):
        export(home / "run", home / "half")
    (home / "weights").rename(home / "run" / "members" / "3" / files.WEIGHTS)
    assert not (home / "half").exists()


def test_all_of_them_teach(home):
    by_all = knobs(updates=10, train={"teachers": str(home / "run")})
    by_each = knobs(updates=10, train={"teachers": ",".join(str(home / f"alone{n}") for n in (1, 2, 3))})
    runs = [antiphon.train(home / "pairs.tsv", home / f"taught{n}", knobs=k) for n, k in enumerate((by_all, by_each))]
    assert runs[0].best_dev == runs[1].best_dev


DISTILLED = {"train": {"members": 2, "distilled": True}}


@pytest.fixture(scope="module")
def distilled(home):
    """A run of two models and the one that they have taught, and what it told."""
    watcher = Watcher()
    run = antiphon.train(home / "pairs.tsv", home / "distilled", observer=watcher, knobs=knobs(updates=20, **DISTILLED))
    return run, watcher


def test_the_one_that_they_have_taught_is_what_teachers_make_of_it_and_answers(home, distilled):
    run, watcher = distilled
    config, facts = files.read_config(home / "distilled")
    teachers = ",".join(str(home / f"alone{n}") for n in (1, 2))
    wanted = knobs(updates=20, data={"buckets": config.data.buckets}, train={"teachers": teachers})
    antiphon.train(home / "pairs.tsv", home / "taught3", seed=3, knobs=wanted)
    written = (home / "distilled" / files.STUDENT / files.WEIGHTS).read_bytes()
    assert written == (home / "taught3" / files.WEIGHTS).read_bytes() != (home / "alone3" / files.WEIGHTS).read_bytes()
    pairs = [(source, source) for source in ("a b c", "h", "d d e f")]
    model = antiphon.load(home / "distilled")
    assert model.score(pairs) == antiphon.load(home / "taught3").score(pairs)
    assert model.folder == home / "distilled"
    assert (facts[files.MEMBERS], facts[files.STUDENT]) == (2, True)
    [student], [joined] = watcher.of(Student), watcher.of(Joined)
    assert student.members == joined.members == 2
    assert joined.student == run.best_dev not in (joined.alone, joined.together)
    assert len(watcher.of(Stopped)) == 3
    assert run.updates == 60


def test_the_one_that_they_have_taught_is_exported_alone(home, distilled):
    export(home / "distilled", home / "exported-one")
    assert not (home / "exported-one" / files.MEMBERS).exists()
    pairs = [("a b c", "c b a"), ("h", "h")]
    run, exported = antiphon.load(home / "distilled"), antiphon.load(home / "exported-one")
    np.testing.assert_allclose(run.score(pairs), exported.score(pairs), atol=1e-3)
    card = (home / "exported-one" / files.CARD).read_text(encoding="utf-8")
    assert card.startswith("# distilled\n")
    assert "It has learnt from others: dev loss" in card
    assert "the one in student/ answers" in (home / "distilled" / files.CARD).read_text(encoding="utf-8")


def test_the_one_that_they_have_taught_can_learn_from_corrections(home, distilled):
    nothing = Conversations(str(home / "none.db"))
    with pytest.raises(DataError, match="corrections"):
        learn(home / "distilled", nothing, home / "learnt")
    nothing.close()


def test_while_it_is_being_taught_its_teachers_answer_and_resumed_equals_never_stopped(home, distilled):
    class Stopper(Watcher):
        def __call__(self, event) -> None:
            self.stop_at = 10 if self.of(Student) else 0
            super().__call__(event)

    wanted = knobs(updates=20, **DISTILLED)
    first = antiphon.train(home / "pairs.tsv", home / "halfway", observer=Stopper(), knobs=wanted)
    assert not first.finished
    pairs = [("a b c", "c b a"), ("h", "h")]
    teachers = antiphon.load(home / "alone1", home / "alone2")
    assert antiphon.load(home / "halfway").score(pairs) == teachers.score(pairs)
    again = Watcher()
    assert antiphon.train(home / "pairs.tsv", home / "halfway", resume=True, observer=again).finished
    assert len(again.of(Started)) == 1
    whole, parts = ((home / name / files.STUDENT / files.WEIGHTS).read_bytes() for name in ("distilled", "halfway"))
    assert whole == parts


def test_minutes_are_shared_and_seeds_are_not():
    config = load_config(
        None,
        {
            "train": {"members": 3, "distilled": True, "minutes": 10, "seed": (1 << 63) - 1},
            "data": {"ids": "s3://a"},
        },
    )
    parts = [config.of_one(number) for number in (1, 2, 3, 4)]
    assert {part.train.minutes for part in parts} == {2.5}
    assert len({part.train.seed for part in parts}) == len({part.data.ids for part in parts}) == 4
    assert all(Config.model_validate(part.model_dump()) == part for part in parts)


def test_what_auto_chooses_for_each_fits_its_share_of_the_minutes():
    pairs = [Pair(f"word{n}", " ".join(f"{n}")) for n in range(5000)]
    ways = {"minutes": 9, "members": 3}, {"minutes": 9, "members": 2, "distilled": True}, {"minutes": 3}
    several, distilled, one = (settle(pairs, None, {"train": train})[0].of_one() for train in ways)
    assert several == distilled == one


@pytest.mark.parametrize("count", [0, 17, -1, "3", 2.5, None, 10**400])
def test_a_number_of_members_that_cannot_be_is_told(home, tmp_path, count):
    with pytest.raises(FolderError, match="damaged: not a number of members"):
        files.members(tmp_path, {files.MEMBERS: count})


def test_what_they_cannot_do_is_refused(home):
    (home / "run" / "members" / "2").rename(home / "away")
    with pytest.raises(FolderError, match="members"):
        antiphon.load(home / "run")
    (home / "away").rename(home / "run" / "members" / "2")
    with pytest.raises(FolderError, match="several models that answer together cannot learn"):
        learn(home / "run", None, home / "learnt")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--train\.members"):
        antiphon.train(home / "pairs.tsv", home / "run", resume=True, knobs={"train": {"members": 2}})
