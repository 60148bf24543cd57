"""From a corpus to batches: tokenizers, ids in memory-mapped files, buckets. Done once; a resumed run reads it back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.config import Config, DataConfig, TokenizerKind, TrainConfig
from antiphon.data.batches import BatchStream, Order
from antiphon.data.buckets import BucketPlan, BucketReport, rows_per_bucket
from antiphon.data.pairs import Corpus, Pair
from antiphon.data.store import Store, encode_pairs
from antiphon.data.tokenizer import EOS, UNK, Tokenizer
from antiphon.runtime import folder as files


@dataclass(frozen=True)
class Prepared:
    """A corpus made ready for training."""

    config: Config
    """With ``data.buckets`` resolved to shapes."""
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    plan: BucketPlan
    train: tuple[Store, Store]
    dev: tuple[Store, Store]
    train_pairs: list[Pair]
    """Kept for subword dropout, which needs the texts anew at every epoch; else empty."""
    dev_pairs: list[Pair]
    folder: Path
    part: tuple[int, int] = (0, 1)
    """Which rows of every training batch are this process's (`BatchStream`)."""

    @property
    def rows(self) -> list[int]:
        """Rows of a batch, for each bucket (B)."""
        return rows_per_bucket(self.plan, self.config.train.batch_tokens, self.config.train.batch_size)

    def report(self) -> BucketReport:
        """What the buckets cost on the training pairs."""
        lengths = self.train[0].lengths + 1, self.train[1].lengths + 1
        return self.plan.report(*lengths, rows=self.rows, too_long=self.config.data.too_long)

    def stream(self, epoch: int) -> BatchStream:
        """The training batches of an epoch; with subword dropout every epoch is segmented anew."""
        data, train = self.config.data, self.config.train
        stores = self.train
        if data.subword_dropout:
            rng = np.random.default_rng((train.seed, epoch))
            tokenizers = self.source_tokenizer, self.target_tokenizer
            stores = encode_pairs(
                self.train_pairs, *tokenizers, self.folder, "epoch", dropout=data.subword_dropout, rng=rng
            )
        return self._stream(stores, train.order, self.part)

    def dev_stream(self) -> BatchStream:
        """The dev batches."""
        return self._stream(self.dev, "shuffled", (0, 1))

    def _stream(self, stores: tuple[Store, Store], order: Order, part: tuple[int, int]) -> BatchStream:
        data, train = self.config.data, self.config.train
        return BatchStream(
            *stores,
            self.plan,
            self.rows,
            order=order,
            reverse_source=data.reverse_source,
            too_long=data.too_long,
            seed=train.seed,
            part=part,
        )

    def target_counts(self) -> np.ndarray:
        """(V,) how often each id is to be predicted in training; the ranks of sampled softmax."""
        counts = np.zeros(self.target_tokenizer.size, dtype=np.int64)
        for start in range(0, len(self.train[1].ids), 1 << 22):  # in pieces: the file may exceed memory
            counts += np.bincount(self.train[1].ids[start : start + (1 << 22)], minlength=len(counts))
        counts[EOS] += len(self.train[1])
        return counts


def prepare(corpus: Corpus, config: Config, folder: Path) -> Prepared:
    """Trains the tokenizers, encodes train and dev into ``folder/ids``, chooses the buckets.

    Raises:
        SaveError: the disk refuses.
    """
    source_tokenizer, target_tokenizer = _train_tokenizers(corpus.train, config.data)
    if source_tokenizer is target_tokenizer:
        files.write_text(folder / files.TOKENIZER, source_tokenizer.to_json())
    else:
        files.write_text(folder / files.SOURCE_TOKENIZER, source_tokenizer.to_json())
        files.write_text(folder / files.TARGET_TOKENIZER, target_tokenizer.to_json())
    ids = folder / files.IDS
    ids.mkdir(exist_ok=True)
    dev = corpus.dev[: config.data.dev_pairs]
    train_store = encode_pairs(corpus.train, source_tokenizer, target_tokenizer, ids, "train")
    dev_store = encode_pairs(dev, source_tokenizer, target_tokenizer, ids, "dev")
    plan = _plan(config.data, train_store)
    data = config.data.model_copy(update={"buckets": tuple((b.source, b.target) for b in plan.buckets)})
    config = config.model_copy(update={"data": data})
    return Prepared(
        config, source_tokenizer, target_tokenizer, plan, train_store, dev_store, _texts(corpus, config), dev, ids
    )


def reopen(corpus: Corpus, config: Config, folder: Path) -> Prepared:
    """What `prepare` left in the folder. Raises FolderError when it is damaged."""
    ids = folder / files.IDS
    train, dev_stores = (
        (Store.open(ids / f"{name}.source"), Store.open(ids / f"{name}.target")) for name in ("train", "dev")
    )
    plan = _plan(config.data, train)
    dev = corpus.dev[: config.data.dev_pairs]
    source_tokenizer, target_tokenizer = files.read_tokenizers(folder)
    return Prepared(
        config, source_tokenizer, target_tokenizer, plan, train, dev_stores, _texts(corpus, config), dev, ids
    )


def follow(folder: Path, *, free: TrainConfig) -> Prepared:
    """What another process prepared or reopened there, for one that neither validates nor reads texts.

    Args:
        folder: the run's.
        free: the knobs of [train] that hold now; a run that goes on may have changed some of them.

    Raises:
        FolderError: it is not there, or damaged.
    """
    if not (folder / files.CONFIG).is_file():
        cure = "put --out on a file system that all machines of the run share"
        raise FolderError("this process does not see the run folder", where=str(folder), cure=cure)
    config, _ = files.read_config(folder)
    return reopen(Corpus([], [], [], None, ""), config.model_copy(update={"train": free}), folder)


def _texts(corpus: Corpus, config: Config) -> list[Pair]:
    return corpus.train if config.data.subword_dropout else []


def _train_tokenizers(pairs: list[Pair], data: DataConfig) -> tuple[Tokenizer, Tokenizer]:
    target_kind = data.target_tokenizer or data.tokenizer

    def learn(texts: Iterable[str], kind: TokenizerKind) -> Tokenizer:
        return Tokenizer.train(
            texts,
            kind=kind,
            vocabulary=data.vocabulary,
            min_count=data.min_count,
            lower=data.lower,
            digits=data.digits,
        )

    if data.share_vocabulary and target_kind == data.tokenizer:
        shared = learn((side for pair in pairs for side in pair), target_kind)
        return shared, shared
    return learn((p.source for p in pairs), data.tokenizer), learn((p.target for p in pairs), target_kind)


def _plan(data: DataConfig, stores: tuple[Store, Store]) -> BucketPlan:
    if not isinstance(data.buckets, int):
        return BucketPlan.by_hand(data.buckets)
    lengths = stores[0].lengths + 1, stores[1].lengths + 1  # EOS is counted
    longest = {"max_source": data.max_source, "max_target": data.max_target}
    return BucketPlan.fit(*lengths, count=data.buckets, too_long=data.too_long, **longest)


def unknown_share(store: Store) -> float:
    """Share of UNK among the ids of a store, 0..1."""
    total = unknown = 0
    for start in range(0, len(store.ids), 1 << 22):
        piece = store.ids[start : start + (1 << 22)]
        total, unknown = total + len(piece), unknown + int((piece == UNK).sum())
    return unknown / max(total, 1)
