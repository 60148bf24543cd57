"""Learning from models that were trained before: what is asked, what is kept, what it changes, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import antiphon
from antiphon.config import load_config
from antiphon.errors import FolderError, UsageError
from antiphon.export.folder import export
from antiphon.nn.engine import load_model
from antiphon.nn.softmax import full_loss
from antiphon.training import teachers as module
from antiphon.training.distributed import Peers
from antiphon.training.preparation import follow
from antiphon.training.progress import Validated, Warned
from antiphon.training.teachers import InterruptedLesson, Teachers
from small_runs import Watcher, knobs, write_pairs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Pairs, and two teachers of them."""
    home = tmp_path_factory.mktemp("teachers")
    write_pairs(home / "pairs.tsv", 120)
    for seed in (1, 2):
        given = knobs(updates=30, train={"seed": seed})
        antiphon.train(home / "pairs.tsv", home / f"teacher{seed}", knobs=given)
    return home


def taught(home, *, updates=30, names=("teacher1",), **train):
    folders = ",".join(str(home / name) for name in names)
    return knobs(updates=updates, train={"teachers": folders, **train})


def prepared(home, **given):
    """A run's data, with teachers."""
    found = follow(home / "teacher1", free=None)
    train = found.config.train.model_copy(update=given)
    return dataclasses.replace(found, config=found.config.model_copy(update={"train": train}))


@pytest.mark.parametrize(("smoothing", "share", "consistency"), [(0.1, 0.7, 0.0), (0.0, 1.0, 0.0), (0.1, 0.5, 3.0)])
def test_the_loss_is_the_cross_entropy_with_truth_and_lesson_mixed_and_its_gradient(smoothing, share, consistency):
    torch.manual_seed(0)
    leaves = [torch.randn(*shape, requires_grad=True) for shape in ((7, 4), (11, 4), (11,))]
    features, weight, bias = leaves
    targets, count = torch.randint(0, 11, (7,)), 6
    probs, words = torch.softmax(torch.randn(count, 11), 1).topk(4, dim=1)
    probs /= probs.sum(dim=1, keepdim=True)
    loss, _ = full_loss(features, targets, count, weight, bias, smoothing, consistency, (words, probs, share))
    loss.backward()
    log_probs = torch.log_softmax((features @ weight.t() + bias)[:count], 1)
    truth = torch.nn.functional.one_hot(targets[:count], 11).float()
    wanted = (1 - share) * truth + share * torch.zeros(count, 11).scatter(1, words, probs)
    expected = -((1 - smoothing) * wanted * log_probs).sum() - smoothing * log_probs.mean(1).sum()
    if consistency:
        one, two = log_probs.view(3, 2, 11).unbind(1)
        expected = expected + consistency / 2 * ((one.exp() - two.exp()) * (one - two)).sum()
    torch.testing.assert_close(loss, expected)
    for leaf, gradient in zip(leaves, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_a_lesson_is_the_likeliest_words_of_the_mean_prediction_whatever_the_batch(home):
    run = prepared(home, teachers=f"{home / 'teacher1'}, {home / 'teacher2'}")
    teachers = Teachers.of(run.config, (run.source_tokenizer, run.target_tokenizer), "f32")
    assert len(teachers) == 2
    assert not teachers.knows(0)
    teachers.learn(0, run.stream(0, 0), Peers())
    assert teachers.knows(0)
    sizes = {"source_vocabulary": run.source_tokenizer.size, "target_vocabulary": run.target_tokenizer.size}
    models = [load_model(home / f"teacher{n}", run.config.model, **sizes).eval() for n in (1, 2)]
    for batch in run.stream(3, 0).epoch(3):
        lesson = teachers.lesson(batch)
        src, src_len, tgt_in, tgt_out = map(torch.from_numpy, (batch.src, batch.src_len, batch.tgt_in, batch.tgt_out))
        total = 0
        with torch.no_grad():
            for model in models:
                features, packing = model.features(src, src_len, tgt_in)
                total = total + torch.softmax(features @ model.softmax_weight.t() + model.softmax_bias[:, 0], dim=1)
        real, order = packing.real, packing.order[: packing.real]
        top = (total[:real] / 2).topk(module.LIKELIEST, dim=1)
        assert (tgt_out.flatten()[order] > 0).all()
        torch.testing.assert_close(
            lesson.probs.flatten(0, 1)[order], top.values / top.values.sum(1, keepdim=True), rtol=2e-3, atol=1e-4
        )
        said = torch.gather(total[:real] / 2, 1, lesson.ids.flatten(0, 1)[order])
        torch.testing.assert_close(said, top.values)  # ties may stand in another order


def test_the_teachers_change_what_is_learnt_and_not_themselves(home, tmp_path):
    before = [(home / name / "model.safetensors").read_bytes() for name in ("teacher1", "teacher2")]
    watcher = Watcher()
    given = taught(home, names=("teacher1", "teacher2"))
    antiphon.train(home / "pairs.tsv", tmp_path / "taught", knobs=given, observer=watcher)
    given["train"] = {**given["train"], "distillation": 0.0}
    antiphon.train(home / "pairs.tsv", tmp_path / "share0", knobs=given)
    given["train"] = {key: value for key, value in given["train"].items() if key not in ("teachers", "distillation")}
    antiphon.train(home / "pairs.tsv", tmp_path / "alone", knobs=given)
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("taught", "share0", "alone")}
    assert weights["share0"] == weights["alone"] != weights["taught"]
    assert [(home / name / "model.safetensors").read_bytes() for name in ("teacher1", "teacher2")] == before
    assert "2 other models" in watcher.of(Warned)[0].message
    antiphon.load(tmp_path / "taught").predict(["a b c"])  # which needs no teacher any more


def test_while_a_softmax_is_sampled_teachers_are_not_asked(home, tmp_path):
    given = taught(home, updates=12, samples=4, sampled_until=0.5)
    watcher = Watcher()
    antiphon.train(home / "pairs.tsv", tmp_path / "half", knobs=given, observer=watcher)
    assert [event.update for event in watcher.of(Warned)] == [6]
    given["train"] |= {"sampled_until": 0.99}
    antiphon.train(home / "pairs.tsv", tmp_path / "never", knobs=given)
    del given["train"]["teachers"]
    antiphon.train(home / "pairs.tsv", tmp_path / "alone", knobs=given)
    half, never, alone = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "never", "alone"))
    assert never == alone != half


def test_runs_of_two_seeds_on_one_file_are_judged_by_the_same_pairs_and_answer_together(home):
    both = [home / f"teacher{n}" for n in (1, 2)]
    ids = [(run / "ids" / "dev-00000.npz").read_bytes() for run in both]
    assert ids[0] == ids[1]
    assert (both[0] / "model.safetensors").read_bytes() != (both[1] / "model.safetensors").read_bytes()
    antiphon.load(*both).predict(["a b c"])


def test_resumed_equals_never_stopped_bit_for_bit(home, tmp_path):
    given = taught(home)
    antiphon.train(home / "pairs.tsv", tmp_path / "whole", knobs=given)
    stopped = antiphon.train(home / "pairs.tsv", tmp_path / "parts", knobs=given, observer=Watcher(stop_at=10))
    assert not stopped.finished
    watcher = Watcher()
    antiphon.train(home / "pairs.tsv", tmp_path / "parts", resume=True, observer=watcher)
    assert watcher.of(Validated)
    for name in ("model.safetensors", "state.safetensors"):
        whole, parts = (load_file(tmp_path / folder / name) for folder in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole if "seconds" not in key)


def test_a_signal_while_teachers_are_asked_stops_there(home):
    run = prepared(home, teachers=str(home / "teacher1"))
    teachers = Teachers.of(run.config, (run.source_tokenizer, run.target_tokenizer), "f32")
    asked = iter([False, False, True])
    with pytest.raises(InterruptedLesson):
        teachers.learn(0, run.stream(0, 0), Peers(), interrupted=lambda: next(asked))
    assert not teachers.knows(0)


def test_ctrl_c_while_teachers_are_asked_leaves_a_run_to_go_on_with(home, tmp_path, monkeypatch):
    real = Teachers.learn

    def interrupted_once(self, shard, stream, peers, *, interrupted):
        monkeypatch.setattr(Teachers, "learn", real)
        os.kill(os.getpid(), signal.SIGINT)
        real(self, shard, stream, peers, interrupted=interrupted)

    monkeypatch.setattr(Teachers, "learn", interrupted_once)
    stopped = antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=taught(home, updates=12))
    assert not stopped.finished
    assert stopped.updates == 0
    assert antiphon.train(home / "pairs.tsv", tmp_path / "run", resume=True).updates == 12


def test_what_is_no_teacher_is_refused_before_anything_is_made(home, tmp_path):
    with pytest.raises(FolderError, match="nowhere"):
        antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=taught(home, names=("teacher1", "nowhere")))
    assert not (tmp_path / "run").exists()
    (tmp_path / "others.tsv").write_text((home / "pairs.tsv").read_text().replace("a", "x"))
    with pytest.raises(UsageError, match=r"tokenizers of .*teacher1 are others, --train.teachers; train it on"):
        antiphon.train(tmp_path / "others.tsv", tmp_path / "run", knobs=taught(home))
    for wrong in ({"model": {"softmax": "sampled"}}, {"data": {"subword_dropout": 0.1, "tokenizer": "bpe"}}):
        for name, value in (("teachers", "a"), ("distilled", True)):
            with pytest.raises(UsageError, match=rf"train\.{name} needs"):
                load_config(None, {"train": {name: value}, **wrong})


def test_an_exported_model_is_no_teacher(home, tmp_path):
    export(home / "teacher1", tmp_path / "exported")
    given = knobs(updates=5, train={"teachers": str(tmp_path / "exported")})
    with pytest.raises(UsageError, match="no run folder with weights"):
        antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=given)
    assert not (tmp_path / "run").exists()


def test_no_name_is_no_teacher():
    with pytest.raises(UsageError, match="names no folder"):
        load_config(None, {"train": {"teachers": " , "}})
