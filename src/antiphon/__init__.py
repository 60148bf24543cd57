"""Antiphon: recurrent sequence-to-sequence models with attention, from pairs of text to answers.

import antiphon
run = antiphon.train("pairs.tsv", out="runs/x", preset="g2p", minutes=10)
model = antiphon.load("runs/x")
model.predict("antiphon").text
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.errors import (
    AntiphonError,
    DataError,
    FolderError,
    LinkError,
    MissingExtraError,
    SaveError,
    UsageError,
)
from antiphon.version import VERSION as __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from antiphon.data.corpus import Part
    from antiphon.data.pairs import Pair, read_pairs
    from antiphon.model import Model, Prediction, load
    from antiphon.training.progress import Observer
    from antiphon.training.trainer import Run

__all__ = [
    "AntiphonError",
    "DataError",
    "FolderError",
    "LinkError",
    "MissingExtraError",
    "Model",
    "Pair",
    "Prediction",
    "SaveError",
    "UsageError",
    "__version__",
    "evaluate",
    "load",
    "read_pairs",
    "train",
]

_LATER = {
    "Model": "antiphon.model",
    "Pair": "antiphon.data.pairs",
    "Prediction": "antiphon.model",
    "load": "antiphon.model",
    "read_pairs": "antiphon.data.pairs",
}
"""Names whose modules are imported when first asked for: a command line that only prints help should not wait."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def train(
    data: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    knobs: dict[str, dict[str, Any]] | None = None,
) -> Run:
    """Trains a model on pairs, or several that answer together; see `antiphon.training.trainer.train`.

    Args:
        data: what the command line calls DATA.
        out: the run folder to make.
        preset: a bundled preset's name or a TOML file.
        minutes: time budget.
        seed: everything random follows from it.
        resume: go on with ``out``.
        observer: called with every event; None: silent.
        knobs: any other knob by group, ``{"model": {"cell": "gru"}}``.

    Raises:
        AntiphonError: a mistake in data, knobs or folder.
        MissingExtraError: PyTorch is not installed.
    """
    if not isinstance(data, (str, os.PathLike)):
        cure = "write the pairs to a file, source TAB target on every line, and give its path"
        raise UsageError(f"data must be a path, not {type(data).__name__}", cure=cure)
    groups = knobs or {}
    if not isinstance(groups, dict) or not all(isinstance(values, dict) for values in groups.values()):
        raise UsageError("knobs must be dicts by group", where="knobs", cure='write {"model": {"cell": "gru"}}')
    if os.environ.get("WORLD_SIZE", "1") == "1":  # several are told what the first one finds
        from antiphon.data.corpus import check_there
        from antiphon.runtime.folder import refuse_new, refuse_taken

        (refuse_new if resume else refuse_taken)(Path(out))  # before the seconds it takes to import PyTorch
        check_there(data)
    try:
        from antiphon import members
        from antiphon.training import trainer  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "safetensors"):
            raise
        raise MissingExtraError("training", "train") from None
    overrides: dict[str, dict[str, Any]] = {group: dict(values) for group, values in groups.items()}
    for key, value in (("minutes", minutes), ("seed", seed)):
        if value is not None:
            overrides.setdefault("train", {})[key] = value
    return members.train(data, out, preset=preset, overrides=overrides, resume=resume, observer=observer)


def evaluate(
    model: Model | str | Path,
    data: str | Path | Iterable[Pair],
    *,
    part: Part | None = None,
    metrics: Sequence[str] | None = None,
    **search: Any,
) -> dict[str, Any]:
    """Scores a model, or the model in a folder, on pairs; see `antiphon.evaluation.evaluate`.

    Args:
        model: one that is loaded, or where it is.
        data: pairs, a file of pairs, or a folder.
        part: of a file or folder; None: of a folder test, or dev where there is no test; of a file all pairs, or what
            was held out of it if the model has learnt from it.
        metrics: see there.
        search: see there.

    Raises:
        AntiphonError: as there; data that cannot be read.
    """
    from antiphon.evaluation import evaluate as score
    from antiphon.evaluation import pairs_for
    from antiphon.model import load

    chosen = load(model) if isinstance(model, (str, Path)) else model
    pairs = pairs_for(chosen, data, part, unseen=True)[1] if isinstance(data, (str, Path)) else list(data)
    return score(chosen, pairs, metrics, **search)
