"""Everything a run needs to go on as if it had never stopped, in one safe file; an earlier one stays.

A state saved at a validation is a *landmark*: where training goes back to when it has got lost, and what it falls back
on when the newest state is damaged. States saved in between (a signal, five minutes) come and go: else a run that was
interrupted would go back to another place than one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from antiphon.config import BUDGETS, Config
from antiphon.errors import FolderError
from antiphon.nn.engine import check_weights, copy_weights
from antiphon.nn.kernels import missing
from antiphon.nn.seal import DamagedError, read_sealed, write_sealed
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime.folder import BEFORE, STATE, WEIGHTS, write_atomically
from antiphon.training.optimizer import Optimizer
from antiphon.training.precision import choose_precision
from antiphon.training.stability import Stability
from antiphon.version import VERSION

_T = TypeVar("_T", "Position", "Origin")

RESUMABLE = BUDGETS | {"patience", "validate_every", "threads", "link_seconds"}
"""Knobs of [train] that may change when a run goes on."""


@dataclass
class Position:
    """Where a run stands."""

    update: int = 0
    epoch: int = 0
    shard: int = 0
    """Shards of this epoch done."""
    index: int = 0
    """Batches of this shard done."""
    seconds: float = 0.0
    """Training time so far."""
    validated_update: int = 0
    validated_seconds: float = 0.0
    best_update: int = 0
    best_score: float | None = None
    since_best: int = 0
    skipped: int = 0
    """Updates left out because their gradient was not finite or exploded."""
    setbacks: int = 0
    """Times that training went back to its last state since dev was last better."""
    slower: float = 1.0
    """What the learning rate is multiplied by, after setbacks."""
    finished: bool = False

    @property
    def landmark(self) -> bool:
        """Whether a state saved here is one to go back to."""
        return self.validated_update == self.update

    @property
    def judged(self) -> bool:
        """Whether it was validated here; before the first update it is not, though that is a place to go back to."""
        return self.landmark and (self.update > 0 or self.best_score is not None)


@dataclass(frozen=True)
class Origin:
    """What a state was made with: where it goes on with something else, the user is told."""

    antiphon: str
    torch: str
    precision: str
    threads: int
    kernels: str
    processes: int = 1
    knobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Those that may not change, by group."""

    @classmethod
    def of(cls, config: Config, processes: int = 1) -> Origin:
        """This machine, this installation, so many processes and these knobs."""
        tree = config.model_dump(mode="json", include={"data", "model", "train"})
        tree["train"] = {name: value for name, value in tree["train"].items() if name not in RESUMABLE}
        return cls(
            antiphon=VERSION,
            torch=str(torch.__version__),
            precision=choose_precision(config.train.precision),
            threads=torch.get_num_threads(),
            kernels="PyTorch" if missing() else "C",
            processes=processes,
            knobs=tree,
        )

    def changes(self, now: Origin) -> list[str]:
        """What is another now and makes the same computation come out differently: ``torch 2.12.0, now 2.13.0``."""
        return [
            f"{name} {getattr(self, name)}, now {getattr(now, name)}"
            for name in ("antiphon", "torch", "precision", "threads", "kernels", "processes")
            if getattr(self, name) != getattr(now, name)
        ]

    def changed_knob(self, now: Origin) -> str:
        """The first knob that is another now: ``train.seed 2, it was 1``; empty where all are the same."""
        for group, values in now.knobs.items():
            for name, value in values.items():
                was = self.knobs.get(group, {}).get(name, value)  # a knob that is newer than the state has no past
                if was != value:
                    return f"{group}.{name} is {json.dumps(value)}, it was {json.dumps(was)}"
        return ""


def save_weights(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """The weights to answer with. Raises SaveError."""
    write_atomically(folder / WEIGHTS, lambda path: write_sealed(path, weights))


def save_state(
    folder: Path,
    model: Seq2Seq,
    optimizer: Optimizer,
    stability: Stability,
    position: Position,
    origin: Origin,
    *,
    keep: bool,
) -> None:
    """Weights, optimizer, random state and position, in one motion.

    Args:
        folder: the run folder.
        model: its weights.
        optimizer: what it remembers.
        stability: what it remembers.
        position: where the run stands.
        origin: what it was made with.
        keep: whether the state that is in the folder is a landmark, and stays beside the new one.

    Raises:
        SaveError: the disk is full or refuses.
    """
    tensors = {f"weight/{name}": p for name, p in model.named_parameters()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer.state().items()}
    tensors |= {f"stability/{name}": tensor for name, tensor in stability.state().items()}
    tensors["random"] = torch.get_rng_state()
    words = {"position": json.dumps(asdict(position)), "origin": json.dumps(asdict(origin))}
    write_atomically(
        folder / STATE, lambda path: write_sealed(path, tensors, words), before=folder / BEFORE if keep else None
    )


def restore_state(
    folder: Path,
    model: Seq2Seq,
    optimizer: Optimizer,
    stability: Stability,
    origin: Origin,
    *,
    warn: Callable[[str], None],
    landmark: bool = False,
) -> Position:
    """Continues from `save_state`: from the newest state, or, if that is damaged, from the landmark before it.

    Args:
        folder: the run folder.
        model: takes the weights.
        optimizer: takes its own.
        stability: takes its own.
        origin: what training goes on with.
        warn: told in a sentence of a damaged state, and of a version or a machine that is another now.
        landmark: from the newest landmark instead.

    Raises:
        FolderError: no state, none that is whole, or one of other knobs.
    """
    path = folder / STATE
    try:
        tensors, position, made = _read(path)
        if landmark and not position.landmark:
            path = folder / BEFORE
            tensors, position, made = _read(path)
    except (DamagedError, FileNotFoundError) as fault:
        if path.name == BEFORE:
            raise _hopeless(folder, str(fault)) from None
        newest, path = str(fault), folder / BEFORE
        try:
            tensors, position, made = _read(path)
        except FileNotFoundError:
            raise _hopeless(folder, newest) from None
        except DamagedError as error:
            raise _hopeless(folder, f"{newest}; in {BEFORE}: {error}") from None
        # The good one takes the place of the damaged one: else the next save would keep the damaged one as the last.
        os.replace(path, folder / STATE)
        warn(f"the newest state is damaged ({newest}); training goes on from the one before, update {position.update}")
    if knob := made.changed_knob(origin):
        raise FolderError(
            f"not the knobs this run was begun with ({knob})",
            where=str(folder / "config.json"),
            cure="put it back, or start anew with another --out",
        )
    own = dict[str, dict[str, torch.Tensor]](weight={}, optimizer={}, stability={})
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        own.get(kind, {})[rest] = tensor
    check_weights(model, own["weight"], where=str(path))
    copy_weights(model, own["weight"])
    optimizer.restore(own["optimizer"])
    stability.restore(own["stability"])
    torch.set_rng_state(tensors["random"])
    if changes := made.changes(origin):
        warn(f"it goes on, but not bit for bit as it would have: {'; '.join(changes)}")
    return position


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Position, Origin]:
    """Raises FileNotFoundError, DamagedError."""
    tensors, words = read_sealed(path, must=True)
    try:
        return tensors, _known(Position, words["position"]), _known(Origin, words["origin"])
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None


def _known(kind: type[_T], text: str) -> _T:
    tree = json.loads(text)
    names = {entry.name for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in tree.items() if name in names})


def _hopeless(folder: Path, fault: str) -> FolderError:
    return FolderError(f"damaged state ({fault})", where=str(folder / STATE), cure="start anew with another --out")
