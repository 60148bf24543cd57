"""Tensors in a safetensors file that carries the sha256 of what it holds, so that damage is found, not computed with.

The sum stands in the file's own header: file and sum cannot be of two different saves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

SUM = "sha256"


class DamagedError(Exception):
    """A file is not what was written: cut off, changed, or of another kind."""


def write_sealed(path: Path, tensors: Mapping[str, torch.Tensor], words: Mapping[str, str] | None = None) -> None:
    """Writes tensors and a few words with their sum.

    Args:
        path: the file.
        tensors: by name, of any shape and format.
        words: what else the file is to say, by key.

    Raises:
        OSError or SafetensorError: the disk refuses.
    """
    flat = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    said = dict(words or {})
    save_file(flat, path, metadata={**said, SUM: _digest(flat, said)})


def read_sealed(path: Path, *, must: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What `write_sealed` wrote, once the sum agrees.

    Args:
        path: the file.
        must: whether a file without a sum, as other programs write them, is refused.

    Returns:
        The tensors and the words.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: anything else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            words = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors has an exception type of its own, and torch raises what it likes
        raise DamagedError(f"{type(error).__name__}: {error}") from None
    written = words.pop(SUM, None)
    if written is None:
        if must:
            raise DamagedError("it has no checksum")
    elif written != _digest(tensors, words):
        raise DamagedError("its checksum does not agree")
    return tensors, words


def _digest(tensors: Mapping[str, torch.Tensor], words: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(sorted(words.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{json.dumps(name)} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
