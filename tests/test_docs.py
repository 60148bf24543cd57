"""The documents say what is: commands parse, links lead somewhere, the map is the tree, code compiles."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import antiphon
from antiphon.config import load_config, parse_config, presets
from antiphon.data.corpora import RECIPES
from antiphon.faces.cli import app
from antiphon.faces.knobs import given, spelled_alike

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = ROOT / "docs" / "cli.md"
WRITTEN = [page for page in PAGES if page != GENERATED]
UNFILLED = "FILL:"  # a line with this mark waits for something measured

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Line(NamedTuple):
    """A command line in a document."""

    page: Path
    words: tuple[str, ...]
    """Without the program's name."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: antiphon {shlex.join(self.words)}"


def fences(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    return [body for language, body in _FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def command_lines() -> Iterator[Line]:
    """Every `antiphon …` in blocks of shell and in inline code."""
    for page in PAGES:
        shell = [line for block in fences(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
        for text in [*shell, *(code for code in _INLINE.findall(prose(page)) if code.startswith("antiphon "))]:
            for words in _simple_commands(text):
                if words[:1] == ["antiphon"] and "…" not in words:
                    yield Line(page, tuple(words[1:]))


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a pipeline; comments and redirections end it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;&<>"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


COMMAND_LINES = sorted(set(command_lines()))


def test_there_is_something_to_check() -> None:
    assert len(COMMAND_LINES) > 50
    assert {line.words[0] for line in COMMAND_LINES} >= set(app) - {"--version", "--help", "-h"}


@pytest.mark.parametrize("line", COMMAND_LINES, ids=str)
def test_a_command_line_is_one_the_program_takes(line: Line) -> None:
    command, *rest = line.words
    assert command in app
    if not rest or command.startswith("-") or rest == ["--help"]:
        return
    if rest[0].startswith("--json"):  # named in a list of what commands print
        assert "--json" in make_cli().help_page([command])
        return
    function, bound, _ = app.parse_args(
        spelled_alike(list(line.words)), exit_on_error=False, print_error=False, help_on_error=False
    )
    assert function.__name__ == command
    chosen = bound.arguments
    preset = chosen.get("preset")
    if preset is not None and not preset.endswith(".toml"):
        assert preset in presets()
    if command == "train" and (preset is None or preset in presets()):
        load_config(preset, {group: given(chosen.get(group)) for group in ("data", "model", "train", "search")})
    if command == "data" and chosen["name"] != "NAME":
        recipe = RECIPES[chosen["name"]]
        assert {name.replace("-", "_") for name in chosen.get("options", {})} <= set(recipe.options)


def make_cli() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_command_line_is_what_the_program_says() -> None:
    # Word by word: where a help page breaks its lines is the library's affair.
    assert GENERATED.read_text(encoding="utf-8").split() == make_cli().page().split(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if UNFILLED not in line]
    for target in _LINK.findall("\n".join(lines)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        assert led.exists(), target
        assert led.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(led), target


def anchors(page: Path) -> set[str]:
    """What headings are called in links: lower case, spaces as hyphens, no other signs."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_map_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## The map")[2]
    block = _FENCE.search(section)
    assert block is not None
    mapped = set(_mapped(block[2]))
    assert {path for path in mapped if not (ROOT / path).exists()} == set()
    source = ROOT / "src" / "antiphon"
    modules = [*source.rglob("*.py"), *source.rglob("*.toml")]
    inner = {path for path in modules if path.name == "__init__.py" and path.parent != source}
    known = {*modules, *PAGES, *(ROOT / "docs").glob("*.py")} - inner
    assert {path.relative_to(ROOT).as_posix() for path in known} - mapped == set()


def _mapped(block: str) -> Iterator[str]:
    """Paths of an indented map; a folder ends with / and holds what is indented below it."""
    folders: list[str] = []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        yield "".join(folders) + name
        if name.endswith("/"):
            folders.append(name)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_documents_is_code(page: Path) -> None:
    for block in fences(page, "python"):
        compile(block, str(page), "exec")
        for name in re.findall(r"\bantiphon\.(\w+)", block):
            assert name in antiphon.__all__, name
    for block in fences(page, "toml"):
        parse_config(tomllib.loads(block))


def test_every_preset_and_corpus_is_named_in_the_documents() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in WRITTEN)
    assert [name for name in (*presets(), *RECIPES) if name not in text] == []
