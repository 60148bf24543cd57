"""SIGMORPHON-UniMorph 2023, task 0: forms asked for by features in 26 languages, in the organisers' own parts.

A line of theirs is ``lemma TAB features TAB form``. No lemma is in two parts. Hebrew is there with and without vowel
signs.
"""

from __future__ import annotations

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import Option, Options, Parts, Recipe
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair

_LANGUAGES = (
    *("afb", "amh", "arz", "bel", "dan", "deu", "eng", "fin", "fra", "grc", "heb", "heb_unvoc", "hun", "hye"),
    *("ita", "jap", "kat", "klr", "mkd", "nav", "rus", "san", "sme", "spa", "sqi", "swa", "tur"),
)
_ENDINGS = {"train": "trn", "dev": "dev", "test": "tst"}


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """All parts as they are; nothing is random."""
    assert source is not None
    parts = Parts(skipped={"malformed lines": 0})
    base_forms = options["task"] == "lemmatise"
    for name, ending in _ENDINGS.items():
        for line in source.lines(source.need(f"{options['language']}.{ending}")):
            cells = [cell.strip() for cell in line.split("\t")]
            if len(cells) != 3 or not all(cells):
                parts.skipped["malformed lines"] += bool(line.strip())
                continue
            lemma, features, form = cells
            asked, answer = (form, lemma) if base_forms else (lemma, form)
            parts.named()[name].append(Pair(f"{features} {asked}", answer))
    return parts


RECIPE = Recipe(
    name="sigmorphon2023",
    title="SIGMORPHON 2023 inflection",
    origin="https://github.com/sigmorphon/2023InflectionST",
    licence="not stated; from UniMorph, CC BY-SA 3.0",
    citation="Goldman et al. 2023, SIGMORPHON-UniMorph 2023 Shared Task 0: Typologically Diverse Morphological "
    "Inflection, SIGMORPHON",
    read=read,
    downloads=lambda options: [
        Download("https://github.com/sigmorphon/2023InflectionST/archive/HEAD.zip", "2023InflectionST.zip"),
    ],
    options={
        "language": Option("deu", "the organisers' name of the language", _LANGUAGES),
        "task": Option("inflect", "forms of base forms, or base forms of forms", ("inflect", "lemmatise")),
    },
)
