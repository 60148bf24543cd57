"""Cornell Movie-Dialogs: conversations from film scripts.

``movie_lines.txt`` holds utterances, ``movie_conversations.txt`` the order in which they follow each other;
cp1252, fields parted by `` +++$+++ ``. Parts are made of whole movies: characters, plots and running jokes would
otherwise be known from training.
"""

from __future__ import annotations

import html
import re
from collections import Counter

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import CONTEXT, Options, Parts, Recipe, part_of
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import adjacent_pairs

_SEPARATOR = " +++$+++ "
_MARKUP = re.compile(r"</?[bui]>", re.IGNORECASE)  # emphasis left over from the web pages of the scripts
_LINE_ID = re.compile(r"L\d+")


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """Adjacent utterances of each conversation, 90 / 5 / 5 % of the movies."""
    assert source is not None
    skipped: Counter[str] = Counter()
    utterances = _utterances(source, skipped)
    parts = Parts(skipped=skipped)
    named = parts.named()
    movies = set()
    for line in source.lines(source.need("movie_conversations.txt"), "cp1252", "replace"):
        fields = line.split(_SEPARATOR)
        if len(fields) != 4:
            skipped["malformed conversations"] += bool(line.strip())
            continue
        movie = fields[2].strip()
        movies.add(movie)
        pairs = named[part_of(movie, seed, dev=0.05, test=0.05)]
        for turns in _stretches(_LINE_ID.findall(fields[3]), utterances, skipped):
            pairs += adjacent_pairs(turns, int(options["context"]))
    parts.counts = {"movies": len(movies), "utterances": len(utterances)}
    return parts


def _utterances(source: Source, skipped: Counter[str]) -> dict[str, str]:
    found = {}
    for line in source.lines(source.need("movie_lines.txt"), "cp1252", "replace"):
        fields = line.split(_SEPARATOR, 4)
        if len(fields) == 4 and line.rstrip().endswith(_SEPARATOR.rstrip()):
            fields.append("")  # an utterance without words has lost the separator's last space
        if len(fields) != 5:
            skipped["malformed lines"] += bool(line.strip())
            continue
        found[fields[0].strip()] = " ".join(html.unescape(_MARKUP.sub("", fields[4])).split())
    return found


def _stretches(ids: list[str], utterances: dict[str, str], skipped: Counter[str]) -> list[list[str]]:
    """The turns of a conversation, cut in two wherever one is missing: its neighbours do not answer each other."""
    stretches: list[list[str]] = [[]]
    for line_id in ids:
        text = utterances.get(line_id)
        if text:
            stretches[-1].append(text)
        else:
            skipped["utterances without words" if text == "" else "utterances not in movie_lines.txt"] += 1
            stretches.append([])
    return stretches


RECIPE = Recipe(
    name="cornell",
    title="the Cornell Movie-Dialogs Corpus",
    origin="https://www.cs.cornell.edu/~cristian/Cornell_Movie-Dialogs_Corpus.html",
    licence="none stated; made for research",
    citation="Danescu-Niculescu-Mizil and Lee 2011, Chameleons in imagined conversations, CMCL",
    read=read,
    downloads=lambda options: [
        Download("https://www.cs.cornell.edu/~cristian/data/cornell_movie_dialogs_corpus.zip", "cornell.zip")
    ],
    options={"context": CONTEXT},
)
