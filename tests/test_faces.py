"""What is drawn: heat maps, curves, bars, the training screen; and what strangers' text may not do."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from antiphon.config import Config, DataConfig
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import FolderError, SaveError
from antiphon.faces import inspection
from antiphon.faces.curve import draw_curve, print_curve, read_curve
from antiphon.faces.heatmap import draw_attention, save_attention
from antiphon.faces.progress import TrainingScreen
from antiphon.faces.screen import bar, duration, escaped, shown, size, table
from antiphon.runtime import folder as files
from antiphon.training.progress import Progress, Sample, Started, Stopped, Validated, Warned, as_record

PNG = b"\x89PNG\r\n"


def page(*, width: int = 60, terminal: bool = False) -> Console:
    colours = "truecolor" if terminal else None
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=colours)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Text.


@given(st.text())
def test_shown_text_is_one_line_that_no_terminal_acts_on(text: str):
    out = shown(text)
    assert len(out.splitlines()) <= 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in out)
    out.encode("utf-8")


@pytest.mark.parametrize("text", ["don't", "naïve 👩‍👩‍👧", "می‌خواهم", "日本語", "[bold]"])
def test_harmless_text_is_shown_as_it_is(text: str):
    assert shown(text) == text


@given(st.text())
def test_escaped_json_says_the_same(text: str):
    document = escaped(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(document) == {"text": text}
    assert shown(document) == document


@given(st.floats(0, 1), st.integers(1, 50))
def test_a_bar_is_as_long_as_its_share_and_never_hides_something(share: float, width: int):
    drawn = bar(share, width)
    assert abs(len(drawn) - share * width) <= 1
    assert bool(drawn) == (share > 0)


def test_numbers_read_well():
    assert [duration(seconds) for seconds in (0, 59.6, 187, 3729)] == ["0:00", "1:00", "3:07", "1:02:09"]
    assert [size(count) for count in (0, 999, 4_000, 4_040_000, 250_000_000, 2e12)] == [
        "0 B",
        "999 B",
        "4.0 kB",
        "4.0 MB",
        "250 MB",
        "2,000 GB",
    ]
    assert table([("a", "1"), ("long", "10")], right=(1,)) == ["a      1", "long  10"]


# Attention.

SOURCE, TARGET = ["je", "dors", "</s>"], ["i", "sleep", "</s>"]
WEIGHTS = np.array([[0.8, 0.1, 0.1], [0.0, 0.3, 0.5], [0.0, 0.0, 0.8]])


def test_attention_without_colour_is_shades():
    console = page()
    draw_attention(SOURCE, TARGET, WEIGHTS, console)
    assert printed(console).splitlines() == [
        "         d <",
        "         o /",
        "       j r s",
        "       e s >",
        "    i  ██",
        "sleep    ░░▓▓",
        " </s>      ██",
    ]


def test_attention_with_colour_is_brightest_where_most_was_looked_at():
    console = page(terminal=True)
    draw_attention(SOURCE, TARGET, WEIGHTS, console)
    assert printed(console).count("48;2;253;231;88m") == 2


def test_a_source_wider_than_the_screen_goes_on_below():
    console = page(width=40)
    draw_attention(["x"] * 40, ["y"], np.ones((1, 40)), console)
    rows = [line for line in printed(console).splitlines() if line.startswith("y")]
    assert sum(line.count("██") for line in rows) == 40
    assert max(map(len, rows)) <= 40


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.lists(st.text(max_size=20), max_size=5))
def test_any_tokens_can_be_drawn_in_the_terminal(source: list[str], target: list[str]):
    console = page(terminal=True)
    draw_attention(source, target, np.full((len(target), len(source)), 0.5), console)
    assert "\x07" not in printed(console)


def test_attention_png_of_many_scripts(tmp_path: Path):
    source = ["我喜欢", "مرحبا", "$x$", "", "x\u0301", "👩‍👩‍👧", "\x1b[2J", "</s>"]
    save_attention(source, TARGET, np.eye(3, len(source)), tmp_path / "a.png", title="$ unbalanced_")
    save_attention(["</s>"], ["</s>"], np.zeros((1, 1)), tmp_path / "one.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    with pytest.raises(SaveError, match="cannot be written"):
        save_attention(SOURCE, TARGET, WEIGHTS, tmp_path / "no" / "a.png")


# Curves.

VALIDATED = Validated(
    update=300,
    seconds=20.0,
    dev_loss=2.5,
    metric="bleu",
    score=12.5,
    best=True,
    since_best=0,
    bucket_losses=[(5, 6, 2.25, 100), (9, 9, 2.75, 80)],
    samples=[Sample("a\x1b[2J [bold]", "b", "c"), Sample("d", "e", "f")],
    dominating=("i don't know", 0.4),
)


def progress(update: int, loss: float) -> Progress:
    return Progress(update, update / 100, loss, 2500.0, 0.001, update / 10, 90.0, 300.0)


LOG = [as_record(progress(update, 2 + 5 * math.exp(-update / 100))) for update in range(10, 600, 10)]
LOG += [as_record(VALIDATED), as_record(progress(600, math.nan))]


@pytest.mark.parametrize(
    ("seconds", "told"), [(90, ", stops at 14:01"), (2 * 86_400, ", stops on 03 May, 14:00"), (1e18, "")]
)
def test_the_end_is_told_by_the_clock_while_anybody_thinks_of_it(seconds, told):
    console = page()
    with TrainingScreen(console, now=lambda: datetime(2026, 5, 1, 14, 0)) as screen:
        screen(replace(progress(10, 3.0), seconds_left=seconds))
    assert f" left{told} · epoch" in " ".join(printed(console).split())


def test_a_curve_whose_best_has_no_loss_has_no_mark():
    best = {**as_record(VALIDATED), "dev_loss": math.nan}
    assert read_curve([*LOG[:3], best]).best is None


def test_a_curve_has_the_points_of_the_log_and_later_ones_win():
    again = {**as_record(VALIDATED), "dev_loss": 2.0, "best": False}
    curve = read_curve([*LOG, again])
    assert curve.dev == [(300, 2.0)]
    assert curve.scores == [(300, 12.5)]
    assert curve.best == 300
    assert len(curve.train) == 59, "what is not finite is no point"


def test_the_terminal_curve_falls_and_marks_validations():
    console = page(width=70)
    print_curve(LOG, console)
    lines = printed(console).splitlines()
    assert sum(line.count("●") for line in lines[:12]) == 1
    assert max(map(len, lines)) <= 70
    first = [next((at for at, mark in enumerate(line[9:]) if mark != " "), 99) for line in lines[:11]]
    assert first == sorted(first)


def test_no_curve_yet():
    console = page()
    print_curve([], console)
    assert printed(console) == "no curve yet\n"


def test_curve_png(tmp_path: Path):
    draw_curve(LOG, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)
    draw_curve([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


# The training screen.

STARTED = Started(
    "runs/x",
    0,
    9000,
    500,
    48_749,
    6000,
    5000,
    [(5, 6, 10), (9, 9, 20)],
    0.12,
    3,
    40,
    "f32",
    2,
    "after 5 minutes",
    made_pairs=900,
    skipped={"empty source or target": 7},
)


def test_training_without_a_terminal_is_plain_lines_now_and_then():
    console = page()
    with TrainingScreen(console, now=lambda: datetime(2026, 11, 22, 14, 0)) as screen:
        screen(STARTED)
        for update in range(10, 310, 10):
            screen(replace(progress(update, 3.0), sampled=update < 100))
        screen(VALIDATED)
        screen(progress(310, 3.0))
        screen(Warned(310, "careful"))
        screen(Stopped(310, 31.0, "interrupted", False, 300, 12.5, "bleu", "runs/x"))
    assert printed(console) == (
        "9,000 pairs to learn from (and 900 made of them), 500 held out; 6,000 → 5,000 tokens known\n"
        "left out: 7 empty source or target\n"
        "buckets (source·target) 5·6 9·9: 12% padding\n"
        "3 pairs are longer than the largest bucket: cut\n"
        "48,749 weights, f32 on 2 threads, 40 updates an epoch\n"
        "training begins; stops after 5 minutes\n"
        "Ctrl-C stops it earlier and keeps all\n"
        "10 updates · 2,500 tokens/s · loss 3.000 (sampled) · 1:30 left, stops at 14:01 · epoch 0.1\n"
        "110 updates · 2,500 tokens/s · loss 3.000 · 1:30 left, stops at 14:01 · epoch 1.1\n"
        "210 updates · 2,500 tokens/s · loss 3.000 · 1:30 left, stops at 14:01 · epoch 2.1\n"
        "after 300 updates (0:20): dev loss 2.500 nats/token, bleu 12.50, the best so far\n"
        "  buckets    5·6 2.25  9·9 2.75\n"
        "  source     a[2J [bold]\n"
        "  answer     b\n"
        "  reference  c\n"
        "  source     d\n"
        "  answer     e\n"
        "  reference  f\n"
        'warning: 40% of all answers are "i don\'t know"\n'
        "310 updates · 2,500 tokens/s · loss 3.000 · dev bleu 12.50 · 1:30 left, stops at 14:01 · epoch 3.1\n"
        "warning: careful\n"
        "stopped after 310 updates (0:31): interrupted\n"
    )


def test_training_on_a_terminal_has_a_live_line_that_goes_away():
    console = page(terminal=True, width=100)
    with TrainingScreen(console) as screen:
        screen(progress(10, 3.0))
        screen(VALIDATED)
    text = printed(console)
    assert "10 updates · 2,500 tokens/s · loss 3.000" in text
    assert "answer     b" in text
    assert text.rstrip().endswith("\x1b[2K"), "the last thing done is to wipe the line"


def test_every_event_has_a_line():
    for event in (
        STARTED,
        progress(1, 1.0),
        VALIDATED,
        Warned(1, "x"),
        Stopped(1, 1.0, "x", True, 1, 1.0, "loss", "x"),
    ):
        console = page()
        TrainingScreen(console)(event)
        assert printed(console).strip()


# Inspection.


def test_data_facts_count_pairs_lengths_and_padding(tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{'a ' * n}{n}\t{'b ' * n}{n}\n" for n in range(1, 41)), encoding="utf-8")
    facts = inspection.data_facts(str(path), None, {"data": {"tokenizer": "symbol", "buckets": 3, "joined": 0}})
    assert facts["pairs"] == {"train": 36, "dev": 4, "test": 0}
    assert facts["knobs"]["data"].keys().isdisjoint({"ids", "context"}), "what nobody chose"
    for side in ("source", "target"):
        assert sum(count for *_, count in facts["lengths"][side]["histogram"]) == 36
    assert sum(bucket["pairs"] for bucket in facts["buckets"]) == 36
    assert len(facts["buckets"]) == 3
    assert 0 < facts["padding"]["both"] < 0.5
    json.dumps(facts)
    assert any("padding" in line for line in inspection.data_lines(facts))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    files.write_config(folder, Config(data=DataConfig(lower=True)), {"preset": "chat"})
    Tokenizer.train(["a b c"], kind="symbol", vocabulary=20).save(folder / files.TOKENIZER)
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode()
    (folder / files.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
    return folder


def test_folder_facts_tell_knobs_sizes_and_the_best(run_folder: Path):
    assert inspection.kind_of(str(run_folder)) == "model"
    for record in [*LOG, as_record(Stopped(600, 60.0, "enough", True, 300, 12.5, "bleu", "x"))]:
        files.append_line(run_folder / files.LOG, record)
    assert inspection.kind_of(str(run_folder)) == "run"
    facts = inspection.folder_facts(str(run_folder))
    assert facts["changed"] == {"data.lower": True}
    assert facts["weights"] == {"count": 12, "formats": ["f32"]}
    assert facts["vocabulary"] == {"both sides": {"size": 8, "kind": "symbol"}}
    assert facts["best"] == {"metric": "bleu", "score": 12.5, "update": 300, "dev_loss": 2.5}
    assert (facts["updates"], facts["seconds"], facts["stopped"]) == (600, 60.0, "enough")
    lines = inspection.folder_lines(facts)
    assert lines[0] == f"{run_folder}: a run by the preset chat"
    assert "trained     600 updates in 1:00: enough" in lines
    assert inspection.save_curve(run_folder) == run_folder / "curve.png"
    assert (run_folder / "curve.png").exists()


def test_a_model_without_a_log_has_no_curve(run_folder: Path):
    console = page()
    inspection.show_curve(run_folder, console)
    assert printed(console) == "no curve yet\n"
    assert inspection.folder_facts(str(run_folder))["updates"] == 0


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 40, (2).to_bytes(8, "little") + b"[]", bytes(8)])
def test_damaged_weights_are_said_to_be(run_folder: Path, content: bytes):
    (run_folder / files.WEIGHTS).write_bytes(content)
    with pytest.raises(FolderError, match="damaged weights"):
        inspection.folder_facts(str(run_folder))


# Start-up.


def test_the_faces_import_nothing_heavy():
    heavy = ("torch", "matplotlib", "sacrebleu", "prompt_toolkit", "babel")
    code = (
        "import sys, antiphon.faces.cli, antiphon.faces.chat, antiphon.faces.inspection, antiphon.faces.progress;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
