"""Corpora by name: one recipe a file, each knowing whose the data is, on what terms, and how to read it."""

from __future__ import annotations

from pathlib import Path

from antiphon.data.corpora import (
    amounts,
    cmudict,
    cornell,
    dates,
    multi30k,
    self_dialogue,
    sigmorphon2021,
    sigmorphon2023,
    tatoeba,
)
from antiphon.data.corpora.recipe import Option, Options, Recipe, nearest
from antiphon.data.pairs import Card
from antiphon.errors import UsageError

__all__ = ["RECIPES", "Option", "Recipe", "prepare"]

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (
        amounts,
        cmudict,
        cornell,
        dates,
        multi30k,
        self_dialogue,
        sigmorphon2021,
        sigmorphon2023,
        tatoeba,
    )
}


def prepare(name: str, *, source: Path | None = None, out: Path, options: Options | None = None, seed: int = 1) -> Card:
    """Make the folder of a corpus; see `Recipe.prepare` for the arguments and what it raises beside this.

    Raises:
        UsageError: no recipe of this name.
    """
    if name not in RECIPES:
        raise UsageError(f'no corpus "{name}"', where="antiphon data", cure=nearest(name, RECIPES))
    return RECIPES[name].prepare(source, out=out, options=options or {}, seed=seed)
