"""The house keeps its own rules: imports run downward, the public face is what it says, answering needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import antiphon
from antiphon.config import Config, load_config, presets
from antiphon.data.automatic import settle
from antiphon.data.pairs import Pair
from antiphon.errors import AntiphonError, UsageError

SOURCE = Path(antiphon.__file__).parent
FLOORS = {
    "errors": 0,
    "version": 0,
    "config": 1,
    "metrics": 1,
    "presets": 1,
    "conversations": 2,
    "data": 2,
    "search": 3,
    "runtime": 4,
    "nn": 5,
    "model": 6,
    "streams": 7,
    "evaluation": 7,
    "training": 7,
    "export": 7,
    "members": 8,
    "learning": 8,
    "__init__": 9,
    "faces": 10,
    "__main__": 11,
}
TORCH_MAY_LIVE_IN = {"nn", "training", "export"}


def modules():
    return sorted(path for path in SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downward(path):
    here = FLOORS[room(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "antiphon":
            continue
        there = parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"
        if there != room(path):
            assert FLOORS[there] < here, f"{path.name} imports {name}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_torch_stays_in_its_rooms(path):
    if room(path) not in TORCH_MAY_LIVE_IN:
        assert not any(name.split(".")[0] in ("torch", "safetensors") for name in imports(path))


def test_no_room_called_utils():
    assert not [path for path in modules() if path.stem in ("utils", "helpers", "misc", "common")]


def test_the_public_face_is_sorted_and_there():
    assert antiphon.__all__ == sorted(antiphon.__all__)
    for name in antiphon.__all__:
        assert getattr(antiphon, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = antiphon.nothing


def test_public_functions_and_classes_have_docstrings():
    missing = []
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                missing += [] if ast.get_docstring(node) else [f"{path.name}: {node.name}"]
    assert not missing


@pytest.mark.parametrize("module", ["antiphon", "antiphon.model", "antiphon.faces.cli", "antiphon.faces.chat"])
def test_answering_imports_no_torch(module):
    code = f"import {module}, sys; print(sorted(m for m in sys.modules if m in ('torch', 'matplotlib', 'sacrebleu')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_valid_and_says_what_it_is_for(name):
    config = load_config(name)
    assert isinstance(config, Config)
    assert len(presets()[name]) > 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": {"minuts": 1}}, "unknown knob train.minuts; did you mean train.minutes"),
        ({"trian": {}}, "unknown knob trian; did you mean train"),
        ({"train": {"minutes": -1}}, "train.minutes: .*greater than 0 .got -1."),
        ({"model": {"cell": "rnn"}}, "model.cell: .*gru.*lstm"),
        ({"model": {"attention": "multihead", "heads": 3}}, "model.heads = 3 does not divide model.hidden = 256"),
        ({"model": {"share_rnn": True}}, "model.share_rnn needs model.bidirectional = false"),
        ({"data": {"share_vocabulary": False}}, 'model.tied = "all" needs data.share_vocabulary'),
    ],
)
def test_knobs_that_cannot_be(overrides, message):
    with pytest.raises(UsageError, match=message) as raised:
        load_config(None, overrides)
    assert "\n" not in str(raised.value)


def test_a_metric_of_answers_needs_answers():
    with pytest.raises(UsageError, match=r"needs train\.dev_answers"):
        load_config(None, {"train": {"dev_metric": "bleu", "dev_answers": 0}})
    assert settle([Pair("walk", "w ɔ k")] * 9, None, {"train": {"dev_answers": 0}})[0].train.dev_metric == "loss"


class Repeated(list):
    """A few pairs that stand for many of their kind."""

    def __init__(self, pairs, times):
        super().__init__(pairs)
        self._times = times

    def __len__(self):
        return self._times * super().__len__()


SPOKEN = str.maketrans("0123456789", "abcdefghij")


def turn(n: int) -> str:
    """Of a conversation in which nobody repeats what the other said."""
    return f"and {n}?" if n % 2 else f"turn {n}"


@pytest.mark.parametrize(
    ("name", "count", "pair"),
    [
        ("translate", 29_000, lambda n: Pair(" ".join(["the", "dog"] * 5), " ".join(["der", "hund"] * 5) + f" {n}")),
        ("chat", 200_000, lambda n: Pair(turn(n), turn(n + 1))),
        ("g2p", 110_000, lambda n: Pair(f"{n:06}", " ".join(f"{n:06}".translate(SPOKEN)))),
    ],
)
def test_a_preset_is_what_auto_chooses_for_data_of_its_kind(name, count, pair):
    """So no preset falls behind what is learnt about `auto`; rates and dropout follow from its minutes."""
    preset = load_config(name)
    given = {"train": {"minutes": preset.train.minutes}}
    chosen, _ = settle(Repeated([pair(n) for n in range(100)], count // 100), None, given)
    for group in ("data", "model", "search"):
        mine, autos = (getattr(config, group).model_dump() for config in (preset, chosen))
        assert {k: v for k, v in mine.items() if k != "dropout"} == {k: v for k, v in autos.items() if k != "dropout"}
    assert preset.model.dropout == pytest.approx(chosen.model.dropout, rel=0.15)
    assert preset.train.learning_rate == pytest.approx(chosen.train.learning_rate, rel=0.15)
    for knob in ("label_smoothing", "sampled_until", "batch_tokens", "dev_metric", "optimizer"):
        assert getattr(preset.train, knob) == getattr(chosen.train, knob)


@pytest.mark.parametrize(("word", "letters"), [("猫", 1.7), ("แมว", 1.0)], ids=["Han", "Thai"])
def test_auto_counts_words_where_no_spaces_are_written(word, letters):
    asked = {"train": {"minutes": 10.0}}
    english = " ".join(["word"] * 12)
    spaced, unspaced = (
        settle([Pair(f"{english} {n}", target) for n in range(4000)], None, asked)[0].train
        for target in (" ".join(["word"] * 12), word * round(12 * 1.3 * letters))
    )
    assert unspaced.learning_rate == pytest.approx(spaced.learning_rate, rel=0.1)
    assert unspaced.patience == pytest.approx(spaced.patience, rel=0.1)


@pytest.mark.parametrize(("epochs", "share", "words"), [(1, 0.8, 0), (20, 0.8, 0), (50, 0.5, 0.1), (500, 0.05, 0.1)])
def test_auto_learns_from_sampled_words_for_so_many_passes_and_then_from_all(epochs, share, words):
    sentences = [Pair(" ".join(["the", "dog"] * 5), " ".join(["der", "hund"] * 5) + f" {n}") for n in range(100)]
    chosen, _ = settle(Repeated(sentences, 290), None, {"train": {"epochs": epochs}})
    assert chosen.train.sampled_until == share
    assert chosen.model.word_dropout == words, "what comes often would be learnt by heart"


def test_an_unknown_preset_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match='did you mean "dates"'):
        load_config("datse")
    broken = tmp_path / "mine.toml"
    broken.write_text("[train\n")
    with pytest.raises(UsageError, match="not TOML"):
        load_config(str(broken))
    broken.write_text("[train]\nminutes = 2\n")
    assert load_config(str(broken)).train.minutes == 2


def test_errors_are_one_line_with_where_and_cure():
    error = AntiphonError("what\nbroke", where="here:3", cure="mend it")
    assert str(error) == "what broke, here:3; mend it"
