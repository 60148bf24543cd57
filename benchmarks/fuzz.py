"""Hostile input: a million files, folders and command lines that nobody would write, and what becomes of them.

    python -m benchmarks.fuzz --cases 1200000
    python -m benchmarks.fuzz --engine hypothesis --targets config,tokenizer,log,knobs --cases 20000
    python -m benchmarks.fuzz --engine atheris --targets tsv,jsonl,tokenizer,config --cases 200000

Every case is read to its end or refused with an error of Antiphon's own. Anything else is a finding: another
exception, more than some seconds, more than a gigabyte. ``mutation`` changes good files a little, over and over;
``hypothesis`` writes trees of JSON and TOML that are almost right; ``atheris`` (pip install atheris) is led by what
parts of the program a case reaches. Runs in a folder of its own, without network. Exit code 1 if there are findings.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from antiphon.errors import AntiphonError
from benchmarks import machine

SECONDS = 10.0
"""Longest time of a case."""
MEMORY = 1 << 30
"""Bytes that all cases together may add to the process's address space."""
DISTINCT = 20
"""Findings that are told; the same place in the program counts once."""
_APART = b"\x1e\x1e\x1e\x1e"
"""Between two files that are one case."""
LARGEST = 1 << 18
"""Bytes of a mutated file."""


class Target:
    """One way in: what reads, and good input to start from."""

    def __init__(self, run: Callable[[bytes], None], seeds: Callable[[], Sequence[bytes]], share: float) -> None:
        self.run, self.share = run, share
        self._seeds = seeds

    @functools.cached_property
    def seeds(self) -> list[bytes]:
        """Made when first asked for: some of them want a trained run."""
        return list(self._seeds())


class TooSlow(Exception):
    """A case took too long."""


# Mutation.

_WORDS = [
    *(b"\t", b"\n", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04", b"\xed\xa0\x80"),
    *("\u2028".encode(), "\u202e".encode(), "😀".encode(), b"<turn>", b"</s>", b"\\ud800", b"\\u0000", b"\x85"),
    *(b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"=", b"[[", b"null", b"true", b"NaN", b"-Infinity", b"1e999"),
    *(b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"-1", b"0", b"4294967296", b"18446744073709551616", b"a" * 3000),
    *(b'"source"', b'"target"', b'"tokens"', b'"merges"', b'"kind"', b'"update"', b'"event"', b"[train]", b"[model]"),
]


def mutated(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A good file with one thing wrong, or a few with it."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at, kind = draw.randint(0, len(data)), draw.randrange(9)
        end = min(len(data), at + draw.choice((1, 2, 4, 16, 64, 1024)))
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = draw.randrange(256)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = draw.choice(_WORDS)
        elif kind == 4:
            data[at:at] = data[at:end] * draw.choice((1, 2, 30))
        elif kind == 5:
            other = draw.choice(seeds)
            start = draw.randint(0, len(other))
            data[at:end] = other[start : start + draw.choice((1, 8, 64, 512))]
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            data[at:end] = draw.choice(_WORDS)
        else:
            data[at:at] = draw.randbytes(draw.choice((1, 3, 9, 40)))
    return bytes(data[:LARGEST])


# Ways in.


def targets(folder: Path) -> dict[str, Target]:
    """Every way in, by name; files go into ``folder``."""
    from antiphon.config import load_config, presets
    from antiphon.data.corpora import prepare
    from antiphon.data.corpora.source import Source
    from antiphon.data.corpus import read_corpus
    from antiphon.data.pairs import read_pairs
    from antiphon.data.store import Shards
    from antiphon.data.tokenizer import Tokenizer
    from antiphon.faces import inspection
    from antiphon.faces.curve import print_curve
    from antiphon.faces.inspection import corpus_lines
    from antiphon.runtime import folder as files
    from antiphon.training.progress import read_log

    def written(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    def pairs_of(ending: str) -> Callable[[bytes], None]:
        def run(data: bytes) -> None:
            for source, target in read_pairs(written(f"pairs{ending}", data), context=len(data) % 3):
                assert source.strip() == source != "" != target == target.strip()
                (source + target).encode()

        return run

    def parallel(data: bytes) -> None:
        left, _, right = data.partition(b"\x1e")
        read_pairs(f"{written('s.txt', left)},{written('t.txt', right)}")

    def corpus(data: bytes) -> None:
        home = folder / "corpus"
        home.mkdir(exist_ok=True)
        for name, part in zip(("train.tsv", "dev.tsv", "data.json"), data.split(b"\x1e"), strict=False):
            (home / name).write_bytes(part)
        found = read_corpus(home, dev_pairs=2)
        if found.card is not None:
            corpus_lines(found.card, found.train, home)
            found.card.save(folder)

    def recipe(data: bytes) -> None:
        name, members = _recipe(data)
        home, out = folder / "source", folder / "out"
        for old in (home, out):
            shutil.rmtree(old, ignore_errors=True)
        home.mkdir()
        for called, content in members.items():
            (home / called).write_bytes(content)
        prepare(name, source=home, out=out, options={})

    def archive(data: bytes) -> None:
        source = Source(written("archive", data))
        for name in source.names(""):
            source.lines(name)

    def tokenizer(data: bytes) -> None:
        made = Tokenizer.load(written("tokenizer.json", data))
        for text in ("I don't.", "ß 😀 <turn> </s>", "a" * 300):
            made.decode(made.encode(text))
        assert Tokenizer.from_json(made.to_json()).encode("abc") == made.encode("abc")

    def preset(data: bytes) -> None:
        load_config(str(written("preset.toml", data)), {"train": {"max_updates": 3}})

    def config(data: bytes) -> None:
        written(files.CONFIG, data)
        files.read_config(folder)

    def log(data: bytes) -> None:
        written(files.LOG, data)
        records = read_log(folder / files.LOG)
        json.dumps(records)
        inspection._training_facts(records)
        with open(os.devnull, "w") as nowhere:
            from rich.console import Console

            print_curve(records, Console(file=nowhere, width=60))

    @functools.cache
    def trained() -> SmallRun:
        return SmallRun(folder.parent / "trained")

    def state(data: bytes) -> None:
        newest, _, before = data.partition(_APART)
        written(files.STATE, newest)
        (folder / files.BEFORE).unlink(missing_ok=True)
        if before:
            written(files.BEFORE, before)
        from antiphon.training.checkpoint import restore_state

        restore_state(folder, *trained().state, warn=lambda _: None)

    def weights(data: bytes) -> None:
        path = written(files.WEIGHTS, data)
        inspection._weights(path)
        from antiphon.nn.engine import load_engine

        sizes = {"source_vocabulary": trained().size, "target_vocabulary": trained().size}
        load_engine(folder, trained().config.model, **sizes)

    def ids(data: bytes) -> None:
        index, _, shard = data.partition(_APART)
        written("x.index.npz", index)
        written("x-00000.npz", shard)
        shards = Shards.open(folder, "x")
        for side in shards.shard(0)[:2]:
            for row in side:
                row.sum()

    def of_run(*names: str) -> Callable[[], list[bytes]]:
        return lambda: [_APART.join((trained().folder / name).read_bytes() for name in names)]

    presets_folder = Path(load_config.__code__.co_filename).parent / "presets"
    tsv = b"a b\tb a\nc\td\r\n\n\xc3\xa9\t\xe2\x82\xac\nx y z\tz y x\n" * 3
    jsonl = b'{"source": "a\\u00e9", "target": "b", "n": 1}\n{"source": "", "target": ""}\n' * 3
    parts = b"a\tb\nc\td\n\x1ee\tf\n\x1e" + b'{"name": "x", "context": 1, "counts": {"train": 2}}'
    kinds = ("word", "bpe", "unigram", "char", "symbol")
    return {
        "tsv": Target(pairs_of(".tsv"), lambda: [tsv], 250),
        "parallel": Target(parallel, lambda: [b"a\nb\n\nc d\x1e1\n2\n\n3 4"], 150),
        "jsonl": Target(pairs_of(".jsonl"), lambda: [jsonl], 200),
        "dialogue": Target(pairs_of(".dialogue"), lambda: [b"hi\thello\thow are you\nalone\n\na\t\tb\tc\n"], 150),
        "corpus": Target(corpus, lambda: [parts], 50),
        "recipe": Target(recipe, _recipes, 20),
        "archive": Target(archive, _archives, 40),
        "tokenizer": Target(tokenizer, lambda: [_tokenizer(kind) for kind in kinds], 130),
        "preset": Target(preset, lambda: [(presets_folder / f"{name}.toml").read_bytes() for name in presets()], 50),
        "config": Target(config, of_run(files.CONFIG), 12),
        "log": Target(log, of_run(files.LOG), 6),
        "state": Target(state, of_run(files.STATE, files.BEFORE), 4),
        "weights": Target(weights, of_run(files.WEIGHTS), 20),
        "ids": Target(ids, of_run("ids/train.index.npz", "ids/train-00000.npz"), 20),
        "command": Target(command(folder), lambda: [b"\0".join(map(str.encode, line)) for line in _lines()], 0.7),
        "knobs": Target(knobs(folder), lambda: [b"{}"], 0),
    }


def write_pairs(path: Path) -> None:
    """Forty pairs."""
    path.write_text("".join(f"{'ab'[n % 2]} {'cd'[n // 2 % 2]}\t{n}\n" for n in range(40)), encoding="utf-8")


class SmallRun:
    """A run of a few updates, and what its state is restored into."""

    def __init__(self, folder: Path) -> None:
        import antiphon
        from antiphon.nn.seq2seq import Seq2Seq
        from antiphon.runtime import folder as files
        from antiphon.training.checkpoint import Origin
        from antiphon.training.loss import optimizer_for
        from antiphon.training.stability import Stability

        pairs = folder.with_suffix(".tsv")
        write_pairs(pairs)
        sizes = {"embedding": 4, "hidden": 4, "encoder_hidden": 4, "encoder_layers": 1, "decoder_layers": 1}
        train = {"max_updates": 4, "validate_every": 2, "precision": "f32", "dev_answers": 2, "threads": 1}
        antiphon.train(
            pairs, folder, knobs={"data": {"tokenizer": "symbol", "buckets": 1}, "model": sizes, "train": train}
        )
        self.folder = folder
        self.config, facts = files.read_config(folder)
        self.size = facts["source_vocabulary"]
        model = Seq2Seq(self.config.model, source_vocabulary=self.size, target_vocabulary=self.size)
        self.state = model, optimizer_for(model, self.config), Stability(1.0), Origin.of(self.config)


def _tokenizer(kind: Any) -> bytes:
    from antiphon.data.tokenizer import Tokenizer

    texts = ["the cat sat on the mat .", "a ' dog isn't here , is it ?", "ß é 😀"] * 3
    return Tokenizer.train(texts, kind=kind, vocabulary=60).to_json().encode()


def _recipes() -> list[bytes]:
    """Name, then member, content, member, content … with \\x1e between."""
    cornell = (
        b"L1 +++$+++ u0 +++$+++ m0 +++$+++ A +++$+++ hi\nL2 +++$+++ u1 +++$+++ m0 +++$+++ B +++$+++ <b>you</b> &amp;\n",
        b"u0 +++$+++ u1 +++$+++ m0 +++$+++ ['L1', 'L2']\nu0 +++$+++ u1 +++$+++ m1 +++$+++ ['L2', 'L1']\n",
    )
    turk = b'AssignmentId,WorkerId,Reject,Answer.sentence1,Answer.sentence2\nx,w,,hi,"hello, you"\ny,w,,{},b\n'
    cmu = b";;; x\nHELLO  HH AH0 L OW1\nHELLO(2)  HH EH0 L OW1 # y\nA\tAH\nB  B IY1\nC  S IY1\n" * 3
    lines = b"a man .\ntwo dogs\n"
    sides = [
        part
        for name in ("train", "val", "test_2016_flickr")
        for lang in ("en", "de")
        for part in (f"{name}.lc.norm.tok.{lang}".encode(), lines)
    ]
    sigmorphon = [part for name in ("train", "dev") for part in (f"eng_us_{name}.tsv".encode(), b"ab\ta b\ncd\tc d\n")]
    forms = [part for end in ("trn", "dev", "tst") for part in (f"deu.{end}".encode(), b"a\tN;PL\tab\nc\tV;A(B)\tcd\n")]
    parts = [
        [b"cornell", b"movie_lines.txt", cornell[0], b"movie_conversations.txt", cornell[1]],
        [b"self-dialogue", b"a.csv", turk, b"blocked_workers.txt", b"z\n"],
        [b"self-dialogue", b"a.txt", b"hi\nhello\nhow are you\n"],
        [b"self-dialogue", b"a.tsv", b"movies\thi\thello\tyes\n"],
        [b"cmudict", b"cmudict.dict", cmu],
        [b"multi30k", *sides],
        [b"tatoeba", b"fra.txt", b"Go.\tVa !\tCC\nHi.\tSalut !\tCC\n" * 5],
        [b"sigmorphon2021", *sigmorphon],
        [b"sigmorphon2023", *forms],
    ]
    return [b"\x1e".join(each) for each in parts]


def _recipe(data: bytes) -> tuple[str, dict[str, bytes]]:
    name, *rest = data.split(b"\x1e")
    members = {}
    for called, content in zip(rest[::2], rest[1::2], strict=False):
        kept = "".join(sign for sign in called.decode("latin-1") if sign.isalnum() or sign in "._")[:60]
        members[kept.strip(".") or "x"] = content
    return name.decode("latin-1"), members


def _archives() -> list[bytes]:
    import gzip
    import tarfile

    packed, tar = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/fra.txt", b"a\tb\n" * 50)
        archive.writestr("b.csv", gzip.compress(b"x" * 100))
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        entry = tarfile.TarInfo("a/b.txt")
        entry.size = 100
        archive.addfile(entry, io.BytesIO(b"a\tb\n" * 25))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in ("a.txt", "b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 10
            archive.addfile(entry, io.BytesIO(b"0123456789"))
    return [packed.getvalue(), tar.getvalue(), plain.getvalue(), gzip.compress(b"a\tb\n" * 30), b"a\tb\n"]


# The command line.


def _lines() -> list[list[str]]:
    """Command lines that end soon: no model is trained, no server listens."""
    bad, gone = "bad.tsv", "nowhere"
    return [
        ["train", bad, "--out", "x", "--preset", "cs20", "--minutes", "1"],
        [
            "train",
            bad,
            "--out=x",
            "--data.buckets",
            "[[19,19],[28,28]]",
            "--model.feed",
            "false",
            "--train.max_updates",
            "3",
        ],
        ["train", gone, "--out", "x", "--resume", "--model.cell", "gru", "--train.betas", "0.9", "0.98", "--seed", "7"],
        ["data", "cmudict", "--from", gone, "--out", "y", "--tok"],
        ["data", "multi30k", "--from", bad, "--pair", "en-de", "--raw", "--json"],
        ["evaluate", gone, bad, "--metrics", "bleu,chrf", "--split", "dev", "--beam", "3", "--json", "-"],
        ["predict", gone, "some text", "--beam", "4", "--nbest", "2", "--attention", "--json"],
        ["predict", gone, "--input", bad, "--sample", "--temperature", "0.5", "--", "-x"],
        ["score", gone, bad, "--json"],
        ["chat", gone, "--transcript", "t.jsonl", "--no-store"],
        ["chat", "--no-store"],
        ["inspect", gone, "--preset", "chat", "--json", "--data.tokenizer", "word"],
        ["inspect", bad],
        ["export", gone, "--out", "z", "--quantize", "int8"],
        ["learn", gone, "--from", "none.db", "--out", "z", "--minutes", "1"],
        ["conversations", "list", "--store", "none.db", "--limit", "3", "--json"],
        ["serve", gone, "--port", "0", "--keep-days", "3", "--no-store"],
        ["--help"],
        ["--version"],
        ["train", "--help"],
    ]


def command(folder: Path) -> Callable[[bytes], None]:
    """The whole program on a line of arguments, with \\0 between them: exit code 0 or 2, and one line for a mistake."""
    from antiphon.faces import cli

    def refuse(*_: Any, **__: Any) -> None:
        raise AntiphonError("no server here")

    with contextlib.suppress(AntiphonError):  # not installed: then it cannot listen anyway
        from antiphon.faces import service

        service.serve = refuse
    (folder / "bad.tsv").write_text("one column\n", encoding="utf-8")

    def run(data: bytes) -> None:
        # what the system hands to a program: bytes without NUL, odd ones as lone surrogates
        words = [os.fsdecode(word) for word in data.split(b"\0")]
        out, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            code = cli.main(words)
        assert code in (0, 2), f"exit code {code}"
        text = told.getvalue()
        assert "Traceback" not in text
        if code == 2:
            assert text.rstrip("\n").rpartition("\n")[2].startswith("error: "), text

    return run


def knobs(folder: Path) -> Callable[[bytes], None]:
    """Two updates with the knobs of a JSON tree."""
    import antiphon

    def run(data: bytes) -> None:
        tree = json.loads(data)
        if not (folder.parent / "trained.tsv").exists():
            write_pairs(folder.parent / "trained.tsv")
        shutil.rmtree(folder / "knobs", ignore_errors=True)
        tree.setdefault("train", {}).update(max_updates=2, threads=1)
        antiphon.train(folder.parent / "trained.tsv", folder / "knobs", knobs=tree)

    return run


# What hypothesis writes.


def strategies(name: str, seeds: Sequence[bytes]) -> Any:
    """Bytes that are almost right for this target."""
    from hypothesis import strategies as st

    from antiphon.config import Config

    text = st.text(max_size=12)
    number = st.one_of(
        st.integers(-3, 300),
        st.sampled_from([2**31, 2**63, 2**64, 10**30, -(10**9)]),
        st.floats(allow_nan=name != "knobs"),
    )
    leaf = st.one_of(st.none(), st.booleans(), number, text, st.lists(number, max_size=3))
    tree = st.recursive(
        leaf,
        lambda deeper: st.one_of(st.lists(deeper, max_size=4), st.dictionaries(text, deeper, max_size=4)),
        max_leaves=12,
    )
    encoded = tree.map(lambda value: json.dumps(value).encode())
    if name in ("config", "knobs"):
        groups = {group: type(getattr(Config(), group)) for group in Config.model_fields}
        held = st.fixed_dictionaries(
            {
                group: st.sets(st.sampled_from(sorted(kind.model_fields)), max_size=3).flatmap(
                    lambda names, kind=kind: st.fixed_dictionaries(
                        {n: _value(n, kind.model_fields[n], leaf) for n in names}
                    )
                )
                for group, kind in groups.items()
            }
        )
        small = {"embedding": 4, "hidden": 4, "encoder_hidden": 4, "encoder_layers": 1, "decoder_layers": 1}

        def whole(found: dict[str, dict[str, Any]]) -> bytes:
            if name == "knobs":
                found["model"] = {**small, **found["model"]}
            return json.dumps({"antiphon": "0.1.0", **found} if name == "config" else found).encode()

        return held.map(whole)
    if name in ("tokenizer", "log", "corpus"):
        lines = [
            json.loads(line)
            for seed in seeds
            for line in ([seed] if name == "tokenizer" else seed.splitlines())
            if line[:1] == b"{"
        ]
        keys = sorted({key for line in lines for key in line})

        def changed(line: dict[str, Any], key: str, value: Any) -> bytes:
            return json.dumps({**line, key: value}).encode()

        one = st.builds(changed, st.sampled_from(lines), st.sampled_from(keys), tree) if lines else encoded
        return st.lists(one, min_size=1, max_size=4).map(b"\n".join) if name == "log" else one
    if name == "jsonl":
        pair = st.dictionaries(st.sampled_from(["source", "target", "n"]), tree, max_size=3)
        return st.lists(pair.map(lambda value: json.dumps(value).encode()), max_size=5).map(b"\n".join)
    if name == "command":
        words = sorted({word for line in _lines() for word in line})
        values = st.one_of(
            st.sampled_from(words),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
            number.map(str),
        )
        return st.lists(values, min_size=1, max_size=9).map(lambda line: "\0".join(line).encode())
    return st.one_of(st.binary(max_size=200), encoded, st.text(max_size=100).map(str.encode))


def _value(name: str, knob: Any, odd: Any) -> Any:
    """What a knob may hold, most of the time."""
    from hypothesis import strategies as st

    words = _literals(knob.annotation)
    usual = st.sampled_from(words) if words else None
    if isinstance(knob.default, bool):
        usual = st.booleans()
    elif isinstance(knob.default, tuple):
        usual = st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(list)
    elif isinstance(knob.default, float):
        usual = st.one_of(st.floats(0, 0.99), st.sampled_from([1e-30, 1.0, 50.0, 1e30]))
    elif usual is None:  # a whole number, or nothing
        odd = st.one_of(odd, st.sampled_from([0, -1, 300, 1 << 16, (1 << 16) + 1, 1 << 22, 1 << 62]))
        usual = st.integers(1, 40)
    if name == "buckets":
        shape = st.lists(st.integers(1, 9), min_size=2, max_size=2)
        usual = st.one_of(st.integers(1, 64), st.lists(shape, min_size=1, max_size=3))
    return st.integers(0, 15).flatmap(lambda draw: usual if draw else odd)


def _literals(kind: Any) -> list[str]:
    held = get_args(kind)
    return [kind] if isinstance(kind, str) else [word for part in held for word in _literals(part)]


# Running.


class Findings:
    """What went wrong, once for each place in the program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.distinct: dict[str, dict[str, Any]] = {}
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def tried(self, target: Target, data: bytes) -> None:
        """One case."""
        begun = time.perf_counter()
        try:
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            target.run(data)
            outcome = "read"
        except AntiphonError as error:
            outcome = "refused"
            if not str(error):
                self._note(error, data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._note(error, data)
            outcome = "found"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.slowest = max(self.slowest, time.perf_counter() - begun)
        self.outcomes[outcome] += 1

    def _note(self, error: BaseException, data: bytes) -> None:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "fuzz.py" not in frame.filename]
        ours = (
            [frame for frame in frames if "antiphon" in frame.filename]
            or frames
            or traceback.extract_tb(error.__traceback__)
        )
        place = f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"
        if place not in self.distinct and len(self.distinct) < DISTINCT:
            self.distinct[place] = {"error": str(error)[:300], "case": repr(data[:300]), "times": 0}
        if place in self.distinct:
            self.distinct[place]["times"] += 1

    def report(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "cases": self.outcomes.total(),
            **self.outcomes,
            "slowest_ms": round(1000 * self.slowest),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "findings": self.distinct,
        }


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Time, memory and network limits; nothing comes from standard input."""

    def late(*_: Any) -> None:
        raise TooSlow(f"more than {SECONDS:g} s")

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network here")

    urllib.request.urlopen = offline
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGALRM, late)
    held = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    if held:
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    yield


def by_mutation(target: Target, cases: int, seed: int, findings: Findings) -> None:
    draw = random.Random(seed)
    for data in target.seeds:
        findings.tried(target, data)
    for _ in range(cases - len(target.seeds)):
        findings.tried(target, mutated(draw, target.seeds))


def by_hypothesis(name: str, target: Target, cases: int, seed: int, findings: Findings) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}

    @seeded(seed)
    @settings(max_examples=cases, **quiet)
    @given(strategies(name, target.seeds))
    def trial(data: bytes) -> None:
        findings.tried(target, data)

    trial()


def by_atheris(name: str, cases: int, seed: int) -> dict[str, Any]:
    """In a process of its own, which atheris ends when it likes."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--engine", "atheris", "--inside", report.name]
        done = subprocess.run(
            [*command, "--targets", name, "--cases", str(cases), "--seed", str(seed)],
            capture_output=True,
            text=True,
            check=False,
        )
        text = Path(report.name).read_text(encoding="utf-8")
        return json.loads(text) if text else {"skipped": done.stderr.strip()[-300:]}


def inside_atheris(name: str, cases: int, seed: int, report: str) -> None:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
        include=["antiphon.config", "antiphon.data", "antiphon.runtime", "antiphon.training.progress"]
    ):
        import antiphon.config
        import antiphon.data.corpora
        import antiphon.data.pairs
        import antiphon.data.store
        import antiphon.data.tokenizer
        import antiphon.runtime.folder
        import antiphon.training.progress  # noqa: F401
    with workplace() as folder:
        target, findings = targets(folder)[name], Findings(folder)
        corpus = folder.parent / "seeds"
        corpus.mkdir()
        for number, data in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(data)
        left = [cases]

        def one(data: bytes) -> None:
            findings.tried(target, data)
            left[0] -= 1
            if left[0] == 0:  # libFuzzer ends the process without a word
                Path(report).write_text(json.dumps(findings.report()), encoding="utf-8")
                shutil.rmtree(folder.parent, ignore_errors=True)
                os._exit(0)

        with bounded():
            resource.setrlimit(
                resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )  # its own needs much
            atheris.Setup([sys.argv[0], f"-seed={seed}", f"-max_len={LARGEST}", "-rss_limit_mb=4096", str(corpus)], one)
            atheris.Fuzz()


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder in memory, where there is one, and the present folder."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name) / "here"
        folder.mkdir()
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def main() -> None:
    """Parses, fuzzes, prints; exit code 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_200_000, help="shared out by what a target costs; else each")
    parser.add_argument("--engine", choices=("mutation", "hypothesis", "atheris"), default="mutation")
    parser.add_argument("--targets", default="", help="comma-separated [default: all]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = [name for name in asked.targets.split(",") if name]
    if asked.inside:
        inside_atheris(names[0], asked.cases, asked.seed, asked.inside)
    begun, found = time.monotonic(), dict[str, Any]()
    if asked.engine == "atheris":
        found = {name: by_atheris(name, asked.cases, asked.seed) for name in names}
    else:
        with workplace() as folder:
            held: Mapping[str, Target] = targets(folder)
            chosen = {name: target for name, target in held.items() if name in names or (not names and target.share)}
            shares = sum(target.share for target in chosen.values())
            with bounded():
                for name, target in chosen.items():
                    findings, started = Findings(folder), time.monotonic()
                    if asked.engine == "hypothesis":
                        by_hypothesis(name, target, asked.cases, asked.seed, findings)
                    else:
                        by_mutation(target, round(asked.cases * target.share / shares), asked.seed, findings)
                    found[name] = {**findings.report(), "seconds": round(time.monotonic() - started, 1)}
    total = sum(part.get("cases", 0) for part in found.values())
    wrong = sum(len(part.get("findings", ())) for part in found.values())
    head = {**machine.describe(), "engine": asked.engine, "cases": total, "findings": wrong}
    print(
        json.dumps({**head, "seconds": round(time.monotonic() - begun), "targets": found}, indent=2, ensure_ascii=False)
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
