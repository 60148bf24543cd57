"""The Self-dialogue Corpus: conversations of which one person wrote both sides.

Read from the authors' repository (``corpus/TOPIC/*.csv`` as Mechanical Turk gave them, ``blocked_workers.txt``),
from what its ``get_data.py`` writes (a ``.txt`` for each dialogue, a turn a line), or from a table with
``topic TAB turn TAB turn …`` a line.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import CONTEXT, Options, Parts, Recipe, part_of
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import adjacent_pairs, one_line
from antiphon.errors import DataError

_SENTENCE = re.compile(r"Answer\.sentence(\d+)")
_NOT_DIALOGUES = ("blocked_workers.txt", "requirements.txt")


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """Adjacent turns, 90 / 5 / 5 % of the dialogues; a dialogue that occurs twice stays in one part."""
    assert source is not None
    skipped: Counter[str] = Counter()
    parts = Parts(skipped=skipped)
    named = parts.named()
    dialogues = 0
    for turns in _dialogues(source, skipped):
        # The repository holds "{}" for a sentence that was never written.
        said = [" ".join(turn.split()) for turn in turns if turn.strip() not in ("", "{}")]
        skipped["empty turns"] += len(turns) - len(said)
        if len(said) < 2:
            skipped["dialogues of fewer than two turns"] += 1
            continue
        dialogues += 1
        named[part_of("\t".join(said), seed, dev=0.05, test=0.05)] += adjacent_pairs(said, int(options["context"]))
    parts.counts = {"dialogues": dialogues}
    return parts


def _dialogues(source: Source, skipped: Counter[str]) -> Iterator[list[str]]:
    tables = source.names(".csv")
    texts = [name for name in source.names(".txt") if PurePosixPath(name).name not in _NOT_DIALOGUES]
    if tables:
        yield from _from_turk(source, tables, skipped)
    elif texts:
        for name in texts:
            yield source.lines(name)
    else:
        for name in source.names(".tsv", ".tsv.gz"):
            for line in source.lines(name):
                if line.strip():
                    yield line.split("\t")[1:]


def _from_turk(source: Source, tables: list[str], skipped: Counter[str]) -> Iterator[list[str]]:
    blocked_list = source.find("blocked_workers.txt")
    blocked = set(source.lines(blocked_list)) if blocked_list else set()
    seen = set()
    for name in tables:
        for row in _rows(source, name):
            if row.get("Reject"):
                skipped["rejected dialogues"] += 1
            elif row.get("WorkerId") in blocked:
                skipped["dialogues of blocked workers"] += 1
            elif row.get("AssignmentId") in seen:
                skipped["dialogues seen before"] += 1
            else:
                seen.add(row.get("AssignmentId"))
                yield _sentences(row)


def _rows(source: Source, name: str) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(f"{line}\n" for line in source.lines(name))  # a field may have several
    except csv.Error as error:
        cure = "get it again from its authors"
        raise DataError(f"{name} is no table ({error})", where=str(source.path), cure=cure) from None


def _sentences(row: dict[str, str]) -> list[str]:
    numbered = {int(match[1]): row[key] or "" for key in row if key and (match := _SENTENCE.fullmatch(key))}
    return [one_line(numbered[number]) for number in sorted(numbered)]


RECIPE = Recipe(
    name="self-dialogue",
    title="the Self-dialogue Corpus",
    origin="https://github.com/jfainberg/self_dialogue_corpus",
    licence="BSD 3-Clause",
    citation="Krause et al. 2017, Edina: Building an Open Domain Socialbot with Self-dialogues, arXiv 1709.09816",
    read=read,
    downloads=lambda options: [
        Download("https://github.com/jfainberg/self_dialogue_corpus/archive/HEAD.zip", "self_dialogue_corpus.zip")
    ],
    options={"context": CONTEXT},
)
