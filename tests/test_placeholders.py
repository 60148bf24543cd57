"""Letters that training has not seen: hidden from the model, and put back into its answer."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon
from antiphon.config import parse_config
from antiphon.data.augmentation import augmented
from antiphon.data.automatic import known, settle
from antiphon.data.pairs import Pair
from antiphon.data.placeholders import SIGNS, Placeholders, hidden
from antiphon.data.store import encode
from antiphon.data.tokenizer import UNK, Tokenizer
from antiphon.errors import UsageError
from antiphon.evaluation import evaluate
from antiphon.export.folder import export
from antiphon.model import Model
from antiphon.search import StepOutput
from antiphon.streams import Entry, Streams, read
from fakes import FakeRows

KNOWN = "abcdé <>"
SOURCE = Tokenizer.train([f"V;PST {KNOWN}{SIGNS}"], kind="tagged", vocabulary=90)
TARGET = Tokenizer.train([f"{KNOWN}{SIGNS}"], kind="char", vocabulary=90)
PLAIN = Tokenizer.train([KNOWN], kind="char", vocabulary=90)
LETTERS = st.text(st.sampled_from("abcdéxyzжß\u0301\ud800각"), max_size=12)


class Echo:
    """An engine that answers with its source, and stops: P is 1, or nearly."""

    vocabulary = TARGET.size

    def encode(self, src, src_len):
        names = [[name.replace("␣", " ") for name in SOURCE.tokens(row)] for row in src]
        ids = np.array([[TARGET.token_id(name) for name in row] for row in names])
        return FakeRows(ids), FakeRows(np.zeros(len(src), dtype=np.int64))

    def step(self, y, state, memory, k):
        sources = np.repeat(memory.values, len(y) // len(memory.values), axis=0)
        rows, places = np.arange(len(y)), np.minimum(state.values, sources.shape[1] - 1)
        log_probs = np.full((len(y), self.vocabulary), -20.0, dtype=np.float32)
        log_probs[rows, sources[rows, places]] = 0.0
        ids = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
        looks = np.zeros(sources.shape, dtype=np.float32)
        looks[rows, places] = 1.0
        after = replace(state, values=state.values + 1)
        return StepOutput(np.take_along_axis(log_probs, ids, axis=1), ids, looks, after)

    def score(self, src, src_len, tgt_in, tgt_out):
        sources = self.encode(src, src_len)[0].values
        width = min(sources.shape[1], tgt_out.shape[1])
        found = np.full(tgt_out.shape, -20.0, dtype=np.float32)
        found[:, :width] = np.where(sources[:, :width] == tgt_out[:, :width], 0.0, -20.0)
        return found


def echo() -> Model:
    kinds = {"tokenizer": "tagged", "target_tokenizer": "char"}
    config = parse_config({"data": kinds, "model": {"tied": "target"}, "search": {"beam": 2}})
    return Model(Echo(), SOURCE, TARGET, config)  # type: ignore[arg-type]


def few(text: str) -> bool:
    """Whether so many placeholders are enough."""
    return len(SOURCE.unknown(text)) <= len(SIGNS)


@given(LETTERS, LETTERS)
def test_what_is_hidden_is_shown_again(text, more):
    own = Placeholders.of(text, (SOURCE, TARGET))
    assert own.show(own.hide(text, SOURCE)) == (SOURCE.normalise(text) if own.letters else text)
    both = own.hide(text + more, TARGET)
    assert own.show(both) == (TARGET.normalise(text + more) if own.letters else text + more)
    assert not set(own.letters) & set(both)
    if few(text) and not any("\u1100" <= letter <= "\u11ff" for letter in SOURCE.unknown(text)):
        assert UNK not in SOURCE.encode(own.hide(text, SOURCE))


@given(LETTERS)
def test_a_model_that_knows_no_placeholder_has_none(text):
    own = Placeholders.of(text, (PLAIN, PLAIN))
    assert own == Placeholders()
    assert own.hide(text, PLAIN) == own.show(text) == text
    pairs = [Pair(text, text)]
    assert hidden(pairs, (PLAIN, PLAIN)) is pairs


@settings(max_examples=60)
@given(st.text("abxyzжß", min_size=1, max_size=9).filter(few))
def test_letters_never_seen_come_through(text):
    model = echo()
    answer = model.predict(text)
    assert answer.text == text
    assert answer.tokens == answer.source_tokens == [*text, "</s>"]
    assert "".join(model.stream(text)) == text
    assert model.score([(text, text)]) == [0.0]
    assert model.attention(text, text).tokens == answer.tokens
    found = evaluate(model, [(text, text)], metrics=["perplexity", "accuracy"])
    assert (found["accuracy"], found["unknown_share"], found["perplexity_per_word"]) == (100, 0, 1)
    streams = Streams(model, model.settings({}))
    for texts in read(model, [Entry(1, text)]):
        streams.join(texts)
    ids = []
    while len(streams):
        ids += [token.id for token in streams.step() if token.id is not None]
    assert model.spoken(text).text(ids) == text


def test_of_more_letters_than_placeholders_the_first_come_through():
    assert echo().predict("vwxyz").text.startswith("vwxy")


def test_training_hides_what_it_does_not_know_either():
    made = encode([Pair("aжb", "abж"), Pair("ab", "жa")], SOURCE, TARGET)
    first, sign = TARGET.token_id("a"), TARGET.token_id(SIGNS[0])
    assert list(made.target[:3]) == [first, TARGET.token_id("b"), sign]
    assert list(made.target[3:]) == [UNK, first], "it is not in the source"


WORD = st.text("abcdé", min_size=1, max_size=9)


@given(st.lists(st.tuples(WORD, st.sampled_from(["", "d", "aa"])), min_size=1, max_size=8))
def test_hidden_letters_are_those_of_both_sides(texts):
    pairs = [Pair(f"b;a {word} c;d", f"{word}{ending}") for word, ending in texts]
    found = augmented(pairs, placeholders=1.0, seed=3, part=7)
    assert found[: len(pairs)] == pairs
    assert found == augmented(iter(pairs), placeholders=1.0, seed=3, part=7)
    assert augmented(pairs, seed=3, part=7) == pairs
    for source, target in found[len(pairs) :]:
        features, word, others = source.split(" ")
        assert (features, others) == ("b;a", "c;d")
        signs = [sign for sign in dict.fromkeys(word) if sign in SIGNS]
        assert signs
        assert "".join(signs) == SIGNS[: len(signs)], "the first that comes is the first"
        assert all(word.count(sign) == target.count(sign) for sign in signs)
        shape = [letter if letter not in SIGNS else None for letter in word]
        assert any(
            len(own) == len(shape) and all(b in (None, a) for a, b in zip(own, shape, strict=True)) for own, _ in texts
        )


def test_of_made_up_pairs_some_are_hidden_too():
    pairs = [Pair("V;PST walk", "walked"), Pair("V;PST jump", "jumped")]
    made = augmented(pairs, hallucinated=100, placeholders=0.5, seed=1, part=0)
    share = sum(any(sign in pair.source for sign in SIGNS) for pair in made) / len(made)
    assert 0.25 < share < 0.42, "a third: half as many as all others"


def test_auto_hides_letters_where_letters_are_carried_over():
    draw = random.Random(1)
    words = ["".join(draw.choice("abcdefgh") for _ in range(6)) for _ in range(3000)]
    asked = [Pair(f"V;PST {word}", f"{word}ed") for word in words]
    assert settle(asked[:400], None, {"data": {"hallucinated": 0}})[0].data.placeholders == 1
    assert settle(asked[:400], None, {"data": {"hallucinated": 9}})[0].data.placeholders == 0.1
    assert settle(asked + asked, None, {})[0].data.placeholders == 0.067
    greek = [Pair(source, target.translate({x: x + 800 for x in range(97, 123)})) for source, target in asked]
    assert settle(greek, None, {})[0].data.placeholders == 0
    assert settle(asked, None, {"data": {"placeholders": 0.0}})[0].data.placeholders == 0
    assert settle(asked, None, {"data": {"tokenizer": "bpe"}})[0].data.placeholders == 0
    few, many = (settle(asked[:90], None, {"data": {"placeholders": share}})[0].train.epochs for share in (0.0, 1.0))
    assert few is not None
    assert many is not None
    assert many < few, "an epoch has more pairs"


@pytest.mark.parametrize("kinds", [{"tokenizer": "bpe"}, {"tokenizer": "char", "target_tokenizer": "symbol"}])
def test_placeholders_are_for_characters(kinds):
    with pytest.raises(UsageError, match=r"data\.placeholders needs tokenizers of characters"):
        parse_config({"data": {"placeholders": 0.1, **kinds}, "model": {"tied": "target"}})


def test_what_auto_has_a_say_in_need_not_agree_before_it_has_seen_the_pairs():
    for wish in ({"data": {"placeholders": 0.5}}, {"model": {"attention": "monotonic"}}):
        for preset in (None, "auto"):
            known(preset, wish)
        with pytest.raises(UsageError, match="needs"):
            known("translate", wish)
    with pytest.raises(UsageError, match=r"train\.consistency needs"):
        known("auto", {"train": {"consistency": 1.0}, "model": {"softmax": "sampled"}})
    asked = [Pair(f"V;PST {word}", f"{word}ed") for word in ("walk", "talk", "jump", "kiss") * 30]
    assert settle(asked, None, {"data": {"placeholders": 0.5}})[0].data.placeholders == 0.5


@pytest.mark.parametrize("features", [True, False])
def test_a_run_learns_to_carry_over_what_it_has_not_seen(tmp_path, features):
    draw = random.Random(2)
    words = ["".join(draw.choice("abcdefghiklmnoprstu") for _ in range(draw.randint(3, 7))) for _ in range(400)]
    tag = "V;PST " if features else ""
    lines = [f"{tag}{word}\t{word}ed\n" for word in words]
    (tmp_path / "train.tsv").write_text("".join(lines))
    antiphon.train(tmp_path, tmp_path / "run", seed=1, knobs={"train": {"max_updates": 160, "threads": 1}})
    model = antiphon.load(tmp_path / "run")
    asked = [word.translate({ord(word[1]): "ж"}) for word in words[:50]]
    answers = model.predict([f"{tag}{word}" for word in asked])
    right = sum(answer.text == f"{word}ed" for word, answer in zip(asked, answers, strict=True))
    assert right >= 45
    assert model.predict(f"{tag}{unicodedata.normalize('NFD', 'talér')}").text == "taléred"
    export(tmp_path / "run", tmp_path / "model")
    again = antiphon.load(tmp_path / "model")
    assert [one.text for one in again.predict([f"{tag}{word}" for word in asked])] == [one.text for one in answers]


def test_the_letters_of_a_feature_that_is_not_known_take_no_placeholder():
    both = SOURCE, TARGET
    stand = Placeholders.of("Q;XYZ;N žab", both)
    assert stand.letters == "ž"
    assert stand.hide("Q;Žž;N žab", SOURCE) == f"Q;Žž;N {SIGNS[0]}ab"
    assert stand.hide("žab;z", TARGET) == f"{SIGNS[0]}ab;z"
    alone = Placeholders.of("V.XYZ Xab", both)
    assert alone.letters == "X"
    assert alone.hide("V.XYZ Xab", SOURCE) == f"V.XYZ {SIGNS[0]}ab"
