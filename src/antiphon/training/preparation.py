"""From a corpus to batches: tokenizers, ids in memory-mapped files, buckets. Done once; a resumed run reads it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.config import Config, DataConfig, TokenizerKind
from antiphon.data.batches import BatchStream, Order
from antiphon.data.buckets import BucketPlan, BucketReport, rows_per_bucket
from antiphon.data.pairs import Corpus, Pair
from antiphon.data.store import Store, encode_pairs
from antiphon.data.tokenizer import EOS, UNK, Tokenizer
from antiphon.errors import FolderError
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
            rng = np.random.default_rng((train.seed % 2**64, epoch))
            tokenizers = self.source_tokenizer, self.target_tokenizer
            stores = encode_pairs(
                self.train_pairs, *tokenizers, self.folder, "epoch", dropout=data.subword_dropout, rng=rng
            )
        return self._stream(stores, train.order)

    def dev_stream(self) -> BatchStream:
        """The dev batches."""
        return self._stream(self.dev, "shuffled")

    def _stream(self, stores: tuple[Store, Store], order: Order) -> BatchStream:
        data, train = self.config.data, self.config.train
        return BatchStream(
            *stores,
            self.plan,
            self.rows,
            order=order,
            reverse_source=data.reverse_source,
            too_long=data.too_long,
            seed=train.seed,
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
    dev = corpus.dev[: config.data.dev_pairs]
    train_store = encode_pairs(corpus.train, source_tokenizer, target_tokenizer, ids, "train")
    dev_store = encode_pairs(dev, source_tokenizer, target_tokenizer, ids, "dev")
    plan = _plan(config.data, train_store)
    data = config.data.model_copy(update={"buckets": tuple((b.source, b.target) for b in plan.buckets)})
    config = config.model_copy(update={"data": data})
    return Prepared(
        config, source_tokenizer, target_tokenizer, plan, train_store, dev_store, _texts(corpus, config), dev, ids
    )


def reopen(corpus: Corpus, config: Config, folder: Path, *, warn: Callable[[str], None]) -> Prepared:
    """What `prepare` left in the folder; ids that are missing or damaged are made again.

    Args:
        corpus: the one it was prepared from.
        config: the run's.
        folder: the run folder.
        warn: told, in a sentence, of ids that had to be made again.

    Raises:
        FolderError: it is damaged beyond that.
        SaveError: the disk refuses.
    """
    ids = folder / files.IDS
    dev = corpus.dev[: config.data.dev_pairs]
    source_tokenizer, target_tokenizer = files.read_tokenizers(folder)
    _, facts = files.read_config(folder)
    ours = {name: sha256 for name, sha256 in files.sums_of(facts).items() if name.startswith(f"{files.IDS}/")}
    if damaged := files.changed(folder, ours):
        for pairs, name in ((corpus.train, "train"), (dev, "dev")):
            encode_pairs(pairs, source_tokenizer, target_tokenizer, ids, name)
        if files.changed(folder, ours):
            raise FolderError(
                "the token ids are damaged and do not come out as they were",
                where=str(folder / damaged[0]),
                cure="install the version it was begun with, or start anew with another --out",
            )
        warn(f"{damaged[0]} was damaged; the token ids were made again from the data")
    train, dev_stores = (
        (Store.open(ids / f"{name}.source"), Store.open(ids / f"{name}.target")) for name in ("train", "dev")
    )
    plan = _plan(config.data, train)
    return Prepared(
        config, source_tokenizer, target_tokenizer, plan, train, dev_stores, _texts(corpus, config), dev, ids
    )


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
