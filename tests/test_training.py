"""Training: resumed equals never stopped, nothing is lost, and every mistake is told."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import antiphon
from antiphon import metrics
from antiphon.config import Config, TrainConfig, presets
from antiphon.errors import DataError, FolderError, LinkError, SaveError, UsageError
from antiphon.evaluation import evaluate
from antiphon.runtime import folder as files
from antiphon.training import trainer
from antiphon.training.distributed import Peers
from antiphon.training.loss import sampler_for, samples
from antiphon.training.progress import Progress, Started, Stopped, Validated, Warned
from antiphon.training.schedule import learning_rate
from antiphon.training.validation import Verdict, better, dominating_answer, perfect
from small_runs import SMALL, Watcher, knobs, write_pairs


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.tsv"
    write_pairs(path, 200)
    return path


VARIANTS = {
    "adam, averaged": {},
    "sampled rows": {
        "data": {"share_vocabulary": False},
        "model": {"softmax": "sampled", "tied": "none"},
        "train": {"samples": 4},
    },
    "sampled at first": {"train": {"samples": 4, "sampled_until": 0.75}},
    "sgd, proportional, feeding": {
        "model": {"feed": True, "cell": "gru", "attention": "additive"},
        "train": {"optimizer": "sgd", "order": "proportional", "average": 0.0, "learning_rate": 0.2},
    },
    "muon": {"train": {"optimizer": "muon", "weight_decay": 0.01}},
    "subword dropout, joined pairs": {
        "data": {"tokenizer": "bpe", "subword_dropout": 0.2, "vocabulary": 40, "joined": 2}
    },
    "monotonic attention": {"data": {"too_long": "drop"}, "model": {"attention": "monotonic"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_equals_never_stopped_bit_for_bit(pairs, tmp_path, variant):
    groups = VARIANTS[variant]
    whole = antiphon.train(pairs, tmp_path / "whole", knobs=knobs(updates=40, **groups))
    watcher = Watcher(stop_at=20)
    first = antiphon.train(pairs, tmp_path / "parts", knobs=knobs(updates=40, **groups), observer=watcher)
    assert not first.finished
    assert first.reason == "interrupted"
    assert 20 <= first.updates < 40
    second = antiphon.train(pairs, tmp_path / "parts", resume=True)
    assert second.finished
    assert (whole.updates, whole.best_dev) == (second.updates, second.best_dev)
    for name in (files.WEIGHTS, files.STATE):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(one[key], other[key]), key


def test_a_full_softmax_samples_while_its_share_of_the_budget_lasts():
    config = Config.model_validate({"train": {"sampled_until": 0.5}})
    assert [samples(config, share) for share in (0.0, 0.49, 0.5, 1.0, None)] == [True, True, False, False, False]
    consistent = Config.model_validate({"train": {"sampled_until": 0.5, "consistency": 1.0}})
    assert not samples(consistent, 0.0)  # it compares predictions of all words
    assert samples(Config.model_validate({"model": {"softmax": "sampled"}}), None)
    for words, draws in ((1023, False), (1024, True)):
        prepared = SimpleNamespace(config=config, train=SimpleNamespace(counts=np.ones(words, np.int64)))
        assert (sampler_for(prepared) is not None) == draws


def test_a_loss_of_sampled_words_is_told_as_such(pairs, tmp_path):
    for until in (0.5, 0.0):
        watcher = Watcher()
        groups = {"train": {"samples": 4, "sampled_until": until}}
        antiphon.train(pairs, tmp_path / str(until), knobs=knobs(updates=4, **groups), observer=watcher)
        assert watcher.of(Progress)[0].sampled == bool(until)


def test_a_link_lost_while_going_back_leaves_what_was_saved(pairs, tmp_path, monkeypatch):
    verdicts = iter([1.0, math.nan])
    saved = []

    def verdict(*_, **__):
        saved.append((tmp_path / "run" / files.STATE).read_bytes() if len(saved) else b"")
        return Verdict(next(verdicts), [], "loss", 1.0, samples=[], dominating=None)

    def lost(self, *_, **__):
        torch.nn.init.zeros_(next(self._model.parameters()))
        raise LinkError("process 1 is gone")

    monkeypatch.setattr(trainer, "validate", verdict)
    monkeypatch.setattr(trainer._Trainer, "_restored", lost)
    with pytest.raises(LinkError):
        antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=200))
    assert (tmp_path / "run" / files.STATE).read_bytes() == saved[1]


ALIKE = ["a b c d e", "f g h i"]


@pytest.mark.parametrize(
    ("metric", "best", "other"),
    [("accuracy", 100.0, 99.9), ("wer", 0.0, 0.1), ("bleu", metrics.bleu(ALIKE, ALIKE), 99.9)],
)
def test_a_run_ends_when_nothing_can_be_better(pairs, tmp_path, monkeypatch, metric, best, other):
    scores = iter([other, best, best])
    monkeypatch.setattr(
        trainer, "validate", lambda *_, **__: Verdict(1.0, [], metric, next(scores), samples=[], dominating=None)
    )
    run = antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=200, train={"dev_metric": metric}))
    assert (run.updates, run.reason, run.best_dev) == (20, f"dev {metric} cannot get better", best)
    watcher = Watcher()
    antiphon.train(pairs, tmp_path / "run", resume=True, observer=watcher)
    assert [event.message for event in watcher.of(Warned)] == [f"nothing more was learnt: {run.reason}"]


def test_a_loss_of_nothing_is_not_the_best_there_can_be():
    assert not perfect("loss", 0.0)
    assert not perfect("accuracy", None)


@pytest.mark.parametrize(
    ("data", "given", "told"),
    [
        ([("a", "b")], None, "data must be a path, not list; write the pairs to a file"),
        ("pairs.tsv", {"model": "gru"}, "knobs must be dicts by group"),
        ("pairs.tsv", ["gru"], "knobs must be dicts by group"),
    ],
)
def test_what_train_cannot_take_is_told(tmp_path, data, given, told):
    with pytest.raises(UsageError, match=told):
        antiphon.train(data, tmp_path / "run", knobs=given)


def test_a_run_ends_by_itself_and_tells_what_it_did(pairs, tmp_path):
    watcher = Watcher()
    run = antiphon.train(
        pairs,
        tmp_path / "run",
        knobs=knobs(
            updates=10_000,
            data={"joined": 0},
            train={"patience": 2, "learning_rate": 1e-5, "warmup": 0, "average": 0.0, "dev_metric": "accuracy"},
        ),
        observer=watcher,
    )
    assert run.finished
    assert run.reason == "no better dev accuracy for 2 validations"
    assert run.updates < 200
    [started] = watcher.of(Started)
    assert started.train_pairs + started.dev_pairs == 200
    assert sum(count for *_, count in started.buckets) == started.train_pairs
    assert isinstance(watcher.events[-1], Stopped)
    for validated in watcher.of(Validated):
        tokens = sum(count for *_, count in validated.bucket_losses)
        mean = sum(loss * count for *_, loss, count in validated.bucket_losses) / tokens
        assert validated.dev_loss == pytest.approx(mean)
        assert len(validated.samples) == 4
    logged = files.read_lines(tmp_path / "run" / files.LOG)
    assert [record["event"] for record in logged] == [event.event for event in watcher.events]
    assert "best dev accuracy" in (tmp_path / "run" / files.CARD).read_text()


@pytest.fixture
def judged(monkeypatch):
    """Hands out these dev losses one after the other, and keeps the weights that each was given to."""

    def script(*losses: float) -> list[dict[str, torch.Tensor]]:
        left, seen = iter(losses), []

        def validate(model, *_, **__) -> Verdict:
            seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
            loss = next(left)
            return Verdict(loss, [], "loss", loss, [], None)

        monkeypatch.setattr(trainer, "validate", validate)
        return seen

    return script


@pytest.mark.parametrize("average", [0.0, 0.998])
def test_the_best_weights_are_kept_and_not_the_last(pairs, tmp_path, judged, average):
    seen, watcher = judged(3.0, 1.0, 2.0), Watcher()
    often = {"validate_every": 2, "average": average}
    run = antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=6, train=often), observer=watcher)
    assert run.best_dev == 1.0
    assert [(told.update, told.best) for told in watcher.of(Validated)] == [(2, True), (4, True), (6, False)]
    [stopped] = watcher.of(Stopped)
    assert (stopped.best_update, stopped.best_score) == (4, 1.0)
    kept = load_file(run.folder / files.WEIGHTS)
    first, best, last = seen
    assert kept.keys() == best.keys()
    for name in kept:
        assert torch.equal(kept[name], best[name]), name
    for other in (first, last):
        assert any(not torch.equal(kept[name], other[name]) for name in kept)
    state = load_file(run.folder / files.STATE)
    for name in last:  # what is judged, and kept, is the average
        assert torch.equal(last[name], state[f"optimizer/average/{name}" if average else f"weight/{name}"])


def test_patience_ends_after_so_many_validations_without_a_better_one(pairs, tmp_path, judged):
    judged(3.0, 2.0, 2.5, 2.0, 2.1, 1.0)  # as good as the best is no better
    watcher, often = Watcher(), {"validate_every": 2, "patience": 3, "warmup": 0}
    run = antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=500, train=often), observer=watcher)
    assert (run.updates, run.best_dev) == (10, 2.0)
    assert run.reason == "no better dev loss for 3 validations"
    assert [told.since_best for told in watcher.of(Validated)] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_trains_and_answers(pairs, tmp_path, name):
    """At its own sizes, for two updates; with the sampled softmax, row-sparse updates and hand-made buckets of some."""
    run = antiphon.train(
        pairs, tmp_path / "run", preset=name, knobs={"train": {"max_updates": 2, "batch_size": 8, "dev_answers": 2}}
    )
    assert run.updates == 2
    model = antiphon.load(run.folder)
    for text in ("a b c", "", "🙂 never seen", "a " * 300):
        assert isinstance(model.predict(text, max_length=5).text, str)
    assert (
        "".join(model.stream("a b", seed=1, max_length=5))
        == model.predict("a b", beam=1, seed=1, mmi=0.0, max_length=5).text
    )


def test_a_time_budget_is_kept(pairs, tmp_path):
    watcher = Watcher()
    run = antiphon.train(pairs, tmp_path / "run", minutes=0.05, knobs={**SMALL}, observer=watcher)
    assert run.seconds < 9
    assert "minutes are over" in run.reason or "no better" in run.reason
    for progress in watcher.of(Progress):
        assert progress.seconds_left is not None


def test_the_first_update_promises_nothing(pairs, tmp_path):
    watcher = Watcher()
    antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=20), observer=watcher)
    told = watcher.of(Progress)
    assert told[0].update == 1
    assert told[0].seconds_left is None


def test_what_is_left_of_a_resumed_run_counts_what_was_spent_before(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(Peers, "seconds", 100.0)
    assert antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=20)).seconds == 100
    watcher = Watcher()
    monkeypatch.setattr(Peers, "seconds", 5.0)
    run = antiphon.train(pairs, tmp_path / "run", resume=True, knobs={"train": {"max_updates": 40}}, observer=watcher)
    told = watcher.of(Progress)[0]
    assert (told.update, told.seconds) == (21, 105)
    assert told.seconds_left == pytest.approx(105 * 19 / 21)
    assert run.seconds == 105


def test_a_budget_that_was_raised_stays_so(pairs, tmp_path):
    antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=10))
    raised = {"train": {"max_updates": 40, "patience": 9}}
    assert not antiphon.train(pairs, tmp_path / "run", resume=True, knobs=raised, observer=Watcher(20)).finished
    run = antiphon.train(pairs, tmp_path / "run", resume=True)  # as its own advice says
    assert (run.updates, run.finished) == (40, True)
    config, _ = files.read_config(tmp_path / "run")
    assert (config.train.max_updates, config.train.patience) == (40, 9)


def test_of_two_budgets_the_one_that_ends_first_says_what_is_left(pairs, tmp_path):
    antiphon.train(pairs, tmp_path / "run", minutes=60, knobs=knobs(updates=20))
    watcher = Watcher()
    antiphon.train(pairs, tmp_path / "run", resume=True, knobs={"train": {"max_updates": 40}}, observer=watcher)
    told = watcher.of(Progress)[0]
    assert told.seconds_left == pytest.approx(told.seconds * 19 / 21, rel=0.2)


def test_dev_scores_are_those_of_evaluate(tmp_path):
    """Any of several right answers will do, and a word of symbols is right or wrong as a whole."""
    for part, count in (("train", 60), ("dev", 30)):
        sources = [f"{'abc'[n % 3]} {'def'[n // 3 % 3]} {n % 5}" for n in range(count)]
        lines = [f"{source}\tx {'yz'[n % 2]} {n % 3}\n" for n, source in enumerate(sources * 2)]
        (tmp_path / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
    for metric in ("accuracy", "wer"):
        given = knobs(updates=20, train={"dev_metric": metric, "dev_answers": 1000, "learning_rate": 2e-2})
        watcher = Watcher()
        run = antiphon.train(tmp_path, tmp_path / metric, knobs=given, observer=watcher)
        dev = antiphon.read_pairs(tmp_path / "dev.tsv")
        found = evaluate(antiphon.load(tmp_path / metric), dev, [metric], beam=1)
        assert found["sources"] < found["pairs"]
        assert run.best_dev == pytest.approx(found[metric])


def test_the_kept_model_is_the_best_one_and_loads(pairs, tmp_path):
    run = antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=30))
    model = antiphon.load(run.folder)
    answer = model.predict("a b c")
    assert answer.source_tokens == ["a", "b", "c", "</s>"]
    assert len(model.score([("a b", "b a"), ("a", "a")])) == 2
    one, many = model.predict("a b"), model.predict(["c d e f g", "a b"])[1]
    assert one.text == many.text
    np.testing.assert_allclose(one.score, many.score, rtol=1e-4)


def test_sources_alone_are_made_lower_case(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{a}{b}\t{b}{a}\n" for a in "ABCdef" for b in "ABCdef"))
    small = knobs(updates=1, data={"tokenizer": "char", "lower_source": True})
    model = antiphon.load(antiphon.train(path, tmp_path / "run", knobs=small).folder)
    assert model.predict("ABC").source_tokens == ["a", "b", "c", "</s>"]
    assert model.target_tokenizer.decode(model.target_tokenizer.encode("ABC")) == "ABC"
    assert model.score([("ABC", "CBA")]) == model.score([("abc", "CBA")]) != model.score([("abc", "cba")])


def test_resume_with_other_data_another_knob_or_nothing_to_resume(pairs, tmp_path):
    out = tmp_path / "run"
    antiphon.train(pairs, out, knobs=knobs(updates=10))
    other = tmp_path / "other.tsv"
    write_pairs(other, 150)
    with pytest.raises(FolderError, match="not what this run was begun with"):
        antiphon.train(other, out, resume=True)
    with pytest.raises(UsageError, match=r"cannot change, --model\.hidden"):
        antiphon.train(pairs, out, resume=True, knobs={"model": {"hidden": 99}})
    with pytest.raises(UsageError, match="--preset"):
        antiphon.train(pairs, out, resume=True, preset="chat")
    for wrong, message in (
        ({"train": {"minutes": 0}}, "train.minutes"),
        ({"train": {"max_updates": "x"}}, "train.max_updates"),
        ({"train": {"epochs": 10**400}}, "train.epochs"),
        ({"trian": {"epochs": 1}}, "unknown knob trian"),
        ({"model": {"hiden": 9}}, "did you mean model.hidden"),
    ):
        with pytest.raises(UsageError, match=message):
            antiphon.train(pairs, out, resume=True, knobs=wrong)
    assert antiphon.train(pairs, out, resume=True, knobs={"train": {"betas": [0.9, 0.98]}}).updates == 10
    with pytest.raises(FolderError, match="nothing to resume"):
        antiphon.train(pairs, tmp_path / "none", resume=True)
    run = antiphon.train(pairs, out, resume=True, knobs={"train": {"max_updates": 14}})
    assert run.updates == 14


def test_a_preset_file_that_was_changed_is_not_read_again_and_that_is_told(pairs, tmp_path):
    preset, out, watcher = tmp_path / "mine.toml", tmp_path / "run", Watcher()
    preset.write_text("[train]\nmax_updates = 10\n")
    antiphon.train(pairs, out, preset=str(preset), knobs={name: dict(values) for name, values in SMALL.items()})
    again = {"train": {"max_updates": 12}}
    assert antiphon.train(pairs, out, preset=str(preset), resume=True, observer=watcher, knobs=again).updates == 12
    assert not watcher.of(Warned), "it was not changed"
    preset.write_text("[train]\nmax_updates = 20\n")
    assert antiphon.train(pairs, out, preset=str(preset), resume=True, observer=watcher).updates == 12
    told, end = (event.message for event in watcher.of(Warned))
    assert "nothing more was learnt: all of its 12 updates are done, and a budget counts from" in end
    assert "mine.toml is not what it was when the run began, and is not read again" in told
    preset.unlink()
    assert antiphon.train(pairs, out, preset=str(preset), resume=True).updates == 12


def test_a_budget_that_preparing_used_up_leaves_a_model_and_says_so(pairs, tmp_path):
    watcher = Watcher()
    run = antiphon.train(pairs, tmp_path / "run", observer=watcher, knobs=knobs(updates=5, train={"minutes": 1e-4}))
    assert (run.updates, run.finished) == (0, True)
    assert any("nothing was learnt: its 0.0001 minutes are over" in event.message for event in watcher.of(Warned))
    assert isinstance(antiphon.load(tmp_path / "run").predict("a b").text, str)
    two = knobs(updates=5, train={"minutes": 1e-4, "members": 2})
    assert antiphon.train(pairs, tmp_path / "two", knobs=two).finished


def test_held_out_pairs_none_of_which_fits_are_told_of_before_a_run_begins(tmp_path):
    write_pairs(tmp_path / "train.tsv", 40)
    (tmp_path / "dev.tsv").write_text(f"{'a ' * 30}\tb\n")
    wanted = knobs(updates=5, data={"too_long": "drop"})
    with pytest.raises(DataError, match=r"all 1 held-out pairs are longer .*too_long"):
        antiphon.train(tmp_path, tmp_path / "run", knobs=wanted)
    wanted["data"]["too_long"] = "truncate"
    assert antiphon.train(tmp_path, tmp_path / "run", knobs=wanted).updates == 5


def test_a_folder_that_exists_is_left_alone(pairs, tmp_path):
    out = tmp_path / "run"
    antiphon.train(pairs, out, knobs=knobs(updates=10))
    before = (out / files.STATE).read_bytes()
    with pytest.raises(FolderError, match=r"exists already, .*--resume"):
        antiphon.train(pairs, out, knobs=knobs(updates=10))
    assert (out / files.STATE).read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FolderError, match="choose another --out"):
        antiphon.train(pairs, tmp_path / "mine", knobs=knobs(updates=10))


def test_bad_data_leaves_no_folder_behind(tmp_path):
    bad = tmp_path / "bad.tsv"
    bad.write_text("one column\n")
    with pytest.raises(DataError, match=r"bad\.tsv:1"):
        antiphon.train(bad, tmp_path / "run", knobs=knobs(updates=10))
    assert not (tmp_path / "run").exists()


def test_damaged_weights_are_told(pairs, tmp_path):
    out = tmp_path / "run"
    antiphon.train(pairs, out, knobs=knobs(updates=10))
    (out / files.WEIGHTS).write_bytes(b"\x00" * 64)
    with pytest.raises(FolderError, match="damaged weights"):
        antiphon.load(out)


def test_weights_of_another_model_are_refused(pairs, tmp_path):
    run = antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=10))
    path = run.folder / files.CONFIG
    tree = json.loads(path.read_text())
    tree["model"]["hidden"] = 60_000  # would take a hundred gigabytes if it were believed
    path.write_text(json.dumps(tree))
    with pytest.raises(FolderError, match="has shape"):
        antiphon.load(run.folder)


def test_a_full_disk_keeps_the_earlier_checkpoint(pairs, tmp_path, monkeypatch):
    out = tmp_path / "run"
    antiphon.train(pairs, out, knobs=knobs(updates=10))
    before = {name: (out / name).read_bytes() for name in (files.STATE, files.WEIGHTS)}

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(SaveError, match="what was saved before still loads"):
        antiphon.train(pairs, out, resume=True, knobs={"train": {"max_updates": 20}})
    monkeypatch.undo()
    assert {name: (out / name).read_bytes() for name in before} == before
    assert not list(out.glob(".*.new"))
    antiphon.load(out)
    assert antiphon.train(pairs, out, resume=True, knobs={"train": {"max_updates": 20}}).updates == 20


def test_two_processes_cannot_train_in_one_folder(pairs, tmp_path):
    out = tmp_path / "run"
    antiphon.train(pairs, out, knobs=knobs(updates=10))
    with files.locked(out), pytest.raises(FolderError, match="another process"):
        antiphon.train(pairs, out, resume=True, knobs={"train": {"max_updates": 20}})


def test_sigterm_saves_too(pairs, tmp_path):
    class Terminator(Watcher):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, Validated) and event.update == 10:
                os.kill(os.getpid(), signal.SIGTERM)

    run = antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=500), observer=Terminator())
    assert not run.finished
    assert (run.folder / files.STATE).exists()


def test_training_works_outside_the_main_thread(pairs, tmp_path):
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(antiphon.train(pairs, tmp_path / "run", knobs=knobs(updates=10)))
    )
    thread.start()
    thread.join()
    assert runs[0].finished


def test_the_rate_warms_up_and_ends_at_zero():
    config = TrainConfig(learning_rate=1.0, warmup=9)
    assert learning_rate(config, update=0, progress=0.0) == pytest.approx(0.1)
    assert learning_rate(config, update=9, progress=0.5) == pytest.approx(0.5)
    assert learning_rate(config, update=100, progress=1.0) == pytest.approx(0.0)
    assert learning_rate(config, update=36, progress=None) == pytest.approx(0.5)


def test_a_constant_rate_only_warms_up():
    config = TrainConfig(schedule="constant", learning_rate=1.0, warmup=9)
    for progress in (0.0, 0.99, None):
        assert learning_rate(config, update=0, progress=progress) == pytest.approx(0.1)
        assert learning_rate(config, update=500, progress=progress) == 1


def test_a_bore_is_noticed_unless_it_is_right():
    references = [str(n) for n in range(30)]
    assert dominating_answer(["i don't know"] * 6 + references[6:], references) == ("i don't know", 0.2)
    assert dominating_answer(references, references) is None
    assert dominating_answer(references, ["yes"] * 3 + references) is None, "a source that repeats is one source"
    assert dominating_answer(["yes"] * 30, ["yes"] * 30) is None
    assert dominating_answer(["a"] * 5, ["b"] * 5) is None  # too few to say


@pytest.mark.parametrize(("metric", "good", "bad"), [("loss", 1.0, 2.0), ("wer", 10.0, 20.0), ("bleu", 30.0, 20.0)])
def test_better_knows_which_way_is_up(metric, good, bad):
    assert better(metric, good, bad)
    assert not better(metric, bad, good)
    assert better(metric, bad, None)
