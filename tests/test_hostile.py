"""Hostile input: a share of the fuzzing in `benchmarks/fuzz.py`, and every fault that it found, once more."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import antiphon
from antiphon.config import load_config
from antiphon.data.corpora import prepare
from antiphon.data.corpora import source as archives
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Card, read_pairs
from antiphon.errors import DataError, UsageError
from antiphon.faces import cli
from antiphon.runtime import folder as files
from small_runs import knobs, write_pairs

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "flags",
    [["--cases", "40000"], ["--engine", "hypothesis", "--targets", "knobs", "--cases", "25"]],
    ids=["files", "knobs"],
)
def test_nothing_hostile_gets_through(flags):
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not here")
    command = [sys.executable, "-m", "benchmarks.fuzz", *flags, "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = {name: part["findings"] for name, part in json.loads(done.stdout)["targets"].items() if part["findings"]}
    assert found == {}


DIGITS, BRACKETS = "9" * 5000, "[" * 100_000


@pytest.mark.parametrize(
    "line", [f'{{"source": "a", "target": "b", "n": {DIGITS}}}', BRACKETS], ids=["digits", "brackets"]
)
def test_a_line_of_json_that_python_will_not_read(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"not JSON .*a\.jsonl:1"):
        read_pairs(tmp_path / "a.jsonl")


@pytest.mark.parametrize("value", [DIGITS, BRACKETS], ids=["digits", "brackets"])
def test_a_preset_that_python_will_not_read(tmp_path, value):
    (tmp_path / "a.toml").write_text(f"[train]\nminutes = {value}\n")
    with pytest.raises(UsageError, match="not TOML"):
        load_config(str(tmp_path / "a.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train = 3", r"train is no table of knobs, .*a\.toml; write \[train\]"),
        (f"[train]\nseed = 0x{'f' * 5000}", r"train\.seed.*too large to show"),
        (f"[train]\nseed = '{'s' * 5000}'", r"train\.seed.*…"),
    ],
    ids=["no table", "hexadecimal", "long text"],
)
def test_a_preset_of_the_wrong_kind(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(str(tmp_path / "a.toml"), {"train": {"max_updates": 3}})


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ('{"name": "x", "note": "\\ud800"}', "half of a surrogate pair"),
        ('{"name": "x", "context": "two"}', "context is 'two'"),
        ('{"name": "x", "counts": [1]}', r"counts is \[1\]"),
        ('{"name": "x", "counts": {"train": "many"}}', r"counts: train is 'many'"),
        (f'{{"name": "x", "seed": {DIGITS}}}', "not JSON"),
        (BRACKETS, "not JSON"),
    ],
    ids=["surrogate", "text for a number", "list for a table", "text in a table", "digits", "brackets"],
)
def test_a_data_card_that_is_none(tmp_path, card, message):
    (tmp_path / "data.json").write_text(card)
    with pytest.raises(DataError, match=message):
        Card.load(tmp_path)


def gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a" * 5000))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"a" * 5000)


def tarred(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("a.txt", "b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 600
            archive.addfile(entry, io.BytesIO(b"a" * 600))


@pytest.mark.parametrize("pack", [gzipped, zipped, tarred])
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, pack):
    pack(tmp_path / "bomb")

    def first() -> bytes:
        source = Source(tmp_path / "bomb")
        return source.read(source.names("")[0])

    assert set(first()) == {ord("a")}
    monkeypatch.setattr(archives, "MOST", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        first()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "d.tsv", "--out", "x" * 300],
        ["predict", "m" * 300, "a"],
        ["inspect", "d" * 300],
        ["data", "cmudict", "--from", "d" * 300],
    ],
    ids=lambda words: words[0],
)
def test_a_name_the_system_refuses_is_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.tsv").write_text("a\tb\n")
    assert cli.main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_log_of_anything_is_a_log(tmp_path):
    log = tmp_path / files.LOG
    log.write_bytes(b'\xff\n[]\n"x"\nnull\n' + BRACKETS.encode() + b"\n" + DIGITS.encode() + b'\n{"event": "progress"}')
    assert files.read_lines(log) == [{"event": "progress"}]


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"model": {"hidden": 1 << 16, "encoder_layers": 8, "decoder_layers": 8}}, "GB to train, this machine has"),
        ({"model": {"encoder_layers": 10**9}}, r"model\.encoder_layers.*64"),
        ({"train": {"batch_size": 10**9}}, r"train\.batch_size"),
        ({"train": {"threads": 10**9}}, r"train\.threads"),
        ({"train": {"learning_rate": float("inf")}}, r"train\.learning_rate: .*finite"),
        ({"train": {"seed": 1 << 64}}, r"train\.seed"),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:40],
)
def test_a_knob_that_no_machine_can_bear_is_told(tmp_path, knob, message):
    write_pairs(tmp_path / "pairs.tsv", 60)
    with pytest.raises(UsageError, match=message):
        antiphon.train(tmp_path / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=2, **knob))


def test_a_negative_seed_draws_words_too(tmp_path):
    write_pairs(tmp_path / "pairs.tsv", 60)
    sampled = {"data": {"share_vocabulary": False}, "model": {"softmax": "sampled", "tied": "none"}}
    given = {**sampled, "train": {"samples": 4, "seed": -5}}
    assert antiphon.train(tmp_path / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=2, **given)).updates == 2


def test_two_files_one_of_which_is_but_a_byte_order_mark(tmp_path):
    (tmp_path / "s.txt").write_bytes(b"a")
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match="one of the files is empty"):
        read_pairs(f"{tmp_path / 's.txt'},{tmp_path / 't.txt'}")


def test_a_table_of_turk_that_is_none(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.csv").write_bytes(b"Assi\rnmentId,Answer.sentence1\nx,hi\n")
    with pytest.raises(DataError, match=r"a\.csv is no table"):
        prepare("self-dialogue", source=tmp_path / "source", out=tmp_path / "out", options={})
