"""The CMU Pronouncing Dictionary: English words and how they are said, in ARPAbet without stress.

Read from ``cmudict.dict`` or ``cmudict-0.7b`` (``WORD  P1 P2``, ``WORD(2)`` for a further pronunciation, ``;;;``
and ``#`` before remarks), or from a table with ``WORD TAB P1 P2`` a line.
"""

from __future__ import annotations

import re

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import Options, Parts, Recipe, draw
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair
from antiphon.errors import DataError

_DEV_WORDS = 2670  # as many as the split of Bisani & Ney 2008 and their followers holds out
_FURTHER = re.compile(r"\(\d+\)$")
_STRESS = re.compile(r"\d")


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """Lower-case words and their phones; all pronunciations of a word are in one part."""
    assert source is not None
    parts = Parts(skipped={"malformed lines": 0, "pronunciations that differ in stress only": 0})
    entries: dict[str, list[str]] = {}
    for line in _lines(source):
        line = line.partition(" #")[0].strip()
        if not line or line.startswith(";;;"):
            continue
        word, _, phones = (line if "\t" in line else line.replace(" ", "\t", 1)).partition("\t")
        word = _FURTHER.sub("", word.strip()).lower()
        phones = " ".join(_STRESS.sub("", phones).split())
        known = entries.setdefault(word, [])
        if not phones:
            parts.skipped["malformed lines"] += 1
        elif phones in known:
            parts.skipped["pronunciations that differ in stress only"] += 1
        else:
            known.append(phones)
    words = [word for word, spoken in entries.items() if spoken]
    held = set(sorted(words, key=lambda word: draw(word, seed))[: min(_DEV_WORDS, len(words) // 10)])
    for word in words:
        (parts.dev if word in held else parts.train).extend(Pair(word, phones) for phones in entries[word])
    parts.counts = {"words": len(words), "dev words": len(held)}
    parts.note = "no test part: the published one is a list of words kept by those who compare on it"
    return parts


def _lines(source: Source) -> list[str]:
    dictionary = source.find("cmudict.dict", "cmudict-0.7b", "cmudict-0.7b.txt")
    if dictionary is None:
        tables = source.names(".tsv", ".tsv.gz", ".dict", ".txt") if source.path.is_dir() else source.names("")
        if len(tables) != 1:
            cure = "give the dictionary itself: cmudict.dict, or a table WORD TAB phones"
            raise DataError(f"{len(tables)} files that might be the dictionary", where=str(source.path), cure=cure)
        dictionary = tables[0]
    # Version 0.7b has a few words in Latin-1.
    try:
        return source.lines(dictionary)
    except DataError:
        return source.lines(dictionary, "latin-1")


RECIPE = Recipe(
    name="cmudict",
    title="the CMU Pronouncing Dictionary",
    origin="https://github.com/cmusphinx/cmudict",
    licence="BSD-style (Carnegie Mellon University)",
    citation="Carnegie Mellon University, The CMU Pronouncing Dictionary, http://www.speech.cs.cmu.edu/cgi-bin/cmudict",
    read=read,
    downloads=lambda options: [
        Download("https://raw.githubusercontent.com/cmusphinx/cmudict/master/cmudict.dict", "cmudict.dict")
    ],
)
