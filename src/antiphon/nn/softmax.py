"""From features to a loss: over all of the vocabulary, or over sampled words with sparse rows.

Evaluation and search always use the full vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from antiphon.nn.kernels import column_sums, cross_entropy
from antiphon.nn.products import product, product_format
from antiphon.nn.table import add_gradient, add_rows

UNLIKELY = -100.0
"""The logit of a sampled word that is a position's own, and is not to be chosen: finite, since smoothing takes a mean
of all, and goes on counting it as one of the sampled."""
_ALL = 1 << 62
"""Draws after which every word was expected."""
LOGITS = 1 << 22
"""Logits held at once where no gradient is needed: 16 MB in f32."""


def full_loss(
    features: Tensor,
    targets: Tensor,
    count: int,
    weight: Tensor,
    bias: Tensor,
    smoothing: float,
    consistency: float = 0.0,
    taught: tuple[Tensor, Tensor, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the vocabulary.

    Args:
        features: (P, E). targets: (P,) ids.
        count: how many of the P, from the first on, count.
        weight, bias: (V, E), (V,).
        smoothing: label smoothing (Szegedy et al. 2016), 0..1.
        consistency: if not 0, positions 2j and 2j + 1 are one position seen with two dropout masks, and this weight
            times half of the two Kullback-Leibler divergences between their distributions is added (R-Drop, Wu et
            al. 2021, equations 2 to 4, its alpha).
        taught: words (count, K), distinct in a row, their probabilities, f32, which sum to 1 in a row, and the share
            of these in what is to be predicted; the targets are the rest (Hinton et al. 2015, section 2, at
            temperature 1). Smoothing comes after.

    Returns:
        The loss to descend and the plain negative log-likelihood, both sums in nats.
    """
    return _FullLoss.apply(features, weight, bias, targets, count, smoothing, consistency, taught)


class _FullLoss(torch.autograd.Function):
    """Logits become their gradient where they stand, in the forward pass: one array of (P, V), passed over once."""

    @staticmethod
    def forward(
        ctx,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        count: int,
        smoothing: float,
        consistency: float,
        taught: tuple[Tensor, Tensor, float] | None,
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        number = product_format()
        x, w = features.to(number), weight.to(number)
        logits = product(x, w.t())
        apart, together = _disagreement(logits[:count], bias) if consistency else (0.0, None)
        gap = _gap(logits[:count], bias, targets[:count], *taught[:2]) if taught else None
        nats, smoothed = cross_entropy(logits[:count], bias.contiguous(), targets[:count], smoothing, gradient=True)
        if taught and gap is not None:
            words, probs, share = taught
            share = share * (1 - smoothing)
            smoothed = smoothed + share * gap
            # What nearly cancels is summed before it is rounded to the format of products.
            is_target = words == targets[:count].unsqueeze(1)
            missed = share * (1 - is_target.sum(dim=1, keepdim=True, dtype=torch.float32))
            logits[:count].scatter_add_(1, words, (share * (is_target.float() - probs)).to(logits.dtype))
            logits[:count].scatter_add_(1, targets[:count].unsqueeze(1), missed.to(logits.dtype))
        if together is not None:
            logits[:count] += together.mul_(consistency / 2)
        logits[count:].zero_()
        ctx.save_for_backward(logits, x, w)
        ctx.dtype, ctx.weight = features.dtype, weight
        total = nats.sum()
        ctx.mark_non_differentiable(total)
        return smoothed.sum() + consistency / 2 * apart, total

    @staticmethod
    def backward(ctx, scale: Tensor, _):  # type: ignore[override]
        d_logits, x, w = ctx.saved_tensors
        d_x = (product(d_logits, w) * scale).to(ctx.dtype)
        d_weight = product(d_logits.t(), x * scale).float()
        d_bias = column_sums(d_logits).mul_(scale)
        if ctx.weight.is_leaf:
            add_gradient(ctx.weight, d_weight)
            d_weight = None
        return d_x, d_weight, d_bias, None, None, None, None, None


def _gap(logits: Tensor, bias: Tensor, targets: Tensor, words: Tensor, probs: Tensor) -> Tensor:
    """By how many nats the targets (n,) are likelier than, on average, words (n, K) with these probabilities: (n,)."""
    of_words, of_targets = (logits.gather(1, ids).float() + bias[ids] for ids in (words, targets.unsqueeze(1)))
    return of_targets.squeeze(1) - (probs * of_words).sum(dim=1)


def _disagreement(logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q) + KL(q || p) of rows 2j and 2j + 1 of logits (P, V), summed; its gradient (P, V) by the logits."""
    log_probs = torch.log_softmax(logits.float() + bias, dim=1).unflatten(0, (-1, 2))
    probs = log_probs.exp()
    ratio = log_probs - log_probs.flip(1)
    gap = probs - probs.flip(1)
    total = (gap[:, 0] * ratio[:, 0]).sum()
    gradient = gap + probs * (ratio - (probs * ratio).sum(dim=2, keepdim=True))
    return total, gradient.flatten(0, 1)


def full_log_probs(features: Tensor, targets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log P of each target over the whole vocabulary: features (P, E), targets (P,) → (P,); in chunks."""
    parts, number = [], product_format()
    rows = max(1, LOGITS // len(weight))
    for start in range(0, len(targets), rows):
        chunk = targets[start : start + rows]
        products = product(features[start : start + rows].to(number), weight.to(number).t())
        parts.append(-cross_entropy(products, bias, chunk, 0.0, gradient=False)[0])
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

    def draw(self, number: int, update: int) -> tuple[np.ndarray, int]:
        """`number` distinct ids (n,) for this update, and how many draws they took."""
        size = len(self._order)
        if number >= size:  # nothing is left to chance, and nothing to be corrected
            return self._order.copy(), _ALL
        rng = np.random.default_rng((self._seed % 2**64, update))
        drawn = np.empty(0, dtype=np.int64)
        while True:
            more = np.exp(rng.random(4 * number) * self._log_range).astype(np.int64) - 1
            drawn = np.concatenate((drawn, np.minimum(more, size - 1)))
            distinct, first = np.unique(drawn, return_index=True)
            if len(distinct) >= number:
                break
        first.sort()
        tries = int(first[number - 1]) + 1
        return self._order[drawn[first[:number]]], tries

    def log_expected(self, ids: np.ndarray, tries: int) -> np.ndarray:
        """The log of the expected count of each of these ids after so many draws, f32."""
        return np.log(-np.expm1(tries * self._log_miss[ids])).astype(np.float32)


def sampled_loss(
    features: Tensor,
    targets: Tensor,
    count: int,
    weight: Tensor,
    bias: Tensor,
    sampled: Tensor,
    log_expected: Tensor,
    smoothing: float = 0.0,
    *,
    sparse: bool = True,
) -> tuple[Tensor, Tensor]:
    """Importance-sampled softmax (Jean et al. 2015, section 3.1; TensorFlow's `sampled_softmax_loss`).

    Each position chooses between its true word and the same sampled words; logits are corrected by the log of the
    expected counts, and a sampled word that is the true one is taken out. Only the rows of true and sampled words
    get a gradient.

    Args:
        features: (P, E). targets: (P,) ids. weight, bias: (V, E), (V, 1).
        count: how many of the P, from the first on, count.
        sampled: (n,) distinct ids.
        log_expected: (P + n,) f32, of the targets and of the sampled.
        smoothing: label smoothing, 0..1, over the sampled words: so a word gets as much of it as it is drawn.
        sparse: whether gradients are sparse rows. If not, they go into the table's own, a leaf's.

    Returns:
        The loss to descend and the plain negative log-likelihood, both sums in nats (of the sampled problem: not
        comparable with a full softmax).
    """
    return _SampledLoss.apply(features, weight, bias, targets, count, sampled, log_expected, smoothing, sparse)


class _SampledLoss(torch.autograd.Function):
    """The sampled problem as a softmax of n + 1 words, the last of them each position's own."""

    @staticmethod
    def forward(
        ctx,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        count: int,
        sampled: Tensor,
        log_expected: Tensor,
        smoothing: float,
        sparse: bool,
    ) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        number, n = product_format(), len(sampled)
        rows = torch.cat((targets, sampled))
        w = weight.index_select(0, rows)
        shift = bias.index_select(0, rows).squeeze(1) - log_expected
        of_targets, of_samples = w[: len(targets)], w[len(targets) :].to(number)
        x = features.to(number)
        products = x.new_empty(len(targets), n + 1)
        products[:, :n] = product(x, of_samples.t())
        products[:, :n].masked_fill_(targets.unsqueeze(1) == sampled.unsqueeze(0), UNLIKELY)
        products[:, n] = torch.linalg.vecdot(features.float(), of_targets) + shift[: len(targets)]
        shift = torch.cat((shift[len(targets) :], shift.new_zeros(1)))
        own = torch.full((count,), n)
        nats, smoothed = cross_entropy(products[:count], shift, own, smoothing, gradient=True)
        products[count:].zero_()
        ctx.save_for_backward(products, features, x, of_targets, of_samples, rows)
        ctx.tables, ctx.count, ctx.sparse = (weight, bias), count, sparse
        total = nats.sum()
        ctx.mark_non_differentiable(total)
        return smoothed.sum(), total

    @staticmethod
    def backward(ctx, scale: Tensor, _):  # type: ignore[override]
        grad, features, x, of_targets, of_samples, rows = ctx.saved_tensors
        count, n = ctx.count, len(of_samples)
        to_samples, to_target = grad[:, :n].contiguous(), grad[:, n:].float()
        d_x = (product(to_samples, of_samples).float() + to_target * of_targets) * scale
        touched = torch.cat((rows[:count], rows[len(x) :]))
        d_targets = to_target[:count] * features[:count].float()
        d_rows = torch.cat((d_targets, product(to_samples.t(), x).float())).mul_(scale)
        d_shift = torch.cat((to_target[:count], column_sums(to_samples).unsqueeze(1))).mul_(scale)
        d_weight, d_bias = (
            torch.sparse_coo_tensor(touched.unsqueeze(0), values, table.shape, check_invariants=False)
            for values, table in zip((d_rows, d_shift), ctx.tables, strict=True)
        )
        if not ctx.sparse:
            for table, found in zip(ctx.tables, (d_weight, d_bias), strict=True):
                add_rows(table, found)
            d_weight = d_bias = None
        return d_x.to(features.dtype), d_weight, d_bias, *[None] * 6
