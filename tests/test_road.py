"""The whole road with the real program: train, answer, and every mistake a user can make on the way."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from antiphon.runtime import folder as files

FLAGS = [
    *("--data.tokenizer", "word", "--data.buckets", "2", "--data.max_source", "8"),
    *("--model.embedding", "16", "--model.hidden", "16", "--model.encoder_layers", "1", "--model.decoder_layers", "1"),
    *("--train.batch_size", "16", "--train.validate_every", "20", "--train.dev_answers", "4"),
]


def antiphon(*words: str | Path, stdin: str = "", **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "antiphon", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False, **options)


def one_line_mistake(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    return lines[-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with pairs and a model trained on them by the command line."""
    folder, draw = tmp_path_factory.mktemp("home"), random.Random(3)
    words = ["red", "green", "blue", "black", "white"]
    lines = [" ".join(draw.choice(words) for _ in range(draw.randint(1, 5))) for _ in range(150)]
    (folder / "pairs.tsv").write_text("".join(f"{line}\t{line}\n" for line in lines))
    done = antiphon("train", folder / "pairs.tsv", "--out", folder / "run", *FLAGS, "--train.max_updates", "40")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return folder


def test_what_was_trained_answers_measures_and_shows_itself(home):
    assert len(antiphon("predict", home / "run", "red blue", "green").stdout.splitlines()) == 2
    scores = json.loads(
        antiphon("evaluate", home / "run", home / "pairs.tsv", "--metrics", "accuracy", "--json", "-").stdout
    )
    assert 0 <= scores["accuracy"] <= 100
    assert len(antiphon("score", home / "run", home / "pairs.tsv").stdout.splitlines()) == 150
    shown = antiphon("inspect", home / "run", "--png", home / "curve.png")
    assert "dev" in shown.stdout + shown.stderr
    assert (home / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_mistake_is_answered(home):
    lines = ["never seen words", "🙂🙃", "", "red " * 400, "\x1b[31mred", "ﷺ ’“”"]
    done = antiphon("predict", home / "run", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) == len(lines) + 1
    said = antiphon("chat", home / "run", "--transcript", home / "talk.txt", stdin="\n".join(lines) + "\n/quit\n")
    assert said.returncode == 0, said.stderr
    assert "too long" in said.stderr or "cut" in said.stderr
    transcript = (home / "talk.txt").read_text(encoding="utf-8")
    assert transcript.count("HUMAN") == transcript.count("BOT") == len(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "no pairs"),
        (b"red\tred\none column\n", "bad.tsv:2"),
        (b"red\tred\n\xff\xfe\tx\n", "UTF-8"),
    ],
    ids=["missing", "empty", "one column", "not UTF-8"],
)
def test_bad_data(home, tmp_path, content, message):
    bad = tmp_path / "bad.tsv"
    if content is not None:
        bad.write_bytes(content)
    assert message in one_line_mistake(antiphon("train", bad, "--out", tmp_path / "run", *FLAGS))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train.minuts", "1"], "--train.minutes"),
        (["--minutes", "-1"], "greater than 0"),
        (["--preset", "datse"], 'did you mean "dates"'),
        (["--model.cell", "rnn"], "rnn"),
        (["--model.attention", "multihead", "--model.heads", "3"], "does not divide"),
    ],
)
def test_bad_knobs(home, tmp_path, flags, message):
    assert message in one_line_mistake(antiphon("train", home / "pairs.tsv", "--out", tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_a_run_that_exists_and_other_data_on_resume(home, tmp_path):
    before = (home / "run" / files.STATE).read_bytes()
    said = one_line_mistake(antiphon("train", home / "pairs.tsv", "--out", home / "run"))
    assert "exists already" in said
    other = tmp_path / "other.tsv"
    other.write_text("a\tb\n" * 5 + "c\td\n" * 5)
    said = one_line_mistake(antiphon("train", other, "--out", home / "run", "--resume"))
    assert "not what this run was begun with" in said
    assert (home / "run" / files.STATE).read_bytes() == before


def test_foreign_and_damaged_models(home, tmp_path):
    assert "no such folder" in one_line_mistake(antiphon("predict", tmp_path / "none", "x"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    one_line_mistake(antiphon("predict", foreign, "x"))
    for name in (files.CONFIG, files.TOKENIZER, files.WEIGHTS):
        damaged = tmp_path / f"damaged-{name}"
        shutil.copytree(home / "run", damaged)
        content = (damaged / name).read_bytes()
        (damaged / name).write_bytes(content[: len(content) // 2])
        assert "damaged" in one_line_mistake(antiphon("predict", damaged, "x"))


def test_a_disk_that_refuses_while_saving(home, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)
    before = (run / files.STATE).read_bytes()
    limit = len(before) // 2

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    more = ("train", home / "pairs.tsv", "--out", run, "--resume", "--train.max_updates", "60")
    assert "cannot save" in one_line_mistake(antiphon(*more, preexec_fn=small_files_only))
    assert (run / files.STATE).read_bytes() == before
    assert antiphon("predict", run, "red").returncode == 0
    done = antiphon(*more)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_keeps_all_and_says_how_to_go_on(home, tmp_path):
    run = tmp_path / "run"
    command = [
        "train",
        home / "pairs.tsv",
        "--out",
        run,
        *FLAGS,
        "--train.max_updates",
        "100000",
        "--train.patience",
        "1000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "antiphon", *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (run / files.WEIGHTS).exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    reached = files.read_lines(run / files.LOG)[-1]["update"]
    done = antiphon("train", home / "pairs.tsv", "--out", run, "--resume", "--train.max_updates", str(reached + 5))
    assert done.returncode == 0, done.stderr
    assert files.read_lines(run / files.LOG)[-1]["update"] == reached + 5
