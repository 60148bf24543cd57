"""Features of a text: wherever they are written, they are read in one place, which preset `auto` finds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import antiphon
from antiphon.config import load_config
from antiphon.data.automatic import settle
from antiphon.data.features import arranged, without
from antiphon.data.pairs import Pair
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import FolderError, UsageError
from small_runs import knobs

PLAIN = ["walk", "a;", ";", "ab", "Aa"]
WORDS = st.sampled_from([*PLAIN, "V;PST", "N;ACC(2,SG);PL", "x;y;z", "(;)"])


@pytest.mark.parametrize(
    ("text", "before", "behind", "around"),
    [
        ("V;PST walk", "V;PST walk", "walk V;PST", "V;PST walk V;PST"),
        ("ab sein V;PRS;3", "V;PRS;3 ab sein", "ab sein V;PRS;3", "V;PRS;3 ab sein V;PRS;3"),
        ("V;PST walk V;PST", "V;PST walk", "walk V;PST", "V;PST walk V;PST"),
        ("V;PST walk N;PL cat", "V;PST walk N;PL cat", "walk V;PST cat N;PL", "V;PST walk V;PST N;PL cat N;PL"),
        ("walk V;PST cat N;PL", "V;PST walk N;PL cat", "walk V;PST cat N;PL", "V;PST walk V;PST N;PL cat N;PL"),
        ("V;PST", "V;PST", "V;PST", "V;PST"),
        ("A;B C;D go", "A;B C;D go", "go A;B C;D", "A;B C;D go A;B C;D"),
        ("a walk", "a walk", "a walk", "a walk"),
        ("", "", "", ""),
    ],
)
def test_features_stand_before_or_behind_their_words_or_around_them(text, before, behind, around):
    found = [arranged(text, place) for place in ("before", "behind", "around", "as_is")]
    assert found == [before, behind, around, text]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("V;PST walk", "walk"),
        ("walk V;PST", "walk"),
        ("V.MSDR walk", "walk"),
        ("V.PTCP;PRS take off", "take off"),
        ("V.MSDR", "V.MSDR"),
        ("N;PL U.S.A", "U.S.A"),
        ("Mr. Smith is from the U.S. now", "Mr. Smith is from the U.S. now"),
        ("1.5 km; 3 m", "1.5 km; 3 m"),
    ],
)
def test_words_without_their_features(text: str, words: str):
    assert without(text) == words


@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_nothing_is_lost_and_what_is_in_place_stays(text):
    once = arranged(text, "before")
    twice = text.removeprefix(f"{once} ")  # what one word has on both sides, is there once
    if twice == text or not once.startswith(f"{twice} "):
        assert sorted(once.split(" ")) == sorted(text.split(" "))
    for place in ("before", "behind"):
        found = arranged(text, place)
        assert sorted(found.split(" ")) == sorted(once.split(" "))
        assert arranged(found, place) == found
    around = arranged(text, "around").split(" ")
    assert [part for part in around if ";" not in part] == [part for part in text.split(" ") if ";" not in part]
    assert set(around) == set(text.split(" "))


@given(st.lists(st.sampled_from(PLAIN), min_size=1, max_size=4), st.sampled_from(["V;PST", "N;ACC(2,SG);PL x;y"]))
def test_one_word_is_read_alike_whichever_way_it_is_written(words, features):
    word = " ".join(words)
    ways = [f"{features} {word}", f"{word} {features}", f"{features} {word} {features}"]
    for place in ("before", "behind", "around"):
        assert len({arranged(way, place) for way in ways}) == 1


def test_a_tokenizer_reads_features_in_its_place_and_its_file_says_where(tmp_path):
    plain = Tokenizer.train(["V;PST walk", "N;PL cat"], kind="tagged", vocabulary=60)
    behind = plain.reading("behind")
    assert behind.encode("V;PST walk") == behind.encode("walk V;PST") == plain.encode("walk V;PST")
    assert behind.tokens(behind.encode("V;PST walk"))[-3:] == ["V", ";", "PST"]
    behind.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.encode("V;PST walk") == behind.encode("V;PST walk")
    assert "features" not in json.loads(plain.to_json())
    content = json.loads(behind.to_json())
    for wrong in ({**content, "features": "above"}, {**content, "kind": "char"}, {**content, "features": ["behind"]}):
        with pytest.raises(FolderError, match="not a tokenizer of Antiphon"):
            Tokenizer.from_json(json.dumps(wrong))


LEMMAS = [a + b + c for a in "ptkbdg" for b in "aeiou" for c in ("l", "r", "m", "n", "st", "nk")]
ENDINGS = {"N;PL": "eto", "N;DAT;SG": "umi", "N;GEN;SG": "ovag"}


@pytest.mark.parametrize("written", ["before", "behind"])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_auto_reads_them_on_both_sides_wherever_their_letters_are_written(written, place):
    pairs = []
    for lemma in LEMMAS:
        for features, ending in ENDINGS.items():
            source = f"{features} {lemma}" if written == "before" else f"{lemma} {features}"
            pairs.append(Pair(source, ending + lemma if place == "before" else lemma + ending))
    config, reason = settle(pairs, None, {})
    assert config.data.features == "around"
    assert config.model.attention == "monotonic"
    assert "features around" in reason
    asked, _ = settle(pairs, None, {"data": {"features": "as_is"}})
    assert asked.data.features == "as_is"
    assert config.data.hallucinated > 0
    many, _ = settle(pairs * 8, None, {})
    assert (many.data.joined, many.data.hallucinated) == (0, 0), "so many forms need no company"


def test_tokenizers_that_auto_would_choose_itself_take_it_nothing_and_others_do():
    pairs = [Pair(f"{features} {lemma}", lemma + ending) for lemma in LEMMAS for features, ending in ENDINGS.items()]
    chosen, reason = settle(pairs, None, {})
    assert (chosen.data.tokenizer, chosen.data.target_tokenizer, chosen.data.features) == ("tagged", "char", "around")
    for named in ({"tokenizer": "tagged", "target_tokenizer": "char"}, {"target_tokenizer": "char"}):
        assert settle(pairs, None, {"data": named}) == (chosen, reason)
    other, reason = settle(pairs, None, {"data": {"tokenizer": "bpe"}})
    assert (other.data.tokenizer, other.data.features, other.data.placeholders) == ("bpe", "as_is", 0.0)
    assert other.model.attention != "monotonic", "what an alignment of other tokens costs was not looked at"
    assert reason.startswith("words: your tokenizers")


def test_a_model_answers_whichever_way_features_are_written(tmp_path):
    lines = [f"{features} {lemma}\t{lemma}{ending}" for lemma in LEMMAS[:40] for features, ending in ENDINGS.items()]
    (tmp_path / "forms.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {"tokenizer": "tagged", "target_tokenizer": "char", "features": "behind", "placeholders": 0.2}
    given = knobs(updates=6, data={**data, "share_vocabulary": False}, model={"tied": "target"})
    antiphon.train(tmp_path / "forms.tsv", tmp_path / "run", knobs=given)
    model = antiphon.load(tmp_path / "run")
    one, other = model.predict(["N;PL żal", "żal N;PL"])
    assert (one.text, one.score, one.source_tokens) == (other.text, other.score, other.source_tokens)
    assert one.source_tokens[-4:-1] == ["N", ";", "PL"]


def test_features_without_a_tokenizer_that_knows_them_are_refused():
    with pytest.raises(UsageError, match=r'data\.features = "behind" needs data\.tokenizer = "tagged"'):
        load_config(None, {"data": {"features": "behind", "tokenizer": "char"}, "model": {"tied": "target"}})
    with pytest.raises(UsageError, match=r"data\.features"):
        load_config(None, {"data": {"features": "above"}})
