"""Inflection in six languages, of forms that installed dictionaries know, and `auto`'s answers to it.

    python -m venv forms
    forms/bin/pip install german-nouns mlconjug3 pymorphy3 pymorphy3-dicts-ru pymorphy3-dicts-uk libqutrub
    forms/bin/pip install estnltk simplemma
    forms/bin/python -m benchmarks.inflection make --out data/forms --pairs 1000
    python -m benchmarks.inflection train data/forms --out runs/forms --train.threads 1

`make` needs those packages and nothing of Antiphon; `train` needs Antiphon and nothing of them, and trains on whatever
folders are in the one it is given: `antiphon data sigmorphon2023 --language tur --out data/2023/tur` makes one, too. A
task is a form asked for by features, `N;GEN;PL Haus` → `Häuser`; a lemma is in one part alone, so no form of a dev or
test lemma was seen. A lemma gives a third of its forms, five at most: many lemmas of few forms, as in the shared tasks
of SIGMORPHON.

| | forms of | from |
|---|---|---|
| ar | verbs, with vowel signs | libqutrub (rules) |
| de | nouns | german-nouns (Wiktionary) |
| et | nouns, with gradation | Vabamorf, through estnltk; lemmas of simplemma |
| fr | verbs | Verbiste, through mlconjug3 |
| ru, uk | nouns, adjectives, verbs | OpenCorpora and VESUM, through pymorphy3 |
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import random
import re
import statistics
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Forms = Iterator[tuple[str, str]]
"""(features, form) of one lemma."""
Lemmas = Iterator[tuple[str, Callable[[], Forms]]]
"""A lemma, and its forms once they are asked for."""
LANGUAGES = ("ar", "de", "et", "fr", "ru", "uk")
PARTS = {"dev": 1000, "test": 1000}
MOST = 5
"""Forms of a lemma."""


def _home(package: str) -> Path:
    """Where an installed package keeps its files; it is not run."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{package} is not installed: see python -m benchmarks.inflection --help")
    return Path(found.submodule_search_locations[0])


def german() -> Lemmas:
    """Nouns: four cases, two numbers."""
    cases = {"nominativ": "NOM", "genitiv": "GEN", "dativ": "DAT", "akkusativ": "ACC"}
    slots = [
        (f"N;{short};{few}", f"{case} {number}")
        for case, short in cases.items()
        for few, number in (("SG", "singular"), ("PL", "plural"))
    ]
    with (_home("german_nouns") / "nouns.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            lemma = row["lemma"]
            if row["pos"] == "Substantiv" and re.fullmatch(r"[A-ZÄÖÜ][a-zäöüß]{2,}", lemma):
                forms = [(tags, row[slot]) for tags, slot in slots if row.get(slot, "").isalpha()]
                yield lemma, lambda forms=forms: iter(forms)


def french() -> Lemmas:
    """Verbs: finite forms, participles."""
    home = _home("mlconjug3") / "data" / "conjug_manager"
    verbs = json.loads((home / "verbs-fr.json").read_text(encoding="utf-8"))
    endings = json.loads((home / "conjugation-fr.json").read_text(encoding="utf-8"))

    def forms(root: str, template: str) -> Forms:
        for mood, tenses in endings[template].items():
            for tense, persons in tenses.items():
                if not isinstance(persons, list):
                    continue
                for person, ending in persons:
                    if ending is not None:
                        yield f"V;{mood};{tense.replace(' ', '_')};{person}", root + ending

    for lemma, verb in verbs.items():
        if lemma.isalpha():
            yield lemma, lambda verb=verb: forms(verb["root"], verb["template"])


def slavic(language: str) -> Lemmas:
    """What the dictionary declines and conjugates."""
    import pymorphy3  # pyright: ignore[reportMissingImports]

    morphology: Any = pymorphy3.MorphAnalyzer(lang=language)
    names = {"Abbr", "Name", "Surn", "Patr", "Geox", "Orgn", "Trad", "Init"}
    variants = {"Fixd", "Arch", "Slng", "Erro", "Dist", "Infr", "V-be", "V-bi", "V-ej", "V-ey", "V-ie", "V-oy", "V-sh"}
    kinds = {"NOUN", "ADJF", "VERB"}

    def odd(tag: Any) -> bool:
        return not (names | variants).isdisjoint(re.split("[ ,]", str(tag)))

    def forms(parse: Any) -> Forms:
        for one in parse.lexeme:
            lasting, _, inflected = str(one.tag).partition(" ")
            kind = lasting.split(",")[0]
            if inflected and kind in kinds and not odd(one.tag) and one.word != parse.word:
                yield ";".join([kind, *inflected.split(",")]), one.word

    for word, tag, normal, *_ in morphology.iter_known_word_parses():
        if word == normal and str(tag)[:4] in kinds | {"INFN"} and len(word) > 2 and word.isalpha():
            parse = morphology.parse(word)[0]
            if parse.normal_form == word and not odd(parse.tag):
                yield word, lambda parse=parse: forms(parse)


def estonian() -> Lemmas:
    """Nouns and adjectives: fourteen cases, two numbers; the first of several forms."""
    from estnltk.vabamorf.morf import synthesize  # pyright: ignore[reportMissingImports]
    from simplemma.strategies.dictionaries.dictionary_factory import (  # pyright: ignore[reportMissingImports]
        DefaultDictionaryFactory,
    )

    cases = {"n": "NOM", "g": "GEN", "p": "PRT", "ill": "ILL", "in": "INE", "el": "ELA", "all": "ALL", "ad": "ADE"}
    cases |= {"abl": "ABL", "tr": "TRA", "ter": "TER", "es": "ESS", "ab": "ABE", "kom": "COM"}

    def forms(lemma: str) -> Forms:
        for number in ("sg", "pl"):
            for case, features in cases.items():
                found = synthesize(lemma, f"{number} {case}", partofspeech="S")
                if found:
                    yield f"N;{features};{number.upper()}", found[0]

    known = DefaultDictionaryFactory().get_dictionary("et").values()
    for lemma in sorted({one.decode() if isinstance(one, bytes) else one for one in known}):
        if re.fullmatch("[a-zäöüõšž]{3,}", lemma) and lemma[-2:] not in ("ma", "da"):
            yield lemma, lambda lemma=lemma: forms(lemma)


def arabic() -> Lemmas:
    """Verbs of three letters: persons, tenses and moods, active and passive."""
    import libqutrub.conjugator  # pyright: ignore[reportMissingImports]
    import libqutrub.triverbtable  # pyright: ignore[reportMissingImports]

    def forms(verb: dict[str, str]) -> Forms:
        page = libqutrub.conjugator.conjugate(verb["verb"], verb["haraka"], True, True, True, True, True, True, True)
        for table in re.findall("<table.*?</table>", page, re.DOTALL):
            rows = [
                re.findall(r"<t[hd][^>]*>(?:&nbsp)?(.*?)</t[hd]>", row) for row in re.findall("<tr>.*?</tr>", table)
            ]
            for person, *cells in rows[1:]:
                for tense, cell in zip(rows[0][1:], cells, strict=True):
                    if cell.strip():
                        yield f"V;{tense.strip().replace(' ', '_')};{person.replace(' ', '_')}", cell.strip()

    for verb in libqutrub.triverbtable.TriVerbTable.values():
        yield verb["verb"], lambda verb=verb: forms(verb)


def make(out: Path, languages: list[str], pairs: int, seed: int) -> None:
    """A folder a language, with three parts."""
    readers: dict[str, Callable[[], Lemmas]] = {
        "ar": arabic,
        "de": german,
        "et": estonian,
        "fr": french,
        "ru": lambda: slavic("ru"),
        "uk": lambda: slavic("uk"),
    }
    for language in languages:
        rng = random.Random(seed)
        lemmas: dict[str, Callable[[], Forms]] = {}
        for lemma, forms in readers[language]():
            lemmas.setdefault(lemma, forms)
        order = sorted(lemmas)
        rng.shuffle(order)
        folder = out / language
        folder.mkdir(parents=True, exist_ok=True)
        rest = iter(order)
        for part, wanted in {**PARTS, "train": pairs}.items():
            rows: list[str] = []
            for lemma in rest:
                found = sorted(set(lemmas[lemma]()))
                for tags, form in rng.sample(found, min(MOST, -(-len(found) // 3))):
                    rows.append(unicodedata.normalize("NFC", f"{tags} {lemma}\t{form}"))
                if len(rows) >= wanted:
                    break
            rng.shuffle(rows)
            (folder / f"{part}.tsv").write_text("".join(f"{row}\n" for row in rows[:wanted]), encoding="utf-8")
            print(f"{language} {part}: {min(len(rows), wanted):,}", flush=True)


def train(data: Path, out: Path, languages: list[str], flags: list[str]) -> None:
    """Each language as a user would, its dev and test forms scored."""
    from benchmarks import machine  # which needs Antiphon, as `make` does not

    print(json.dumps(machine.describe()))
    print(f"{'':10}{'seconds':>9}{'dev':>8}{'test':>8}   right, percent")
    scores: dict[str, list[float]] = {"dev": [], "test": []}
    for language in languages:
        run, program = out / language, [sys.executable, "-m", "antiphon"]
        begun = time.monotonic()
        command = [*program, "train", str(data / language), "--out", str(run), *flags]
        machine.ran(command)
        seconds = time.monotonic() - begun
        for part, found in scores.items():
            command = [*program, "evaluate", str(run), str(data / language), "--split", part, "--metrics", "accuracy"]
            answer = subprocess.run([*command, "--json", "-"], check=True, capture_output=True, text=True).stdout
            found.append(json.loads(answer)["accuracy"])
        print(f"{language:10}{seconds:>9.0f}{scores['dev'][-1]:>8.1f}{scores['test'][-1]:>8.1f}", flush=True)
    print(f"{'mean':10}{'':>9}{statistics.mean(scores['dev']):>8.1f}{statistics.mean(scores['test']):>8.1f}")


def main() -> None:
    """Parses, makes or trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, training = commands.add_parser("make"), commands.add_parser("train")
    training.add_argument("data", type=Path)
    for command in (making, training):
        command.add_argument("--out", type=Path, required=True)
    making.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    training.add_argument("--languages", nargs="+", help="folders in DATA; all of them by default")
    making.add_argument("--pairs", type=int, default=1000)
    making.add_argument("--seed", type=int, default=1)
    asked, flags = parser.parse_known_args()
    if asked.command == "train":
        found = sorted(folder.name for folder in asked.data.iterdir() if folder.is_dir())
        train(asked.data, asked.out, asked.languages or found, flags)
    elif flags:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    else:
        make(asked.out, asked.languages, asked.pairs, asked.seed)


if __name__ == "__main__":
    main()
