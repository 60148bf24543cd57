"""Multi30k, task 1: captions of photographs and their translations, in the authors' own parts."""

from __future__ import annotations

from itertools import permutations

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import Option, Options, Parts, Recipe
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair
from antiphon.errors import DataError

_PARTS = {"train": "train", "dev": "val", "test": "test_2016_flickr"}
_RAW = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1"


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """The authors' train, val and test_2016_flickr; nothing is random."""
    assert source is not None
    parts = Parts()
    for name, file in _PARTS.items():
        sides = []
        for language in _languages(options):
            called = _called(file, language, options)
            sides.append(source.lines(source.need(called, called.removesuffix(".gz"))))
        if len(sides[0]) != len(sides[1]):
            what = f"{len(sides[0]):,} lines against {len(sides[1]):,} in {file}"
            raise DataError(what, where=str(source.path), cure="get it again from its authors")
        pairs = [Pair(one.strip(), other.strip()) for one, other in zip(*sides, strict=True)]
        whole = [pair for pair in pairs if all(pair)]
        parts.named()[name].extend(whole)
        parts.skipped["empty source or target"] = (
            parts.skipped.get("empty source or target", 0) + len(pairs) - len(whole)
        )
    return parts


def _languages(options: Options) -> list[str]:
    return str(options["pair"]).split("-")


def _called(file: str, language: str, options: Options) -> str:
    return f"{file}.lc.norm.tok.{language}" if options["form"] == "tok" else f"{file}.{language}.gz"


def _downloads(options: Options) -> list[Download]:
    names = [_called(file, language, options) for file in _PARTS.values() for language in _languages(options)]
    return [Download(f"{_RAW}/{options['form']}/{name}", name) for name in names]


RECIPE = Recipe(
    name="multi30k",
    title="Multi30k",
    origin="https://github.com/multi30k/dataset",
    licence="none stated for the text",
    citation="Elliott et al. 2016, Multi30K: Multilingual English-German Image Descriptions, VL",
    read=read,
    downloads=_downloads,
    options={
        "pair": Option(
            "en-de", "source-target", tuple("-".join(two) for two in permutations(("en", "de", "fr", "cs"), 2))
        ),
        "form": Option(
            "tok", "tok: lower-cased, normalised, tokenised by its authors; raw: as written", ("tok", "raw")
        ),
    },
)
