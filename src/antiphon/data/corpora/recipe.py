"""A recipe: how one corpus becomes train, dev and test, and what must be said about it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from antiphon.data.corpora.download import Download, cached
from antiphon.data.corpora.source import Source
from antiphon.data.pairs import CARD_FILE, Card, Pair, write_pairs
from antiphon.errors import DataError, FolderError, SaveError, UsageError

Options = Mapping[str, str | int]


@dataclass(frozen=True)
class Option:
    """A choice a recipe offers; its default tells its type."""

    default: str | int
    help: str
    choices: tuple[str, ...] = ()


@dataclass
class Parts:
    """What a recipe read."""

    train: list[Pair] = field(default_factory=list)
    dev: list[Pair] = field(default_factory=list)
    test: list[Pair] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """What was counted beside pairs: movies, words …"""
    skipped: dict[str, int] = field(default_factory=dict)
    """What was left out: reason and number."""
    note: str = ""

    def named(self) -> dict[str, list[Pair]]:
        """The three parts by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


@dataclass(frozen=True)
class Recipe:
    """One corpus: whose it is, on what terms, and how to read it."""

    name: str
    title: str
    origin: str
    """Address of the authors."""
    licence: str
    citation: str
    read: Callable[[Source | None, Options, int], Parts]
    """(source, options, seed) → parts; source is None where text is generated."""
    downloads: Callable[[Options], Sequence[Download]] | None = None
    """Files to fetch when no source is given; None: text is generated."""
    options: Mapping[str, Option] = field(default_factory=dict)

    def prepare(self, source: Path | None, *, out: Path, options: Options, seed: int = 1) -> Card:
        """Read the corpus and write train.tsv, dev.tsv, test.tsv (those that have pairs) and data.json.

        Args:
            source: the authors' archive, or a folder with what is in it; None: download it once, or generate.
            out: the folder to write; made whole or not at all. One this recipe wrote before is replaced.
            options: by name; what is not given has its default.
            seed: decides the split, and what is generated.

        Raises:
            UsageError: unknown option, a value that cannot be, a source where text is generated.
            DataError: the source is missing or is not this corpus, or it could not be fetched.
            FolderError: `out` holds other things.
            SaveError: writing failed.
        """
        chosen = self._choose(options)
        if source is not None and self.downloads is None:
            raise UsageError(f"{self.name} is generated and reads no file", where="--from", cure="leave out --from")
        refuse_foreign(out, self.name)
        opened = self._open(source, chosen)
        parts = self.read(opened, chosen, seed)
        if not parts.train:
            if self.downloads is None:
                raise DataError(
                    f"no training pairs of {self.title} were asked for", where="--train", cure="ask for some"
                )
            where = str(source or self.origin)
            raise DataError(f"no training pairs of {self.title} found", where=where, cure="is this the right archive?")
        card = Card(
            name=self.name,
            origin=self.origin,
            licence=self.licence,
            citation=self.citation,
            context=int(chosen.get("context", 0)),
            counts={name: len(pairs) for name, pairs in parts.named().items()} | parts.counts,
            skipped={reason: number for reason, number in parts.skipped.items() if number},
            seed=seed,
            options=dict(chosen),
            note=parts.note,
            sha256=opened.sha256() if opened is not None else "",
        )
        write_folder(out, parts, card)
        return card

    def _open(self, source: Path | None, options: Options) -> Source | None:
        if self.downloads is None:
            return None
        if source is not None:
            return Source(source)
        return Source(cached(self.name, self.downloads(options)), fetched=True)

    def _choose(self, given: Options) -> dict[str, str | int]:
        chosen = {name: option.default for name, option in self.options.items()}
        for key, value in given.items():
            name = key.replace("-", "_")
            if name not in self.options:
                cure = nearest(name, self.options) if self.options else "it has none"
                raise UsageError(f'{self.name} has no option "{key}"', where="antiphon data", cure=cure)
            chosen[name] = _checked(name, self.options[name], value)
        return chosen


CONTEXT = Option(0, "earlier turns joined in front of every source")


def nearest(name: str, known: Iterable[str]) -> str:
    """The cure for a misspelt name: the one that was meant, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names)}"


def draw(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `key` and `seed`: where a movie or a word belongs."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def part_of(key: str, seed: int, *, dev: float, test: float) -> str:
    """The part `key` belongs to, where dev and test have these shares."""
    place = draw(key, seed)
    return "test" if place < test else "dev" if place < test + dev else "train"


def refuse_foreign(out: Path, name: str) -> None:
    """Raise FolderError unless `out` is new, empty, or was written by the recipe `name`."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FolderError("a file stands where a folder is to be written", where=str(out), cure="choose another --out")
    held = sorted(entry.name for entry in out.iterdir())
    foreign = [entry for entry in held if entry not in _OWN]
    if foreign:
        raise FolderError(f"the folder holds other things ({foreign[0]})", where=str(out), cure="choose another --out")
    card = Card.load(out)
    if held and (card is None or card.name != name):
        owner = f"the corpus {card.name}" if card else "pairs that are not from this recipe"
        raise FolderError(f"the folder holds {owner}", where=str(out), cure="choose another --out")


def write_folder(out: Path, parts: Parts, card: Card) -> None:
    """Write beside `out` first, then put it in place; what stood there (see `refuse_foreign`) goes."""
    out = out.resolve()
    fresh, stale = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    try:
        for folder in (fresh, stale):
            _remove(folder)
        fresh.mkdir(parents=True)
        for name, pairs in parts.named().items():
            if pairs:
                write_pairs(fresh / f"{name}.tsv", pairs)
        card.save(fresh)
        if out.exists():
            out.rename(stale)
        fresh.rename(out)
        _remove(stale)
    except OSError as error:
        raise SaveError(
            f"cannot be written ({error.strerror})", where=str(out), cure="check space and rights"
        ) from None


_OWN = ("train.tsv", "dev.tsv", "test.tsv", CARD_FILE)


def _remove(folder: Path) -> None:
    # File by file, never a tree: what is not ours stays, and then rmdir says so.
    if not folder.exists():
        return
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}.part").unlink(missing_ok=True)
    folder.rmdir()


def _checked(name: str, option: Option, value: str | int) -> str | int:
    where = f"--{name.replace('_', '-')}"
    if isinstance(option.default, int):
        try:
            number = int(value)
        except ValueError:
            raise UsageError(f'"{value}" is not a whole number', where=where, cure=option.help) from None
        if number < 0:
            raise UsageError(f"{number} is less than 0", where=where, cure=option.help)
        return number
    text = str(value)
    if option.choices and text not in option.choices:
        raise UsageError(f'no choice "{text}"', where=where, cure=nearest(text, option.choices))
    return text
