"""Dates as people write them in 23 languages, and what ISO 8601 makes of them: ``3 de mayo de 1979`` → ``1979-05-03``.

Generated from the Unicode CLDR's patterns and names (through Babel), and from a few patterns people use that are
not in there. What text alone does not decide is left out: years of two digits, and ``03/04/2020``, which is March
to some and April to others. Dots, as in ``3.4.2020``, mean day first wherever they are written.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from antiphon.data.corpora.recipe import Option, Options, Parts, Recipe, part_of
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import Pair
from antiphon.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from babel import Locale

_MOST = {"train": 1_000_000, "dev": 20_000, "test": 20_000}  # well below the number of texts there are
FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)

_ANYWHERE = ("y-MM-dd", "y/MM/dd", "y.MM.dd")
_DAY_FIRST = ("dd.MM.y", "d.M.y")

# By locale, what CLDR lacks; # is the ordinal day. The letters are those of CLDR: d M y E, text in quotes.
_PATTERNS: dict[str, tuple[str, ...]] = {
    "en_US": ("MMMM d y", "MMM d y", "MMMM #, y", "EEEE, MMMM #, y", *_ANYWHERE),
    "en_GB": ("d MMMM, y", "# MMMM y", "EEEE # MMMM y", "'the' # 'of' MMMM y"),
    "ar": ("d MMMM، y",),
    "cs": ("d. MMM y", *_DAY_FIRST),
    "da": ("d. MMMM, y", "'den' d. MMMM y"),
    "de": ("dd. MMMM y", "'den' d. MMMM y", "EEEE, 'den' d. MMMM y", *_DAY_FIRST),
    "el": ("EEEE, d MMMM y",),
    "es": ("d MMMM y", "'el' d 'de' MMMM 'de' y", "EEEE d 'de' MMMM 'de' y", "d 'de' MMM 'de' y"),
    "fi": ("EEEE d.M.y", "d. MMM y"),
    "fr": ("# MMMM y", "'le' # MMMM y", "EEEE # MMMM y", "'le' EEEE # MMMM y"),
    "he": ("d MMMM y",),
    "hi": ("d MMMM, y", "MMMM d, y"),
    "id": ("'tanggal' d MMMM y",),
    "it": ("# MMMM y", "'il' d MMMM y"),
    "ja": ("y年MM月dd日", "y年M月d日(E)"),
    "ko": ("y년 M월 d일", "y년M월d일"),
    "nl": ("d MMMM, y", "EEEE, d MMMM y"),
    "pl": ("d MMMM y 'r.'", "d MMMM y 'roku'", *_DAY_FIRST),
    "pt": ("# 'de' MMMM 'de' y", "d MMMM y", "EEEE, # 'de' MMMM 'de' y"),
    "ru": ("d MMMM y", "d MMMM y 'года'", "EEEE, d MMMM y", *_DAY_FIRST),
    "sv": ("'den' d MMMM y", *_ANYWHERE),
    "tr": ("d MMMM y, EEEE", "dd.MM.y"),
    "uk": ("d MMMM y", "d MMMM y 'року'"),
    "zh": ("y年MM月dd日", "y年M月d日 EEEE"),
}
LOCALES = tuple(_PATTERNS)


def _english(day: int) -> str:
    return f"{day}{'th' if day in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


# French, Italian and Portuguese count only the first of a month.
_ORDINALS: dict[str, Callable[[int], str]] = {
    "en": _english,
    "fr": lambda day: "1er" if day == 1 else str(day),
    "it": lambda day: "1º" if day == 1 else str(day),
    "pt": lambda day: "1º" if day == 1 else str(day),
}

_YEAR_OF_TWO = re.compile(r"(?<!y)yy(?!y)")
_QUOTED = re.compile(r"'[^']*'")
_NAMED_MONTH = re.compile(r"MMM|LLL")
_WEEKDAY = re.compile(r"E|ccc")
_MARKS = {0x200E: None, 0x200F: None, 0x00A0: " ", 0x202F: " "}  # reading direction; spaces nobody types
_PUNCTUATION = {ord(mark): None for mark in ",.،"}


class Format(NamedTuple):
    """A way to write dates: a locale and one of its patterns."""

    locale: str
    pattern: str


class Written(NamedTuple):
    """One written date."""

    text: str
    day: date
    format: Format


def read(source: Source | None, options: Options, seed: int) -> Parts:
    """Written dates. A day belongs to one part, in whatever form; a text that could mean two days is dropped."""
    assert source is None
    writer = Writer()
    sizes = {name: int(options[name]) for name in ("train", "dev", "test")}
    for name, most in _MOST.items():
        if sizes[name] > most:
            raise UsageError(f"{sizes[name]:,} dates are too many", where=f"--{name}", cure=f"ask for at most {most:,}")
    rng = random.Random(seed)
    days = _days_by_part(seed)
    made: dict[str, dict[str, date]] = {name: {} for name in sizes}
    skipped: Counter[str] = Counter()
    ambiguous: set[str] = set()
    while short := [name for name in sizes if len(made[name]) < sizes[name]]:
        for name in short:
            text, day, _ = writer.write(rng.choice(days[name]), rng)
            other = next((held for held in made.values() if held.get(text, day) != day), None)
            if other is not None:
                del other[text]
                ambiguous.add(text)
            if text in ambiguous:
                skipped["texts that could mean two days"] += 1
            elif text in made[name]:
                skipped["texts made twice"] += 1
            else:
                made[name][text] = day
    parts = Parts(skipped=dict(skipped))
    for name, pairs in parts.named().items():
        pairs.extend(Pair(text, day.isoformat()) for text, day in made[name].items())
    parts.counts = {"locales": len(LOCALES), "formats": len(writer.formats)}
    parts.note = f"generated with Babel {writer.version}; a day is in one part only, whatever the format; 1900 to 2099"
    return parts


class Writer:
    """Writes a day in a language and a form drawn at random.

    Raises:
        MissingExtraError: Babel is not installed.
    """

    def __init__(self) -> None:
        try:
            from babel import Locale, __version__, dates
        except ImportError:
            raise MissingExtraError("the dates recipe", "train") from None
        self.version: str = __version__
        self._format_date: Callable[..., str] = dates.format_date
        self._locales = {name: Locale.parse(name) for name in LOCALES}
        self._patterns = {name: _patterns(locale, name) for name, locale in self._locales.items()}

    @property
    def formats(self) -> list[Format]:
        """All there are."""
        return [Format(name, pattern) for name, patterns in self._patterns.items() for pattern in patterns]

    def write(self, day: date, rng: random.Random) -> Written:
        """In a language, then in one of its forms, each as likely as the other; one in seven as typed in a hurry."""
        name = rng.choice(LOCALES)
        form = Format(name, rng.choice(self._patterns[name]))
        text = self.render(day, form)
        if rng.random() < 1 / 7:
            text = text.lower()
        if rng.random() < 1 / 7 and _NAMED_MONTH.search(form.pattern):
            text = text.translate(_PUNCTUATION)
        return Written(text, day, form)

    def render(self, day: date, form: Format) -> str:
        """The day as `form` writes it, with plain spaces."""
        text = self._format_date(day, form.pattern, self._locales[form.locale]).translate(_MARKS)
        if "#" in text:
            text = text.replace("#", _ORDINALS[form.locale[:2]](day.day))
        return text


def _patterns(locale: Locale, name: str) -> list[str]:
    skeletons: Any = locale.datetime_skeletons
    from_cldr = [locale.date_formats[width].pattern for width in ("full", "long", "medium", "short")]
    from_cldr += [skeletons[key].pattern for key in ("yMMMd", "yMMMMd", "yMMMEd", "yMMMMEEEEd") if key in skeletons]
    return [pattern for pattern in dict.fromkeys([*from_cldr, *_PATTERNS[name]]) if is_decided(pattern)]


def is_decided(pattern: str) -> bool:
    """Whether a text of this pattern means one day: a year in full, and no doubt which number is the month."""
    bare = _QUOTED.sub("", pattern)
    if _YEAR_OF_TWO.search(bare):
        return False
    return bool(_NAMED_MONTH.search(bare) or _WEEKDAY.search(bare) or bare.startswith("y") or re.match(r"d+\.", bare))


def _days_by_part(seed: int) -> dict[str, list[date]]:
    days: dict[str, list[date]] = {"train": [], "dev": [], "test": []}
    for offset in range((LAST - FIRST).days + 1):
        day = FIRST + timedelta(days=offset)
        days[part_of(day.isoformat(), seed, dev=0.02, test=0.04)].append(day)
    return days


RECIPE = Recipe(
    name="dates",
    title="written dates",
    origin="https://cldr.unicode.org",
    licence="generated from the Unicode CLDR (Unicode License v3)",
    citation="Unicode Common Locale Data Repository, through Babel (https://babel.pocoo.org)",
    read=read,
    options={
        "train": Option(60_000, "training pairs"),
        "dev": Option(1_000, "dev pairs"),
        "test": Option(2_000, "test pairs"),
    },
)
