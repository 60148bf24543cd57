"""Amounts as each language writes them, asked for by features: ``long;hour;pl 5`` → ``5 godzin``.

Generated from the Unicode CLDR (through Babel): decimals, percentages, money, and measures, whose nouns are inflected
for the number. An inflection task whose data anyone can make: what must be learnt are each language's plural forms,
separators, digits and places of signs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, cast

from antiphon.data.corpora.recipe import Option, Options, Parts, Recipe, part_of
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair
from antiphon.errors import MissingExtraError, UsageError

LOCALES = (
    *("ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko", "lt", "nl"),
    *("pl", "pt", "ro", "ru", "sl", "sv", "tr", "uk", "zh"),
)
CURRENCIES = ("EUR", "USD", "JPY", "GBP", "CHF", "PLN")
UNITS = ("day", "hour", "week", "year", "kilometer", "kilogram", "liter", "meter")
_CLDR = {
    "kilometer": "length-kilometer",
    "meter": "length-meter",
    "kilogram": "mass-kilogram",
    "liter": "volume-liter",
}
_MOST = {"train": 500_000, "dev": 20_000, "test": 20_000}
_MARKS = {0x200E: None, 0x200F: None, 0x061C: None, 0x00A0: " ", 0x202F: " "}
"""Reading direction, and spaces nobody types."""


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """Amounts; what is asked belongs to one part, a number may be asked for in another form or language elsewhere."""
    assert source is None
    sizes = {name: int(options[name]) for name in ("train", "dev", "test")}
    for name, most in _MOST.items():
        if sizes[name] > most:
            raise UsageError(
                f"{sizes[name]:,} amounts are too many", where=f"--{name}", cure=f"ask for at most {most:,}"
            )
    write, version = _writer()
    rng = random.Random(seed)
    made: dict[str, dict[str, str]] = {name: {} for name in sizes}
    twice = nameless = 0
    while any(len(made[name]) < size for name, size in sizes.items()):
        features, number = _drawn(rng)
        asked = f"{';'.join(features)} {number}"
        name = part_of(asked, seed, dev=0.1, test=0.1)
        if len(made[name]) >= sizes[name]:
            continue
        twice += asked in made[name]
        written = write(features, Decimal(number))
        if written is None:
            nameless += 1
            continue
        made[name][asked] = written
    parts = Parts(skipped={"made twice": twice, "no word for that unit": nameless})
    for name, pairs in parts.named().items():
        pairs.extend(Pair(asked, written) for asked, written in made[name].items())
    parts.counts = {"locales": len(LOCALES)}
    parts.note = f"generated with Babel {version}; numbers of 1 to 6 digits, small ones as often as large ones"
    return parts


def _drawn(rng: random.Random) -> tuple[tuple[str, ...], str]:
    """Features and a number, small ones as likely as large ones."""
    digits = rng.randint(1, 6)
    number = str(rng.randrange(10 ** (digits - 1), 10**digits))
    locale, kind = rng.choice(LOCALES), rng.choice(("decimal", "percent", "money", "long", "short"))
    if kind in ("decimal", "money") and rng.random() < 0.5:
        number += f".{rng.randint(1, 99):02}"
    if kind == "money":
        return (kind, rng.choice(CURRENCIES), locale), number
    if kind in ("long", "short"):
        return (kind, rng.choice(UNITS), locale), number
    return (kind, locale), number


def _writer() -> tuple[Callable[[tuple[str, ...], Decimal], str | None], str]:
    """What writes an amount, or gives None where Babel has no word for its unit; and Babel's version."""
    try:
        from babel import __version__, numbers, units
    except ImportError:
        raise MissingExtraError("the amounts recipe", "train") from None

    def write(features: tuple[str, ...], number: Decimal) -> str | None:
        kind, *what, locale = features
        unit = _CLDR.get(what[0], f"duration-{what[0]}") if kind in ("long", "short") else ""
        ways: dict[str, Callable[[], str]] = {
            "decimal": partial(numbers.format_decimal, number, locale=locale),
            "percent": partial(numbers.format_percent, number / 100, locale=locale),
            "money": lambda: numbers.format_currency(number, what[0], locale=locale),
        }
        text = units.format_unit(number, unit, locale=locale, length=cast(Any, kind)) if unit else ways[kind]()
        # Where it has no pattern, Babel writes the unit's name in the CLDR, as in "5 duration-week".
        return None if unit and unit in text else " ".join(text.translate(_MARKS).split())

    return write, __version__


RECIPE = Recipe(
    name="amounts",
    title="amounts written out",
    origin="https://cldr.unicode.org",
    licence="generated from the Unicode CLDR (Unicode License v3)",
    citation="Unicode Common Locale Data Repository, through Babel (https://babel.pocoo.org)",
    read=read,
    options={
        "train": Option(40_000, "training pairs"),
        "dev": Option(1_000, "dev pairs"),
        "test": Option(2_000, "test pairs"),
    },
)
