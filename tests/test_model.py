"""Model over an engine that is no model, its folder, and its evaluation."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon
from antiphon.config import Config, parse_config
from antiphon.data.alignment import Alignment
from antiphon.data.placeholders import Placeholders
from antiphon.data.tokenizer import BOS, EOS, PAD, Tokenizer
from antiphon.errors import DataError, FolderError, MissingExtraError, UsageError
from antiphon.evaluation import METRICS, evaluate, unknown_text
from antiphon.model import END, Model, Spoken, load
from antiphon.search import Hypothesis
from fake_model import FakeModel
from fakes import FakeEngine

SENTENCES = ["the cat sat on the mat.", "don't go, he said!", '"what" is (this)?', "a dog and a cat", "naïve café"]
KINDS = ("word", "bpe", "unigram", "char", "symbol")
quick = settings(max_examples=25)


def a_model(kind: str = "bpe", **data) -> Model:
    tokenizer = Tokenizer.train(SENTENCES, kind=kind, vocabulary=60)  # type: ignore[arg-type]
    config = parse_config({"data": {"tokenizer": kind, "max_source": 12, "max_target": 9, **data}})
    return Model(FakeEngine(tokenizer.size), tokenizer, tokenizer, config)


MODELS = {kind: a_model(kind) for kind in KINDS}
inputs = st.lists(st.text("abc dot'.,éß\ud800😀\t", max_size=40), max_size=6)
kinds = st.sampled_from(KINDS)
overrides = st.sampled_from([{"beam": 1}, {"beam": 3, "nbest": 2}, {"sample": True, "seed": 5}])


@quick
@given(inputs, kinds, overrides)
def test_any_text_is_answered_in_its_place(texts, kind, search):
    model = MODELS[kind]
    answers = model.predict(texts, **search)
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        ids = model.source_tokenizer.encode(text)
        kept = ids[-11:]
        assert answer.truncated == (len(ids) > 11)
        assert answer.source_tokens == [*model.source_tokenizer.tokens(kept), END]
        assert answer.attention.shape == (len(answer.tokens), len(answer.source_tokens))
        assert np.allclose(answer.attention.sum(axis=1), 1, atol=1e-5)
        if not search.get("sample"):
            alone = model.predict(text, **search)
            assert (alone.text, alone.score, alone.tokens) == (answer.text, answer.score, answer.tokens)
            scores = [answer.score, *(other.score for other in answer.alternatives)]
            assert scores == sorted(scores, reverse=True)
            assert len(scores) <= search.get("nbest", 1)
            assert len({answer.text, *(other.text for other in answer.alternatives)}) == len(scores)


@quick
@given(st.text("abc dot'.,é", max_size=20), kinds, st.booleans())
def test_streamed_pieces_join_to_the_answer(text, kind, sampled):
    model = MODELS[kind]
    search = {"sample": True, "seed": 1, "temperature": 2.0} if sampled else {"beam": 1}
    pieces = list(model.stream(text, **search))
    assert "".join(pieces) == model.predict(text, **search).text
    assert all(pieces)


@given(st.lists(st.integers(5, 22), max_size=12))
def test_marks_between_letters_that_compose_change_no_stream(ids):
    plain = Tokenizer("char", ["ᄒ", "ᄂ", "ᅡ", "ᅳ", "ᆫ", "e", "u", "o", "\u0301", "\u0308", " ", "a"])
    tokenizer = plain.aligned(Alignment.learn([([5], [5])], source=plain.size, target=plain.size))
    mark = tokenizer.next_id
    assert mark is not None
    for every in (1, 2, 3):
        row = [token for place, one in enumerate(ids) for token in [min(one, mark), *[mark] * (place % every == 0)]]
        spoken = Spoken(tokenizer, Placeholders())
        assert "".join([*map(spoken.add, row), spoken.end()]) == tokenizer.decode(row)


def test_a_stream_never_takes_back_what_it_said():
    words = ["I", "don", "'", "t", '"', "stop", '"', ",", "he", "'s", "n't", ")", "(", "'", "ll", "..."]
    tokenizer = Tokenizer("word", words)
    model = Model(FakeEngine(tokenizer.size), tokenizer, tokenizer, Config())
    for seed in range(60):
        search = {"sample": True, "seed": seed, "temperature": 5.0, "top_p": 1.0, "max_length": 40}
        assert "".join(model.stream("I don't", **search)) == model.predict("I don't", **search).text


@quick
@given(st.lists(st.tuples(st.text("abc dot'.", max_size=20), st.text("abc dot'.", max_size=40)), max_size=6), kinds)
def test_scores_are_the_engines_whatever_the_batch(pairs, kind):
    model = MODELS[kind]
    nats, tokens = model.score_tokens(pairs)
    assert model.score(pairs) == nats.tolist()
    for (source, target), found, count in zip(pairs, nats, tokens, strict=True):
        src = np.array([[*model.source_tokenizer.encode(source)[-11:], EOS]])
        out = [*model.target_tokenizer.encode(target), EOS]
        expected = model.engine.score(src, np.array([src.shape[1]]), np.array([[BOS, *out[:-1]]]), np.array([out]))
        assert count == len(out)
        assert found == pytest.approx(float(expected.sum()), rel=1e-5)


def test_an_answers_score_is_the_score_of_its_text():
    model = MODELS["symbol"]
    answer = model.predict("a dog", beam=4, length_penalty=0, max_length=200)
    assert answer.tokens[-1] == END
    assert model.score([("a dog", answer.text)]) == pytest.approx([answer.score], rel=1e-5)
    looked = model.attention("a dog", answer.text)
    assert looked.tokens == answer.tokens
    assert looked.source_tokens == answer.source_tokens
    assert np.allclose(looked.attention, answer.attention)


def test_a_source_read_backwards_is_shown_forwards():
    seen = []

    class Recorder(FakeEngine):
        def encode(self, src, src_len):
            seen.append(src.tolist())
            return super().encode(src, src_len)

    forwards = a_model("word")
    backwards = Model(
        Recorder(forwards.engine.vocabulary),
        forwards.source_tokenizer,
        forwards.target_tokenizer,
        parse_config({"data": {"tokenizer": "word", "reverse_source": True}}),
    )
    answer = backwards.predict("the cat sat", beam=1)
    ids = forwards.source_tokenizer.encode("the cat sat")
    assert seen == [[[*ids[::-1], EOS]]]
    assert answer.source_tokens == ["the", "cat", "sat", END]
    raw = forwards.predict("sat cat the", beam=1).attention
    width = min(len(raw), len(answer.attention))
    assert np.array_equal(answer.attention[:width], raw[:width][:, [2, 1, 0, 3]])


def test_a_long_source_keeps_its_end_and_buckets_by_hand_say_how_much():
    assert a_model("word", buckets=((4, 5), (6, 7))).max_source == 12  # what training did not have is read all the same
    model = a_model("word", buckets=((4, 5), (6, 7)), max_source=5)
    assert (model.max_source, model.max_target) == (6, 7)
    answer = model.predict("the cat sat on the mat and a dog", beam=1)
    assert answer.truncated
    assert answer.source_tokens == ["the", "mat", "and", "a", "dog", END]


def test_batches_are_by_length_and_within_the_budget():
    model = a_model("char")
    model.predict(["ab"] * 3000 + ["abcabcabc"] * 500, beam=1)
    shapes = model.engine.read  # type: ignore[attr-defined]
    assert {width for _, width in shapes} == {10, 3}
    assert all(rows * width <= 4096 for rows, width in shapes)
    assert len(shapes) < 8


def test_threads_may_share_a_model():
    model = MODELS["bpe"]
    texts = [SENTENCES[n % 5] + str(n) for n in range(40)]
    alone = [model.predict(text).text for text in texts]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda text: model.predict(text).text, texts)) == alone


@pytest.mark.parametrize("search", [{"beam": 1}, {"beam": 3}, {"sample": True, "seed": 5}])
def test_work_that_is_shared_out_gives_the_same(search):
    alone, many = a_model(), a_model()
    many.threads = 3
    texts = [f"{'ab ' * (number % 7)}{number}" for number in range(40)]
    one, other = alone.predict(texts, **search), many.predict(texts, **search)
    assert len(many.engine.read) == 3  # type: ignore[attr-defined]
    assert [(p.text, p.score, p.tokens) for p in one] == [(p.text, p.score, p.tokens) for p in other]
    pairs = [(text, text[::-1]) for text in texts]
    assert alone.score(pairs) == pytest.approx(many.score(pairs), abs=1e-6)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"beem": 3}, "unknown knob search.beem; did you mean search.beam"),
        ({"beam": 0}, "search.beam: .* greater than or equal to 1"),
        ({"beam": 2, "nbest": 3}, "nbest 3 is more than beam 2; give beam 3"),
    ],
)
def test_wrong_knobs_are_told(search, message):
    with pytest.raises(UsageError, match=message):
        MODELS["bpe"].predict("a", **search)


def test_what_is_no_text_is_told():
    with pytest.raises(UsageError, match="a source must be text, not int"):
        MODELS["bpe"].predict([1])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="a source must be text, not NoneType"):
        MODELS["bpe"].predict(None)  # type: ignore[arg-type]
    for pairs in ([("a", None)], ("a", "b"), [("a", "b", "c")], [1], 1):
        with pytest.raises(UsageError, match="a pair must be two texts"):
            MODELS["bpe"].score(pairs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 threads"):
        load("dates", threads=0)
    with pytest.raises(FolderError, match="no such folder"):
        load("x" * 300)


def test_what_can_be_gone_through_but_once_is_answered_too():
    model = MODELS["bpe"]
    assert [one.text for one in model.predict(iter(["a", "b"]))] == [one.text for one in model.predict(["a", "b"])]
    assert model.score(iter([("a", "b")])) == model.score([("a", "b")]) == model.score(np.array([["a", "b"]]))
    figures = [antiphon.evaluate(model, pairs, metrics=["loss"]) for pairs in ([("a", "b")], iter([("a", "b")]))]
    assert figures[0]["loss"] == figures[1]["loss"] == antiphon.evaluate(model, [("a", "b")], metrics="loss")["loss"]


# --- folders ------------------------------------------------------------------------------------------------------


def write(folder, config="{}", tokenizer=True):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config, encoding="utf-8")
    if tokenizer:
        MODELS["bpe"].source_tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "damaged: not JSON"),
        ("[1]", "damaged: not a JSON object"),
        ("[" * 100_000, "damaged: not JSON"),
        ('{"model": {"hidden": ' + "9" * 5000 + "}}", "damaged"),
        (" " * (1 << 20) + "{}", "larger than 1 MB"),
        ('{"antiphon": "7.0.1"}', "made by antiphon 7.0.1, this is .*pip install --upgrade"),
        ('{"model": {"hiden": 3}}', "unknown knob model.hiden"),
        ('{"model": []}', "damaged: model"),
    ],
)
def test_a_damaged_config_is_told(tmp_path, config, message):
    with pytest.raises(FolderError, match=message) as told:
        load(write(tmp_path, config))
    assert "config.json" in str(told.value)
    assert len(str(told.value)) < 600


def test_folders_that_are_none(tmp_path):
    write(tmp_path / "g2p")
    with pytest.raises(FolderError, match=r"no such folder, .*g2pp; did you mean .*g2p\?"):
        load(tmp_path / "g2pp")
    with pytest.raises(FolderError, match="not a folder"):
        load(tmp_path / "g2p" / "config.json")
    with pytest.raises(FolderError, match=r"not a model folder: no config\.json"):
        load(tmp_path)
    with pytest.raises(FolderError, match=r"no tokenizer\.json"):
        load(write(tmp_path / "bare", tokenizer=False))
    (tmp_path / "bare" / "source.tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FolderError, match="not a tokenizer"):
        load(tmp_path / "bare")


def test_a_folder_loads_what_was_saved(tmp_path, monkeypatch):
    config = parse_config({"data": {"max_source": 7}, "search": {"beam": 2}})
    write(tmp_path, json.dumps({"antiphon": "0.1.0", "preset": None, "facts": {}, **config.model_dump(mode="json")}))
    asked = []

    def load_engine(folder, model, *, source_vocabulary, target_vocabulary):
        asked.append((folder, model, source_vocabulary))
        return FakeEngine(target_vocabulary)

    monkeypatch.setitem(sys.modules, "antiphon.nn.engine", SimpleNamespace(load_engine=load_engine))
    model = load(tmp_path)
    assert model.config == config
    assert model.folder == tmp_path
    assert asked == [(tmp_path, config.model, model.source_tokenizer.size)]
    assert isinstance(model.predict("the cat").text, str)


def test_several_folders_are_an_ensemble_if_they_share_their_tokenizers(tmp_path, monkeypatch):
    for name, texts in (("a", SENTENCES), ("b", SENTENCES), ("c", SENTENCES[:2])):
        tokenizer = Tokenizer.train(texts, kind="char", vocabulary=60)
        (tmp_path / name).mkdir()
        write(tmp_path / name, json.dumps({"antiphon": "0.1.0", "facts": {}, **Config().model_dump(mode="json")}))
        tokenizer.save(tmp_path / name / "tokenizer.json")
    runner = SimpleNamespace(load_engine=lambda *_, target_vocabulary, **__: FakeEngine(target_vocabulary))
    monkeypatch.setitem(sys.modules, "antiphon.nn.engine", runner)
    both = load(tmp_path / "a", tmp_path / "b")
    assert both.predict("a cat").text == load(tmp_path / "a").predict("a cat").text
    with pytest.raises(UsageError, match=r"must share their tokenizers, .*c; train all on the same data"):
        load(tmp_path / "a", tmp_path / "c")


def test_a_run_folder_without_torch_names_the_extra(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("antiphon.nn.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'not exported needs .*pip install "antiphon\[train\]"'):
        load(write(tmp_path))


# --- evaluation ---------------------------------------------------------------------------------------------------


def judge(tokenizer: Tokenizer, nats: Callable[[str, str], float]) -> Model:
    """A model that gives every token of a target, its end mark too, the nats of source and target."""

    class Judge(FakeEngine):
        def score(self, src, src_len, tgt_in, tgt_out):
            texts = [
                [tokenizer.decode([i for i in row if i not in (PAD, EOS)]) for row in ids] for ids in (src, tgt_out)
            ]
            each = np.array([[nats(source, target)] for source, target in zip(*texts, strict=True)], dtype=np.float32)
            return np.where(tgt_out == PAD, np.float32(0), each)

    return Model(Judge(tokenizer.size), tokenizer, tokenizer, Config())


PAIRS = [(f"the cat {n}", f"a dog {'sat ' * (n % 5)}{n}") for n in range(40)] + [("the cat 1", "quite another")]


def test_every_metric_is_a_number_by_its_name():
    found = evaluate(MODELS["bpe"], PAIRS, METRICS, beam=1)
    brought = set(METRICS) - {"distinct", "hits"} | {
        "distinct_1",
        "distinct_2",
        "distinct_2_beside_human",
        "ten_commonest",
        "repeats_4gram",
    }
    brought |= {"hits_at_1", "perplexity_per_word", "bits_per_character", "bits_per_character_uncharged"}
    brought |= {"unknown_share", "pairs", "sources", "seconds", "truncated", "target_tokens"}
    assert set(found) == brought
    assert json.loads(json.dumps(found)) == found
    assert (found["pairs"], found["sources"]) == (41, 40)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    again = evaluate(MODELS["bpe"], PAIRS, METRICS, beam=1)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


def test_any_target_of_a_source_is_right():
    model = MODELS["symbol"]
    answer = model.predict("a dog").text
    pairs = [("a dog", "wrong"), ("a dog", answer), ("the cat", "wrong")]
    found = evaluate(model, pairs)
    assert found["accuracy"] == found["wer"] == 50
    assert found["per"] > 0
    assert "bleu" not in found


def test_limit_looks_at_the_first():
    assert evaluate(MODELS["bpe"], PAIRS, ["loss"], limit=3)["pairs"] == 3


def test_mistakes_of_evaluation_are_told():
    with pytest.raises(UsageError, match='no metric "blue", --metrics; did you mean "bleu"'):
        evaluate(MODELS["bpe"], PAIRS, ["blue"])
    with pytest.raises(DataError, match="no pairs"):
        evaluate(MODELS["bpe"], [], ["loss"])
    with pytest.raises(DataError, match="hits needs 19 wrong answers to every source, to one there are 4"):
        evaluate(MODELS["bpe"], PAIRS, ["hits"], limit=5)


def test_unknown_words_are_charged_for_their_spelling():
    tokenizer = Tokenizer("word", ["the", "cat", "don", "'t"])
    assert unknown_text(tokenizer, ["the cat don't", ""]) == (0, 0)
    assert unknown_text(tokenizer, ["the zebra ate cat-food", "zebra"]) == (5, 5 + 3 + len("-food") + 5)
    model = Model(FakeEngine(tokenizer.size), tokenizer, tokenizer, Config())
    found = evaluate(model, [("the cat", "the zebra")], ["perplexity"])
    alphabet = len(set("the zebra"))
    charge = (len("zebra") + 1) * math.log2(alphabet + 1) / (len("the zebra") + 1)
    assert found["bits_per_character"] == pytest.approx(found["bits_per_character_uncharged"] + charge)
    assert found["unknown_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram", "symbol"])
def test_unknown_characters_are_counted_for_every_kind(kind):
    count, characters = unknown_text(MODELS[kind].target_tokenizer, ["the 日本 cat"])
    assert characters == 2
    assert count in (1, 2)


def test_perplexity_by_hand():
    """Six words to five tokens: an apostrophe is a word of its own, and both have an end mark."""
    tokenizer = Tokenizer("word", ["the", "cat", "don", "'t"])
    model = judge(tokenizer, lambda source, target: -1.0)
    text = "the zebra don't"
    found = evaluate(model, [("the cat", text)], ["loss", "perplexity"])
    charged = 5 + (len("zebra") + 1) * math.log(len(set(text)) + 1)
    assert (found["loss"], found["target_tokens"], found["unknown_share"]) == (1, 5, 1 / 5)
    assert found["perplexity"] == pytest.approx(math.e)
    assert found["perplexity_per_word"] == pytest.approx(math.exp(charged / 6))
    assert found["bits_per_character"] == pytest.approx(charged / math.log(2) / (len(text) + 1))
    assert found["bits_per_character_uncharged"] == pytest.approx(5 / math.log(2) / (len(text) + 1))


def test_sameness_of_answers_by_hand():
    pairs = [("a b a b", "x y z w"), ("a b", "x y"), *[(f"b {n}", f"y {n}") for n in range(10)]]
    found = evaluate(FakeModel(), pairs, ["distinct"])  # which answers in capitals
    assert found["distinct_1"] == 12 / 26
    assert found["distinct_2"] == 12 / 14  # AB three times, BA, and ten others
    assert found["distinct_2_beside_human"] == pytest.approx((12 / 14) / (13 / 14))
    assert found["ten_commonest"] == 10 / 12
    assert found["repeats_4gram"] == 0
    assert evaluate(FakeModel(), [("a b a b a b", "x"), ("a b a b a", "x")], ["distinct"])["repeats_4gram"] == 0.5


def test_a_model_that_knows_the_answer_hits():
    class Knowing(FakeEngine):
        def score(self, src, src_len, tgt_in, tgt_out):
            right = (src[:, :1] == tgt_out[:, :1])[:, :, None].any(axis=1)
            return np.where(tgt_out == 0, 0.0, np.where(right, -0.1, -1.0)).astype(np.float32)

    tokenizer = Tokenizer("word", [f"w{n}" for n in range(30)])
    model = Model(Knowing(tokenizer.size), tokenizer, tokenizer, Config())
    assert evaluate(model, [(f"w{n}", f"w{n}") for n in range(30)], ["hits"])["hits_at_1"] == 100


def test_answers_ranked_anew_are_some_of_what_was_found():
    model = MODELS["bpe"]
    found = model.predict("the cat", sample=True, seed=3, nbest=8)
    ranked = model.predict("the cat", sample=True, seed=3, nbest=2, mmi=0.5, candidates=8)
    texts = {found.text, *(other.text for other in found.alternatives)}
    assert {ranked.text, *(other.text for other in ranked.alternatives)} <= texts
    assert len(ranked.alternatives) <= 1
    assert ranked.score >= max((other.score for other in ranked.alternatives), default=-math.inf)
    assert model.predict("the cat", beam=1, mmi=0.5).text == model.predict("the cat", beam=1).text


def test_of_several_answers_one_that_repeats_itself_in_words_comes_last(monkeypatch):
    tokenizer = Tokenizer("word", ["well", "i", "don", "'t", "go"])
    model = Model(FakeEngine(tokenizer.size), tokenizer, tokenizer, Config())
    plain, twice = "i don't go", "well i don't i don't"  # four words to the count of 4-grams

    def first_of(*texts: str, n: int) -> str:
        answers = []
        for rank, text in enumerate(texts):
            ids = tokenizer.encode(text)
            log_probs, attention = np.zeros(len(ids) + 1, np.float32), np.ones((len(ids) + 1, 2), np.float32)
            answers.append(Hypothesis(ids, -float(rank), 0.0, log_probs, attention, finished=True))
        monkeypatch.setattr("antiphon.model.rerank", lambda *_: [answers])
        return model.predict("go", mmi=0.5, no_repeat_ngram=n).text

    assert first_of(twice, plain, n=3) == plain
    assert first_of(plain, twice, n=3) == plain
    assert first_of(twice, twice, n=3) == twice
    assert first_of(twice, plain, n=0) == twice


WORDS = Tokenizer("word", [f"w{n}" for n in range(30)])


def test_hits_are_ranked_both_ways_where_it_is_asked():
    model = Model(FakeEngine(WORDS.size), WORDS, WORDS, Config())
    pairs = [(f"w{n} w1", f"w{n} " * (n % 3 + 1)) for n in range(20)]  # so few that every other is a distractor
    targets = [target for _, target in pairs]
    plain = evaluate(model, pairs, ["hits"])
    both = evaluate(model, pairs, ["hits"], mmi=0.5)
    assert "hits_at_1_mmi" not in plain
    assert both["hits_at_1"] == plain["hits_at_1"]
    nats, tokens = model.score_tokens([(source, target) for source, _ in pairs for target in targets])
    less = nats - 0.5 * np.tile(model.score([("", target) for target in targets]), 20)
    for name, scores in (("hits_at_1", nats / tokens), ("hits_at_1_mmi", less / tokens)):
        best = scores.reshape(20, 20).argmax(axis=1)
        assert both[name] == 5 * (best == np.arange(20)).sum() > 0
    assert both["hits_at_1"] != both["hits_at_1_mmi"]


def test_hits_are_by_the_token_and_not_for_being_short():
    pairs = [("w0", "w0 w1"), *[(f"w{n}", f"w{n}") for n in range(2, 21)]]
    model = judge(WORDS, lambda source, target: -1.0 if target == "w0 w1" else -1.2)  # -3 the pair, -2.4 the others
    assert evaluate(model, pairs, ["hits"])["hits_at_1"] == 100 / 20


def test_what_is_likely_anyway_hits_less():
    pairs = [(f"w{n}", f"w{n}") for n in range(20)]

    def nats(source: str, target: str) -> float:
        alone, told = (-5.0, -1.2) if target == "w0" else (-0.5, -1.0)
        return told if source else alone

    found = evaluate(judge(WORDS, nats), pairs, ["hits"], mmi=0.5)
    assert (found["hits_at_1"], found["hits_at_1_mmi"]) == (0, 100 / 20)


@pytest.mark.parametrize(("truth", "other"), [("w0 w0 w0", "w{}"), ("w0", "w{0} w{0} w{0}")])
def test_what_is_likely_anyway_counts_by_the_token_too(truth, other):
    pairs = [("w0", truth), *[(f"w{n}", other.format(n)) for n in range(1, 20)]]
    model = judge(WORDS, lambda source, target: -1.0 if source else -1.5 if target == truth else -1.1)
    found = evaluate(model, pairs, ["hits"], mmi=0.5)
    assert (found["hits_at_1"], found["hits_at_1_mmi"]) == (0, 100 / 20)


@pytest.mark.parametrize("seed", range(5))
def test_another_right_answer_is_no_distractor(seed):
    pairs = [("w0", "w0"), ("w0", "w1"), *[(f"w{n}", f"w{n}") for n in range(2, 21)]]
    model = judge(WORDS, lambda source, target: {"w0": -0.2, "w1": -0.1}.get(target, -1.0))
    assert evaluate(model, pairs, ["hits"], seed=seed)["hits_at_1"] == pytest.approx(200 / 21)
