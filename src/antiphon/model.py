"""A trained model: the one object every face uses, and how it is loaded from its folder."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from antiphon.config import Config, SearchConfig, parse_config
from antiphon.data.batches import padded
from antiphon.data.corpus import Learnt
from antiphon.data.pairs import Pair
from antiphon.data.placeholders import Placeholders, hidden
from antiphon.data.tokenizer import BOS, EOS, UNK, Tokenizer
from antiphon.errors import FolderError, MissingExtraError, UsageError
from antiphon.metrics import repeats
from antiphon.runtime.bundled import resolved
from antiphon.runtime.folder import AGAIN, GRAPHS, LEARNT_FROM, members, read_config, read_tokenizers
from antiphon.search import Engine, Ensemble, Hypothesis, beam, greedy, rerank, sample, stream_greedy, stream_sample

_T = TypeVar("_T")
_NO_PAIR = "a pair must be two texts", "give a list of (source, target)"
END = "</s>"
"""How EOS reads where tokens are shown."""

_POSITIONS = 4096  # source positions x beam in one batch of a search; source and target positions of a scoring
_LOGITS = 2**25  # most rows x V at one step of a search, and target positions x V of a scoring: 128 MB
_MOST_LOGITS = 4 * _LOGITS  # of all threads together: what a step needs besides is several times as much


@dataclass(frozen=True, eq=False)
class Prediction:
    """An answer, and how it came about. T target tokens, S source tokens, both with their end marks."""

    text: str
    score: float
    """log P in nats over the length penalty; nearer to 0 is better. With ``mmi``: what answers were ranked by;
    more is better."""
    tokens: list[str]
    """(T,) the last is ``</s>`` if the answer ended by itself."""
    source_tokens: list[str]
    """(S,) as written, whatever way the model reads; the last is ``</s>``."""
    attention: np.ndarray
    """(T, S) float32: where the model looked for each token; rows sum to 1, or are 0 where it has no attention."""
    truncated: bool
    """Whether the source was too long and lost its beginning."""
    unknown: int = 0
    """How many of the source's tokens are UNK: letters, or words, that its vocabulary lacks."""
    alternatives: list[Prediction] = field(default_factory=list)
    """The rest of the n-best, best first."""


class _Source(NamedTuple):
    ids: list[int]  # as written, without EOS
    truncated: bool
    placeholders: Placeholders


class Model:
    """Text in, text out. Nothing changes after loading, so threads may share one.

    Search knobs (`beam`, `nbest`, `sample` …, the fields of `SearchConfig`) may be given to every method that
    searches; they win over the model's own.

    Args:
        engine: what runs the network.
        source_tokenizer: for what goes in.
        target_tokenizer: for what comes out.
        config: all knobs of the run that made it.
        folder: where it was loaded from.
        threads: batches of a list of texts that are worked on at once.
    """

    def __init__(
        self,
        engine: Engine,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        config: Config,
        folder: Path | None = None,
        *,
        threads: int = 1,
    ) -> None:
        self.engine = engine
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.config = config
        self.folder = folder
        self.threads = threads
        self._logits = min(_LOGITS, _MOST_LOGITS // threads)
        self.learnt_from: list[Learnt] = []
        """What it, or the models that answer together in it, have learnt from, where their folders say so."""

    @property
    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        return self.source_tokenizer, self.target_tokenizer

    @property
    def max_source(self) -> int:
        """Longest source in tokens, EOS counted, of training or `data.max_source`; of a longer one the end is read."""
        buckets, most = self.config.data.buckets, self.config.data.max_source
        return most if isinstance(buckets, int) else max(most, *(source for source, _ in buckets))

    @property
    def max_target(self) -> int:
        """Longest target in tokens of training, EOS counted."""
        buckets = self.config.data.buckets
        return self.config.data.max_target if isinstance(buckets, int) else max(target for _, target in buckets)

    @overload
    def predict(self, texts: str, **search: Any) -> Prediction: ...
    @overload
    def predict(self, texts: list[str], **search: Any) -> list[Prediction]: ...
    def predict(self, texts: str | list[str], **search: Any) -> Prediction | list[Prediction]:
        """Answer a text, or each of a list of texts; an n-best list of a beam has no text twice.

        Any text is answered, also an empty one; one too long loses its beginning and says so (`truncated`).
        With a seed, a sampled answer depends on the seed and on the place in the list, not on the other texts.

        Raises:
            UsageError: an unknown search knob, a value that cannot be, or something that is no text.
        """
        if isinstance(texts, str):
            return self.predict([texts], **search)[0]
        return self.answers(_list(texts, "a source must be text", "give str or a list of str"), self.settings(search))

    def answers(self, texts: Sequence[str], config: SearchConfig, *, first: int = 0) -> list[Prediction]:
        """As `predict`, with settings that were made before.

        Args:
            texts: to be answered.
            config: as `settings` gives it.
            first: the place of the first text, where a long list is answered in parts.
        """
        sources = self._sources(texts)
        nbest = config.nbest
        wanted = nbest
        if config.mmi:  # more is found than is given
            wanted = config.candidates if config.sample else min(config.candidates, config.beam)
        elif nbest > 1 and not config.sample:  # tokens that differ may spell one text
            wanted = config.beam
        config = config.model_copy(update={"nbest": max(nbest, wanted)})
        width = config.nbest if config.sample else config.beam
        lengths = np.array([len(source.ids) + 1 for source in sources], dtype=np.int64)

        def answered(rows: np.ndarray) -> list[tuple[int, Prediction]]:
            src, src_len = self._padded([sources[row] for row in rows])
            limits = self.limits(src_len, config.max_length)
            if config.sample:
                found = sample(self.engine, src, src_len, config, limits, numbers=(first + rows).tolist())
            elif config.beam == 1:
                found = greedy(self.engine, src, src_len, config, limits)
            else:
                found = beam(self.engine, src, src_len, config, limits)
            if config.mmi:
                found = rerank(self.engine, found, config)
            answers = []
            for row, hypotheses in zip(rows.tolist(), found, strict=True):
                own = sources[row].placeholders
                told = [(own.show(self.target_tokenizer.decode(one.ids)), one) for one in hypotheses]
                if config.mmi:
                    told = _fluent_first(told, config)
                if nbest > 1 and not config.sample:  # a draw may be drawn twice
                    told = _distinct(told)
                best, *others = (self._prediction(sources[row], one, text) for text, one in told[:nbest])
                answers.append((row, replace(best, alternatives=others)))
            return answers

        rows = max(1, self._logits // (width * self.engine.vocabulary))
        parts = self._side_by_side(answered, lengths, _POSITIONS // width, rows)
        answers = dict(itertools.chain.from_iterable(parts))
        return [answers[row] for row in range(len(sources))]

    def stream(self, text: str, **search: Any) -> Iterator[str]:
        """Pieces of the answer as they are decoded; joined they are the text `predict` gives with ``beam=1, mmi=0``.

        Always one token after the other: greedy, or sampled with ``sample=True``. What is chosen among whole answers
        cannot be streamed, since the best may change to the last: ``beam`` and ``mmi`` are not looked at.

        Raises:
            UsageError: as `predict`; before the first piece.
        """
        config = self.settings({**search, "nbest": 1})
        src, src_len = self.read([text])
        limits = self.limits(src_len, config.max_length)
        stream = stream_sample if config.sample else stream_greedy
        return _pieces(self.spoken(text), stream(self.engine, src, src_len, config, limits))

    def spoken(self, text: str) -> Spoken:
        """The answer to a text, still without a token."""
        return Spoken(self.target_tokenizer, Placeholders.of(text, self._tokenizers))

    def with_placeholders(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Pairs as they are scored: what is carried over, behind placeholders."""
        return list(hidden([Pair(*pair) for pair in pairs], self._tokenizers))

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """log P(target | source) of each pair in nats, EOS included: at most 0, over the full vocabulary."""
        return self.score_tokens(pairs)[0].tolist()

    def score_tokens(self, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        """log P(target | source) of each pair (N,) in nats, and the tokens (N,) it is the sum over, EOS counted.

        A source too long loses its beginning, as in `predict`; a target is scored whole. What a target holds that
        its tokenizer does not know is scored as UNK: see `evaluation.evaluate` for what that hides.
        """
        pairs = _list(pairs, *_NO_PAIR)
        for pair in pairs:
            several = isinstance(pair, (tuple, list, np.ndarray))
            if not several or [isinstance(side, str) for side in pair] != [True, True]:
                told = [type(side).__name__ for side in pair] if several else type(pair).__name__
                raise UsageError(f"{_NO_PAIR[0]}, not {told}", cure=_NO_PAIR[1])
        sources = self._sources([source for source, _ in pairs])
        targets = self._targets([target for _, target in pairs], sources)
        nats = np.zeros(len(pairs))
        tokens = np.array([len(ids) + 1 for ids in targets], dtype=np.int64)
        longest = np.array([max(len(s.ids) + 1, len(t) + 1) for s, t in zip(sources, targets, strict=True)], np.int64)

        def scored(rows: np.ndarray) -> None:
            src, src_len = self._padded([sources[row] for row in rows])
            tgt_out = padded([[*targets[row], EOS] for row in rows])
            tgt_in = padded([[BOS, *targets[row]] for row in rows])
            nats[rows] = self.engine.score(src, src_len, tgt_in, tgt_out).astype(np.float64).sum(axis=1)

        self._side_by_side(scored, longest, min(_POSITIONS, self._logits // self.engine.vocabulary))
        return nats, tokens

    def attention(self, source: str, target: str) -> Prediction:
        """Where the model looks while it is made to write a given target: that target as a Prediction.

        Its score is log P(target | source) in nats, without length penalty.
        """
        [read] = self._sources([source])
        if not isinstance(target, str):
            raise UsageError(f"a target must be text, not {type(target).__name__}", cure="give str")
        [ids] = self._targets([target], [read])
        memory, state = self.engine.encode(*self._padded([read]))
        looks = []
        for token in [BOS, *ids]:
            out = self.engine.step(np.array([token], dtype=np.int64), state, memory, 1)
            state = out.state
            looks.append(out.attention[0])
        [score] = self.score([(source, target)])
        spelt, looks = self._spelt([*ids, EOS], np.array(looks), read.placeholders)
        return Prediction(target, score, spelt, self._written(read), looks, read.truncated, read.ids.count(UNK))

    def read(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """src (N, S) and src_len (N,) as an engine takes them. Raises UsageError."""
        return self._padded(self._sources(texts))

    def _side_by_side(
        self, work: Callable[[np.ndarray], _T], lengths: np.ndarray, positions: int, rows: int = _POSITIONS
    ) -> list[_T]:
        """Work on batches of rows, as many at once as the model has threads; each batch knows nothing of the others."""
        batches = list(_batches(lengths, positions, rows))
        if len(batches) < 2 * self.threads:  # else nothing to do for some of them
            parts = (rows[part :: self.threads] for rows in batches for part in range(self.threads))
            batches = [rows for rows in parts if len(rows)]
        if self.threads == 1 or len(batches) < 2:
            return [work(rows) for rows in batches]
        with ThreadPoolExecutor(min(self.threads, len(batches))) as pool:
            return list(pool.map(work, batches))

    def settings(self, overrides: dict[str, Any]) -> SearchConfig:
        """The model's own search knobs, with these in their place. Raises UsageError."""
        config = parse_config({"search": {**self.config.search.model_dump(), **overrides}}).search
        if config.no_repeat_ngram and self.target_tokenizer.alignment:
            raise UsageError(
                "monotonic attention writes marks that may repeat", where="search.no_repeat_ngram", cure="leave it 0"
            )
        if config.nbest > config.beam and not config.sample:
            raise UsageError(
                f"nbest {config.nbest} is more than beam {config.beam}", cure=f"give beam {config.nbest} or more"
            )
        return config

    def _sources(self, texts: Sequence[str]) -> list[_Source]:
        for text in texts:
            if not isinstance(text, str):
                raise UsageError(f"a source must be text, not {type(text).__name__}", cure="give str or a list of str")
        most = self.max_source - 1
        own = [Placeholders.of(text, self._tokenizers) for text in texts]
        read = [stand.hide(text, self.source_tokenizer) for text, stand in zip(texts, own, strict=True)]
        encoded = zip(self.source_tokenizer.encode_batch(read), own, strict=True)
        return [_Source(ids[max(0, len(ids) - most) :], len(ids) > most, stand) for ids, stand in encoded]

    def _targets(self, texts: Sequence[str], sources: Sequence[_Source]) -> list[list[int]]:
        """Ids of the targets of these sources."""
        both = zip(texts, sources, strict=True)
        seen = [source.placeholders.hide(text, self.target_tokenizer) for text, source in both]
        return self.target_tokenizer.encode_beside(seen, [source.ids for source in sources])

    def _padded(self, sources: Sequence[_Source]) -> tuple[np.ndarray, np.ndarray]:
        """src (N, S) and src_len (N,) as in training: perhaps backwards, then EOS."""
        step = -1 if self.config.data.reverse_source else 1
        rows = [[*source.ids[::step], EOS] for source in sources]
        return padded(rows), np.array([len(row) for row in rows], dtype=np.int64)

    def limits(self, src_len: np.ndarray, max_length: int | None) -> np.ndarray:
        """(N,) most tokens, EOS counted, of the answers to sources src_len (N,).

        Args:
            src_len: tokens of each source, EOS counted.
            max_length: what is allowed of tokens that are seen; None: what the model's data has.
        """
        if max_length is not None:
            marks = src_len if self.target_tokenizer.alignment else 0  # they are not seen, one for each source token
            return np.full(len(src_len), max_length, dtype=np.int64) + marks
        return np.maximum(self.max_target, 3 * src_len)

    def _prediction(self, source: _Source, hypothesis: Hypothesis, text: str) -> Prediction:
        ids = [*hypothesis.ids, EOS] if hypothesis.finished else hypothesis.ids
        tokens, looks = self._spelt(ids, hypothesis.attention, source.placeholders)
        return Prediction(
            text=text,
            score=hypothesis.score,
            tokens=tokens,
            source_tokens=self._written(source),
            attention=looks,
            truncated=source.truncated,
            unknown=source.ids.count(UNK),
        )

    def _spelt(self, ids: Sequence[int], looks: np.ndarray, placeholders: Placeholders) -> tuple[list[str], np.ndarray]:
        """The tokens of an answer, and where the model looked for each, (T, S): what is no text is left out."""
        real = [place for place, token in enumerate(ids) if token != self.target_tokenizer.next_id]
        if self.target_tokenizer.backwards:  # shown as it reads; EOS stays last
            end = len(real) - bool(real and ids[real[-1]] == EOS)
            real[:end] = real[:end][::-1]
        tokens = [END if ids[place] == EOS else self.target_tokenizer.tokens([ids[place]])[0] for place in real]
        return [placeholders.show(token) for token in tokens], self._unturned(looks[real])

    def _written(self, source: _Source) -> list[str]:
        return [*map(source.placeholders.show, self.source_tokenizer.tokens(source.ids)), END]

    def _unturned(self, attention: np.ndarray) -> np.ndarray:
        """Attention (T, S) with its columns in the order the user wrote; EOS stays last."""
        if not self.config.data.reverse_source:
            return attention
        return np.concatenate([attention[:, -2::-1], attention[:, -1:]], axis=1)


class Spoken:
    """The text of an answer as it grows: pieces are given once nothing to come can change them."""

    def __init__(self, tokenizer: Tokenizer, placeholders: Placeholders) -> None:
        self._tokenizer, self._placeholders = tokenizer, placeholders
        self._ids: list[int] = []
        self._given = self._before = ""

    def add(self, token: int) -> str:
        """The text that is sure now and was not before; often none."""
        self._ids.append(token)
        if self._tokenizer.backwards:  # the beginning comes last
            return ""
        text = self.text(self._ids)
        if text == self._before:  # a mark: what comes may still compose with the last character
            return ""
        settled = text[: _common(self._before, text, known=len(self._given))].rstrip()
        self._before = text
        return self._give(settled)

    def end(self) -> str:
        """What was held back."""
        return self._give(self.text(self._ids))

    def text(self, ids: Sequence[int]) -> str:
        """The whole of an answer with these ids."""
        return self._placeholders.show(self._tokenizer.decode(ids))

    def _give(self, text: str) -> str:
        if len(text) <= len(self._given):
            return ""
        piece, self._given = text[len(self._given) :], text
        return piece


def _list(things: Iterable[_T], rule: str, cure: str) -> list[_T]:
    """Also of what can be gone through but once. Raises UsageError."""
    try:
        return list(things)
    except TypeError:
        raise UsageError(f"{rule}, not {type(things).__name__}", cure=cure) from None


def load(folder: str | Path, *others: str | Path, threads: int | None = None) -> Model:
    """The model in an exported folder or a run folder, or a bundled one; of several, in one folder or in many, their
    ensemble, or of one folder the one that they have taught.

    Runs no code of the folder's, and uses a bounded amount of memory whatever is in it.

    Args:
        folder: what `antiphon export` or `antiphon train` made; or the name of a bundled model (``dates``), where no
            folder has it.
        others: models of the same tokenizers, whose probabilities are averaged with the first one's. The knobs of the
            first are the ensemble's.
        threads: of an exported model: how many parts of a list of texts are worked on at once; None: one for each core.
            What is answered does not depend on it.

    Raises:
        FolderError: it does not exist, is no model folder, is damaged, or was made by a newer Antiphon.
        MissingExtraError: it is a run folder, not exported, and PyTorch is not installed.
        UsageError: the tokenizers of the models differ, or fewer than one thread.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads", where="threads", cure="give 1 or more")
    folders = [resolved(named) for named in (folder, *others)]
    facts = [read_config(one)[1] for one in folders]
    model = together(
        [load_one(one, threads=threads) for each in zip(folders, facts, strict=True) for one in members(*each)]
    )
    model.folder = folders[0]  # whichever of its models answers
    model.learnt_from = [found for one in facts if (found := Learnt.of(one.get(LEARNT_FROM)))]
    return model


def together(models: Sequence[Model]) -> Model:
    """Models of the same tokenizers as one: it answers with the mean of their probabilities and the first one's knobs.

    Raises:
        UsageError: their tokenizers differ.
    """
    first, *rest = models
    for model in rest:
        both = ((first.source_tokenizer, model.source_tokenizer), (first.target_tokenizer, model.target_tokenizer))
        reads = first.config.data.reverse_source == model.config.data.reverse_source
        if not reads or any(one.to_json() != other.to_json() for one, other in both):
            cure = "train all on the same data with the same tokenizer knobs"
            raise UsageError("models of an ensemble must share their tokenizers", where=str(model.folder), cure=cure)
    if not rest:
        return first
    engine = Ensemble([first.engine, *(model.engine for model in rest)])
    return Model(
        engine, first.source_tokenizer, first.target_tokenizer, first.config, first.folder, threads=first.threads
    )


def load_one(folder: str | Path, *, threads: int | None = None) -> Model:
    """As `load`, but of a folder whose models answer together the first alone."""
    folder = resolved(folder)
    config, _ = read_config(folder)
    source_tokenizer, target_tokenizer = read_tokenizers(folder)
    alignment = target_tokenizer.alignment
    read = source_tokenizer.size - (source_tokenizer.alignment is not None)
    aligned = (config.model.attention == "monotonic") == (alignment is not None)
    turned = (source_tokenizer.backwards, target_tokenizer.backwards) == (False, config.data.reverse_target)
    if not aligned or not turned or (alignment and alignment.source != read):
        raise FolderError("the tokenizer and the knobs are not of one model", where=str(folder), cure=AGAIN)
    sizes = {"source_vocabulary": source_tokenizer.size, "target_vocabulary": target_tokenizer.size}
    if (folder / GRAPHS).is_dir():
        from antiphon.runtime import onnx_engine

        engine: Engine = onnx_engine.load_engine(folder, config, **sizes)
        return Model(engine, source_tokenizer, target_tokenizer, config, folder, threads=threads or os.cpu_count() or 1)
    try:
        runner = importlib.import_module("antiphon.nn.engine")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingExtraError("answering with a model that is not exported", "train") from None
    return Model(runner.load_engine(folder, config.model, **sizes), source_tokenizer, target_tokenizer, config, folder)


def _pieces(spoken: Spoken, tokens: Iterator[int]) -> Iterator[str]:
    for token in tokens:
        if piece := spoken.add(token):
            yield piece
    if piece := spoken.end():
        yield piece


def _batches(lengths: np.ndarray, positions: int, rows: int) -> Iterator[np.ndarray]:
    """Rows by falling length, in batches of at most so many positions (rows x longest) and rows, but never of none."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, min(rows, positions // int(lengths[order[start]])))
        yield order[start:stop]
        start = stop


def _fluent_first(told: list[tuple[str, Hypothesis]], config: SearchConfig) -> list[tuple[str, Hypothesis]]:
    """With ``no_repeat_ngram`` 3 what says four words twice comes last: the search's own rule is for three tokens,
    and two tokens may be four words ("I don't")."""
    n = config.no_repeat_ngram
    return sorted(told, key=lambda one: repeats([one[0]], n + 1)) if n else told


def _distinct(told: list[tuple[str, Hypothesis]]) -> list[tuple[str, Hypothesis]]:
    """Each text once: its best."""
    by_text: dict[str, Hypothesis] = {}
    for text, one in told:
        by_text.setdefault(text, one)
    return list(by_text.items())


def _common(one: str, other: str, *, known: int) -> int:
    """How many characters at the start are the same, the first ``known`` among them."""
    length = min(len(one), len(other))
    return next((place for place in range(known, length) if one[place] != other[place]), length)
