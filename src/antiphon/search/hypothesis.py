"""A possible answer, and what makes one better than another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from antiphon.data.tokenizer import EOS


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One answer in ids.

    T counts every token the model was charged for: the ids, and EOS when the hypothesis finished.
    """

    ids: list[int]
    """Without EOS."""
    score: float
    """log_prob over the length penalty; what n-best lists are sorted by."""
    log_prob: float
    """Nats: the sum of token_log_probs."""
    token_log_probs: np.ndarray
    """(T,) float32, nats."""
    attention: np.ndarray
    """(T, S) float32, S the length of this source with EOS."""
    finished: bool
    """Whether it ended by EOS; else it was cut at the most steps allowed."""


def length_penalty(length: np.ndarray | int, exponent: float) -> np.ndarray:
    """((5 + length) / 6)^exponent, by which a log-probability is divided (Wu et al. 2016, eq. 14).

    The length counts EOS. An exponent of 0 leaves log-probabilities as they are.
    """
    return ((5.0 + np.asarray(length, dtype=np.float64)) / 6.0) ** exponent


def hypothesis(tokens: np.ndarray, log_probs: np.ndarray, attention: np.ndarray, exponent: float) -> Hypothesis:
    """A Hypothesis from its tokens (T,) (EOS last if it finished), their log_probs (T,) and attention (T, S)."""
    finished = len(tokens) > 0 and int(tokens[-1]) == EOS
    # Added one after the other, as beam search does while it grows, so that both agree to the last bit.
    log_prob = float(np.add.accumulate(log_probs, dtype=np.float64)[-1]) if len(tokens) else 0.0
    ids = tokens[:-1] if finished else tokens
    score = float(log_prob / length_penalty(len(tokens), exponent))
    return Hypothesis(ids.tolist(), score, log_prob, log_probs, attention, finished)
