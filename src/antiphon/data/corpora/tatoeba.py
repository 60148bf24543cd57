"""Tatoeba's English and French sentences, as manythings.org hands them out: ``eng TAB fra TAB attribution``.

The file is sorted by length and gives a sentence once for each of its translations, so it is neither cut in
pieces nor split line by line: all translations of a source are in one part.
"""

from __future__ import annotations

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import Option, Options, Parts, Recipe, part_of
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """98 / 1 / 1 % of the distinct sources."""
    assert source is not None
    parts = Parts(skipped={"malformed lines": 0, "empty source or target": 0})
    named = parts.named()
    sources = set()
    for line in source.lines(source.need("fra.txt")):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2:
            parts.skipped["malformed lines"] += bool(line.strip())
            continue
        pair = Pair(*columns[:2]) if options["pair"] == "en-fr" else Pair(columns[1], columns[0])
        if not all(pair):
            parts.skipped["empty source or target"] += 1
            continue
        sources.add(pair.source)
        named[part_of(pair.source, seed, dev=0.01, test=0.01)].append(pair)
    parts.counts = {"distinct sources": len(sources)}
    return parts


RECIPE = Recipe(
    name="tatoeba",
    title="Tatoeba English-French",
    origin="https://www.manythings.org/anki/",
    licence="CC BY 2.0 FR; attribution: www.manythings.org/anki and tatoeba.org",
    citation="Tatoeba Project, https://tatoeba.org, selected by www.manythings.org/anki",
    read=read,
    downloads=lambda options: [Download("http://www.manythings.org/anki/fra-eng.zip", "fra-eng.zip")],
    options={"pair": Option("en-fr", "source-target", ("en-fr", "fr-en"))},
)
