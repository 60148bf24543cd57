"""Readers of pairs: what they keep, what they refuse and in which words, and how dev is held out."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.data.augmentation import augmented
from antiphon.data.corpus import Corpus, read_corpus
from antiphon.data.pairs import (
    TURN,
    Card,
    Pair,
    adjacent_pairs,
    join_context,
    read_pairs,
    spread,
    write_pairs,
)
from antiphon.errors import DataError, SaveError, UsageError
from antiphon.training.opening import begin_anew

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).map(str.strip).filter(bool)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def numbered(count: int) -> list[Pair]:
    return [Pair(f"source {number}", f"target {number}") for number in range(count)]


@settings(max_examples=50)
@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    write_pairs(path, pairs)
    expected = [tuple(text.translate({9: " ", 10: " ", 13: " "}).strip() for text in pair) for pair in pairs]
    # A byte-order mark that opens a file is not text.
    assert [tuple(pair) for pair in read_pairs(path)][1:] == expected[1:]
    assert len(read_pairs(path)) == len(expected)


def test_a_tsv_may_have_bom_crlf_blank_lines_and_line_separators_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", b"\xef\xbb\xbf" + "a\tb\r\n\r\n  \nc\u2028d\te\x85f\n".encode())
    assert read_pairs(path) == [Pair("a", "b"), Pair("c\u2028d", "e\x85f")]


def test_empty_sides_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\nc\t\n\td\ne\tf\n")
    assert read_pairs(path) == [Pair("a", "b"), Pair("e", "f")]
    assert read_corpus(path).skipped == {"empty source or target": 2}


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])  # UniMorph, SIGMORPHON 2023
def test_forms_in_three_columns(tmp_path: Path, order: tuple[int, int, int]) -> None:
    rows = [
        ("gut", "gut", "ADJ"),  # one feature alone does not tell, but is told by the next line
        ("Haus", "Häuser", "N;NOM(PL)"),
        ("Aa machen", "macht Aa", "V;IMP;NOM(2,PL)"),
        ("Maus", "", "N;PL"),
    ]
    lines = ["\t".join(row[place] for place in order) for row in rows]
    path = write(tmp_path / "deu.trn", "\n".join([*lines, "\t\t", "N;SG Maus\tMaus", ""]))
    told = [
        ("ADJ gut", "gut"),
        ("N;NOM(PL) Haus", "Häuser"),
        ("V;IMP;NOM(2,PL) Aa machen", "macht Aa"),
        ("N;SG Maus", "Maus"),
    ]
    assert read_pairs(path) == [Pair(*pair) for pair in told]
    assert read_corpus(path).skipped == {"empty source or target": 1}
    for size in (1, 2):  # a stretch of lines that does not tell is read as the others are
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("antiphon.data.pairs.SPAN_LINES", size)
            assert read_pairs(path) == [Pair(*pair) for pair in told]


def test_a_line_of_three_columns_means_the_same_wherever_it_stands(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\nc\td\ngo on\tweiter\tfoo;bar\n")
    for size in (1, 2, 100):
        monkeypatch.setattr("antiphon.data.pairs.SPAN_LINES", size)
        with pytest.raises(DataError, match=r"3 columns where two are needed, .*a\.tsv:3"):
            read_pairs(path)


def test_a_pipe_is_refused_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write_to_it() -> None:
        with suppress(BrokenPipeError):
            (tmp_path / "pipe").write_text("a\tb\n")

    threading.Thread(target=write_to_it, daemon=True).start()
    with pytest.raises(DataError, match=r"a pipe, .*write them to a file"):
        read_pairs(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.tsv", "{0}\t{2}\t{1}"),
        ("a.tsv", "{1} {0}\t{2}"),
        ("a.tsv", "{0} {1}\t{2}"),
        ("a.jsonl", '{{"source": "{1} {0}", "target": "{2}"}}'),
    ],
)
def test_a_lemma_is_not_torn_apart(tmp_path: Path, name: str, line: str) -> None:
    tags = ["N" if name == "a.tsv" and line.count("\t") == 2 else "N;0", *(f"N;{number}" for number in range(1, 10))]
    lines = [line.format(f"l{number % 40} x", tags[number // 40], f"form{number}") for number in range(400)]
    corpus = read_corpus(write(tmp_path / name, "\n".join(lines) + "\n"))
    lemmas = [{re.sub(r" ?N(;\d)? ?", "", pair.source) for pair in part} for part in (corpus.train, corpus.dev)]
    assert all(lemmas)
    assert not lemmas[0] & lemmas[1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a\tb\nonly\n", r"one column where two are needed, .*a\.tsv:2; write source TAB target"),
        ("a.tsv", "a\tb\tc\n", r"3 columns where two are needed, .*a\.tsv:1"),
        ("a.tsv", "a\tx;y\tx;z\n", r"3 columns where two are needed, .*a\.tsv:1"),
        (
            "a.csv",
            "a,b\nc,d\n",
            r'one column where two are needed, .*a\.csv:1; parted by ","\? then make it a TAB',
        ),
        ("a.csv", "a, b\tc\nd, e\tf\ng,h\n", r"one column where two are needed, .*a\.csv:3; write source TAB target"),
        ("a.csv", "a,b\nc,d,e\n", r"one column where two are needed, .*a\.csv:1; write source TAB target"),
        ("a.tsv", "a\tb\tN;PL\na\n", r"one column where two are needed, .*a\.tsv:2"),
        ("a.tsv", "", r"no pairs, .*a\.tsv"),
        ("a.tsv", "\n \n", r"no pairs"),
        ("a.tsv", b"a\tb\ncaf\xe9\tb\n", r"not UTF-8 \(byte 0xe9 at offset 7\), .*a\.tsv:2; convert it: iconv"),
        ("a.tsv", b"\x1f\x8b\x08", r"gunzip"),
        ("a.tsv", "a\tb\n".encode("utf-16"), r"iconv -f UTF-16"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source"\n', r"not JSON .*a\.jsonl:2"),
        ("a.jsonl", '["a", "b"]\n', r"not a JSON object, .*:1"),
        ("a.jsonl", '{"source": "a"}\n', r'no "target" in this object, .*:1; write {"source"'),
        ("a.jsonl", '{"source": "a", "target": 1}\n', r'"target" is not a string'),
        ("a.jsonl", '{"source": "a", "target": "\\ud800"}\n', r"half of a surrogate pair, .*:1"),
        ("a.jsonl", "[" * 100_000, r"not JSON"),
        ("a.dialogue", "alone\n", r"no pairs"),
    ],
)
def test_mistakes_are_told_with_place_and_cure(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(write(tmp_path / name, content))


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "pairs.tsv", "a\tb\n")
    with pytest.raises(DataError, match=r"no such file, .*pairz\.tsv; did you mean .*pairs\.tsv\?"):
        read_pairs(tmp_path / "pairz.tsv")
    with pytest.raises(DataError, match="there is no folder"):
        read_pairs(tmp_path / "nowhere" / "pairs.tsv")
    with pytest.raises(DataError, match="a folder where a file is needed"):
        read_pairs(tmp_path)


def test_two_files_go_line_by_line(tmp_path: Path) -> None:
    source, target = write(tmp_path / "s.txt", "a\nb\n\n"), write(tmp_path / "t.txt", "1\r\n2\r\n\r\n")
    assert read_pairs(f"{source},{target}") == [Pair("a", "1"), Pair("b", "2")]
    write(target, "1\n")
    with pytest.raises(DataError, match=r"3 lines in s\.txt but 1 in t\.txt"):
        read_pairs(f"{source},{target}")
    with pytest.raises(DataError, match=r"no such file, .*t\.tx; did you mean .*t\.txt"):
        read_pairs(f"{source},{tmp_path / 't.tx'}")


def test_a_comma_in_a_name_is_a_name(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path / "a,b.tsv", "x\ty\n")) == [Pair("x", "y")]


def test_json_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"source": "Grüße", "target": "😀", "more": 1}), "", json.dumps({"source": "", "target": "b"})]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert read_pairs(path) == [Pair("Grüße", "😀")]


def test_dialogues_pair_adjacent_turns_with_context(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dialogue", "a\tb\tc\td\nalone\n\ne\t\tf\tg\n")
    assert read_pairs(path) == [Pair("a", "b"), Pair("b", "c"), Pair("c", "d"), Pair("f", "g")]
    deep = read_pairs(path, context=1)
    assert deep[1:] == [Pair(f"a {TURN} b", "c"), Pair(f"b {TURN} c", "d"), Pair("f", "g")]


@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.integers(0, 9))
def test_context_keeps_the_last_turns(turns: list[str], context: int) -> None:
    joined = join_context(turns, context).split(f" {TURN} ")
    assert joined == turns[-len(joined) :]
    assert len(joined) == min(len(turns), context + 1)
    assert [pair.target for pair in adjacent_pairs(turns, context)] == turns[1:]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=2).filter(
        lambda pairs: len({source for source, _ in pairs}) > 1
    ),
    st.integers(1, 8),
)
def test_held_out_sources_are_new(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], dev_pairs: int
) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    write_pairs(path, pairs)
    corpus = read_corpus(path, dev_pairs=dev_pairs)
    assert sorted([*corpus.train, *corpus.dev]) == sorted(Pair(*pair) for pair in pairs)
    assert corpus.train
    assert corpus.dev
    assert not {pair.source for pair in corpus.train} & {pair.source for pair in corpus.dev}
    assert corpus == read_corpus(path, dev_pairs=dev_pairs)


def test_dev_is_as_large_as_asked_and_at_most_a_tenth(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    write_pairs(path, numbered(200))
    assert len(read_corpus(path, dev_pairs=7).dev) == 7
    assert len(read_corpus(path, dev_pairs=1000).dev) == 20
    write_pairs(path, numbered(2))
    assert len(read_corpus(path).dev) == 1


def test_one_source_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none can be held out"):
        read_corpus(write(tmp_path / "a.tsv", "a\tb\na\tc\n"))


def test_conversations_are_held_out_whole(tmp_path: Path) -> None:
    lines = ["\t".join(f"{talk}.{turn}" for turn in range(5)) for talk in range(40)]
    corpus = read_corpus(write(tmp_path / "a.dialogue", "\n".join(lines)))
    talks = [{pair.source.split(".")[0] for pair in part} for part in (corpus.train, corpus.dev)]
    assert len(talks[1]) == 4
    assert not talks[0] & talks[1]


def test_a_folder_brings_its_parts_and_card(tmp_path: Path) -> None:
    for name, count in (("train", 5), ("dev", 2), ("test", 1)):
        write_pairs(tmp_path / f"{name}.tsv", numbered(count))
    card = Card("toy", licence="CC0", context=2, counts={"train": 5}, skipped={"odd": 1}, options={"a": 1})
    card.save(tmp_path)
    corpus = read_corpus(tmp_path)
    assert [len(part) for part in (corpus.train, corpus.dev, corpus.test)] == [5, 2, 1]
    assert corpus.card == card
    (tmp_path / "dev.tsv").unlink()
    (tmp_path / "data.json").unlink()
    corpus = read_corpus(tmp_path)
    assert [len(part) for part in (corpus.train, corpus.dev, corpus.test)] == [4, 1, 1]
    assert corpus.card is None


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train\.tsv in this folder, .*antiphon data NAME --out DIR"):
        read_corpus(tmp_path)
    write(tmp_path / "all.tsv", "a\tb\n")
    with pytest.raises(DataError, match=r"name one file: .*all\.tsv"):
        read_corpus(tmp_path)
    write(tmp_path / "train.tsv", "a\tb\nc\td\n")
    write(tmp_path / "data.json", "{")
    with pytest.raises(DataError, match=r"not JSON .*data\.json"):
        read_corpus(tmp_path)
    write(tmp_path / "data.json", "[]")
    with pytest.raises(DataError, match="not a data card"):
        read_corpus(tmp_path)


def test_the_fingerprint_tells_data_apart(tmp_path: Path) -> None:
    def corpus(train: str, dev: str) -> Corpus:
        write(tmp_path / "train.tsv", train)
        write(tmp_path / "dev.tsv", dev)
        return read_corpus(tmp_path)

    seen = [corpus(*parts).fingerprint for parts in (("a\tb\nc\td\n", "e\tf\n"), ("a\tb\n", "c\td\ne\tf\n"))]
    seen.append(corpus("a\tB\nc\td\n", "e\tf\n").fingerprint)
    assert len(set(seen)) == 3
    assert corpus("\r\na\tb\r\nc\td\r\n", "e\tf").fingerprint == seen[0]


def test_writing_where_one_cannot(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"cannot be written .*pairs\.tsv"):
        write_pairs(tmp_path / "nowhere" / "pairs.tsv", [("a", "b")])


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.text("xyz", min_size=1)), min_size=1), st.integers(0, 3))
def test_joined_pairs_are_two_of_the_data_side_by_side(texts, times):
    pairs = [Pair(*both) for both in texts]
    found = augmented(iter(pairs), joined=times, seed=-3, part=7)
    assert found[: len(pairs)] == pairs
    assert len(found) == (1 + times) * len(pairs)
    assert found == augmented(pairs, joined=times, seed=-3, part=7)
    for pair in found[len(pairs) :]:
        sources, targets = pair.source.split(" "), pair.target.split(" ")
        assert all(Pair(*both) in pairs for both in zip(sources, targets, strict=True))
        assert len(sources) == 2


WORD = st.text("abcdé", min_size=0, max_size=9)


@given(st.lists(st.tuples(WORD, st.sampled_from(["", "d", "x\u0301"])), min_size=1, max_size=8), st.integers(0, 3))
def test_hallucinated_pairs_begin_like_another_word_and_end_as_they_did(texts, times):
    pairs = [Pair(f"V;{ending or '0'} {word}", f"ge{word}{ending}") for word, ending in texts]
    found = augmented(pairs, hallucinated=times, seed=3, part=7)
    assert found[: len(pairs)] == pairs
    assert found == augmented(iter(pairs), hallucinated=times, seed=3, part=7)
    made = found[len(pairs) :]
    assert len(made) <= times * len(pairs)
    like_another = 0
    for source, target in made:
        features, _, word = source.partition(" ")
        assert target == f"ge{word}{features[2:].strip('0')}", "what is said of one word is said of the other"
        like_another += any(word.startswith(other[:2]) for other, _ in texts)
    if all(len(word) >= 3 for word, _ in texts):
        assert like_another >= (times + 1) // 2 * len(pairs), "every stem is long enough"


@pytest.mark.parametrize(
    ("source", "target"),
    [("walk", "walked"), ("walk V;PST", "walked"), ("X;1 walk Y;2", "y walked"), ("ab V;X", "abs")],
)
def test_features_wherever_they_stand_stay_as_they_are(source, target):
    made = augmented([Pair(source, target), Pair(source, target)], hallucinated=5, seed=1, part=0)[2:]
    assert len(made) == (0 if "ab" in source else 6), "two letters are no stem, and one word has no letters for another"
    left, right = source.split("walk") if made else ("", "")
    for text, _ in made:
        assert text.startswith(left)
        assert text.endswith(right)


def test_a_mark_goes_with_its_letter():
    pairs = [Pair("V;X ba\u064eda\u064ega\u064e", "ba\u064eda\u064ega\u064en")] * 2
    made = augmented(pairs, hallucinated=50, seed=1, part=0)[2:]
    assert made
    assert all("\u064e\u064e" not in text for pair in made for text in pair)


ROOT = st.text("bdkt", min_size=1, max_size=4)


@given(st.lists(ROOT, min_size=1, max_size=8), st.integers(0, 3))
def test_other_roots_stand_in_the_same_pattern(roots, times):
    pairs = [Pair(f"d;k {''.join(f'{letter}a' for letter in root)}", f"mu{'i'.join(root)}un") for root in roots]
    found = augmented(pairs, hallucinated=times, seed=3, part=7)
    assert found[: len(pairs)] == pairs
    assert found == augmented(iter(pairs), hallucinated=times, seed=3, part=7)
    assert len(found) <= (1 + times) * len(pairs)
    for source, target in found[len(pairs) :]:
        features, _, word = source.partition(" ")
        root = word.replace("a", "")
        assert features == "d;k"
        assert word == "".join(f"{letter}a" for letter in root)
        assert target == f"mu{'i'.join(root)}un"
        assert set(root) <= set("".join(roots)), "letters of other roots"


def test_roots_are_made_up_from_many():
    pairs = [Pair(f"V;PST {a}a{b}a", f"{a}i{b}") for a, b in ("kt", "db", "sr", "ml", "fn")]
    made = augmented(pairs, hallucinated=20, seed=1, part=0)[5:]
    assert len(made) > 60
    assert len(set(made)) > 40


@given(st.integers(0, 40), st.integers(0, 50))
def test_a_spread_sample_is_even_and_in_order(length: int, count: int) -> None:
    pairs = [Pair(str(number), "t") for number in range(length)]
    numbers = [int(pair.source) for pair in spread(pairs, count)]
    assert len(numbers) == min(length, count)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_where_a_file_is_not_utf8_counts_from_its_first_byte(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"byte 0xff at offset 8\), .*a\.tsv:2"):
        read_pairs(write(tmp_path / "a.tsv", b"\xef\xbb\xbfa\tb\nc\xff\td\n".replace(b"c\xff", b"c\xff")))


def test_a_folder_whose_turns_are_joined_takes_no_other_context(tmp_path: Path) -> None:
    for part in ("train", "dev"):
        write(tmp_path / f"{part}.tsv", "a\tb\n" * 3)
    Card("talks", context=1).save(tmp_path)
    with pytest.raises(UsageError, match=r"joined already, with a context of 1, --data\.context"):
        begin_anew(tmp_path, tmp_path / "run", "chat", {"data": {"context": 2}})
    assert not (tmp_path / "run").exists()
