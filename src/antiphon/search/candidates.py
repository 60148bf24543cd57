"""The next tokens a hypothesis may take: the likeliest ones, without those the rules forbid."""

from __future__ import annotations

from typing import Any

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import BOS, EOS, UNK
from antiphon.search.step import Engine, StepOutput

_FORBIDDEN = 4  # PAD, BOS, UNK and at first EOS: so many of a step's candidates may be of no use


def candidates(
    engine: Engine, y: np.ndarray, state: Any, memory: Any, prefixes: np.ndarray, config: SearchConfig, wanted: int
) -> StepOutput:
    """One step whose forbidden candidates have log-probability -inf.

    Forbidden are PAD, BOS, UNK unless ``config.unknown``, and with ``config.no_repeat_ngram`` every token that
    would complete an n-gram the hypothesis already has. So is EOS as the first token, since no pair that a model
    learns from has an empty target, unless there is nothing else to say; later it never is, so that no row is left
    with nothing.

    Args:
        y: (N,) the token before; BOS: the first is chosen.
        prefixes: (N, t) the tokens of each hypothesis so far.
        wanted: allowed candidates needed in every row. Where rules take too many, the step is asked again for
            more of them, up to the vocabulary; what a row gets never depends on the other rows.
    """
    k = min(engine.vocabulary, wanted + _FORBIDDEN)
    while True:
        out = engine.step(y, state, memory, k)
        forbidden = out.ids <= BOS  # and so PAD
        if not config.unknown:
            forbidden |= out.ids == UNK
        if config.no_repeat_ngram:
            forbidden |= _repeats(prefixes, out.ids, config.no_repeat_ngram)
        ends = out.ids == EOS
        forbidden |= ends & (y == BOS)[:, None]
        if k == engine.vocabulary:
            forbidden &= ~(ends & forbidden.all(axis=1, keepdims=True))
        enough = k == engine.vocabulary or (not config.no_repeat_ngram and k == wanted + _FORBIDDEN)
        if enough or (k - forbidden.sum(axis=1)).min() >= wanted:
            log_probs = np.where(forbidden, -np.inf, out.log_probs)
            return StepOutput(log_probs, out.ids, out.attention, out.state)
        k = min(engine.vocabulary, 4 * k)


def _repeats(prefixes: np.ndarray, ids: np.ndarray, n: int) -> np.ndarray:
    """(N, K) bool: which of ids (N, K) would complete an n-gram that prefixes (N, t) already hold."""
    repeats = np.zeros(ids.shape, dtype=bool)
    places = prefixes.shape[1] - (n - 1)
    if places < 1:
        return repeats
    same = np.ones((len(prefixes), places), dtype=bool)  # where an n-gram begins as the prefix ends
    for ahead in range(n - 1):
        same &= prefixes[:, ahead : ahead + places] == prefixes[:, places + ahead, None]
    rows, at = np.nonzero(same)
    if len(rows):
        np.logical_or.at(repeats, rows, ids[rows] == prefixes[rows, at + n - 1][:, None])
    return repeats
