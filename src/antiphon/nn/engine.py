"""PyTorch as the engine of a search: numpy in, numpy out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from antiphon.config import ModelConfig
from antiphon.errors import FolderError
from antiphon.nn.seal import DamagedError, read_sealed
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.nn.state import DecoderState, Memory
from antiphon.runtime.folder import AGAIN, WEIGHTS
from antiphon.search.step import StepOutput


class TorchEngine:
    """Implements `antiphon.search.step.Engine` over a `Seq2Seq`. Thread-safe: nothing is kept between calls."""

    def __init__(self, model: Seq2Seq) -> None:
        self._model = model.eval()
        self.vocabulary = model.softmax_bias.shape[0]

    @torch.inference_mode()
    def encode(self, src: np.ndarray, src_len: np.ndarray) -> tuple[Memory, DecoderState]:
        """src (N, S), src_len (N,) → memory and first state."""
        return self._model.encode(_tensor(src), _tensor(src_len))

    @torch.inference_mode()
    def step(self, y: np.ndarray, state: DecoderState, memory: Memory, k: int) -> StepOutput:
        """y (N,) → the k likeliest next tokens, sorted, with their log-probabilities."""
        logits, weights, state = self._model.step(_tensor(y), state, memory)
        top, ids = torch.topk(logits, min(k, self.vocabulary), dim=1)
        log_probs = top - torch.logsumexp(logits, dim=1, keepdim=True)
        return StepOutput(log_probs.numpy(), ids.numpy(), weights.float().numpy(), state)

    @torch.inference_mode()
    def score(self, src: np.ndarray, src_len: np.ndarray, tgt_in: np.ndarray, tgt_out: np.ndarray) -> np.ndarray:
        """log P of every token of tgt_out: (N, T) nats, 0 at padding."""
        found = self._model.log_probs(_tensor(src), _tensor(src_len), _tensor(tgt_in), _tensor(tgt_out))
        return found.numpy()


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run folder's ``model.safetensors``, whatever model they are of.

    Raises:
        FolderError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    try:
        return read_sealed(path, must=False)[0]
    except FileNotFoundError:
        raise FolderError("no trained weights yet", where=str(path), cure="train for longer first") from None
    except DamagedError as error:
        raise FolderError(f"damaged weights ({error})", where=str(path), cure=AGAIN) from None


def load_engine(folder: Path, config: ModelConfig, *, source_vocabulary: int, target_vocabulary: int) -> TorchEngine:
    """The engine of a run folder's ``model.safetensors``. Raises FolderError as `load_model`."""
    sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
    return TorchEngine(load_model(folder, config, **sizes))


def load_model(folder: Path, config: ModelConfig, *, source_vocabulary: int, target_vocabulary: int) -> Seq2Seq:
    """The model of a run folder's ``model.safetensors``.

    Raises:
        FolderError: the file is missing, damaged, or belongs to another model.
    """
    weights = load_weights(folder)
    sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
    with torch.device("meta"):  # shapes only: a config that claims a giant must not cost its memory
        check_weights(Seq2Seq(config, **sizes), weights, where=str(folder / WEIGHTS))
    model = Seq2Seq(config, **sizes)
    copy_weights(model, weights)
    return model


def check_weights(model: Seq2Seq, weights: dict[str, torch.Tensor], *, where: str) -> None:
    """Whether these are the weights of such a model.

    Raises:
        FolderError: names or shapes are another model's.
    """
    own, cure = dict(model.named_parameters()), "config.json and weights are not of one model"
    if strange := sorted(own.keys() ^ weights.keys()):
        raise FolderError(f"weights of another model ({strange[0]})", where=where, cure=cure)
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            got, need = tuple(weights[name].shape), tuple(parameter.shape)
            raise FolderError(f"{name} has shape {got}, not {need}", where=where, cure=cure)


@torch.no_grad()
def copy_weights(model: Seq2Seq, weights: dict[str, torch.Tensor]) -> None:
    """Copies checked weights into the model, by name."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
