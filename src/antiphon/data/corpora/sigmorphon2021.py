"""SIGMORPHON 2021, task 1: words and their phones in 21 languages, in the organisers' own parts."""

from __future__ import annotations

from antiphon.data.corpora.download import Download
from antiphon.data.corpora.recipe import Option, Options, Parts, Recipe
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair

_HIGH = ("eng_us",)
_MEDIUM = ("arm_e", "bul", "dut", "fre", "geo", "hbs_latn", "hun", "jpn_hira", "kor", "vie_hanoi")
_LOW = ("ady", "gre", "ice", "ita", "khm", "lav", "mlt_latn", "rum", "slv", "wel_sw")


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """Train and dev as they are, test where the archive brings it; nothing is random."""
    assert source is not None
    parts = Parts(skipped={"malformed lines": 0})
    language = options["language"]
    members = {
        "train": source.need(f"{language}_train.tsv"),
        "dev": source.need(f"{language}_dev.tsv"),
        "test": source.find(f"{language}_test.tsv"),
    }
    for name, member in members.items():
        if member is None:
            parts.note = "no test part: this archive has none"
            continue
        for line in source.lines(member):
            word, _, phones = line.partition("\t")
            if word.strip() and phones.strip():
                parts.named()[name].append(Pair(word.strip(), phones.strip()))
            else:
                parts.skipped["malformed lines"] += bool(line.strip())
    return parts


RECIPE = Recipe(
    name="sigmorphon2021",
    title="SIGMORPHON 2021 grapheme-to-phoneme",
    origin="https://github.com/sigmorphon/2021-task1",
    licence="CC BY-SA 3.0",
    citation="Ashby et al. 2021, Results of the Second SIGMORPHON Shared Task on Multilingual "
    "Grapheme-to-Phoneme Conversion, SIGMORPHON",
    read=read,
    downloads=lambda options: [
        Download("https://github.com/sigmorphon/2021-task1/archive/HEAD.zip", "2021-task1.zip"),
    ],
    options={"language": Option("eng_us", "the organisers' name of the language", _HIGH + _MEDIUM + _LOW)},
)
