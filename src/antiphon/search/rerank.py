"""Answers ranked anew by how much the source has to do with them."""

from __future__ import annotations

import dataclasses

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.batches import padded
from antiphon.data.tokenizer import BOS, EOS
from antiphon.search.hypothesis import Hypothesis, length_penalty
from antiphon.search.step import Engine


def rerank(engine: Engine, found: list[list[Hypothesis]], config: SearchConfig) -> list[list[Hypothesis]]:
    """Each source's hypotheses sorted by log P(T | S) − λ log P(T), over the length penalty, with λ = ``config.mmi``.

    Maximum mutual information (Li et al. 2016, "A diversity-promoting objective function", MMI-antiLM): what would be
    said to anything loses. P(T) is the model's own, of the answer to an empty source, so no second model is needed.
    What is above 0, as with a λ near 1 much is, is made smaller by more words: the penalty then favours few.

    Args:
        engine: what found them.
        found: at least one hypothesis for each source.
        config: ``mmi``, ``length_penalty``.

    Returns:
        The same hypotheses with their new scores, best first; log-probabilities stay as they were.
    """
    hypotheses = [hypothesis for of_source in found for hypothesis in of_source]
    targets = [[*h.ids, EOS] if h.finished else h.ids for h in hypotheses]
    tgt_in, tgt_out = padded([[BOS, *ids[:-1]] for ids in targets]), padded(targets)
    empty = np.full((len(targets), 1), EOS, dtype=np.int64)
    prior = engine.score(empty, np.ones(len(targets), dtype=np.int64), tgt_in, tgt_out).astype(np.float64).sum(axis=1)
    scores = [
        (h.log_prob - config.mmi * own) / float(length_penalty(max(1, len(h.token_log_probs)), config.length_penalty))
        for h, own in zip(hypotheses, prior.tolist(), strict=True)
    ]
    ranked, start = [], 0
    for of_source in found:
        rescored = [
            dataclasses.replace(h, score=score)
            for h, score in zip(of_source, scores[start : start + len(of_source)], strict=True)
        ]
        ranked.append(sorted(rescored, key=lambda h: -h.score))
        start += len(of_source)
    return ranked
