"""Models that are learnt from: several that were trained before become one (Hinton et al. 2015; Kim & Rush 2016).

What they predict of a pair never changes, so it is asked once for each pair and kept: the likeliest words only, since a
training pair's other words are of no account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from antiphon.config import Config
from antiphon.data.batches import Batch, BatchStream
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import UsageError
from antiphon.nn.engine import load_model
from antiphon.nn.packing import Packing
from antiphon.nn.products import product, product_format
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime.folder import WEIGHTS, members, read_config, read_tokenizers
from antiphon.training.distributed import Peers
from antiphon.training.precision import Precision, products_in

KNOB = "--train.teachers"
LIKELIEST = 8
"""Words kept of a prediction; their probabilities are made to sum to 1."""


class InterruptedLesson(Exception):
    """Teachers were left before they had said all."""


class Lesson(NamedTuple):
    """What is predicted at the T target positions of B pairs."""

    ids: Tensor
    """(B, T, K) int64, distinct words of a position."""
    probs: Tensor
    """(B, T, K) f32; sums to 1 where there is a target."""


class Teachers:
    """Trained models of one pair of vocabularies, which predict without dropout and are not changed.

    Args:
        models: those whose probabilities are averaged.
        precision: of their matrix products.
    """

    def __init__(self, models: list[Seq2Seq], precision: Precision) -> None:
        assert models
        self._models = [model.eval().requires_grad_(False) for model in models]
        self._precision: Precision = precision
        self._said: tuple[int, _Said] | None = None  # number of a shard, and what was said of it

    @classmethod
    def of(
        cls,
        config: Config,
        tokenizers: tuple[Tokenizer, Tokenizer],
        precision: Precision,
        own: Sequence[Path] = (),
    ) -> Self | None:
        """Those that a run's knobs name, and those of its own in these folders; None where there are none.

        Raises:
            FolderError, UsageError: as `check_teachers`.
        """
        check_teachers(config, tokenizers)
        models = [_teacher(folder, tokenizers) for folder in (*_folders(config), *own)]
        return cls(models, precision) if models else None

    def __len__(self) -> int:
        return len(self._models)

    @property
    def asked(self) -> bool:
        """Whether they have said anything yet."""
        return self._said is not None

    def knows(self, shard: int) -> bool:
        """Whether all has been said of this shard."""
        return self._said is not None and self._said[0] == shard

    def learn(
        self, shard: int, stream: BatchStream, peers: Peers, *, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        """Asks all models about every pair of a shard, in an order that does not depend on the epoch.

        Of several processes each asks about some of the batches; then they tell each other what was said.

        Args:
            shard: its number.
            stream: its batches, whole ones.
            peers: the processes of this run, all of which learn now.
            interrupted: asked between batches; of several processes all go as soon as one is told to.

        Raises:
            InterruptedLesson: as soon as ``interrupted`` says so.
            LinkError: another process is gone or does not answer.
        """
        said = _Said(stream, min(LIKELIEST, len(self._models[0].softmax_weight)))
        for number, batch in enumerate(stream.in_order()):
            if number % peers.size == 0 and peers.any(interrupted()):
                raise InterruptedLesson
            if number % peers.size == peers.rank:
                said.keep(batch, *self._predict(batch))
        peers.join(said.ids, said.probs)
        self._said = shard, said

    def lesson(self, batch: Batch) -> Lesson:
        """What they say of a batch of the shard that was learnt last."""
        assert self._said is not None
        return self._said[1].of(batch)

    @torch.no_grad()
    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Packing]:
        """Ids and probabilities (P, K) of the real target positions, and which is which."""
        src, src_len, tgt_in = (torch.from_numpy(a) for a in (batch.src, batch.src_len, batch.tgt_in))
        total: Tensor | None = None
        packing: Packing | None = None
        with products_in(self._precision):
            for model in self._models:
                features, packing = model.features(src, src_len, tgt_in)
                number = product_format()
                products = product(features[: packing.real].to(number), model.softmax_weight.to(number).t())
                found = torch.softmax(products.float().add_(model.softmax_bias.squeeze(1)), dim=1)
                total = found if total is None else total.add_(found)
        assert total is not None
        assert packing is not None
        probs, ids = total.topk(min(LIKELIEST, total.shape[1]))
        return ids, probs / probs.sum(dim=1, keepdim=True), packing


class _Said:
    """What was predicted of the pairs of a shard: a row for each target token and EOS, pair after pair."""

    def __init__(self, stream: BatchStream, words: int) -> None:
        lengths = stream.target.lengths.astype(np.int64) + 1
        self._offsets = np.concatenate(([0], np.cumsum(lengths)))
        shape = int(self._offsets[-1]), words
        self.ids, self.probs = np.zeros(shape, np.int32), np.zeros(shape, np.float16)

    def keep(self, batch: Batch, ids: Tensor, probs: Tensor, packing: Packing) -> None:
        row, step = np.divmod(packing.order[: packing.real].numpy(), batch.tgt_in.shape[1])
        places = self._offsets[batch.indices[row]] + step
        self.ids[places], self.probs[places] = ids.numpy(), probs.numpy()

    def of(self, batch: Batch) -> Lesson:
        B, T = batch.tgt_in.shape
        places = np.zeros((B, T), np.int64)
        starts, ends = (self._offsets[batch.indices + k] for k in (0, 1))
        places[: batch.rows] = np.minimum(starts[:, None] + np.arange(T), ends[:, None] - 1)
        ids, probs = self.ids[places].astype(np.int64), self.probs[places].astype(np.float32)
        return Lesson(torch.from_numpy(ids), torch.from_numpy(probs))


def check_teachers(config: Config, tokenizers: tuple[Tokenizer, Tokenizer] | None = None) -> None:
    """Whether the knobs name trained runs; once the run's own tokenizers are known, whether theirs are the same.

    Raises:
        FolderError: one is missing or damaged.
        UsageError: one is exported, or has other tokenizers.
    """
    for folder in _folders(config):
        theirs, _ = read_config(folder)
        if not (folder / WEIGHTS).is_file():
            raise UsageError(f"{folder} is no run folder with weights", where=KNOB, cure="name runs of antiphon train")
        if tokenizers is None:
            continue
        same = theirs.data.reverse_source == config.data.reverse_source
        pairs = zip(read_tokenizers(folder), tokenizers, strict=True)
        if not same or any(one.to_json() != other.to_json() for one, other in pairs):
            cure = "train it on the same data with the same tokenizer knobs"
            raise UsageError(f"the tokenizers of {folder} are others", where=KNOB, cure=cure)


def _folders(config: Config) -> list[Path]:
    """Of every model that teaches: a run may be of several."""
    return [one for folder in config.train.teacher_folders for one in members(folder, read_config(folder)[1])]


def _teacher(folder: Path, tokenizers: tuple[Tokenizer, Tokenizer]) -> Seq2Seq:
    config, _ = read_config(folder)
    source, target = tokenizers
    with torch.random.fork_rng(devices=()):  # weights begin at random: who has teachers draws as who has none
        return load_model(folder, config.model, source_vocabulary=source.size, target_vocabulary=target.size)
