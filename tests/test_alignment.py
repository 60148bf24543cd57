"""Alignments agree with the sum over all ways to align; a model that learns from them answers without their marks."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon
import small_runs
from antiphon.config import load_config, parse_config
from antiphon.data.alignment import Alignment
from antiphon.data.automatic import settle
from antiphon.data.corpora import prepare
from antiphon.data.corpus import Learnt, read_corpus
from antiphon.data.pairs import Pair, write_pairs
from antiphon.data.tokenizer import NEXT, Tokenizer
from antiphon.errors import FolderError, UsageError
from antiphon.streams import Entry, Streams, read
from antiphon.training.progress import Warned

SOURCE, TARGET = 4, 3
ids = st.lists(st.integers(0, 2), max_size=5)
some_pairs = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=4), ids), min_size=1, max_size=6)


def learnt(pairs) -> Alignment:
    return Alignment.learn(pairs, source=SOURCE, target=TARGET)


def ways(alignment: Alignment, source, target):
    """Every way to align, as how many each source token gives, with its probability."""

    def of(x: int, y: int, some: int) -> float:
        return alignment.probabilities(np.array([[[x * TARGET + y]]]), np.array([[x]]))[0][some, 0, 0, 0]

    def leaves(x: int, some: int) -> float:
        return alignment.probabilities(np.array([[[x * TARGET]]]), np.array([[x]]))[1][some, 0, 0]

    for cuts in itertools.combinations_with_replacement(range(len(target) + 1), max(0, len(source) - 1)):
        edges = [0, *cuts, len(target)]
        counts = [end - start for start, end in itertools.pairwise(edges)]
        chance, place = 1.0, 0
        for x, count in zip(source, counts, strict=True):
            for given_before in range(count):
                chance *= of(x, target[place], min(given_before, 1))
                place += 1
            chance *= leaves(x, min(count, 1))
        yield counts, chance


@given(some_pairs, some_pairs)
@settings(max_examples=60)
def test_an_alignment_sums_over_all_ways_and_finds_the_likeliest(taught, asked):
    alignment = learnt(taught)
    nats, given_ = alignment.nats(asked), alignment.given(asked)
    for (source, target), found, counts in zip(asked, nats, given_, strict=True):
        if not source:
            assert counts == []
            continue
        every = list(ways(alignment, source, target))
        assert found == pytest.approx(-np.log(sum(chance for _, chance in every)), rel=1e-6)
        chosen = {tuple(counts): chance for counts, chance in every}[tuple(counts)]
        assert chosen == pytest.approx(max(chance for _, chance in every), rel=1e-6)


@given(some_pairs)
@settings(max_examples=60)
def test_learning_expects_as_much_as_there_is(pairs):
    alignment = learnt(pairs)
    real = [(source, target) for source, target in pairs if source]
    given_, left = alignment.gave.sum(), alignment.left.sum()
    assert given_ == pytest.approx(sum(len(target) for _, target in real), abs=0.05)
    assert left == pytest.approx(sum(len(source) for source, _ in real), abs=0.05)


@given(some_pairs)
@settings(max_examples=60)
def test_marks_are_one_for_each_source_token_and_nothing_else_changes(pairs):
    for (source, target), row in zip(pairs, learnt(pairs).marked(pairs, 99), strict=True):
        assert row.count(99) == len(source)
        assert [token for token in row if token != 99] == list(target)


@given(some_pairs, st.text(alphabet="ab c", max_size=6), st.text(alphabet="xyz", max_size=6))
@settings(max_examples=60)
def test_a_tokenizer_keeps_its_alignment_and_hides_its_mark(pairs, source, target):
    plain = Tokenizer.train(["xy"], kind="char", vocabulary=20)
    alignment = Alignment.learn(pairs, source=SOURCE, target=plain.size)
    turned = plain.turned().aligned(alignment)
    assert turned.encode_beside([target], [[1, 2, 3]]) == alignment.marked(
        [([3, 2, 1], plain.encode(target)[::-1])], plain.size
    )
    aligned = plain.aligned(alignment)
    again = Tokenizer.from_json(aligned.to_json())
    assert again.to_json() == aligned.to_json()
    assert aligned.size == plain.size + 1 == again.size
    [row] = aligned.encode_beside([target], [[1, 2, 3]])
    assert again.encode_beside([target], [[1, 2, 3]]) == [row]
    assert aligned.decode(row) == plain.decode(plain.encode(target))
    assert aligned.tokens(row).count(NEXT) == 3
    assert aligned.encode(NEXT) == plain.encode(NEXT), "the mark cannot be typed"
    assert aligned.lowering().alignment is alignment


@pytest.mark.parametrize(("name", "value"), [("LIKE", 1.0), ("LIKE", 100.0), ("MANY", 1), ("TABLE", 0), ("CELLS", 200)])
def test_who_is_worked_on_together_changes_nothing(monkeypatch: pytest.MonkeyPatch, name: str, value: float):
    rng = np.random.default_rng(1)
    pairs = [
        (rng.integers(0, SOURCE, rng.integers(0, 13)).tolist(), rng.integers(0, TARGET, rng.integers(0, 13)).tolist())
        for _ in range(60)
    ]
    usual = learnt(pairs)
    monkeypatch.setattr(f"antiphon.data.alignment.{name}", value)
    other = learnt(pairs)
    assert np.array_equal(usual.keys, other.keys)
    assert np.allclose(usual.gave, other.gave, atol=2e-3)  # they are rounded to be saved
    assert np.allclose(usual.nats(pairs), usual.nats(pairs[::-1])[::-1])
    assert np.allclose(usual.nats(pairs), other.nats(pairs), rtol=1e-3)
    assert usual.given(pairs) == other.given(pairs)


def test_much_text_teaches_by_a_share_of_it(monkeypatch: pytest.MonkeyPatch):
    pairs = [([0, 1, 2], [0, 1, 2]), ([3, 3], [1])] * 50
    monkeypatch.setattr("antiphon.data.alignment.LEARNT_CELLS", 250)
    alignment = learnt(pairs)
    assert 0 < alignment.gave.sum() < 0.5 * sum(len(target) for _, target in pairs)
    assert alignment.given(pairs[:2]) == learnt(pairs).given(pairs[:2])


def test_giants_are_not_aligned():
    alignment = learnt([([0, 1], [0, 1]), ([2], [1] * 3_000_000)])
    assert alignment.gave.sum() == pytest.approx(2, abs=0.05)
    [row] = alignment.given([([0, 1, 2], [1] * 3_000_001)])
    assert sum(row) == 3_000_001
    assert max(row) - min(row) <= 1


TREE = {"gave": [[0, 1, 2.0, 0.0]], "left": [[1.0] * 4, [0.0] * 4]}


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {**TREE, "more": 1},
        {**TREE, "gave": [[0, 1, 2.0]]},
        {**TREE, "gave": [[0, 9, 2.0, 0.0]]},
        {**TREE, "gave": [[4, 1, 2.0, 0.0]]},
        {**TREE, "gave": [[-1, 1, 2.0, 0.0]]},
        {**TREE, "gave": [[0.5, 1, 2.0, 0.0]]},
        {**TREE, "gave": [[0, 1, -2.0, 0.0]]},
        {**TREE, "gave": [[0, 1, float("nan"), 0.0]]},
        {**TREE, "gave": [[0, 1, 1e300, 0.0]]},
        {**TREE, "gave": [[0, 2, 1.0, 0.0], [0, 1, 1.0, 0.0]]},
        {**TREE, "gave": "much"},
        {**TREE, "left": [[1.0] * 3, [0.0] * 3]},
        {**TREE, "left": [[1.0] * 4, ["0"] * 4, 3]},
    ],
)
def test_what_is_no_alignment_is_refused(tree):
    assert Alignment.from_tree(TREE, source=4, target=3).keys.tolist() == [1]
    with pytest.raises(ValueError, match="alignment"):
        Alignment.from_tree(tree, source=4, target=3)
    broken = json.loads(Tokenizer.train(["xy"], kind="char", vocabulary=20).to_json())
    broken["alignment"] = tree if tree is None else {**tree, "source": 4}
    with pytest.raises(FolderError, match="not a tokenizer"):
        Tokenizer.from_json(json.dumps({**broken, "alignment": broken["alignment"] or 3}))


def test_auto_sees_what_runs_in_one_direction():
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(3, 9))) for _ in range(400)]
    sounds = dict(zip("abcdefgh", ["a", "p", "k s", "t", "e:", "f", "x", ""], strict=True))
    spoken = [Pair(word, " ".join(" ".join(sounds[letter] for letter in word).split())) for word in words]
    spoken = [pair for pair in spoken if pair.target]
    config, _ = settle(spoken, None, {})
    assert config.model.attention == "monotonic"
    assert config.data.reverse_source
    assert config.data.reverse_target
    forwards = {"reverse_source": False, "reverse_target": False}
    assert settle(spoken, None, {"data": forwards})[0].model.attention == "monotonic"
    for group, knobs in (
        ("model", {"attention": "dot"}),
        ("model", {"feed": True}),
        ("data", {"reverse_source": False}),
        ("data", {"too_long": "truncate"}),
    ):
        config, _ = settle(spoken, None, {group: knobs})
        assert config.model.attention != "monotonic", "what the user asks for wins"
        assert config.data.too_long == "truncate"
        assert not config.data.reverse_target
    backwards = [Pair(pair.source, " ".join(pair.target.split()[::-1])) for pair in spoken]
    assert settle(backwards, None, {})[0].model.attention == "multihead"
    asked = settle(backwards, None, {"model": {"attention": "monotonic"}})[0]
    assert (asked.model.attention, asked.data.too_long) == ("monotonic", "drop")


def test_auto_compares_where_parts_change_places(tmp_path):
    pytest.importorskip("babel")
    for name in ("amounts", "dates"):
        prepare(name, out=tmp_path / name, options={"train": 900, "dev": 10, "test": 10})
        config, _ = settle(read_corpus(tmp_path / name).train, None, {})
        assert config.model.attention == "multihead", "what comes first in one language comes last in another"
        assert (config.data.hallucinated, config.data.placeholders) == (0, 0), "another number may have another form"
        assert config.data.features == "as_is"


def test_auto_makes_up_forms_where_there_are_few():
    lemmas = ["walk", "talk", "jump", "kiss", "help", "open"] * 20
    asked = [Pair(f"V;PST {lemma}", f"{lemma}ed") for lemma in lemmas]
    config, why = settle(asked, None, {})
    assert (config.data.tokenizer, config.data.target_tokenizer, config.data.reverse_target) == (
        "tagged",
        "char",
        False,
    )
    assert (config.data.hallucinated, config.data.joined) == (20, 0)
    assert why.endswith("pairs made up are added, 20 for each")
    assert settle(asked * 5, None, {})[0].data.hallucinated == 7
    assert settle(asked * 9, None, {})[0].data.hallucinated == 0
    greek = [Pair(source, target.translate({x: x + 800 for x in range(97, 123)})) for source, target in asked]
    plain = [Pair(source.partition(" ")[2], target) for source, target in asked]
    inside = [Pair(source, f"{target[0]}a{target[1]}i{target[2:]}") for source, target in asked]
    for others in (greek, plain):
        assert settle(others, None, {})[0].data.hallucinated == 0, "nothing is carried over, or no features"
    assert settle(inside, None, {})[0].data.hallucinated == 20, "no stems, but roots"


def test_auto_tells_base_forms_from_answers():
    lemmas = ["walk", "talk", "jump", "kiss", "help", "open", "paint", "climb"]
    base = [Pair(f"{lemma}{ending}", lemma) for lemma in lemmas for ending in ("", "s", "ed", "ing")]
    config, why = settle(base * 5, None, {})
    assert config.data.tokenizer == "char", "though every base form is a source too"
    assert config.data.share_vocabulary
    assert why.startswith("words")
    turns = ["how are you", "fine, and you?", "not so well", "oh, what is it?", "nothing", "well then", "bye"]
    talk = [Pair(*both) for both in itertools.pairwise(turns)]
    assert settle(talk * 20, None, {})[1].startswith("a conversation")


def test_auto_keeps_its_tokenizers_where_only_the_vocabularies_are_asked_for():
    asked = [Pair(f"{lemma}s", lemma) for lemma in ("walk", "talk", "jump", "kiss", "help", "open")] * 20
    for share, tied in ((True, "all"), (False, "target")):
        config, _ = settle(asked, None, {"data": {"share_vocabulary": share}})
        assert (config.data.tokenizer, config.data.target_tokenizer) == ("char", "char")
        assert (config.data.share_vocabulary, config.model.tied) == (share, tied)
    assert settle(asked, None, {})[0].model.tied == "all"
    own, _ = settle(asked, None, {"data": {"tokenizer": "bpe"}})
    assert (own.data.tokenizer, own.data.target_tokenizer, own.data.placeholders) == ("bpe", None, 0)


def test_auto_goes_through_fewer_pairs_more_often():
    asked = [Pair(f"V;PST {lemma}", f"{lemma}ed") for lemma in ("walk", "talk", "jump")] * 40
    epochs = [
        settle(asked, None, {"data": {"joined": joined, "hallucinated": made, "placeholders": 0.0}})[0].train.epochs
        or 0
        for joined, made in ((2, 4), (0, 8), (2, 0), (0, 0))
    ]
    assert epochs[0] == epochs[1] < epochs[2] < epochs[3]
    with pytest.raises(UsageError, match=r"data\.joined"):
        settle(asked, None, {"data": {"joined": -1, "hallucinated": 1}})


@pytest.mark.parametrize(
    ("group", "knobs"),
    [
        ("model", {"feed": True}),
        ("data", {"reverse_source": True}),
        ("data", {"reverse_target": True}),
        ("data", {"subword_dropout": 0.1}),
        ("data", {"too_long": "truncate"}),
    ],
)
def test_what_cannot_be_aligned_is_refused(group, knobs):
    tree = {"data": {"too_long": "drop"}, "model": {"attention": "monotonic"}}
    assert parse_config(tree).model.attention == "monotonic"
    tree[group] |= knobs
    with pytest.raises(UsageError, match="monotonic"):
        parse_config(tree)


@pytest.fixture(scope="module", params=[False, True], ids=["from the beginning", "from the end"])
def run(request, tmp_path_factory):
    """A few updates on letters that are said as digits, and its folder."""
    folder = tmp_path_factory.mktemp("aligned")
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abcd"), rng.integers(1, 7))) for _ in range(120)]
    pairs = [Pair(word, word.translate({97: "0", 98: "1", 99: "2", 100: None}) or "9") for word in words]
    write_pairs(folder / "train.tsv", pairs)
    knobs = {
        "data": {"target_tokenizer": "char", "share_vocabulary": False, "joined": 1, "too_long": "drop", "buckets": 3}
        | {"reverse_source": request.param, "reverse_target": request.param},
        "model": {"attention": "monotonic", "hidden": 16, "encoder_hidden": 16, "embedding": 16, "dropout": 0.1},
        "train": {"max_updates": 150, "batch_tokens": 2000, "threads": 1, "learning_rate": 1e-2, "average": 0.9},
        "search": {"beam": 3, "length_penalty": 0.0},
    }
    antiphon.train(folder / "train.tsv", out=folder / "run", preset="g2p", knobs=knobs)
    return folder


def test_held_out_pairs_that_no_bucket_holds_are_told_of(tmp_path):
    pairs = [Pair("a b c"[: 1 + number % 5], "x y") for number in range(20)]
    write_pairs(tmp_path / "train.tsv", pairs)
    write_pairs(tmp_path / "dev.tsv", [*pairs[:3], Pair("a " * 50, "x")])
    events: list[object] = []
    small = small_runs.knobs(updates=1, data={"too_long": "drop"}, model={"attention": "monotonic"})
    antiphon.train(tmp_path, out=tmp_path / "run", preset="g2p", knobs=small, observer=events.append)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert "1 of 4 held-out pairs are longer than the largest bucket and not in the dev loss" in told


def test_a_monotonic_model_answers_without_its_marks(run):
    model = antiphon.load(run / "run")
    found = model.predict("abcab", nbest=2)
    assert found.text == "01201"
    assert found.tokens == ["0", "1", "2", "0", "1", "</s>"]
    assert found.attention.shape == (6, 6)
    assert found.attention.argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5]
    assert "".join(model.stream("abcab")) == found.text
    made = model.attention("abcab", "01201")
    assert made.tokens == found.tokens
    np.testing.assert_array_equal(made.attention, found.attention)
    assert made.score == pytest.approx(model.score([("abcab", "01201")])[0])
    assert model.score([("abcab", "01201")])[0] == pytest.approx(found.score, abs=1e-3)


def test_a_monotonic_model_is_cut_at_the_length_that_is_seen(run):
    model = antiphon.load(run / "run")
    for longest in (1, 3, 5, 6):
        streams, ids = Streams(model, model.settings({"beam": 1})), []
        for texts in read(model, [Entry(1, "abcab", max_length=longest)]):
            streams.join(texts)
        while len(streams):
            ids += [token.id for token in streams.step() if token.id is not None]
        alone = model.predict("abcab", beam=1, max_length=longest).text
        assert model.target_tokenizer.decode(ids) == alone


def test_a_run_folder_says_what_was_learnt_and_held_out(run, tmp_path):
    corpus = read_corpus(run / "train.tsv", dev_pairs=load_config("g2p").data.dev_pairs)
    whole, held = len(corpus.train) + len(corpus.dev), len(corpus.dev)
    assert antiphon.evaluate(run / "run", run / "train.tsv", metrics=("loss",))["pairs"] == held
    assert antiphon.evaluate(run / "run", run / "train.tsv", part="train", metrics=("loss",))["pairs"] == whole - held
    write_pairs(tmp_path / "train.tsv", antiphon.read_pairs(run / "train.tsv"))
    write_pairs(tmp_path / "test.tsv", [Pair("ab", "01")])
    corpus = read_corpus(tmp_path)  # a folder's train part is the file, whatever is beside it
    assert corpus.learnt(5) == Learnt(read_corpus(run / "train.tsv").train_fingerprint, 5)
    write_pairs(tmp_path / "dev.tsv", [Pair("ab", "01")])
    assert read_corpus(tmp_path).learnt(5) == Learnt(corpus.train_fingerprint, 0)


def test_an_answer_that_can_be_aligned_in_several_ways_is_given_once(run):
    model = antiphon.load(run / "run")
    for word in ("abcab", "dcd", "adbd"):
        best = model.predict(word, beam=12, nbest=4)
        texts = [best.text, *(other.text for other in best.alternatives)]
        assert len(set(texts)) == len(texts) == 4
        assert best.text == model.predict(word, beam=12).text


def test_an_exported_monotonic_model_answers_the_same(run):
    from antiphon.export.folder import export

    export(run / "run", run / "model", quantise="int8")
    one, other = antiphon.load(run / "run"), antiphon.load(run / "model")
    texts = ["abcab", "d", "", "dddd", "abc abc", "zz", "a" * 40]
    assert [p.text for p in one.predict(texts)] == [p.text for p in other.predict(texts)]


@pytest.mark.parametrize("change", ["none", "another source", "another direction"])
def test_a_tokenizer_of_another_model_is_refused(run, change, tmp_path):
    shutil.copytree(run / "run", tmp_path / "mixed")
    path = tmp_path / "mixed" / "target.tokenizer.json"
    content = json.loads(path.read_text())
    if change == "none":
        del content["alignment"]
    elif change == "another direction":
        content["backwards"] = not content.get("backwards", False)
    else:
        content["alignment"]["left"] = [[*row, 1.0] for row in content["alignment"]["left"]]
        content["alignment"]["source"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(FolderError, match="not of one model"):
        antiphon.load(tmp_path / "mixed")


def test_to_learn_from_the_end_is_to_learn_what_is_turned(tmp_path):
    """The same weights to the bit, and the answers of the one are those of the other, turned."""
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abcd"), rng.integers(1, 7))) for _ in range(60)]
    for name in ("as it is", "turned"):
        step = -1 if name == "turned" else 1
        (tmp_path / name).mkdir()
        for part, some in (("train", words[10:]), ("dev", words[:10])):
            pairs = [Pair(word[::step], (word.replace("c", "").upper() or "-")[::step]) for word in some]
            write_pairs(tmp_path / name / f"{part}.tsv", pairs)
    knobs = {
        "data": {"target_tokenizer": "char", "joined": 0, "buckets": 2, "too_long": "drop"},
        "model": {"attention": "monotonic", "hidden": 16, "encoder_hidden": 16, "embedding": 16, "dropout": 0.1},
        "train": {"max_updates": 150, "batch_tokens": 400, "threads": 1, "learning_rate": 1e-2, "average": 0.9},
    }
    found = {}
    for name, turned in (("as it is", True), ("turned", False)):
        both = {"reverse_source": turned, "reverse_target": turned}
        told = {**knobs, "data": {**knobs["data"], **both}}
        out = tmp_path / name / "run"
        antiphon.train(tmp_path / name, out=out, preset="g2p", knobs=told)
        found[name] = (out / "model.safetensors").read_bytes(), antiphon.load(out)
    (one, model), (other, mirror) = found["as it is"], found["turned"]
    assert one == other
    for text in ("abcab", "dd", ""):
        answer, mirrored = model.predict(text), mirror.predict(text[::-1])
        assert answer.text == mirrored.text[::-1]
        assert answer.score == mirrored.score
        assert answer.tokens[:-1] == mirrored.tokens[-2::-1]
        assert answer.source_tokens[:-1] == mirrored.source_tokens[-2::-1]
        inner = answer.attention[:-1, :-1]
        np.testing.assert_array_equal(inner, mirrored.attention[-2::-1, -2::-1])
        assert len(list(model.stream(text, beam=1))) <= 1, "its beginning comes last"


def test_marks_are_not_counted_by_whoever_asks_for_so_many_tokens(run):
    model = antiphon.load(run / "run")
    text = model.predict("abab", beam=1)
    assert model.predict("abab", beam=1, max_length=len(text.tokens)).tokens == text.tokens
    with pytest.raises(UsageError, match=r"marks that may repeat, search\.no_repeat_ngram"):
        model.predict("abab", no_repeat_ngram=2)


def test_an_attention_model_may_write_from_the_end_too(tmp_path):
    """One vocabulary for both sides, and a source that is read as it stands."""
    pairs = [Pair(word, word.upper() + ".") for word in ("ab", "ba", "abab", "bb", "aab", "bba", "abb", "baa") * 6]
    write_pairs(tmp_path / "pairs.tsv", pairs)
    knobs = {
        "data": {"tokenizer": "char", "reverse_target": True, "share_vocabulary": True, "placeholders": 0.0},
        "model": {"hidden": 32, "embedding": 32, "encoder_hidden": 16, "dropout": 0.0, "attention": "dot"},
        "train": {"max_updates": 200, "batch_tokens": 200, "threads": 1, "learning_rate": 1e-2, "average": 0.9},
    }
    antiphon.train(tmp_path / "pairs.tsv", out=tmp_path / "run", preset="auto", knobs=knobs)
    model = antiphon.load(tmp_path / "run")
    assert model.predict("abab", beam=1).text == "ABAB."
    assert model.predict("abab", beam=1).tokens == ["A", "B", "A", "B", ".", "</s>"]
    assert model.score([("abab", "ABAB.")])[0] > model.score([("abab", ".BABA")])[0]
