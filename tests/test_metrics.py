"""Laws of the metrics, and hand-worked cases."""

from __future__ import annotations

import math
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon import metrics
from antiphon.errors import MissingExtraError

texts = st.lists(st.text("abc é'", min_size=0, max_size=12), min_size=1, max_size=6)


@given(texts)
def test_a_perfect_answer_is_perfect(answers):
    references = [[answer, "other"] for answer in answers]
    assert metrics.accuracy(answers, references) == 100
    assert metrics.wer(answers, references) == metrics.per(answers, references) == metrics.cer(answers, references) == 0


@given(texts, texts)
def test_more_references_never_hurt_accuracy(answers, more):
    few = [["abc"] for _ in answers]
    many = [["abc", *more] for _ in answers]
    assert metrics.accuracy(answers, many) >= metrics.accuracy(answers, few)


def test_texts_are_compared_as_people_see_them():
    assert metrics.accuracy(["cafe\u0301  au lait "], [["caf\u00e9 au lait"]]) == 100
    assert metrics.accuracy(["a", "b"], [{"a"}, {"c"}]) == 50


def test_error_rates_by_hand():
    assert metrics.wer(["the cat sat"], [["the cat sat down"]]) == 25
    assert metrics.wer(["a b c d", "x"], [["a"], ["x"]]) == 150
    assert metrics.wer(["a b c d", "x"], [["a"], ["x"]], symbols=True) == 50
    assert metrics.per(["K AE T", "D AO G"], [["K AE T S", "K AE T"], ["D AO1 G"]]) == pytest.approx(100 / 6)
    assert metrics.cer(["kat"], [["cat"]]) == pytest.approx(100 / 3)


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_word_error_rate_is_the_textbook_recursion(said, meant):
    table = np.zeros((len(said) + 1, len(meant) + 1))
    table[:, 0], table[0, :] = range(len(said) + 1), range(len(meant) + 1)
    for i, one in enumerate(said, 1):
        for j, other in enumerate(meant, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (one != other))
    assert metrics.wer([" ".join(said)], [[" ".join(meant)]]) == pytest.approx(100 * table[-1, -1] / len(meant))


def test_bleu_and_chrf_are_sacrebleus():
    same = ["The cat sat on the mat.", "It rained all day long."]
    assert metrics.bleu(same, same) == pytest.approx(100)
    assert metrics.chrf(same, same) == pytest.approx(100)
    assert metrics.bleu(["a b c d e"], ["v w x y z"]) < 10
    tokenized = ["it 's raining , he said ."], ["it 's raining , she said ."]
    assert metrics.bleu(*tokenized, tokenize="none") > 0


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingExtraError, match=r'BLEU needs .*pip install "antiphon\[train\]"'):
        metrics.bleu(["a"], ["a"])


@given(st.integers(1, 50), st.integers(2, 500))
def test_a_uniform_model_has_the_perplexity_of_its_choices(units, choices):
    nats = units * math.log(choices)
    assert metrics.perplexity(nats, units) == pytest.approx(choices)
    assert metrics.bits(nats, units) == pytest.approx(math.log2(choices))


def test_what_cannot_be_is_infinite():
    assert metrics.perplexity(1e6, 1) == math.inf


def test_spelling_costs_each_character_and_each_end():
    assert metrics.spelling_nats(0, 0, 26) == 0
    assert metrics.spelling_nats(2, 7, 26) == pytest.approx(9 * math.log(27))


def test_words_split_punctuation_off():
    assert metrics.words("I don't, no.") == ["I", "don", "'", "t", ",", "no", "."]
    assert metrics.words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_joiners_are_parts_of_words_and_other_signs_that_nobody_sees_are_nothing():
    assert metrics.words("می\u200cخواهم") == ["می\u200cخواهم"]
    assert metrics.words("\u200fשלום\u200f, \u2066a\u2069") == ["שלום", ",", "a"]
    assert metrics.words("क्\u200dष") == ["क्\u200dष"]


@given(st.text())
def test_words_hold_every_visible_character(text):
    seen = "".join(c for c in metrics.plain(text) if c in "\u200c\u200d" or unicodedata.category(c) != "Cf")
    assert "".join(metrics.words(metrics.plain(text))) == "".join(seen.split())


def test_sameness():
    assert metrics.distinct(["a b", "a b"], 1) == 0.5
    assert metrics.distinct(["a b c"], 2) == 1
    assert metrics.distinct(["a"], 2) == 0


def test_distinct_beside_people_compares_as_many_words():
    people = ["a b c", "d e f"]
    assert metrics.distinct_beside(people, people * 7, 2) == 1
    assert metrics.distinct_beside(["a b", "a b", "a b"], ["a b c d", "e f g h"], 2) == pytest.approx(1 / 3)
    assert metrics.distinct_beside([], people, 2) == 0
    assert metrics.commonest(["yes"] * 9 + ["no"]) == 1
    assert metrics.commonest([str(n) for n in range(40)], top=10) == 0.25
    assert metrics.repeats(["a b c d", "a a a a a", "a b c d a b c d"]) == pytest.approx(2 / 3)


def test_hits_counts_strict_wins():
    assert metrics.hits_at_1(np.array([[3.0, 1, 2], [1, 1, 0], [0, 1, 2]])) == pytest.approx(100 / 3)
