"""The bench beside other toolkits: pieces are put together honestly, and our side takes its flags."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antiphon.config import load_config
from antiphon.data.pairs import Card
from antiphon.data.tokenizer import EOS, Tokenizer
from antiphon.faces.cli import app
from antiphon.faces.knobs import given as given_flags
from antiphon.faces.knobs import spelled_alike
from benchmarks import machine, tutorial
from benchmarks.peers import ours, pairs
from benchmarks.peers.__main__ import AVX2, PEERS, instructions
from benchmarks.peers.opennmt import Run
from benchmarks.peers.peer import Job, Measured
from benchmarks.peers.symbols import write_symbols

RATES = st.floats(1, 1e5)


def pair(theirs: float, our: float, *, seed: int = 1, date: str = "2026-11-23", **changes) -> pairs.Pair:
    machine = {"date": date, "processor": "x", "torch": "2.13.0"}
    first = pairs.Pair(
        peer="opennmt",
        toolkit="OpenNMT-py==3.5.1",
        machine=machine,
        sources="abc",
        threads=1,
        instructions="all",
        seed=seed,
        others=0.01,
        theirs=Measured(theirs, 10),
        ours={"f32": Measured(our, 11)},
    )
    return dataclasses.replace(first, **changes)


@given(st.lists(st.tuples(RATES, RATES, st.sampled_from(["2026-11-23", "2026-11-24"])), min_size=1, max_size=9))
def test_a_measurement_in_pieces_is_that_of_one_sitting(tmp_path_factory, runs):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    whole = [pair(their, our, seed=seed, date=date) for seed, (their, our, date) in enumerate(runs)]
    for each in whole:
        pairs.append(each, file)
    assert pairs.read(file) == whole
    [told] = pairs.summaries(pairs.read(file))
    ratios = [our / their for their, our, _ in runs]
    assert told["pairs"] == len(runs)
    assert told["machine"]["date"] == sorted({date for _, _, date in runs})
    assert told["ours"]["f32"]["ratio"] == round(statistics.median(ratios), 2)
    assert told["ours"]["f32"]["ratios"] == [round(ratio, 2) for ratio in ratios]


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 2},
        {"instructions": "AVX2"},
        {"sources": "abd"},
        {"toolkit": "OpenNMT-py==3.5.2"},
        {"data": "multi30k pair=en-de form=tok"},
        {"machine": {"date": "2026-11-23", "processor": "y", "torch": "2.13.0"}},
        {"ours": {"bf16": Measured(1.0, 11)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_differs_is_not_put_together(change):
    told = pairs.summaries([pair(1, 2), pair(1, 3, **change), pair(1, 4)])
    assert [each["pairs"] for each in told] == [2, 1]
    assert pairs.table(told).count("OpenNMT-py") == 2


def test_a_limit_of_instructions_is_told_however_it_was_set():
    two = {name: value for name, value in AVX2.items() if name != "MKL_ENABLE_INSTRUCTIONS"}
    assert instructions({"PATH": "/bin"}) == "all"
    assert instructions({"PATH": "/bin", **AVX2}) == "AVX2"
    assert instructions(two) == "ATEN_CPU_CAPABILITY=avx2, ONEDNN_MAX_CPU_ISA=AVX2"


@pytest.mark.parametrize("name", PEERS)
def test_our_side_of_every_comparison_is_a_model_here(name, tmp_path):
    for flags in PEERS[name].ours.values():
        words = ours.command(Job(tmp_path, 1, 1), tmp_path / "run", flags, "f32", 10)
        _, bound, _ = app.parse_args(spelled_alike(words), exit_on_error=False, print_error=False, help_on_error=False)
        chosen = bound.arguments
        knobs = {group: given_flags(chosen.get(group)) for group in ("data", "model", "train", "search")}
        config = load_config(chosen.get("preset"), knobs)
        assert config.data.tokenizer == "symbol"
        assert config.model.cell == "lstm"
        assert config.train.batch_size in (32, 64)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux only")
def test_work_of_this_bench_is_told_from_that_of_others():
    work = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    busy, own = machine.cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", work]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not yet counted as a child
        busy_then, own_then = machine.cpu_seconds()
    assert busy_then - busy >= 0.2  # the system counts in hundredths, and not every one
    assert own_then - own < 0.2
    assert machine.cpu_seconds()[1] - own >= 0.35


def test_our_side_is_measured_on_the_symbols_that_were_written(tmp_path):
    corpus, folder = tmp_path / "corpus", tmp_path / "symbols"
    folder.mkdir()
    corpus.mkdir()
    words = [f"{one}{two}" for one in "abcdefghijkl" for two in "mnopqrstuvwx"]
    for part in ("train", "dev"):
        (corpus / f"{part}.tsv").write_text("".join(f"{word}\t{word[0].upper()} {word[1].upper()}\n" for word in words))
    write_symbols(corpus, folder, "letters")
    assert Path(folder / "train.src").read_text().splitlines()[0] == "a m"
    assert Path(folder / "train.tgt").read_text().splitlines()[0] == "A M"
    assert Path(folder / "train.tsv").read_text().splitlines()[0] == "a m\tA M"
    small = ("--preset", str(ours.LSTM512), "--model.embedding", "8", "--model.hidden", "8", "--train.batch_size", "32")
    found = ours.train(Job(folder, 1, 1), small, "f32", 6)
    assert found.rate > 0
    assert 1000 < found.weights < 20000


def test_what_one_toolkit_alone_tells_does_not_bar_the_file(tmp_path):
    more = Run(10.0, 5, {10: 1.5})
    pairs.append(dataclasses.replace(pair(1, 2), theirs=more), tmp_path / "pairs.jsonl")
    [read] = pairs.read(tmp_path / "pairs.jsonl")
    assert read.theirs == Measured(10.0, 5)


def test_a_figure_says_which_way_a_corpus_was_taken(tmp_path):
    assert machine.corpus(tmp_path) == tmp_path.name
    Card(name="multi30k", options={"pair": "de-en", "form": "tok"}).save(tmp_path)
    assert machine.corpus(tmp_path) == "multi30k pair=de-en form=tok"
    assert machine.corpus(tmp_path / "train.tsv") == "train.tsv"


def test_the_tutorials_model_is_not_handicapped_by_padding(monkeypatch):
    """What it is compared by must be its own: a batch is its singles, and so are its answers."""
    monkeypatch.setattr(tutorial, "WIDTH", 12)
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(["a b c d e f g h"] * 3, kind="word", vocabulary=50)
    model = tutorial.Tutorial(tokenizer.size, tokenizer.size).eval()
    rows = [[*ids, EOS] for ids in tokenizer.encode_batch(["a b", "c d e f g", "h", "b b c"])]
    together, count = tutorial.loss_of(model, rows, rows[::-1])
    alone = [tutorial.loss_of(model, [source], [target]) for source, target in zip(rows, rows[::-1], strict=True)]
    assert count == sum(map(len, rows)) == sum(number for _, number in alone)
    torch.testing.assert_close(together * count, sum(loss * number for loss, number in alone))
    said = tutorial.answers(model, rows, tokenizer)
    assert said == [tutorial.answers(model, [row], tokenizer)[0] for row in rows]
    assert len(set(said)) > 1
