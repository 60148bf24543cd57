"""The command line in this process: whole outputs, exit codes, and one line for every mistake."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import antiphon
from antiphon.config import Config, DataConfig
from antiphon.conversations import Conversations
from antiphon.data.corpus import Learnt, read_corpus
from antiphon.errors import FolderError, MissingExtraError, UsageError
from antiphon.faces.batching import Sizes
from antiphon.faces.cli import main
from antiphon.faces.guard import Limits
from antiphon.faces.knobs import spelled_alike
from antiphon.faces.server import Service
from antiphon.runtime.bundled import bundled
from antiphon.runtime.folder import append_line
from antiphon.training.progress import Sample, Validated, as_record
from antiphon.version import VERSION
from fake_model import FakeModel


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with lines on standard input; every mistake must be one line."""

    def command(*arguments: object, lines: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        done = Done(code, out, err)
        if code == 2:
            assert done.err.count("\n") == 1, done.err
            assert done.err.startswith("error: ")
            assert done.out == ""
        return done

    return command


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setattr("antiphon.model.load", lambda folder: fake)
    return fake


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for antiphon.train and keeps what it was called with."""
    calls = SimpleNamespace(finished=True, validated=[], best_dev=1.25)

    def train(data: str, out: Path, **options: Any) -> SimpleNamespace:
        calls.data, calls.out, calls.options = data, out, options
        for samples in calls.validated:
            options["observer"](Validated(1, 0.1, 1.0, "loss", 1.0, True, 0, [], samples=samples))
        return SimpleNamespace(folder=out, best_dev=calls.best_dev, metric="loss", finished=calls.finished)

    monkeypatch.setattr(antiphon, "train", train)
    return calls


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("a b\tx y\nc\tz\n", encoding="utf-8")
    return path


# Help, version, mistakes.


def test_help_and_version(run: Run):
    help_page = run("--help")
    assert help_page.code == 0
    commands = ("data", "train", "evaluate", "predict", "score", "chat", "inspect")
    places = [help_page.out.index(f"│ {name} ") for name in commands]
    assert places == sorted(places)
    assert run() == help_page
    assert run("--version") == Done(0, f"{VERSION}\n", "")


def test_every_knob_is_in_the_help_with_its_story(run: Run):
    page = " ".join(run("train", "--help").out.split())
    for group, field in Config.model_fields.items():
        for name in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"--{group}.{name}".replace("_", "-") in page
    assert "The recurrent cell of both sides. [choices: gru, lstm] [default: lstm]" in page.replace("│ │ ", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], 'unknown command "trian"; did you mean "train"?\n'),
        (["doctor"], 'unknown command "doctor"; see antiphon --help\n'),
        (["train", "x.tsv"], 'command "train" parameter --out requires an argument; see antiphon train --help'),
        (["predict"], 'command "predict" parameter MODEL requires an argument; see antiphon predict --help'),
        (["predict", "m", "--bem", "3"], "unknown option --bem; did you mean --beam?"),
        (["predict", "m", "-x"], "unknown option -x; see antiphon predict --help"),
        (["score", "m", "d", "e\nf"], 'unexpected argument "e f"; see antiphon score --help'),
        (["predict", "m", "a", "--beam", "many"], 'invalid value for --beam: "many" is no whole number; see antiphon'),
        (["train", "d", "--out", "o", "--seed", "1.5"], 'invalid value for --seed: "1.5" is no whole number; see'),
        (["train", "d", "--out", "o", "--train.patience", "2.5"], 'invalid value for --train.patience: "2.5" is no wh'),
        (["serve", "--port", "1e"], 'invalid value for --port: "1e" is no whole number; see antiphon serve --help'),
        (
            ["evaluate", "no/such", "no.tsv", "--metrics", "loss,bleuu"],
            'no metric "bleuu", --metrics; did you mean "bl',
        ),
        (
            ["evaluate", "no/such", "no.tsv", "--json", "no/x.json"],
            "cannot be written (No such file or directory)",
        ),
        (["train", "no/such", "--out", "o"], "no such file, no/such; there is no folder no either"),
        (["train", "no/such", "--out", "o", "--resume"], "nothing to resume, o; start it without --resume"),
        (["train", "no/such", "--out", "/dev/null"], "a file, where a folder is to be made, /dev/null; choose another"),
        (
            ["train", "d", "--out", "o", "--preset", "no.toml"],
            "cannot read the preset file (No such file",
        ),
        (["inspect", "dates,chat"], "several models, dates,chat; look at one of them at a time"),
        (["inspect", "dates", "--preset", "g2p"], "knobs to look at data with, but a model has its own, dates; leave"),
        (
            ["predict", "m", "a", "--beam", "99999"],
            "search.beam: Input should be less than or equal to 64 (got 99999); see antiphon predict --help",
        ),
        (
            ["evaluate", "m", "x", "--limit", "-5"],
            'invalid value "-5" for --limit. Must be >= 1; see antiphon evaluate --help',
        ),
        (["predict", "m", "a", "--beam", "0"], "search.beam: Input should be greater than or equal to 1 (got 0); "),
        (["predict", "m", "a", "--input", "f"], "both TEXT and --input, antiphon predict; give one of them"),
        (["train", "d", "--out", "o", "--minutes", "-1"], "train.minutes: Input should be greater than 0 (got -1.0); "),
        (["train", "d", "--out", "o", "--minutes", "nan"], "train.minutes: "),
        (
            ["train", "d", "--out", "o", "--train.max_updats", "3"],
            "unknown option --train.max-updats; did you mean --tr",
        ),
        (
            ["train", "d", "--out", "o", "--train.dropuot", "0.1"],
            "unknown option --train.dropuot; did you mean --mode",
        ),
        (["train", "d", "--out", "o", "--train.zzz", "3"], "unknown option --train.zzz; see antiphon train --help"),
        (
            ["train", "d", "--out", "o", "--model.epochs=3"],
            "unknown option --model.epochs; did you mean --train.e",
        ),
        (
            ["train", "d", "--out", "o", "--model.cell", "rnn"],
            'invalid value "rnn" for --model.cell; choose from: "gru',
        ),
        (
            ["train", "d", "--out", "o", "--data.buckets", "[1"],
            'data.buckets: "[1" is neither a number nor shapes, --da',
        ),
        (["train", "d", "--out", "o", "--data.buckets", "[[1]]"], 'data.buckets: "[[1]]" is neither a number nor shap'),
        (["train", "d", "--out", "o", "--data.buckets", "[[1,-2]]"], "data.buckets: "),
        (["train", "d", "--out", "o", "--data.buckets", "[]"], "data.buckets: Tuple should have at least 1 item"),
        (["train", "d", "--out", "o", "--model.heads", "3", "--model.attention", "multihead"], "model"),
        (["train", "d", "--out", "o", "--preset", "chta"], 'no preset "chta", --preset; '),
        (["data", "no-such"], 'no corpus "no-such", antiphon data; '),
        (["data", "dates", "--pair", "en-de"], 'dates has no option "pair", antiphon data; known: train, dev, test'),
        (["chat", "no/such"], "no such folder, no/such; "),
        (["evaluate", "no/such", "no.tsv"], "no such folder, no/such; "),
        (["inspect", "no/such"], "no such file, no/such; "),
    ],
)
def test_a_mistake_is_one_line_with_a_cure(run: Run, arguments: list[str], line: str):
    done = run(*arguments)
    assert done.code == 2
    assert done.err.startswith(f"error: {line}")
    assert "; " in done.err


def test_an_error_cannot_drive_the_terminal(run: Run):
    assert "\x1b" not in run("chat", "no/\x1b[2Jsuch").err


def test_ctrl_c_is_130(run: Run, model: FakeModel, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "predict", interrupted)
    assert run("predict", "m", "a") == Done(130, "", "interrupted\n")


def test_spellings_of_toml_are_flags():
    assert spelled_alike(["--train.max_updates=3", "--a_b", "c_d", "--model.feed", "false", "x", "true"]) == [
        "--train.max-updates=3",
        "--a-b",
        "c_d",
        "--model.feed=false",
        "x",
        "true",
    ]
    assert spelled_alike(["--", "--a_b", "true"]) == ["--", "--a_b", "true"]


# Train.


def test_only_given_flags_are_handed_on(run: Run, trained: SimpleNamespace):
    arguments = ["--model.cell", "gru", "--train.max_updates", "7", "--train.batch-size", "3"]
    arguments += [
        "--data.no-share-vocabulary",
        "--model.tied",
        "target",
        "--train.betas",
        "0.8",
        "0.9",
        "--data.buckets",
        "[[19,19],[28,28]]",
    ]
    done = run("train", "d.tsv", "--out", "o", *arguments, "--minutes", "2", "--seed", "-5", "--search.beam", "2")
    assert done.code == 0
    assert (trained.data, trained.out) == ("d.tsv", Path("o"))
    assert trained.options["knobs"] == {
        "data": {"share_vocabulary": False, "buckets": [[19, 19], [28, 28]]},
        "model": {"cell": "gru", "tied": "target"},
        "train": {"max_updates": 7, "batch_size": 3, "betas": (0.8, 0.9), "minutes": 2.0, "seed": -5},
        "search": {"beam": 2},
    }
    assert (trained.options["preset"], trained.options["resume"]) == (None, False)


@pytest.mark.parametrize(("text", "number"), [("5e2", 500), ("7.0", 7), ("0x1f4", 500), (" 3 ", 3), ("+12", 12)])
def test_whole_numbers_have_many_spellings(run: Run, trained: SimpleNamespace, text: str, number: int):
    assert run("train", "d.tsv", "--out", "o", "--train.batch-size", text).code == 0
    assert trained.options["knobs"]["train"] == {"batch_size": number}


def test_switches_and_numbers_of_buckets(run: Run, trained: SimpleNamespace):
    arguments = ["--model.feed", "true", "--model.residual", "false", "--data.lower", "--data.buckets", "4"]
    assert run("train", "d.tsv", "--out", "o", *arguments).code == 0
    assert trained.options["knobs"]["model"] == {"feed": True, "residual": False}
    assert trained.options["knobs"]["data"] == {"lower": True, "buckets": 4}


def test_the_end_of_training_says_what_to_type_next(run: Run, trained: SimpleNamespace):
    done = run("train", "d.tsv", "--out", "runs/x")
    assert done == Done(
        0,
        "",
        "best dev loss 1.250; try it:\n"
        "  antiphon chat runs/x\n"
        '  antiphon predict runs/x "some text"\n'
        "  antiphon evaluate runs/x d.tsv\n",
    )


@pytest.mark.parametrize(
    ("sources", "typed"),
    [
        (["V;PST walk", "V;PST talk"], "V;PST walk"),
        (['say "hi"', "$HOME", "a\nb", "x" * 61, "[bold] `ls`", "hä? [bold]ja[/bold]"], "hä? [bold]ja[/bold]"),
        (["-x", "100%", "!!"], "some text"),
    ],
)
def test_what_to_type_next_is_such_as_was_learnt(run: Run, trained: SimpleNamespace, sources, typed):
    trained.validated = [[Sample(source, "", "") for source in sources]]
    assert f'  antiphon predict runs/x "{typed}"\n' in run("train", "d.tsv", "--out", "runs/x").err


@pytest.mark.parametrize(("best", "waits"), [(1.25, ""), (math.nan, ", and answers after its first validation")])
def test_interrupted_training_says_how_to_go_on(run: Run, trained: SimpleNamespace, best: float, waits: str):
    trained.finished, trained.best_dev = False, best
    done = run("train", "d.tsv", "--out", "runs/x")
    assert done.code == 130
    assert done.err.endswith(f"it can go on{waits}: antiphon train d.tsv --out runs/x --resume\n")
    assert ("antiphon predict" in done.err) == (not waits)


def test_resume_takes_the_runs_own_knobs(run: Run, trained: SimpleNamespace):
    assert run("train", "d.tsv", "--out", "o", "--resume", "--train.minutes", "3").code == 0
    assert trained.options["resume"] is True
    assert trained.options["knobs"]["train"] == {"minutes": 3.0}


@pytest.mark.parametrize("error", [FolderError("in use", where="o"), MissingExtraError("training", "train")])
def test_what_training_refuses_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception):
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(antiphon, "train", refuse)
    assert run("train", "d.tsv", "--out", "o") == Done(2, "", f"error: {error}\n")


# Predict.


def test_each_text_is_answered_on_a_line(run: Run, model: FakeModel):
    assert run("predict", "m", "hello you", "", "--", "-x") == Done(0, "HELLO YOU\n\n-X\n", "")
    assert model.asked[0] == (["hello you", "", "-x"], {"beam": 4})


def test_lines_of_standard_input(run: Run, model: FakeModel):
    assert run("predict", "m", lines="a\n\nb\u2028c\r\nlast") == Done(0, "A\n\nB C\nLAST\n", "")


def test_files_in_and_out(run: Run, model: FakeModel, tmp_path: Path):
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbfa\r\n\xc3\xa4\n")
    done = run("predict", "m", "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert done == Done(0, "", f"2 answers in {tmp_path / 'out'}\n")
    assert (tmp_path / "out").read_bytes() == "A\nÄ\n".encode()


def test_an_output_may_be_the_input_and_is_whole_or_as_it_was(run: Run, model: FakeModel, tmp_path: Path):
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n", encoding="utf-8")
    assert run("predict", "m", "--input", words, "--output", words).code == 0
    assert words.read_text(encoding="utf-8") == "A\nB\n"
    (tmp_path / "bad.txt").write_bytes(b"c\n\xff\n")
    assert run("predict", "m", "--input", tmp_path / "bad.txt", "--output", words).code == 2
    assert words.read_text(encoding="utf-8") == "A\nB\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "words.txt"]


def test_files_that_cannot_be(run: Run, model: FakeModel, tmp_path: Path):
    (tmp_path / "latin").write_bytes(b"\xe4\n")
    assert "not UTF-8" in run("predict", "m", "--input", tmp_path / "latin").err
    assert "cannot be read (No such file or directory)" in run("predict", "m", "--input", tmp_path / "none").err
    assert "cannot be written" in run("predict", "m", "a", "--output", tmp_path / "no" / "out").err


def test_more_lines_than_a_chunk(run: Run, model: FakeModel):
    lines = [f"line {number}" for number in range(600)]
    assert run("predict", "m", lines="\n".join(lines)).out == "".join(f"{line.upper()}\n" for line in lines)
    assert len(model.asked) > 1


def test_nbest_is_a_table_and_widens_the_beam(run: Run, model: FakeModel):
    assert run("predict", "m", "a", "b", "--nbest", "2").out == (
        "1\t-1.0000\tA\n1\t-2.0000\tA 2\n2\t-1.0000\tB\n2\t-2.0000\tB 2\n"
    )
    assert run("predict", "m", "a", "--nbest", "9").code == 0
    assert model.asked[-1][1] == {"nbest": 9, "beam": 9}


def test_what_the_model_refuses_is_one_line(run: Run, model: FakeModel, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise UsageError("nbest 5 is more than beam 2", cure="give beam 5 or more")

    monkeypatch.setattr(model, "predict", refuse)
    done = run("predict", "m", "a", "--nbest", "5", "--beam", "2")
    assert done == Done(2, "", "error: nbest 5 is more than beam 2; give beam 5 or more\n")


def test_sampling(run: Run, model: FakeModel):
    assert run("predict", "m", "a", "--sample", "--seed", "3", "--top-k", "5").out == "A DRAWN 3\n".replace(
        "DRAWN", "drawn"
    )
    assert model.asked[0][1] == {"sample": True, "seed": 3, "top_k": 5}
    assert run("predict", "m", "a", "--sample", "false").out.count("\n") == 1
    assert model.asked[-1][1]["sample"] is False


def test_json_lines(run: Run, model: FakeModel):
    out = run("predict", "m", "a\x9b ü", "b", "--json", "--nbest", "2", "--attention").out
    first, second = map(json.loads, out.splitlines())
    assert first["source"] == "a\x9b ü"
    assert "\x9b" not in out
    assert "ü" in out
    assert second == {
        "source": "b",
        "text": "B",
        "score": -1.0,
        "truncated": False,
        "unknown": 0,
        "alternatives": [{"text": "B 2", "score": -2.0}],
        "source_tokens": ["b", "</s>"],
        "tokens": ["B", "</s>"],
        "attention": [[1.0, 0.1], [0.1, 1.0]],
    }


def test_attention_below_each_answer_and_in_a_file(run: Run, model: FakeModel, tmp_path: Path):
    done = run("predict", "m", "a", "--attention", "--attention-png", tmp_path / "a.png")
    assert done.out.splitlines() == ["A", "        <", "        /", "        s", "      a >", "   A  ██", "</s>    ██"]
    assert done.err == f"the attention as a picture: {tmp_path / 'a.png'}\n"
    assert (tmp_path / "a.png").exists()


# Evaluate and score.


def test_scores_are_a_table_and_a_json_file(run: Run, model: FakeModel, pairs: Path, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def evaluate(_model: Any, data: Any, metrics: Any, **options: Any) -> dict[str, Any]:
        asked.update(options, data=data, metrics=metrics)
        return {"accuracy": 50.0, "pairs": 2}

    monkeypatch.setattr("antiphon.evaluation.evaluate", evaluate)
    file = pairs.with_name("scores.json")
    done = run("evaluate", "m", pairs, "--metrics", "accuracy, bleu", "--beam", "2", "--json", file)
    assert done == Done(0, "accuracy  50.000\npairs          2\n", "")
    assert json.loads(file.read_text(encoding="utf-8")) == {"accuracy": 50.0, "pairs": 2}
    assert asked["metrics"] == ["accuracy", "bleu"]
    assert asked["beam"] == 2
    assert [tuple(pair) for pair in asked["data"]] == [("a b", "x y"), ("c", "z")]
    done = run("evaluate", "m", pairs, "--json", "-")
    assert json.loads(done.out) == {"accuracy": 50.0, "pairs": 2}


def test_bleu_splits_punctuation_off_unless_it_is_told_not_to(run: Run, model: FakeModel, tmp_path: Path):
    file = tmp_path / "pairs.tsv"
    file.write_text("a b, c d. e f\tA B , C D . E F\n", encoding="utf-8")
    asked = ["evaluate", "m", file, "--metrics", "bleu", "--json", "-"]
    split, whole = (json.loads(run(*asked, *more).out)["bleu"] for more in ([], ["--tokenize", "none"]))
    assert split == pytest.approx(100)
    assert whole < 50
    assert run(*asked, "--tokenize", "13a").out.split('"seconds"')[0] == run(*asked).out.split('"seconds"')[0]


def test_a_folder_gives_its_test_part_or_dev(run: Run, model: FakeModel, tmp_path: Path):
    for part in ("train", "dev"):
        (tmp_path / f"{part}.tsv").write_text(f"{part}\tx\n", encoding="utf-8")
    assert run("score", "m", tmp_path).err.startswith(f"on {tmp_path}/dev.tsv\n")
    (tmp_path / "test.tsv").write_text("test\tx\n", encoding="utf-8")
    assert run("score", "m", tmp_path).out == "-1.0000\t2\ttest\tx\n"
    assert run("score", "m", tmp_path, "--split", "train").out == "-1.0000\t2\ttrain\tx\n"
    assert "a file has no test part" in run("score", "m", tmp_path / "dev.tsv", "--split", "test").err
    (tmp_path / "none").mkdir()
    assert "no train.tsv in this folder" in run("score", "m", tmp_path / "none").err


def test_what_has_no_dev_part_has_what_training_holds_out(run: Run, model: FakeModel, tmp_path: Path):
    model.config = Config(data=DataConfig(dev_pairs=3))
    lines = [f"source {number}\tx" for number in range(40)]
    (tmp_path / "train.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def seen(*arguments: object) -> list[str]:
        done = run("score", "m", *arguments)
        assert done.code == 0
        return [line.split("\t", 2)[2] for line in done.out.splitlines()]

    held = seen(tmp_path)
    assert len(held) == 3
    assert seen(tmp_path / "train.tsv", "--split", "dev") == held
    learnt = seen(tmp_path / "train.tsv", "--split", "train")
    assert learnt == [line for line in lines if line not in held] == seen(tmp_path, "--split", "train")
    assert seen(tmp_path / "train.tsv") == lines
    done = run("score", "m", tmp_path / "train.tsv", "--split", "dev")
    assert done.err.startswith(f"on what training holds out of {tmp_path}/train.tsv\n")


def test_a_model_is_evaluated_on_what_it_has_not_learnt(
    run: Run, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def evaluate(_model: Any, data: Any, _metrics: Any, **_options: Any) -> dict[str, Any]:
        return {"sources": " ".join(sorted(source for source, _ in data))}

    monkeypatch.setattr("antiphon.evaluation.evaluate", evaluate)
    pairs, others = tmp_path / "pairs.tsv", tmp_path / "others.tsv"
    pairs.write_text("".join(f"{number}\tx\n" for number in range(40)), encoding="utf-8")
    others.write_text("".join(f"{number}\ty\n" for number in range(40)), encoding="utf-8")
    corpus = read_corpus(pairs, dev_pairs=3)
    model.config, model.learnt_from = Config(data=DataConfig(dev_pairs=3)), [corpus.learnt(3)]
    done = run("evaluate", "m", pairs)
    assert done.out.split() == ["sources", *sorted(pair.source for pair in corpus.dev)]
    assert done.err == f"on what training holds out of {pairs}\n"
    assert len(run("evaluate", "m", others).out.split()) == 41
    assert len(run("evaluate", "m", pairs, "--split", "train").out.split()) == 38
    model.learnt_from.append(Learnt(corpus.train_fingerprint, 2))  # two models: what neither has learnt
    assert len(run("evaluate", "m", pairs).out.split()) == 3
    model.learnt_from.append(Learnt(corpus.train_fingerprint, 0))  # with a dev part of its own
    done = run("evaluate", "m", pairs)
    assert len(done.out.split()) == 41
    assert done.err == f"on {pairs}, all of which was learnt\n"


def test_a_conversation_is_read_with_the_turns_that_the_model_knows(run: Run, model: FakeModel, tmp_path: Path):
    (tmp_path / "talk.dialogue").write_text("a\tb\tc\n", encoding="utf-8")
    assert "\tb\tc\n" in run("score", "m", tmp_path / "talk.dialogue").out
    model.config = Config(data=DataConfig(context=1))
    assert "\ta <turn> b\tc\n" in run("score", "m", tmp_path / "talk.dialogue").out


def test_sources_that_were_cut_are_told_of(run: Run, model: FakeModel):
    done = run("predict", "m", "a b c d e f g h i", "a")
    assert done.err.endswith("1 of 2 sources had more than 7 tokens: of those the last 7 were read\n")


def test_a_file_behind_a_link_is_written_and_the_link_stays(run: Run, model: FakeModel, tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "answers")
    for text in ("a", "b"):
        assert run("predict", "m", text, "--output", tmp_path / "link").code == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "answers").read_text(encoding="utf-8") == f"{text.upper()}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"link", "answers"}


def test_a_place_that_cannot_be_written_is_a_mistake(run: Run, model: FakeModel, tmp_path: Path):
    for place in (tmp_path, tmp_path / ("long" * 100)):
        assert "cannot be written" in run("predict", "m", "a", "--output", place).err


def test_pairs_where_sources_are_wanted_are_told_of(run: Run, model: FakeModel):
    assert "1 of 2 sources have a TAB" in run("predict", "m", lines="a\tb\nc d\n").err
    assert "TAB" not in run("predict", "m", lines="a b\n").err


def test_sources_with_unknown_tokens_are_told_of(run: Run, model: FakeModel):
    done = run("predict", "m", "a ?", "a", "? ?")
    assert done.err == "2 of 3 sources have tokens that the vocabulary lacks: they were read as <unk>\n"
    assert [json.loads(line)["unknown"] for line in run("predict", "m", "a ?", "? ?", "--json").out.splitlines()] == [
        1,
        2,
    ]


def test_scores_of_pairs(run: Run, model: FakeModel, pairs: Path):
    total = "2 pairs, -2.50 nats, 5 tokens: perplexity 1.65\n"
    assert run("score", "m", pairs) == Done(0, "-1.5000\t3\ta b\tx y\n-1.0000\t2\tc\tz\n", total)
    records = [json.loads(line) for line in run("score", "m", pairs, "--json").out.splitlines()]
    assert records[0] == {"nats": -1.5, "tokens": 3, "source": "a b", "target": "x y"}


# Chat, data, inspect.


def test_chat_reads_lines(run: Run, model: FakeModel, tmp_path: Path):
    done = run("chat", "m", "--transcript", tmp_path / "t", "--sample", "--seed", "1", lines="hello\nyou\n")
    assert (done.code, done.out) == (0, "HELLO drawn 1\nYOU drawn 2\n")
    assert (tmp_path / "t").read_text(encoding="utf-8").count("BOT ++++ ") == 2
    assert "transcript cannot be written" in run("chat", "m", "--transcript", tmp_path / "no" / "t").err


# Serve.


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for the server and its socket, and keeps what they were made with."""
    calls = SimpleNamespace(folders=[], threads=[], listened=0)

    def load(folder: str, *, threads: int | None) -> FakeModel:
        calls.folders.append(folder)
        calls.threads.append(threads)
        return FakeModel()

    def open_socket(host: str, port: int) -> SimpleNamespace:
        calls.address = host, port
        return SimpleNamespace(getsockname=lambda: (host, 8123))

    def create_app(models: dict[str, FakeModel], conversations: Conversations | None, service: Service) -> str:
        calls.models, calls.conversations, calls.service = list(models), conversations, service
        return "app"

    def listen(app: str, listening: SimpleNamespace) -> None:
        assert app == "app"
        assert listening.getsockname()[1] == 8123
        calls.listened += 1

    for stand_in in (load, open_socket, create_app, listen):
        monkeypatch.setattr(f"antiphon.faces.service.{stand_in.__name__}", stand_in)
    for name in ("ANTIPHON_TOKEN", "ANTIPHON_STORE"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "127.0.0.1.example.org", ""])
@pytest.mark.parametrize("token", [[], ["--token", ""]])
def test_an_address_that_others_can_reach_needs_a_token(run: Run, served: SimpleNamespace, host: str, token: list[str]):
    done = run("serve", "dates", "--host", host, "--no-store", *token)
    assert done.code == 2
    assert "needs a token" in done.err
    assert (served.folders, served.listened) == ([], 0)
    assert run("serve", "dates", "--host", host, "--no-store", "--token", "secret").code == 0
    assert (served.service.token, served.service.hosts, served.listened) == ("secret", None, 1)


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]"), ("localhost", "localhost")],
)
def test_the_loopback_needs_none_and_goes_by_its_name(run: Run, served: SimpleNamespace, host: str, name: str):
    done = run("serve", "dates", "--host", host, "--no-store")
    assert (done.code, served.listened) == (0, 1)
    assert (served.service.token, served.service.hosts) == (None, (name,))
    assert done.err == f"serving dates on http://{name}:8123  (Ctrl-C ends it)\nnothing is kept\n"


def test_what_serve_is_told_reaches_the_server(
    run: Run, served: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run("serve", "runs/a", "runs/b", "--no-store", "--port", "0").code == 0
    assert (served.folders, served.threads, served.models) == (["runs/a", "runs/b"], [None, None], ["a", "b"])
    assert served.address == ("127.0.0.1", 0)
    assert (served.conversations, served.service) == (None, Service(hosts=("127.0.0.1",)))
    flags = ["--port=99", "--token=secret", "--keep-days=3", "--rows=5", "--queue=7", "--seconds=9", "--threads=2"]
    told = Service(Limits(seconds=9), Sizes(rows=5, queue=7), token="secret", hosts=None, days=3)
    done = run("serve", "runs/a", *flags, "--store", tmp_path / "kept.db")
    assert f"conversations are kept in {served.conversations.address}" in done.err
    assert (served.service, served.address, served.threads[-1]) == (told, ("127.0.0.1", 99), 2)
    assert (tmp_path / "kept.db").exists()
    monkeypatch.setenv("ANTIPHON_TOKEN", "hidden")
    monkeypatch.setenv("ANTIPHON_STORE", str(tmp_path / "other.db"))
    assert run("serve", "runs/a").code == 0
    assert served.service == Service(token="hidden", hosts=None)
    assert (tmp_path / "other.db").exists()
    assert run("serve", "runs/a", "--no-store").err.endswith("nothing is kept\n")
    assert served.conversations is None


def test_two_models_of_one_name_are_refused(run: Run, served: SimpleNamespace, tmp_path: Path):
    one, other = tmp_path / "one" / "bot", tmp_path / "other" / "bot"
    done = run("serve", one, other, "--no-store")
    assert (done.code, served.listened) == (2, 0)
    assert done.err == f'error: two models named "bot", {other}; rename one of the folders\n'


def test_corpora_are_listed(run: Run):
    done = run("data")
    assert done.code == 0
    assert {line.split()[0] for line in done.out.splitlines()} >= {"dates", "multi30k", "cornell", "cmudict"}


def test_data_says_counts_terms_and_lengths(run: Run, tmp_path: Path):
    options = ["--out", tmp_path / "d", "--train", "50", "--dev", "5", "--test", "5", "--seed", "2"]
    done = run("data", "dates", *options)
    assert done.code == 0
    assert done.out.startswith(f"dates → {tmp_path}/d: 50 train, 5 dev, 5 test")
    for word in ("licence  ", "citation  ", "source length in ", "target length in ", "█"):
        assert word in done.out
    assert len((tmp_path / "d" / "train.tsv").read_text(encoding="utf-8").splitlines()) == 50
    card = json.loads(run("data", "dates", *options, "--json").out)
    assert (card["name"], card["seed"], card["options"]["train"]) == ("dates", 2, 50)


def test_tok_and_raw_choose_the_form(run: Run, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def prepare(name: str, **options: Any) -> None:
        asked.append((name, options["options"], options["out"]))
        raise UsageError("enough", cure="of this")

    monkeypatch.setattr("antiphon.data.corpora.prepare", prepare)
    run("data", "multi30k", "--raw", "--pair", "en-de")
    run("data", "multi30k", "--tok", "--context", "2")
    assert asked == [
        ("multi30k", {"form": "raw", "pair": "en-de"}, Path("data/multi30k")),
        ("multi30k", {"form": "tok", "context": "2"}, Path("data/multi30k")),
    ]


def test_inspect_data_with_knobs(run: Run, tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{'a ' * n}{n}\tb\n" for n in range(1, 31)), encoding="utf-8")
    done = run("inspect", path, "--data.tokenizer", "symbol", "--data.buckets", "[[10,5],[40,5]]")
    assert done.code == 0
    assert done.out.startswith(f"{path}: 27 pairs to learn from, 3 dev, 0 test\n")
    facts = json.loads(run("inspect", path, "--data.tokenizer", "symbol", "--data.buckets", "2", "--json").out)
    assert facts["kind"] == "data"
    assert len(facts["buckets"]) == 2


# As a process.


@pytest.fixture
def environment() -> dict[str, str]:
    source = str(Path(antiphon.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}


def test_the_module_runs_and_speaks_utf8_whatever_the_locale(environment: dict[str, str]):
    command = [sys.executable, "-m", "antiphon", "chat", os.fsdecode(b"no/\xc3\xa4\xff")]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert "no/ä".encode() in done.stderr


@pytest.mark.parametrize(("stream", "answer"), [(0, b""), (1, b""), (2, b"2020-05-01\n")])
def test_a_stream_that_is_closed_is_an_empty_one(environment: dict[str, str], stream: int, answer: bytes):
    words = ["1. Mai 2020"] if stream else []
    command = [sys.executable, "-m", "antiphon", "predict", "dates", *words]
    shell = ["sh", "-c", f'exec "$@" {stream}{"<" if stream == 0 else ">"}&-', "sh", *command]
    done = subprocess.run(shell, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, answer, b"")


def test_a_text_longer_than_a_path_may_be_is_a_text(capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "dates", "1. Mai 2020 " * 30, "1. Mai 2020 / " * 400]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_run_that_may_only_be_read_is_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(bundled()["dates"], tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_text("")
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == "", "nothing was drawn"
    append_line(tmp_path / "run" / "log.jsonl", as_record(Validated(1, 0.1, 1.0, "loss", 1.0, True, 0, [])))
    (tmp_path / "run" / "curve.png").mkdir()  # stands for a medium that refuses
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert "warning: no picture" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "run"), "--png", str(tmp_path / "run" / "curve.png")]) == 2


def test_a_reader_that_has_enough_ends_it_quietly(environment: dict[str, str]):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "antiphon", "data"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
