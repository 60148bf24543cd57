"""Laws of the tokenizers: text comes back, specials stay out of reach, a stranger's file is only data."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data import vocabulary
from antiphon.data.tokenizer import BOS, EOS, PAD, SPECIALS, TURN_ID, UNK, Tokenizer
from antiphon.errors import DataError, FolderError, SaveError, UsageError

KINDS = ("word", "bpe", "unigram", "char", "tagged", "symbol")
EXACT = ("bpe", "unigram", "char", "tagged")
TEXTS = [
    "I don't know, do you?",
    'He said: "well-known (really)" … at 10:30, for $5 & 3.5 %!',
    "Ein Mann läßt 12 Hunde laufen; größer, höher.",
    "a man 's hat &amp; coat , &quot; red &quot; .",
    "L'homme n'est rien <turn> à côté ! <pad> </s> <s> <unk>",
    "नमस्ते दुनिया <turn> 你好，世界 ▁ _ 👋🏽",
    "low lower lowest new newer newest wide wider widest",
]
LETTERS = sorted(set("".join(unicodedata.normalize("NFC", t) for t in TEXTS)) | set("Aé\u0301"))
FREE = st.one_of(st.text(), st.lists(st.sampled_from([*LETTERS, " ", "\t", "<turn>", "</s>"])).map("".join))
KNOWN = st.lists(st.sampled_from([*"".join(TEXTS), " ", "<turn>", "</s>", "<pad>"])).map("".join)


def trained(kind: str, **options) -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, kind=kind, vocabulary=200, **options)  # type: ignore[arg-type]


TOKENIZERS = {kind: trained(kind) for kind in KINDS}
LOWER = {kind: trained(kind, lower=True, digits=True) for kind in KINDS}


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=150)
@given(text=KNOWN)
def test_decode_undoes_encode(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text)
    assert UNK not in ids
    assert tokenizer.decode(ids) == tokenizer.normalise(text)


SYLLABLES = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
JAMO = st.sampled_from(
    [*map(chr, range(0x1100, 0x1113)), *map(chr, range(0x1161, 0x1176)), *map(chr, range(0x11A8, 0x11C3))]
)


@pytest.mark.parametrize("kind", ["char", "tagged"])
@given(texts=st.lists(st.text(st.one_of(SYLLABLES, JAMO, st.sampled_from("a é;")), max_size=8), max_size=3))
def test_a_syllable_never_seen_is_spelt_with_the_letters_of_others(kind: str, texts: list[str]) -> None:
    seen = "".join(map(chr, (*range(0xAC00, 0xAC00 + 588 * 19, 588), *range(0xAC00, 0xAC00 + 588))))
    tokenizer = Tokenizer.train([f"a é;{seen}"], kind=kind, vocabulary=2000)  # type: ignore[arg-type]
    assert tokenizer.size < 100
    for text in texts:
        ids = tokenizer.encode(text)
        assert UNK not in ids
        assert tokenizer.decode(ids) == tokenizer.normalise(text)


def test_a_vocabulary_of_syllables_is_read_as_it_was_made() -> None:
    """As versions made them that did not take syllables apart; what they knew is what they know."""
    old = Tokenizer("char", ["가", "나", " "])
    assert old.tokens(old.encode("가 나")) == ["가", "␣", "나"]
    assert set(old.encode("다")) == {UNK}
    tagged = Tokenizer.train(["V;높임 가다"], kind="tagged", vocabulary=50)
    assert tagged.tokens(tagged.encode("V;높임 가"))[:3] == ["V", ";", "높임"]
    assert UNK not in tagged.encode("높")


@pytest.mark.parametrize("kind", EXACT)
def test_the_training_texts_come_back(kind: str) -> None:
    for text in TEXTS:
        lowered = LOWER[kind].normalise(text)
        assert LOWER[kind].decode(LOWER[kind].encode(text)) == lowered
        assert lowered == LOWER[kind].normalise(lowered)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80)
@given(texts=st.lists(FREE, max_size=4))
def test_batch_equals_singles_and_specials_stay_out(kind: str, texts: list[str]) -> None:
    for tokenizer in (TOKENIZERS[kind], LOWER[kind]):
        rows = tokenizer.encode_batch(texts)
        assert rows == [tokenizer.encode(text) for text in texts]
        for text, ids in zip(texts, rows, strict=True):
            assert all(UNK <= index < tokenizer.size for index in ids)
            assert ids.count(TURN_ID) == tokenizer.normalise(text).count("<turn>")
            assert tokenizer.normalise(tokenizer.normalise(text)) == tokenizer.normalise(text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_ids_decode(kind: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1)))
    text = tokenizer.decode(ids)
    assert text == " ".join(text.split())
    assert tokenizer.decode([index for index in ids if index not in (PAD, BOS, EOS)]) == text
    assert len(tokenizer.tokens(ids)) == len(ids)
    text.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_five_ids(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    assert tuple(tokenizer.tokens(range(5))) == SPECIALS
    assert tokenizer.encode("<turn>") == [TURN_ID]
    assert tokenizer.token_id("<turn>") == TURN_ID
    assert tokenizer.token_id("no such token") == UNK
    assert tokenizer.token_id("</s>") == (tokenizer.encode("</s>")[0] if kind == "symbol" else EOS)
    assert all(tokenizer.token_id(name) == i for i, name in enumerate(tokenizer._tokens[5:], 5))


@pytest.mark.parametrize("text", ["<pad>", "</s>", "<s>", "<unk>", " <pad>", "a </s> b"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_user_cannot_type_a_special(kind: str, text: str) -> None:
    many = Tokenizer.train([text] * 50, kind=kind, vocabulary=60)  # type: ignore[arg-type]
    assert min(many.encode(text)) > TURN_ID
    if kind in EXACT:
        assert many.decode(many.encode(text)) == many.normalise(text)


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_change_nothing(kind: str, tmp_path: Path) -> None:
    for tokenizer in (TOKENIZERS[kind], LOWER[kind]):
        path = tmp_path / "tokenizer.json"
        tokenizer.save(path)
        loaded = Tokenizer.load(path)
        assert loaded.to_json() == tokenizer.to_json()
        assert (loaded.kind, loaded.size) == (kind, tokenizer.size)
        assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
        assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind: str) -> None:
    assert trained(kind).to_json() == TOKENIZERS[kind].to_json()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_thousand_times_the_text_is_learnt_from_in_no_more_time(kind, monkeypatch):
    fed: list[int] = []
    real = vocabulary._within

    def counting(*arguments):
        lines = list(real(*arguments))
        fed.append(sum(len(line.split()) for line in lines))
        return iter(lines)

    monkeypatch.setattr(vocabulary, "_within", counting)
    monkeypatch.setattr(vocabulary, "MOST_LEARNT", 5000)
    counts = vocabulary.census(TEXTS * 20, kind, lower=False, digits=False)
    few = Tokenizer.from_counts(counts, kind=kind, vocabulary=150)
    many = Tokenizer.from_counts({unit: 1000 * count for unit, count in counts.items()}, kind=kind, vocabulary=150)
    assert fed[0] <= 5000
    assert fed[-1] == 5000
    lengths = [sum(len(tokenizer.encode(text)) for text in TEXTS) for tokenizer in (few, many)]
    assert abs(lengths[1] - lengths[0]) <= 0.02 * lengths[0]  # ties among rare pairs may fall otherwise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [6, 8, 20, 90])
def test_a_vocabulary_is_no_larger_than_asked(kind: str, vocabulary: int) -> None:
    tokenizer = Tokenizer.train(TEXTS, kind=kind, vocabulary=vocabulary)  # type: ignore[arg-type]
    assert 6 <= tokenizer.size <= vocabulary
    Tokenizer.from_json(tokenizer.to_json()).encode_batch(TEXTS)


def test_rare_characters_do_not_fill_a_subword_vocabulary() -> None:
    texts = ["the cat sat on the mat"] * 30_000 + [chr(0x4E00 + n) for n in range(60)]
    tokenizer = Tokenizer.train(texts, kind="bpe", vocabulary=64)
    assert tokenizer.encode("\u4e05")[-1] == UNK
    assert len(tokenizer.encode("the cat sat on the mat")) == 6


@pytest.mark.parametrize("kind", ["word", "char", "symbol"])
def test_min_count(kind: str) -> None:
    rare = Tokenizer.train(["a a b", "a c c"], kind=kind, vocabulary=50, min_count=2)  # type: ignore[arg-type]
    assert rare.decode(rare.encode("a b c")).replace(" ", "") == "a<unk>c"


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "i'm fine, thanks. and you?",
        'he said "hello, you" (twice) and left...',
        "rock'n'roll is well-known; it's and/or was 50% off!",
        "wait -- what?! at 10:30, for $3.50 [sic]",
        "the u.s. team's goin' home: bye",
        "they called it 'the end' here",
    ],
)
def test_words_are_written_as_a_person_would(text: str) -> None:
    tokenizer = Tokenizer.train([text], kind="word", vocabulary=100)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("cut", "written"),
    [
        ("do n't you , i 'm fine .", "don't you, i'm fine."),
        ("don ' t you ?", "don't you?"),
        ("“ so ” , it ’s", '"so", it\'s'),
    ],
)
def test_text_tokenised_elsewhere_is_put_right(cut: str, written: str) -> None:
    tokenizer = Tokenizer.train([cut], kind="word", vocabulary=100)
    assert tokenizer.decode(tokenizer.encode(cut)) == written


def test_words_split_punctuation_and_hide_digits() -> None:
    tokenizer = Tokenizer.train(["In 1999, 3.5 or 2nd!"], kind="word", vocabulary=50, lower=True, digits=True)
    assert tokenizer.tokens(tokenizer.encode("In 2024, 4.0 or 3rd")) == ["in", "####", ",", "#.#", "or", "<unk>"]


def test_symbols_and_names_for_axes() -> None:
    phones = Tokenizer.train(["AH0 K AE1 T"], kind="symbol", vocabulary=50)
    assert phones.decode(phones.encode("K AE1 T")) == "K AE1 T"
    letters = Tokenizer.train(["a b"], kind="char", vocabulary=50)
    assert letters.tokens(letters.encode("a b")) == ["a", "␣", "b"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sampled_segmentations_spell_the_same_text(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    texts = TEXTS * 10
    assert tokenizer.encode_sampled(texts, dropout=0.0, rng=np.random.default_rng(1)) == tokenizer.encode_batch(texts)
    one, two, other = (tokenizer.encode_sampled(texts, dropout=0.5, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two
    assert one != other
    assert [tokenizer.decode(ids) for ids in one] == [tokenizer.normalise(text) for text in texts]
    assert len({tuple(ids) for ids in one[6::7]}) > 1
    fresh = Tokenizer.from_json(tokenizer.to_json())  # nothing depends on what was encoded before
    assert fresh.encode_sampled(texts, dropout=0.5, rng=np.random.default_rng(1)) == one


@settings(max_examples=60)
@given(texts=st.lists(FREE, max_size=3), dropout=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_any_text_can_be_sampled(texts: list[str], dropout: float, seed: int) -> None:
    for tokenizer in TOKENIZERS.values():
        rows = tokenizer.encode_sampled(texts, dropout=dropout, rng=np.random.default_rng(seed))
        assert [tokenizer.decode(r) for r in rows] == [tokenizer.decode(r) for r in tokenizer.encode_batch(texts)]


def test_the_sampler_draws_in_proportion() -> None:
    tokenizer = Tokenizer("unigram", ["▁", "a", "b", "ab"], scores=[-1.0, -2.0, -2.0, -3.0])
    draws = [
        tokenizer.encode_sampled(["ab"], dropout=1 - 1e-9, rng=np.random.default_rng(seed))[0] for seed in range(2000)
    ]
    weights = np.exp([0.2 * -4.0, 0.2 * -3.0])
    share = np.mean([len(ids) == 3 for ids in draws])
    assert share == pytest.approx(weights[0] / weights.sum(), abs=0.04)


def test_training_mistakes() -> None:
    with pytest.raises(UsageError, match='no tokenizer "bytes"'):
        Tokenizer.train(TEXTS, kind="bytes", vocabulary=50)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no room beside 5 specials"):
        Tokenizer.train(TEXTS, kind="bpe", vocabulary=5)
    for kind in KINDS:
        with pytest.raises(DataError, match="no text"):
            Tokenizer.train(["", "  "], kind=kind, vocabulary=50)  # type: ignore[arg-type]


def test_save_and_load_mistakes(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="cannot be written"):
        TOKENIZERS["char"].save(tmp_path / "none" / "tokenizer.json")
    with pytest.raises(FolderError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(FolderError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "latin.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120)
@given(data=st.data())
def test_a_hostile_file_is_a_folder_error_or_a_tokenizer(kind: str, data: st.DataObject) -> None:
    tree = json.loads(Tokenizer(kind, ["▁", "a", "b", "ab"], merges=[("a", "b")], scores=[-1.0] * 4).to_json())  # type: ignore[arg-type]
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from([*tree, "merges", "added_tokens", "pre_tokenizer"]))
        old = tree.get(key)
        if isinstance(old, list) and old and data.draw(st.booleans()):
            tree[key] = [*old]
            tree[key][data.draw(st.integers(0, len(old) - 1))] = data.draw(
                JSON | st.sampled_from(["a b", "\ud800", "<pad>", " <pad>", "x" * 999, 1e308, float("nan"), -1e5])
            )
        elif data.draw(st.booleans()):
            tree.pop(key, None)
        else:
            tree[key] = data.draw(JSON)
    text = json.dumps(tree)
    if data.draw(st.booleans()):
        text = text[: data.draw(st.integers(0, len(text)))]
    try:
        tokenizer = Tokenizer.from_json(text)
    except FolderError as error:
        assert "not a tokenizer of Antiphon" in str(error)  # noqa: PT017
        return
    assert all(UNK <= index < tokenizer.size for index in tokenizer.encode("ab <pad> <turn> é"))
    tokenizer.decode(range(tokenizer.size))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[1]", "{}", "[" * 100_000, "1" * 10_000, '{"version": "1.0", "model": {"type": "BPE"}}'],
)
def test_no_tokenizer_at_all(text: str) -> None:
    with pytest.raises(FolderError, match="not a tokenizer of Antiphon"):
        Tokenizer.from_json(text, where="tokenizer.json")


def test_a_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.data.tokenizer.LONGEST_FILE", 100)
    TOKENIZERS["bpe"].save(tmp_path / "tokenizer.json")
    with pytest.raises(FolderError, match="too large"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(FolderError, match="too large"):
        Tokenizer.from_json(TOKENIZERS["bpe"].to_json())


def test_features_are_tokens_and_unknown_ones_are_spelt() -> None:
    tagged = Tokenizer.train(["V;PST;3;SG walk", "V;PRS;1;PL go"], kind="tagged", vocabulary=50)
    assert tagged.tokens(tagged.encode("V;PST;1;SG go")) == ["V", ";", "PST", ";", "1", ";", "SG", "␣", "g", "o"]
    assert tagged.decode(tagged.encode("V;PRST;1 walk")) == "V;PRST;1 walk"
    assert tagged.tokens(tagged.encode("V;PRST"))[2:] == ["P", "R", "S", "T"]


def test_a_lowering_twin_has_the_same_ids() -> None:
    tokenizer = Tokenizer.train(["the Cat sat", "The Cat", "the cat sat"], kind="bpe", vocabulary=40)
    twin = tokenizer.lowering()
    assert twin.encode("THE Cat") == tokenizer.encode("the cat")
    assert twin.encode("The Cat") != tokenizer.encode("The Cat")
    assert (twin.size, twin.lower, tokenizer.lower) == (tokenizer.size, True, False)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text("ab cé.'", max_size=20))
@settings(max_examples=30)
def test_a_turned_twin_has_the_same_ids_from_the_end(kind: str, text: str) -> None:
    plain = TOKENIZERS[kind]
    turned = plain.turned()
    assert turned.encode(text) == plain.encode(text)[::-1]
    assert turned.decode(turned.encode(text)) == plain.decode(plain.encode(text))
    rows = [
        tokenizer.encode_sampled([text], dropout=0.3, rng=np.random.default_rng(1)) for tokenizer in (plain, turned)
    ]
    assert rows[0][0] == rows[1][0][::-1]
    again = Tokenizer.from_json(turned.to_json())
    assert again.backwards
    assert again.to_json() == turned.to_json()
    assert turned.turned().to_json() == plain.to_json()
