"""Beam search: the few best hypotheses of every sentence, grown together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import BOS, EOS
from antiphon.search.candidates import candidates
from antiphon.search.hypothesis import Hypothesis, hypothesis, length_penalty
from antiphon.search.step import Engine


def beam(
    engine: Engine, src: np.ndarray, src_len: np.ndarray, config: SearchConfig, max_steps: np.ndarray
) -> list[list[Hypothesis]]:
    """At most ``config.nbest`` hypotheses for each of src (N, S), src_len (N,), distinct, sorted by score.

    Each step keeps the ``config.beam`` likeliest continuations of a sentence; those that took EOS give up their
    place until the next step. A sentence is done, and leaves the batch, when nothing that lives could still enter
    its n-best even if it were certain of every further token: an exact rule, so it costs no answer.

    Hypotheses cut at max_steps (N,), EOS counted, are answers only where none finished.
    Scores are divided by the length penalty of Wu et al. 2016.
    """
    width, exponent = config.beam, config.length_penalty
    memory, state = engine.encode(src, src_len)
    sentences = np.arange(len(src))  # (B,) those still going
    live = np.zeros((len(src), 1))  # (B, L) nats of each hypothesis, -inf for an empty place; rows of the engine: B x L
    y = np.full(len(src), BOS, dtype=np.int64)
    prefixes = np.empty((len(src), 0), dtype=np.int64)
    history = _History()
    endings = _Endings.none(len(src), width)
    step = 0
    while len(sentences):
        out = candidates(engine, y, state, memory, prefixes, config, wanted=width)
        B, L = live.shape
        k = out.ids.shape[1]
        totals = (live.reshape(B * L, 1) + out.log_probs).reshape(B, L * k)
        best = np.argsort(-totals, axis=1, kind="stable")[:, :width]  # (B, K); stable: ties as greedy breaks them
        totals = np.take_along_axis(totals, best, axis=1)
        parents = best // k + L * np.arange(B)[:, None]  # (B, K) rows of the engine
        tokens = out.ids[parents, best % k]
        log_probs = out.log_probs[parents, best % k]
        step += 1

        ended = tokens == EOS
        scores = totals / length_penalty(step, exponent)
        history.attention.append(out.attention)
        endings.add(sentences, np.where(ended, scores, -np.inf), step, parents, tokens, log_probs)
        live = np.where(ended, -np.inf, totals)

        limits = max_steps[sentences]
        if (cut := (step >= limits) & np.isneginf(endings.score[sentences, 0])).any():
            endings.add(sentences[cut], scores[cut], step, parents[cut], tokens[cut], log_probs[cut])
        hope = live.max(axis=1) / length_penalty(limits, exponent)
        going = (step < limits) & (hope > endings.score[sentences, min(config.nbest, width) - 1])

        rows = parents[going].ravel()
        y = tokens[going].ravel()
        history.parents.append(rows)
        history.tokens.append(y)
        history.log_probs.append(log_probs[going].ravel())
        state = out.state.select(rows)
        if not going.all():  # the hypotheses of a sentence share its memory
            memory = memory.select(np.flatnonzero(going))
        prefixes = np.concatenate([prefixes[rows], y[:, None]], axis=1)
        sentences, live = sentences[going], live[going]
    return [
        [history.hypothesis(*ending, int(src_len[n]), exponent) for ending in endings.of(n)[: config.nbest]]
        for n in range(len(src))
    ]


@dataclass
class _Endings:
    """The best ways each sentence ended so far: arrays (N, K), sorted by score, -inf for an empty place."""

    score: np.ndarray
    step: np.ndarray
    parent: np.ndarray
    """Row of the engine at that step."""
    token: np.ndarray
    log_prob: np.ndarray

    @classmethod
    def none(cls, sentences: int, width: int) -> _Endings:
        shape = (sentences, width)
        step, parent, token = np.zeros((3, *shape), dtype=np.int64)
        return cls(np.full(shape, -np.inf), step, parent, token, np.zeros(shape, dtype=np.float32))

    def add(
        self,
        sentences: np.ndarray,
        score: np.ndarray,
        step: int,
        parent: np.ndarray,
        token: np.ndarray,
        log_prob: np.ndarray,
    ) -> None:
        """Merge (B, K) endings of the given sentences (B,) in; a score of -inf says there is none."""
        merged = np.concatenate([self.score[sentences], score], axis=1)
        order = np.argsort(-merged, axis=1, kind="stable")[:, : self.score.shape[1]]
        new = (score, np.full_like(parent, step), parent, token, log_prob)
        own = (self.score, self.step, self.parent, self.token, self.log_prob)
        for mine, theirs in zip(own, new, strict=True):
            mine[sentences] = np.take_along_axis(np.concatenate([mine[sentences], theirs], axis=1), order, axis=1)

    def of(self, sentence: int) -> list[tuple[int, int, int, float]]:
        """(step, parent, token, log_prob) of one sentence, best first."""
        fields = (self.step, self.parent, self.token, self.log_prob)
        step, parent, token, log_prob = (values[sentence, self.score[sentence] > -np.inf].tolist() for values in fields)
        return list(zip(step, parent, token, log_prob, strict=True))


@dataclass
class _History:
    """What every step took. A row knows its parent row of the step before, so nothing is copied as beams reorder."""

    parents: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)
    log_probs: list[np.ndarray] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)

    def hypothesis(
        self, step: int, parent: int, token: int, log_prob: float, source: int, exponent: float
    ) -> Hypothesis:
        """The hypothesis that took `token` as its step-th, told from its end to its start."""
        tokens, log_probs, attention = [token], [log_prob], [self.attention[step - 1][parent, :source]]
        row = parent
        for before in range(step - 2, -1, -1):
            tokens.append(int(self.tokens[before][row]))
            log_probs.append(float(self.log_probs[before][row]))
            row = int(self.parents[before][row])
            attention.append(self.attention[before][row, :source])
        return hypothesis(
            np.array(tokens[::-1], dtype=np.int64),
            np.array(log_probs[::-1], dtype=np.float32),
            np.array(attention[::-1], dtype=np.float32),
            exponent,
        )
