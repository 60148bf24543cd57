"""Everything a run needs to go on as if it had never stopped, in one safe file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from antiphon.errors import FolderError
from antiphon.nn.engine import check_weights, copy_weights
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime.folder import STATE, WEIGHTS, write_atomically
from antiphon.training.optimizer import Optimizer


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
    """Updates left out because their gradient was not finite."""
    finished: bool = False


def save_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """The weights to answer with. Raises SaveError."""
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path))


def save_state(folder: Path, model: Seq2Seq, optimizer: Optimizer, position: Position) -> None:
    """Weights, optimizer, random state and position, in one motion. Raises SaveError."""
    tensors = {f"weight/{name}": p.detach().contiguous() for name, p in model.named_parameters()}
    tensors |= {f"optimizer/{name}": tensor.contiguous() for name, tensor in optimizer.state().items()}
    tensors["random"] = torch.get_rng_state()
    metadata = {"position": json.dumps(asdict(position))}
    write_atomically(folder / STATE, lambda path: save_file(tensors, path, metadata=metadata))


def restore_state(folder: Path, model: Seq2Seq, optimizer: Optimizer) -> Position:
    """Continues from `save_state`.

    Raises:
        FolderError: no state, or a damaged or foreign one.
    """
    path = folder / STATE
    try:
        with safe_open(path, framework="pt") as file:
            position = Position(**json.loads(file.metadata()["position"]))
        tensors = load_file(path)
        weights = {name.removeprefix("weight/"): t for name, t in tensors.items() if name.startswith("weight/")}
        check_weights(model, weights, where=str(path))
        copy_weights(model, weights)
        optimizer.restore(
            {name.removeprefix("optimizer/"): t for name, t in tensors.items() if name.startswith("optimizer/")}
        )
        torch.set_rng_state(tensors["random"])
    except FolderError:
        raise
    except FileNotFoundError:
        raise FolderError("nothing to resume", where=str(path), cure="start it without --resume") from None
    except Exception as error:  # safetensors, json and torch each fail in their own way on a damaged file
        raise FolderError(
            f"damaged state ({type(error).__name__}: {error})", where=str(path), cure="start anew with another --out"
        ) from None
    return position
