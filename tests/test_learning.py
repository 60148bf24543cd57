"""Learning from people: what is learnt from, what is held out, and that only what is better is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import antiphon
from antiphon.config import Config, DataConfig
from antiphon.conversations import Conversations, Turn
from antiphon.data.pairs import Pair
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import DataError, FolderError, SaveError
from antiphon.faces.cli import main
from antiphon.learning import Lessons, fitting, learn, lessons, split, verdict
from antiphon.nn.engine import load_weights
from antiphon.training.tuning import Look, Tuned

TINY = {
    "data": {"tokenizer": "char", "buckets": 1},
    "model": {"embedding": 32, "hidden": 48, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0},
    "train": {"max_updates": 250, "batch_size": 32, "learning_rate": 5e-3, "warmup": 20, "threads": 1},
}
LETTERS = "abcdefgh"


def turn(source: str, answer: str = "x", **fields) -> Turn:
    return Turn("talk", source, answer, source, fields.pop("model", "run"), **fields)


def test_the_last_correction_counts_and_other_models_do_not():
    turns = [
        turn("a", better="old"),
        turn("a", better="new"),
        turn("b", "good", thumb=1),
        turn("a", "liked once", thumb=1),
        turn("c", "bad", thumb=-1),
        turn("d", better=" "),
        turn("e", better="other", model="another"),
    ]
    found = lessons(turns, "run")
    assert found.corrections == [Pair("a", "new")]
    assert found.liked == [Pair("b", "good")]
    with pytest.raises(DataError, match='for "third", --from; there are some for another, run: --model another'):
        lessons(turns, "third")
    with pytest.raises(DataError, match="/better"):
        lessons([turn("c", "bad", thumb=-1)], "run")


def test_a_fifth_is_held_out_once_there_are_ten():
    pairs = [Pair(str(n), "x") for n in range(20)]
    taught, held = split(pairs, seed=1)
    assert sorted([*taught, *held]) == sorted(pairs)
    assert (len(taught), len(held)) == (16, 4)
    assert split(pairs, seed=1) == (taught, held)
    assert split(pairs[:9], seed=1) == (pairs[:9], [])


def look(dev_loss: float, learnt: float, held: float) -> Look:
    return Look(1, 1.0, dev_loss, learnt, held)


@pytest.mark.parametrize(
    ("after", "held", "better", "reason"),
    [
        (look(2.03, 1.0, 0.9), 4, True, "90%, before 10%"),
        (look(2.05, 1.0, 0.9), 4, False, "rose from 2.0000 to 2.0500"),
        (look(1.90, 1.0, 0.1), 4, False, "as many as before"),
        (look(2.00, 0.4, 0.0), 0, True, "40%, before 20%"),
        (look(2.00, 0.2, 0.0), 0, False, "as many as before"),
    ],
)
def test_what_is_called_better(after, held, better, reason):
    found = verdict(look(2.0, 0.2, 0.1), after, held=held)
    assert found[0] == better
    assert reason in found[1]


def test_nothing_better_found_is_told():
    before = look(2.0, 0.2, 0.1)
    assert verdict(before, before, held=3) == (False, "nothing that was tried was better")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt to write three letters as they are."""
    folder = tmp_path_factory.mktemp("learn")
    words = [f"{a}{b}{c}" for a in LETTERS for b in LETTERS for c in LETTERS]
    (folder / "pairs.tsv").write_text("".join(f"{word}\t{word}\n" for word in words), encoding="utf-8")
    return antiphon.train(folder / "pairs.tsv", folder / "run", knobs=TINY).folder


def corrected(path: Path, answer: str) -> Conversations:
    """Twelve corrections of words the run has never seen: two letters are to be answered by one and the same."""
    store = Conversations(path)
    words = [f"{a}{b}" for a in LETTERS[:4] for b in LETTERS[:3]]
    store.add([turn(word, better=answer) for word in words])
    return store


def test_what_people_corrected_is_learnt_and_the_rest_is_kept(run, tmp_path):
    store = corrected(tmp_path / "kept.db", "h")
    looks: list[Look] = []
    report = learn(run, store, tmp_path / "new", minutes=0.25, observer=looks.append)
    assert report.better, report.reason
    assert (report.corrections, report.held_out) == (10, 2)
    assert report.after["held_out"] == 1.0
    assert report.after["dev_loss"] <= max(1.02 * report.before["dev_loss"], report.before["dev_loss"] + 1e-4)
    assert looks[0].update == 0
    model = antiphon.load(tmp_path / "new")
    assert model.predict("ab").text == "h"
    assert [model.predict(word).text for word in ("abc", "hgf", "ddd")] == ["abc", "hgf", "ddd"]
    facts = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))["facts"]
    assert facts["learnt"]["corrections"] == 10
    assert "Learnt from people" in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert len(antiphon.read_pairs(tmp_path / "new" / "learnt.tsv")) == 10
    with pytest.raises(FolderError, match="exists already"):
        learn(run, store, tmp_path / "new")
    store.close()


def test_what_fits_no_bucket_is_left_out_and_counted_where_training_cuts_nothing():
    tokenizer = Tokenizer.train(["abcdefgh"], kind="char", vocabulary=20)
    short, long, wordy = Pair("ab", "h"), Pair("ab" * 9, "h"), Pair("ab", "h" * 9)

    def left(corrections, liked, too_long="drop"):
        config = Config(data=DataConfig(buckets=((5, 3), (8, 8)), too_long=too_long))
        return fitting(Lessons(corrections, liked), config, (tokenizer, tokenizer))

    assert left([short, long], [wordy, short]) == (Lessons([short], [short]), 2)
    assert left([long], [short]) == (Lessons([], [short]), 1)
    assert left([long], [], "truncate") == (Lessons([long], []), 0)
    assert left([Pair("a" * 7, "b" * 7)], []) == (Lessons([Pair("a" * 7, "b" * 7)], []), 0)  # and EOS
    assert left([short, Pair("a" * 8, "b" * 7)], [])[1] == 1
    with pytest.raises(DataError, match="longer than what the model was trained on, --from"):
        left([long], [wordy])


def as_if_learnt(source, *_, **__) -> Tuned:
    """Stands for `tune`: says that the weights as they are have become better, and takes no time."""
    before, after = look(2.0, 0.0, 0.0), look(2.0, 1.0, 1.0)
    return Tuned(before, after, load_weights(source), [before, after])


def test_what_cannot_be_written_is_not_there(run, tmp_path, monkeypatch):
    store = corrected(tmp_path / "kept.db", "h")

    def full(*_):
        raise SaveError("no space left")

    monkeypatch.setattr("antiphon.training.tuning.tune", as_if_learnt)
    monkeypatch.setattr("antiphon.learning.files.write_text", full)
    with pytest.raises(SaveError):
        learn(run, store, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    store.close()


def test_what_was_learnt_before_is_not_judged_by_and_the_last_correction_wins(run, tmp_path, monkeypatch):
    store = corrected(tmp_path / "kept.db", "h")
    monkeypatch.setattr("antiphon.training.tuning.tune", as_if_learnt)
    learn(run, store, tmp_path / "once")
    first = dict(antiphon.read_pairs(tmp_path / "once" / "learnt.tsv"))
    store.add([turn(next(iter(first)), better="g"), *(turn(f"e{a}{b}", better="h") for a in "abcd" for b in "efgh")])
    seen = []

    def tune(source, config, tokenizers, new, held, **_):
        seen.append((new, held))
        raise DataError("enough")

    monkeypatch.setattr("antiphon.training.tuning.tune", tune)
    with pytest.raises(DataError, match="enough"):
        learn(tmp_path / "once", store, tmp_path / "twice", name="run")
    [(new, held)] = seen
    assert held
    assert not {pair.source for pair in held} & {pair.source for pair in new}
    assert len(new) == len(dict(new))
    assert dict(new).keys() >= first.keys()
    assert dict(new)[next(iter(first))] == "g"
    store.close()


def test_the_command_tells_what_became_of_it(run, tmp_path, capsys):
    # Corrections without any rule: what was held out cannot be answered as corrected, so the old is kept.
    store = Conversations(tmp_path / "kept.db")
    words = [f"{a}{b}" for a in LETTERS[:4] for b in LETTERS[4:]]
    store.add([turn(word, better=LETTERS[n % 7 :: 3][::-1] * 2) for n, word in enumerate(words)])
    store.close()
    asked = ["learn", str(run), "--from", str(tmp_path / "kept.db"), "--out", str(tmp_path / "new")]
    assert main([*asked, "--minutes", "0.02"]) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[1:]] == ["dev_loss", "learnt", "held_out"]
    assert "not better: " in told.err
    assert not (tmp_path / "new").exists()
    assert main([*asked, "--model", "nobody"]) == 2
    assert "there are some for run: --model run" in capsys.readouterr().err
    assert main(["learn", str(tmp_path), *asked[2:]]) == 2
    assert "not a model folder" in capsys.readouterr().err
