"""From features to a loss: over all of the vocabulary, or over sampled words with sparse rows.

Evaluation and search always use the full vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS = 1 << 22
"""Logits held at once where no gradient is needed: 16 MB in f32."""
GRAIN = 128
"""Numbers of positions are rounded up to a multiple of this."""


def real_positions(targets: Tensor, padding: int) -> tuple[Tensor, int]:
    """Which of the flattened target positions (B T,) are no padding, and how many.

    The index is filled up with position 0 to a multiple of 128, so that products over it have few different shapes
    (a kernel is made, and kept, for each); whoever uses it counts only the first of its entries.
    """
    real = (targets != padding).nonzero().squeeze(1)
    return F.pad(real, (0, -len(real) % GRAIN)), len(real)


def full_loss(
    features: Tensor, targets: Tensor, count: int, weight: Tensor, bias: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the vocabulary.

    Args:
        features: (P, E). targets: (P,) ids.
        count: how many of the P, from the first on, count.
        weight, bias: (V, E), (V,).
        smoothing: label smoothing (Szegedy et al. 2016), 0..1.

    Returns:
        The loss to descend and the plain negative log-likelihood, both sums in nats.
    """
    log_probs = torch.log_softmax(F.linear(features, weight, bias).float(), dim=1)[:count]
    nats = -log_probs.gather(1, targets[:count].unsqueeze(1)).sum()
    if smoothing == 0.0:
        return nats, nats.detach()
    return (1 - smoothing) * nats - smoothing * log_probs.mean(dim=1).sum(), nats.detach()


def full_log_probs(features: Tensor, targets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log P of each target over the whole vocabulary: features (P, E), targets (P,) → (P,); in chunks."""
    parts = []
    rows = max(1, LOGITS // len(weight))
    for start in range(0, len(targets), rows):
        chunk = targets[start : start + rows]
        logits = F.linear(features[start : start + rows], weight, bias).float()
        parts.append(logits.gather(1, chunk.unsqueeze(1)).squeeze(1) - torch.logsumexp(logits, dim=1))
    return torch.cat(parts) if parts else features.new_zeros(0)


class LogUniformSampler:
    """Draws words without replacement, log-uniformly over their frequency rank (Zipf), as TensorFlow's sampler.

    P(rank r) = (log(r + 2) − log(r + 1)) / log(V + 1). Drawing stops at the wanted number of distinct words; the
    expected count of word w after n draws is 1 − (1 − P(w))^n.

    Args:
        counts: (V,) how often each id occurs as a target; gives the ranks.
        seed: together with the number of the update it decides what is drawn.
    """

    def __init__(self, counts: np.ndarray, seed: int) -> None:
        size = len(counts)
        self._order = np.argsort(-counts, kind="stable")
        rank = np.empty(size, dtype=np.int64)
        rank[self._order] = np.arange(size)
        self._log_range = np.log(size + 1)
        self._log_miss = np.log1p(-(np.log(rank + 2) - np.log(rank + 1)) / self._log_range)
        self._seed = seed

    def draw(self, number: int, update: int) -> tuple[np.ndarray, np.ndarray]:
        """`number` distinct ids (n,) and the log of every id's expected count (V,), for this update."""
        size = len(self._order)
        number = min(number, size)
        rng = np.random.default_rng((self._seed, update))
        drawn = np.empty(0, dtype=np.int64)
        while True:
            more = np.exp(rng.random(4 * number) * self._log_range).astype(np.int64) - 1
            drawn = np.concatenate((drawn, np.minimum(more, size - 1)))
            distinct, first = np.unique(drawn, return_index=True)
            if len(distinct) >= number:
                break
        first.sort()
        tries = int(first[number - 1]) + 1
        ids = self._order[drawn[first[:number]]]
        return ids, np.log(-np.expm1(tries * self._log_miss))


def sampled_loss(
    features: Tensor,
    targets: Tensor,
    count: int,
    weight: Tensor,
    bias: Tensor,
    sampled: Tensor,
    log_expected: Tensor,
) -> Tensor:
    """Importance-sampled softmax (Jean et al. 2015, section 3.1; TensorFlow's `sampled_softmax_loss`).

    Each position chooses between its true word and the same sampled words; logits are corrected by the log of the
    expected counts, and a sampled word that is the true one is taken out. Only the rows of true and sampled words
    get a gradient, as sparse rows.

    Args:
        features: (P, E). targets: (P,) ids. weight, bias: (V, E), (V, 1).
        count: how many of the P, from the first on, count.
        sampled: (n,) distinct ids. log_expected: (V,).

    Returns:
        The sum over positions in nats (of the sampled problem: not comparable with a full softmax).
    """
    rows, where = torch.unique(torch.cat((targets, sampled)), return_inverse=True)
    w = F.embedding(rows, weight, sparse=True)
    b = F.embedding(rows, bias, sparse=True).squeeze(1) - log_expected[rows].float()
    of_targets, of_samples = where[: len(targets)], where[len(targets) :]
    true_logits = (features.float() * w.index_select(0, of_targets)).sum(dim=1) + b.index_select(0, of_targets)
    logits = F.linear(features, w.index_select(0, of_samples)).float() + b.index_select(0, of_samples)
    logits = logits.masked_fill(targets.unsqueeze(1) == sampled.unsqueeze(0), float("-inf"))
    return (torch.logaddexp(true_logits, torch.logsumexp(logits, dim=1)) - true_logits)[:count].sum()
