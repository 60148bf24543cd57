"""Recipes: made-up archives in the authors' layouts, and the real ones where they are at hand."""

from __future__ import annotations

import csv
import datetime
import gzip
import hashlib
import http.server
import io
import os
import random
import sys
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from antiphon.data.automatic import settle
from antiphon.data.corpora import RECIPES, prepare
from antiphon.data.corpora.dates import LOCALES, Writer, is_decided
from antiphon.data.corpora.download import Download, cached
from antiphon.data.corpora.source import Source
from antiphon.data.corpus import read_corpus
from antiphon.data.pairs import TURN, Card, Pair
from antiphon.errors import DataError, FolderError, MissingExtraError, UsageError

GENERATED = ("amounts", "dates")

REAL = Path(os.environ.get("ANTIPHON_DATA") or Path(__file__).parents[2] / "shared" / "data")


def real(name: str) -> Path:
    """A corpus as its authors made it, or a skipped test."""
    if not (REAL / name).exists():
        pytest.skip(f"no {name}; set ANTIPHON_DATA to the folder that has it")
    return REAL / name


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def unpacked(folder: Path, members: Mapping[str, bytes]) -> Path:
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def everything(folder: Path) -> list[Pair]:
    """All pairs of a prepared folder, whatever part they are in."""
    parts = [folder / f"{name}.tsv" for name in ("train", "dev", "test")]
    lines = [line for part in parts if part.exists() for line in part.read_text("utf-8").splitlines()]
    return sorted(Pair(*line.split("\t")) for line in lines)


# Every recipe.


def test_recipes_say_whose_the_data_is() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.title
        assert recipe.licence
        assert recipe.citation
        assert recipe.origin.startswith("https://")
        assert all(option.help for option in recipe.options.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cornel", {}, r'no corpus "cornel".*did you mean "cornell"\?'),
        ("xyz", {}, r"known: amounts, cmudict, cornell, dates"),
        ("cornell", {"contxt": 1}, r'cornell has no option "contxt".*did you mean "context"'),
        ("cmudict", {"context": 1}, r"it has none"),
        ("cornell", {"context": "two"}, r'"two" is not a whole number, --context'),
        ("cornell", {"context": -1}, r"-1 is less than 0, --context"),
        ("multi30k", {"pair": "en-ed"}, r'no choice "en-ed", --pair; did you mean'),
        ("dates", {"test": 10**6}, r"1,000,000 dates are too many, --test"),
        ("amounts", {"dev": 10**6}, r"1,000,000 amounts are too many, --dev"),
    ],
)
def test_unknown_names_and_options_are_refused(
    tmp_path: Path, name: str, options: dict[str, str | int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(name, source=None if name in GENERATED else tmp_path, out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", GENERATED)
def test_generated_text_reads_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is generated and reads no file, --from"):
        prepare(name, source=tmp_path, out=tmp_path / "out")


def test_a_source_that_is_not_the_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        prepare("cornell", source=tmp_path / "none.zip", out=tmp_path / "out")
    with pytest.raises(DataError, match=r"no movie_lines\.txt in it"):
        prepare("cornell", source=zipped(tmp_path / "a.zip", {"b.txt": b""}), out=tmp_path / "out")
    with pytest.raises(DataError, match="no training pairs of the Self-dialogue Corpus found"):
        prepare("self-dialogue", source=tmp_path / "a.zip", out=tmp_path / "out")
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"A\tB\n" * 99)[:-12])
    with pytest.raises(DataError, match=r"cannot be read .*get it again from its authors"):
        prepare("cmudict", source=tmp_path / "a.tsv.gz", out=tmp_path / "out")


def test_running_again_replaces_its_own_and_nothing_else(tmp_path: Path) -> None:
    source, out = tmp_path / "words.tsv", tmp_path / "out"
    source.write_text("".join(f"W{number}\tAA{number % 3}\n" for number in range(30)))
    first = prepare("cmudict", source=source, out=out)
    source.write_text("A\tAH0\nB\tB IY1\n")
    second = prepare("cmudict", source=source, out=out)
    assert (first.counts["train"], second.counts["train"]) == (27, 2)
    assert sorted(path.name for path in out.iterdir()) == ["data.json", "train.tsv"]
    assert Card.load(out) == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "words.tsv"]

    with pytest.raises(FolderError, match=r"the folder holds the corpus cmudict.*choose another --out"):
        prepare("dates", out=out)
    (out / "thesis.tex").write_text("…")
    with pytest.raises(FolderError, match=r"holds other things \(thesis\.tex\)"):
        prepare("cmudict", source=source, out=out)
    (out / "thesis.tex").unlink()
    (out / "data.json").unlink()
    with pytest.raises(FolderError, match="pairs that are not from this recipe"):
        prepare("cmudict", source=source, out=out)
    with pytest.raises(FolderError, match="a file stands where a folder"):
        prepare("cmudict", source=source, out=source)


# Downloads.


def test_a_download_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))
    origin = tmp_path / "origin.txt"
    origin.write_bytes(b"hello")
    url = origin.as_uri()
    download = Download(url, "a.txt")
    path = cached("toy", [download])
    assert path.read_bytes() == b"hello"
    origin.unlink()
    assert cached("toy", [download]) == path
    with pytest.raises(DataError, match=r"could not be downloaded .*get it by hand and give it with --from PATH"):
        cached("toy", [download, Download(url, "b.txt")])


class Broken(http.server.BaseHTTPRequestHandler):
    """Promises more bytes than it sends; or sends a page where an archive is asked for."""

    def do_GET(self) -> None:
        content = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) * (2 if self.path == "/half" else 1)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_what_did_not_come_whole_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))
    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(DataError, match="the connection ended after 26 of 52 bytes"):
            cached("toy", [Download(f"{url}/half", "a.txt")])
        with pytest.raises(DataError, match="what came is no zip file"):
            cached("toy", [Download(f"{url}/page", "a.zip")])
        assert cached("toy", [Download(f"{url}/page", "a.txt")]).read_bytes().startswith(b"<html>")
        server.shutdown()
    assert [path.name for path in (tmp_path / "cache" / "toy").iterdir()] == ["a.txt"]


def test_a_damaged_archive_of_the_cache_says_what_to_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    (tmp_path / "tatoeba").mkdir()
    for members in ({"b.txt": b""}, {}):
        zipped(tmp_path / "tatoeba" / "fra-eng.zip", members)
        with pytest.raises(DataError, match=r"fra-eng\.zip; delete it, and run again"):
            prepare("tatoeba", out=tmp_path / "out", options={"pair": "en-fr"})
    with zipfile.ZipFile(tmp_path / "tatoeba" / "fra-eng.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("fra.txt", b"go\tva\n" * 1000)
    content = bytearray((tmp_path / "tatoeba" / "fra-eng.zip").read_bytes())
    content[45:60] = b"\xff" * 15
    (tmp_path / "tatoeba" / "fra-eng.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read .*delete it"):
        prepare("tatoeba", out=tmp_path / "out", options={"pair": "en-fr"})


# What a corpus comes in.


def test_sources_read_alike(tmp_path: Path) -> None:
    members = {"top/b/deep.txt": b"far", "top/deep.txt": b"near\r\nend\n", "top/z.txt.gz": gzip.compress(b"packed")}
    members |= {"__MACOSX/top/._deep.txt": b"notes"}
    for source in (
        Source(zipped(tmp_path / "a.zip", members)),
        Source(tarred(tmp_path / "a.tar.gz", members)),
        Source(unpacked(tmp_path / "folder", members)),
    ):
        assert source.names(".txt", ".gz") == ["top/b/deep.txt", "top/deep.txt", "top/z.txt.gz"]
        assert source.lines(source.need("none.txt", "deep.txt")) == ["near", "end"]
        assert source.read(source.need("z.txt.gz")) == b"packed"
        assert source.find("none.txt") is None


# Corpora.


def cornell(movies: int) -> dict[str, bytes]:
    lines, talks = ["not a line"], ["not a conversation"]
    for movie in range(movies):
        said = [f"<i>caf\xe9</i> {movie}", "yes &amp; no", "", "what?", "nothing"]
        for number, text in enumerate(said):
            lines.append(f"L{movie}0{number} +++$+++ u0 +++$+++ m{movie} +++$+++ ANN +++$+++ {text}")
        ids = [f"L{movie}0{number}" for number in (0, 1, 2, 3, 4, 9)]
        talks.append(f"u0 +++$+++ u1 +++$+++ m{movie} +++$+++ {ids}")
    folder = "cornell movie-dialogs corpus"
    return {
        f"{folder}/movie_lines.txt": "\n".join(lines).encode("cp1252"),
        f"{folder}/movie_conversations.txt": "\n".join(talks).encode("cp1252"),
    }


def test_cornell_splits_by_movie_and_breaks_at_gaps(tmp_path: Path) -> None:
    card = prepare("cornell", source=zipped(tmp_path / "c.zip", cornell(100)), out=tmp_path / "out")
    assert card.sha256 == hashlib.sha256((tmp_path / "c.zip").read_bytes()).hexdigest()
    assert card.skipped == {
        "malformed lines": 1,
        "malformed conversations": 1,
        "utterances without words": 100,
        "utterances not in movie_lines.txt": 100,
    }
    assert card.counts["movies"] == 100
    corpus = read_corpus(tmp_path / "out")
    pairs = [*corpus.train, *corpus.dev, *corpus.test]
    assert len(pairs) == 200
    assert Pair("café 7", "yes & no") in pairs
    assert Pair("what?", "nothing") in pairs
    assert len(corpus.train) > 150
    assert corpus.dev
    assert corpus.test
    again = prepare("cornell", source=tmp_path / "c.zip", out=tmp_path / "other", seed=2)
    assert again.counts["movies"] == 100
    assert list(read_corpus(tmp_path / "other").test) != list(corpus.test)


def test_cornell_joins_context(tmp_path: Path) -> None:
    ids = "['L1', 'L2', 'L3']"
    members = {
        "movie_lines.txt": "\n".join(f"L{n} +++$+++ u +++$+++ m +++$+++ A +++$+++ {n}" for n in (1, 2, 3)).encode(),
        "movie_conversations.txt": f"u +++$+++ u +++$+++ m +++$+++ {ids}\n".encode(),
    }
    card = prepare("cornell", source=unpacked(tmp_path / "c", members), out=tmp_path / "out", options={"context": "2"})
    assert card.sha256 == ""  # of a folder
    assert card.context == 2
    assert everything(tmp_path / "out") == [Pair("1", "2"), Pair(f"1 {TURN} 2", "3")]


TALKS = {
    "one": ["hi", "hello", "bye"],
    "two": ["so, then", 'he said "no"'],
    "three": ["no", "{}", "yes"],
}
TALK_PAIRS = sorted([Pair("hi", "hello"), Pair("hello", "bye"), Pair("so, then", 'he said "no"'), Pair("no", "yes")])


def turk(talks: Mapping[str, list[str]]) -> bytes:
    table = io.StringIO()
    # Mechanical Turk sorts columns as text: sentence10 before sentence2.
    writer = csv.writer(table)
    writer.writerow(["AssignmentId", "WorkerId", "Answer.sentence1", "Answer.sentence10", "Answer.sentence2", "Reject"])
    for name, talk in talks.items():
        first, second, last = (*talk, "") if len(talk) == 2 else talk
        writer.writerow([name, "troll" if name == "bad" else "w", first, last, second, "x" if name == "no" else ""])
    return table.getvalue().encode()


@pytest.mark.parametrize("layout", ["table", "repository", "formatted"])
def test_self_dialogue_in_each_layout(tmp_path: Path, layout: str) -> None:
    if layout == "table":
        source = tmp_path / "t.tsv.gz"
        source.write_bytes(gzip.compress("\n".join("\t".join(["films", *talk]) for talk in TALKS.values()).encode()))
    elif layout == "formatted":
        texts = {f"{number}.txt": "\n".join(talk).encode() for number, talk in enumerate(TALKS.values())}
        source = unpacked(tmp_path / "f", texts)
    else:
        table = turk({**TALKS, "bad": ["x", "y", "z"], "no": ["x", "y", "z"]})
        members = {"r/corpus/films/a.csv": table, "r/corpus/b/b.csv": turk({"one": TALKS["one"]})}
        source = zipped(tmp_path / "r.zip", {**members, "r/blocked_workers.txt": b"troll\n", "r/README.md": b"hi"})
    card = prepare("self-dialogue", source=source, out=tmp_path / "out")
    assert everything(tmp_path / "out") == TALK_PAIRS
    assert card.counts["dialogues"] == 3
    if layout == "repository":
        seen = ("rejected dialogues", "dialogues of blocked workers", "dialogues seen before")
        assert [card.skipped[reason] for reason in seen] == [1, 1, 1]


def test_multi30k_reads_tok_and_raw(tmp_path: Path) -> None:
    members = {}
    for file in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de"):
            members[f"m/raw/{file}.{language}.gz"] = gzip.compress(f"A {file} {language}.\n".encode())
            members[f"m/tok/{file}.lc.norm.tok.{language}"] = f"a {file} {language} .\n".encode()
    source = tarred(tmp_path / "m.tar.gz", members)
    prepare("multi30k", source=source, out=tmp_path / "tok")
    corpus = read_corpus(tmp_path / "tok")
    assert list(corpus.train) == [Pair("a train en .", "a train de .")]
    assert list(corpus.dev) == [Pair("a val en .", "a val de .")]
    prepare("multi30k", source=source, out=tmp_path / "raw", options={"form": "raw", "pair": "de-en"})
    assert list(read_corpus(tmp_path / "raw").test) == [Pair("A test_2016_flickr de.", "A test_2016_flickr en.")]
    with pytest.raises(DataError, match=r"no train\.lc\.norm\.tok\.fr in it"):
        prepare("multi30k", source=source, out=tmp_path / "fr", options={"pair": "en-fr"})


def test_tatoeba_keeps_translations_of_a_source_together(tmp_path: Path) -> None:
    lines = [f"go {n}\tva {n} {m}\tCC-BY\n" for n in range(300) for m in range(3)]
    members = {"_about.txt": b"", "fra.txt": "".join(["broken\n", "\tvide\n", *lines]).encode()}
    source = zipped(tmp_path / "fra-eng.zip", members)
    card = prepare("tatoeba", source=source, out=tmp_path / "out")
    assert card.counts["distinct sources"] == 300
    assert card.skipped == {"malformed lines": 1, "empty source or target": 1}
    corpus = read_corpus(tmp_path / "out")
    assert len(corpus.train) + len(corpus.dev) + len(corpus.test) == 900
    sides = [{pair.source for pair in part} for part in (corpus.train, corpus.dev, corpus.test)]
    assert sum(map(len, sides)) == 300
    prepare("tatoeba", source=source, out=tmp_path / "back", options={"pair": "fr-en"})
    assert Pair("va 1 2", "go 1") in everything(tmp_path / "back")


def test_cmudict_in_each_format(tmp_path: Path) -> None:
    expected = [Pair("a", "AH"), Pair("a", "EY"), Pair("d'or", "D AO R"), Pair("tear", "T EH R")]
    formats = {
        "cmudict.dict": b"a AH0\na(2) EY1\na(3) EY2\nd'or D AO1 R # foreign french\ntear T EH1 R\n",
        "cmudict-0.7b": b";;; \xc9 remark\nA  AH0\nA(1)  EY1\nA(2)  EY0\nD'OR  D AO1 R\nTEAR  T EH1 R\n",
        "table.tsv.gz": gzip.compress(b"A\tAH\nA\tEY\nA\tEY\nD'OR\tD AO R\nTEAR\tT EH R\n"),
    }
    for name, content in formats.items():
        (tmp_path / name).write_bytes(content)
        card = prepare("cmudict", source=tmp_path / name, out=tmp_path / "out")
        assert everything(tmp_path / "out") == expected
        assert card.skipped == {"pronunciations that differ in stress only": 1}
        assert card.counts["words"] == 3
        assert "no test part" in card.note


def test_sigmorphon_brings_test_where_there_is_one(tmp_path: Path) -> None:
    members = {f"d/low/gre_{part}.tsv": f"{part}\tp a\n".encode() for part in ("train", "dev")}
    source = tarred(tmp_path / "s.tar.gz", members)
    card = prepare("sigmorphon2021", source=source, out=tmp_path / "out", options={"language": "gre"})
    assert (card.counts["test"], card.note) == (0, "no test part: this archive has none")
    source = tarred(tmp_path / "s.tar.gz", {**members, "d/low/gre_test.tsv": b"test\tt e\nword\n"})
    card = prepare("sigmorphon2021", source=source, out=tmp_path / "out", options={"language": "gre"})
    assert list(read_corpus(tmp_path / "out").test) == [Pair("test", "t e")]
    assert card.skipped == {"malformed lines": 1}
    with pytest.raises(UsageError, match=r'did you mean "gre"'):
        prepare("sigmorphon2021", source=source, out=tmp_path / "out", options={"language": "grek"})


def test_forms_are_asked_for_by_features_or_base_forms_of_forms(tmp_path: Path) -> None:
    members = {
        "x-main/part1/data/deu.trn": "Haus\tN;DAT(PL)\tHäusern\nab sein\tV;PRS\tist ab\nkeine Form\tV\t\n\n".encode(),
        "x-main/part1/data/deu.covered.dev": b"Tag\tN;PL\n",
        "x-main/part1/data/deu.dev": b"Tag\tN;PL\tTage\n",
        "x-main/part1/data/deu.tst": b"Boot\tN;PL\tBoote\n",
    }
    source = tarred(tmp_path / "s.tar.gz", members)
    card = prepare("sigmorphon2023", source=source, out=tmp_path / "out")
    forms = read_corpus(tmp_path / "out")
    assert list(forms.train) == [Pair("N;DAT(PL) Haus", "Häusern"), Pair("V;PRS ab sein", "ist ab")]
    assert list(forms.dev) == [Pair("N;PL Tag", "Tage")]
    assert list(forms.test) == [Pair("N;PL Boot", "Boote")]
    assert card.skipped == {"malformed lines": 1}
    prepare("sigmorphon2023", source=source, out=tmp_path / "out", options={"task": "lemmatise"})
    assert next(iter(read_corpus(tmp_path / "out").train)) == Pair("N;DAT(PL) Häusern", "Haus")
    with pytest.raises(DataError, match=r"no fin\.trn in it"):
        prepare("sigmorphon2023", source=source, out=tmp_path / "out", options={"language": "fin"})


# Dates.


def test_dates_are_disjoint_unique_and_seeded(tmp_path: Path) -> None:
    pytest.importorskip("babel")
    sizes: dict[str, str | int] = {"train": 4000, "dev": 200, "test": 400}
    card = prepare("dates", out=tmp_path / "a", options=sizes)
    assert {name: card.counts[name] for name in sizes} == sizes
    corpus = read_corpus(tmp_path / "a")
    days = [{pair.target for pair in part} for part in (corpus.train, corpus.dev, corpus.test)]
    assert not (days[0] & days[1])
    assert not (days[0] & days[2])
    assert not (days[1] & days[2])
    pairs = [*corpus.train, *corpus.dev, *corpus.test]
    assert len({pair.source for pair in pairs}) == len(pairs)
    assert all(1900 <= datetime.date.fromisoformat(pair.target).year < 2100 for pair in pairs)
    assert all(pair.target[:4] in pair.source for pair in pairs)
    prepare("dates", out=tmp_path / "b", options=sizes)
    assert read_corpus(tmp_path / "b").fingerprint == corpus.fingerprint
    prepare("dates", out=tmp_path / "c", options=sizes, seed=2)
    assert read_corpus(tmp_path / "c").fingerprint != corpus.fingerprint


def test_no_text_means_two_days() -> None:
    pytest.importorskip("babel")
    writer = Writer()
    meanings: dict[str, datetime.date] = {}
    for form in writer.formats:
        for month in range(1, 13):
            for number in (1, 2, 3, 10, 11, 12, 21, 28):
                day = datetime.date(2001, month, number)
                for text in (writer.render(day, form), writer.render(day, form).lower()):
                    assert meanings.setdefault(text, day) == day, (text, form)


def test_dates_look_as_people_write_them() -> None:
    pytest.importorskip("babel")
    writer = Writer()
    assert {form.locale for form in writer.formats} == set(LOCALES)
    assert len({name[:2] for name in LOCALES}) >= 12
    written = {writer.render(datetime.date(1979, 5, day), form) for day in (1, 3) for form in writer.formats}
    for text in (
        "3 de mayo de 1979",
        "May 3rd, 1979",
        "le 1er mai 1979",
        "3. Mai 1979",
        "3 мая 1979",
        "1979年5月3日",
    ):
        assert text in written
    assert not any("03/05" in text or "5/3/" in text for text in written if not text.startswith("1979"))
    drawn = {writer.write(datetime.date(1979, 5, 3), random.Random(seed)).text for seed in range(300)}
    assert any(text != text.lower() for text in drawn)
    assert drawn - written


@pytest.mark.parametrize(
    ("pattern", "decided"),
    [("d/M/y", False), ("dd-MM-y", False), ("d. MMM yy", False), ("y-MM-dd", True), ("d.M.y", True)],
)
def test_undecidable_patterns_are_left_out(pattern: str, decided: bool) -> None:
    assert is_decided(pattern) is decided


def test_without_babel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "babel", None)
    for name in GENERATED:
        with pytest.raises(MissingExtraError, match=rf"the {name} recipe needs packages .*antiphon\[train\]"):
            prepare(name, out=tmp_path / "out")


def test_amounts_are_disjoint_and_agree_with_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("babel")
    from antiphon.data.corpora import amounts

    write, version = amounts._writer()

    def without_swedish_hours(features: tuple[str, ...], number: Decimal) -> str | None:  # Babel lacks other words
        return None if tuple(features) == ("long", "hour", "sv") else write(features, number)

    monkeypatch.setattr(amounts, "_writer", lambda: (without_swedish_hours, version))
    sizes: dict[str, str | int] = {"train": 6000, "dev": 300, "test": 300}
    card = prepare("amounts", out=tmp_path / "a", options=sizes)
    assert {name: card.counts[name] for name in sizes} == sizes
    corpus = read_corpus(tmp_path / "a")
    pairs = [*corpus.train, *corpus.dev, *corpus.test]
    assert len({pair.source for pair in pairs}) == len(pairs)
    written = {pair.source: pair.target for pair in pairs}
    polish = {
        number: text for asked, text in written.items() for head, number in [asked.split()] if head == "long;hour;pl"
    }
    assert {text.split()[-1] for text in polish.values()} <= {"godzina", "godziny", "godzin"}
    assert all(text.endswith("godzin") for number, text in polish.items() if number[-2:] in ("11", "12", "17"))
    assert not [text for text in written.values() if "duration" in text or "volume" in text]  # CLDR's names, not words
    assert not [asked for asked in written if asked.startswith("long;hour;sv ")]
    assert card.skipped["no word for that unit"] > 0
    assert settle(corpus.train, None, {})[0].data.tokenizer == "tagged"
    prepare("amounts", out=tmp_path / "b", options=sizes)
    assert read_corpus(tmp_path / "b").fingerprint == corpus.fingerprint


# The real corpora.


@pytest.mark.parametrize(
    ("name", "file", "options", "counts"),
    [
        ("cornell", "cornell_movie_dialogs_corpus.zip", {}, {"movies": 617, "utterances": 291_608}),
        ("self-dialogue", "self_dialogue.tsv.gz", {}, {"dialogues": 24_176}),
        ("multi30k", "multi30k.tar.gz", {}, {"train": 29_000, "dev": 1_014, "test": 1_000}),
        ("multi30k", "multi30k.tar.gz", {"pair": "fr-en", "form": "raw"}, {"train": 29_000, "dev": 1_014}),
        ("tatoeba", "fra-eng.zip", {}, {"distinct sources": 116_830}),
        ("cmudict", "cmudict_g014b2b_train.tsv.gz", {}, {"words": 106_837, "dev words": 2_670, "test": 0}),
        ("sigmorphon2021", "sigmorphon2021_g2p.tar.gz", {}, {"train": 33_344, "test": 0}),
        ("sigmorphon2021", "sigmorphon2021_g2p.tar.gz", {"language": "wel_sw"}, {"train": 800, "dev": 100}),
    ],
)
def test_the_real_corpora(
    tmp_path: Path, name: str, file: str, options: dict[str, str | int], counts: dict[str, int]
) -> None:
    card = prepare(name, source=real(file), out=tmp_path / "out", options=options)
    assert {key: card.counts[key] for key in counts} == counts
    corpus = read_corpus(tmp_path / "out")
    assert corpus.skipped == {}
    parts = {"train": corpus.train, "dev": corpus.dev, "test": corpus.test}
    assert {key: len(pairs) for key, pairs in parts.items()} == {key: card.counts[key] for key in parts}
