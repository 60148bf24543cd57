"""Every knob of `antiphon.config` as a flag.

The groups are mirrored with every field optional: a flag that was not given says nothing, so it cannot override a
preset. Help and choices come from the same docstrings and types; bounds are checked once, on the merged whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args, get_type_hints

from cyclopts import Group, Parameter
from pydantic import BaseModel

from antiphon.config import DataConfig, ModelConfig, SearchConfig, TrainConfig
from antiphon.errors import UsageError

_GROUPS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "search": SearchConfig,
}

_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_BASED = re.compile(r"[+-]?0(x[0-9a-f]{1,16}|o[0-7]{1,20}|b[01]{1,64})", re.IGNORECASE)

_FLAGS = {
    f"--{group}.{name}".replace("_", "-"): field
    for group, config in _GROUPS.items()
    for name, field in config.model_fields.items()
}

_SWITCHES = {flag for flag, field in _FLAGS.items() if field.annotation is bool}
_SWITCHES |= {flag.replace("--search.", "--") for flag in _SWITCHES if flag.startswith("--search.")}


def whole(_type: Any, tokens: Any) -> int:
    """``500``, ``5e2`` or ``0x1f4``; what cyclopts itself would round is refused."""
    text = tokens[0].value.strip()
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _DECIMAL.fullmatch(text) and (value := Decimal(text)) == value.to_integral_value():
        return int(value)
    raise ValueError(f'"{text:.40}" is no whole number')


def _shapes(_type: Any, tokens: Any) -> int | list[Any]:
    """``10`` or ``[[19,19],[28,28]]``."""
    text = tokens[0].value
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    shapes = isinstance(value, list) and all(isinstance(shape, list) and len(shape) == 2 for shape in value)
    if not shapes and type(value) is not int:
        raise UsageError(
            f'data.buckets: "{text}" is neither a number nor shapes',
            where="--data.buckets",
            cure='write a number, or shapes as "[[19,19],[28,28]]"',
        )
    return value


def _flags(group: str, *, order: int) -> type:
    config = _GROUPS[group]
    hints = get_type_hints(config)
    story = (config.__doc__ or "").rstrip(".")
    panel = Group(f"{group.capitalize()}: {story[:1].lower()}{story[1:]}", sort_key=order)
    fields = []
    for name, field in config.model_fields.items():
        default = "" if field.default is None else json.dumps(field.default).strip('"')
        told: dict[str, Any] = {
            "help": (field.description or "").replace("``", ""),
            "show_default": (lambda _value, default=default: default) if default else False,
            "group": panel,
        }
        hint: Any = hints[name]
        if (group, name) == ("data", "buckets"):
            hint = Any
            told |= {"converter": _shapes, "n_tokens": 1, "accepts_keys": False, "metavar": "INT|JSON"}
        elif _is_whole(hint):
            told |= {"converter": whole}
        fields.append((name, Annotated[hint | None, Parameter(**told)], dataclasses.field(default=None)))
    # Named as part of this module: cyclopts looks into no class that says it comes from `types`.
    spoken = {"__module__": __name__, "__doc__": config.__doc__}
    return dataclasses.make_dataclass(f"{group.capitalize()}Flags", fields, kw_only=True, namespace=spoken)


def _is_whole(hint: Any) -> bool:
    """Whether a type is int, bounded or optional or not."""
    return hint is int or any(map(_is_whole, get_args(hint)))


if TYPE_CHECKING:  # made at run time, so a type checker cannot know them
    DataFlags: TypeAlias = Any
    ModelFlags: TypeAlias = Any
    TrainFlags: TypeAlias = Any
    SearchFlags: TypeAlias = Any
    BareSearchFlags: TypeAlias = Any
else:
    DataFlags = Annotated[_flags("data", order=11) | None, Parameter(name="data")]
    ModelFlags = Annotated[_flags("model", order=12) | None, Parameter(name="model")]
    TrainFlags = Annotated[_flags("train", order=13) | None, Parameter(name="train")]
    SearchFlags = Annotated[_flags("search", order=14) | None, Parameter(name="search")]
    # --beam for --search.beam, where nothing but the search can be meant
    BareSearchFlags = Annotated[_flags("search", order=14) | None, Parameter(name="*")]


def nearest(flag: str) -> list[str]:
    """The flag of the knob that is named most like this one, if there is one, of whatever group.

    ``--model.dropout`` for ``--train.dropuot``; of names that are as near, the one in the group that was named.
    """
    name = flag.rpartition(".")[2]
    bare = {known: known.rpartition(".")[2] for known in _FLAGS}
    near = difflib.get_close_matches(name, set(bare.values()), n=1, cutoff=0.7)
    alike = [known for known in _FLAGS if bare[known] in near]
    return sorted(alike, key=lambda known: -difflib.SequenceMatcher(None, known, flag).ratio())[:1]


def given(flags: Any) -> dict[str, Any]:
    """The flags of one group that were given, by the names of the config."""
    if flags is None:
        return {}
    values = {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}
    return {name: value for name, value in values.items() if value is not None}


def spelled_alike(tokens: Iterable[str]) -> list[str]:
    """The command line with the spellings of TOML turned into those of flags.

    ``--train.max_updates`` is ``--train.max-updates``, and ``--model.feed false`` is ``--model.feed=false``.
    Nothing after a lone ``--`` is touched.
    """
    out: list[str] = []
    rest = iter(tokens)
    for token in rest:
        if token == "--":
            out += [token, *rest]
        elif match := re.match(r"--[A-Za-z][\w.-]*", token):
            out.append(match[0].replace("_", "-") + token[match.end() :])
        elif token in ("true", "false") and out and out[-1] in _SWITCHES:
            out[-1] = f"{out[-1]}={token}"
        else:
            out.append(token)
    return out
