"""From a batch to the loss that is descended, and who helps with it."""

from __future__ import annotations

import numpy as np
import torch

from antiphon.config import Config
from antiphon.data.batches import Batch
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.nn.softmax import LogUniformSampler, full_loss, sampled_loss
from antiphon.training.optimizer import Optimizer
from antiphon.training.precision import Precision, products_in
from antiphon.training.preparation import Prepared
from antiphon.training.teachers import Lesson

FEW = 2
"""Times the sampled words: a vocabulary from which on a full softmax is worth sampling."""


def optimizer_for(model: Seq2Seq, config: Config) -> Optimizer:
    """The optimizer that these knobs ask for."""
    return Optimizer(model, config.train, sparse=model.sparse_parameters(), hidden=model.hidden_matrices())


def samples(config: Config, share: float | None) -> bool:
    """Whether an update at this share of the budget (None: there is no budget) learns from sampled words."""
    train = config.train
    if train.consistency:  # two predictions of all words are compared
        return False
    return config.model.softmax == "sampled" or (share is not None and share < train.sampled_until)


def sampler_for(prepared: Prepared) -> LogUniformSampler | None:
    """Who draws the words where `samples` says so; None where it never does, and where a full softmax has so few words
    that drawing most of them would save nothing."""
    config, counts = prepared.config, prepared.train.counts
    few = config.model.softmax == "full" and len(counts) < FEW * config.train.samples
    if few or not samples(config, 0.0):
        return None
    return LogUniformSampler(counts, config.train.seed)


def batch_loss(
    model: Seq2Seq,
    batch: Batch,
    config: Config,
    *,
    precision: Precision,
    sampler: LogUniformSampler | None,
    update: int,
    share: float | None = None,
    lesson: Lesson | None = None,
) -> tuple[torch.Tensor, float, int]:
    """A batch's loss: what to descend (mean per real token), the sum in nats, the real tokens.

    With ``train.consistency`` every pair is there twice, and both loss and sum are means of the two. Of a batch that
    several processes share, a part's loss is its share of the mean over all tokens of the whole. The sampler draws
    where `samples` says so of this share of the budget; the teachers' lesson is of all words, and left out there.
    """
    times = 2 if config.train.consistency else 1
    src, src_len, tgt_in, tgt_out = (
        torch.from_numpy(array.repeat(times, axis=0) if times > 1 else array)
        for array in (batch.src, batch.src_len, batch.tgt_in, batch.tgt_out)
    )
    with products_in(precision):
        features, packing = model.features(src, src_len, tgt_in)
        targets, count = tgt_out.flatten().index_select(0, packing.order), packing.real
        weight, bias = model.softmax_weight, model.softmax_bias
        if sampler is None or not samples(config, share):
            taught = None
            if lesson is not None:
                places = packing.order[:count]
                words, probs = (said.repeat_interleave(times, 0).flatten(0, 1)[places] for said in lesson)
                taught = words, probs, config.train.distillation
            # Rows of one length stay side by side when they are packed, so twins do at every step.
            loss, nats = full_loss(
                features,
                targets,
                count,
                weight,
                bias.squeeze(1),
                config.train.label_smoothing,
                config.train.consistency,
                taught,
            )
        else:
            ids, tries = sampler.draw(config.train.samples, update)
            expected = sampler.log_expected(np.concatenate((targets.numpy(), ids)), tries)
            drawn = torch.from_numpy(ids), torch.from_numpy(expected)
            sparse = config.model.softmax == "sampled"
            smoothing = 0.0 if sparse else config.train.label_smoothing
            loss, nats = sampled_loss(features, targets, count, weight, bias, *drawn, smoothing, sparse=sparse)
    return loss / max(times * batch.tokens, 1), float(nats) / times, batch.tokens
