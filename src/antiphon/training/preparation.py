"""From a corpus to batches: tokenizers, shards of ids, buckets. Done once; a resumed run reads it back.

The corpus is gone through twice, by all cores, and nothing of it stays in memory: once to count words for the
vocabulary, once to write the ids.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.config import Config, DataConfig, TokenizerKind, TrainConfig
from antiphon.data.alignment import LEARNT_FROM, Alignment
from antiphon.data.augmentation import augmented
from antiphon.data.batches import Batch, BatchStream, Order
from antiphon.data.buckets import BucketPlan, BucketReport, rows_per_bucket
from antiphon.data.corpus import Corpus, Pairs
from antiphon.data.pairs import Pair, Span, spread
from antiphon.data.store import Encoded, Shard, Shards, as_shard, encode, is_there, shards_for
from antiphon.data.tokenizer import UNK, Tokenizer
from antiphon.data.vocabulary import MOST_COUNTED, census, forget_rare
from antiphon.data.workers import over
from antiphon.errors import DataError, FolderError
from antiphon.runtime import folder as files
from antiphon.training.teachers import check_teachers


@dataclass(frozen=True)
class Prepared:
    """A corpus made ready for training."""

    config: Config
    """With ``data.buckets`` resolved to shapes."""
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    plan: BucketPlan
    train: Shards
    dev: Shards
    dev_pairs: list[Pair]
    """Empty in a process that does not validate."""
    part: tuple[int, int] = (0, 1)
    """Which rows of every training batch are this process's (`BatchStream`)."""

    @property
    def rows(self) -> list[int]:
        """Rows of a batch, for each bucket (B)."""
        return rows_per_bucket(self.plan, self.config.train.batch_tokens, self.config.train.batch_size)

    def report(self) -> BucketReport:
        """What the buckets cost on the training pairs."""
        source, target, pairs = self.train.lengths.T
        return self.plan.report(source + 1, target + 1, rows=self.rows, too_long=self.config.data.too_long, pairs=pairs)

    @property
    def shards(self) -> int:
        """Shards of an epoch."""
        return len(self.train.pairs)

    def stream(self, epoch: int, turn: int) -> BatchStream:
        """The training batches of the shard whose turn it is in an epoch (both from 0).

        Every epoch has its own order of shards, and with subword dropout cuts the texts anew.
        """
        data, train = self.config.data, self.config.train
        number = self.number(epoch, turn)
        shard = self.train.shard(number)
        if data.subword_dropout and shard.texts:
            rng = np.random.default_rng([train.seed % 2**64, epoch, 5, number])
            tokenizers = self.source_tokenizer, self.target_tokenizer
            shard = as_shard(encode(shard.texts, *tokenizers, dropout=data.subword_dropout, rng=rng))
        return self._stream(shard, train.order, self.part)

    def number(self, epoch: int, turn: int) -> int:
        """Which shard's turn it is."""
        order = np.random.default_rng([self.config.train.seed % 2**64, epoch, 4]).permutation(self.shards)
        return int(order[turn])

    def batches(self, epoch: int) -> Iterator[Batch]:
        """All training batches of an epoch."""
        return (batch for turn in range(self.shards) for batch in self.stream(epoch, turn).epoch(epoch))

    def dev_stream(self) -> BatchStream:
        """The dev batches."""
        return self._stream(self.dev.shard(0), "shuffled", (0, 1))

    def _stream(self, shard: Shard, order: Order, part: tuple[int, int]) -> BatchStream:
        data, train = self.config.data, self.config.train
        return BatchStream(
            shard.source,
            shard.target,
            self.plan,
            self.rows,
            order=order,
            reverse_source=data.reverse_source,
            too_long=data.too_long,
            seed=train.seed,
            part=part,
        )


def prepare(corpus: Corpus, config: Config, folder: Path) -> Prepared:
    """Trains the tokenizers, encodes train and dev (into `ids_of`), chooses the buckets.

    Raises:
        DataError: no held-out pair is short enough for a bucket.
        FolderError: the address for ids holds some already; a teacher is missing or damaged.
        UsageError: a teacher has other tokenizers.
        SaveError: the disk refuses.
    """
    address = files.ids_of(config, folder)
    if is_there(address, "train"):  # whose they are nobody knows
        cure = "delete them if their run ended before it began to learn, or give another --data.ids"
        raise FolderError("there are token ids already", where=address, cure=cure)
    tokenizers = _train_tokenizers(corpus.train, config)
    source_tokenizer, target_tokenizer = tokenizers
    if source_tokenizer is target_tokenizer:
        files.write_text(folder / files.TOKENIZER, source_tokenizer.to_json())
    else:
        files.write_text(folder / files.SOURCE_TOKENIZER, source_tokenizer.to_json())
        files.write_text(folder / files.TARGET_TOKENIZER, target_tokenizer.to_json())
    check_teachers(config, tokenizers)  # before what may take hours
    train, dev = _write_ids(corpus, config, folder, tokenizers)
    plan = _plan(config.data, train)
    data = config.data.model_copy(update={"buckets": tuple((b.source, b.target) for b in plan.buckets)})
    config = config.model_copy(update={"data": data})
    prepared = Prepared(config, *tokenizers, plan, train, dev, dev_pairs(corpus, config))
    try:
        prepared.dev_stream()
    except DataError:
        what = f"all {len(prepared.dev_pairs):,} held-out pairs are longer than the largest bucket"
        raise DataError(what, where="data.buckets", cure='give larger ones, or data.too_long = "truncate"') from None
    return prepared


def _write_ids(
    corpus: Corpus, config: Config, folder: Path, tokenizers: tuple[Tokenizer, Tokenizer]
) -> tuple[Shards, Shards]:
    """Ids of train and dev; the same corpus, tokenizers and seed give the same files."""
    address, spool = files.ids_of(config, folder), folder / files.SPOOL
    learnt_from = _learnt_from(corpus.train, config.data, config.train.seed)
    job = functools.partial(
        _encoded, learnt_from=learnt_from, tokenizers=tokenizers, texts=config.data.subword_dropout > 0
    )
    sizes = {"vocabulary": tokenizers[1].size, "seed": config.train.seed, "scratch": spool}
    joined, alone = config.data.joined, (1 + config.data.hallucinated) * (1 + config.data.placeholders)
    count, size = (alone + joined) * len(corpus.train), (alone + 2 * joined) * corpus.train.bytes
    shards = shards_for(math.ceil(count), math.ceil(size))
    train = Shards.write(address, "train", over(job, corpus.train.spans), shards=shards, **sizes)
    dev = Shards.write(address, "dev", [encode(dev_pairs(corpus, config), *tokenizers)], shards=1, **sizes)
    return train, dev


def dev_pairs(corpus: Corpus, config: Config) -> list[Pair]:
    """What a run is validated on: of a sorted part not its beginning only."""
    count = config.data.dev_pairs
    return spread(corpus.dev if isinstance(corpus.dev, list) else corpus.dev.sample(count), count)


def reopen(corpus: Corpus, config: Config, folder: Path, *, warn: Callable[[str], None]) -> Prepared:
    """What `prepare` left; ids in the folder that are missing or damaged are made again.

    Args:
        corpus: the one it was prepared from.
        config: the run's.
        folder: the run folder.
        warn: told, in a sentence, of ids that had to be made again.

    Raises:
        FolderError: it is damaged beyond that.
        SaveError: the disk refuses.
    """
    _, facts = files.read_config(folder)
    ours = {name: sha256 for name, sha256 in files.sums_of(facts).items() if name.startswith(f"{files.IDS}/")}
    if damaged := files.changed(folder, ours):
        _write_ids(corpus, config, folder, files.read_tokenizers(folder))
        if files.changed(folder, ours):
            raise FolderError(
                "the token ids are damaged and do not come out as they were",
                where=str(folder / damaged[0]),
                cure="install the version it was begun with, or start anew with another --out",
            )
        warn(f"{damaged[0]} was damaged; the token ids were made again from the data")
    return _opened(config, folder, dev_pairs(corpus, config))


def _opened(config: Config, folder: Path, dev: list[Pair]) -> Prepared:
    address = files.ids_of(config, folder)
    train, ids = (Shards.open(address, name) for name in ("train", "dev"))
    return Prepared(config, *files.read_tokenizers(folder), _plan(config.data, train), train, ids, dev)


def follow(folder: Path, *, free: TrainConfig | None) -> Prepared:
    """What another process prepared or reopened there, for one that does not validate.

    Args:
        folder: the run's.
        free: the knobs of [train] that hold now, if the run goes on: it may have changed some of them.

    Raises:
        FolderError: it is not there, or damaged.
    """
    if not (folder / files.CONFIG).is_file():
        cure = "put --out on a file system that all machines of the run share"
        raise FolderError("this process does not see the run folder", where=str(folder), cure=cure)
    config, _ = files.read_config(folder)
    return _opened(config.model_copy(update={"train": free or config.train}), folder, [])


def _learnt_from(pairs: Pairs, data: DataConfig, seed: int) -> Callable[[Span], list[Pair]]:
    """The training pairs of a span, those that are made among them.

    Only what the job needs goes to the processes: the spans come one by one.
    """
    how = functools.partial(
        augmented,
        joined=data.joined,
        hallucinated=data.hallucinated,
        placeholders=data.placeholders,
        seed=seed,
    )
    return functools.partial(_of, part=Pairs(held=pairs.held), how=how)


def _of(span: Span, *, part: Pairs, how: Callable[..., list[Pair]]) -> list[Pair]:
    return how(part.of(span), part=span.line)


def _encoded(
    span: Span, *, learnt_from: Callable[[Span], list[Pair]], tokenizers: tuple[Tokenizer, Tokenizer], texts: bool
) -> Encoded:
    return encode(learnt_from(span), *tokenizers, texts=texts)


def _train_tokenizers(pairs: Pairs, config: Config) -> tuple[Tokenizer, Tokenizer]:
    data = config.data
    kinds = data.tokenizer, data.target_tokenizer or data.tokenizer
    lowers = data.lower or data.lower_source, data.lower
    shared = data.share_vocabulary and kinds[0] == kinds[1]
    totals = Counter[str](), Counter[str]()
    # Runs of several seeds are to have the same tokenizers: they may become an ensemble, or teachers of one.
    learnt_from = _learnt_from(pairs, data, 0)
    job = functools.partial(_counted, learnt_from=learnt_from, kinds=kinds, lowers=lowers, digits=data.digits)
    for counts in over(job, pairs.spans):
        for side, count in enumerate(counts):
            total = totals[1 if shared else side]
            total.update(count)
            if len(total) > MOST_COUNTED:
                forget_rare(total)

    def learnt(side: int) -> Tokenizer:
        return Tokenizer.from_counts(
            totals[side],
            kind=kinds[side],
            vocabulary=data.vocabulary,
            min_count=data.min_count,
            lower=lowers[side],
            digits=data.digits,
        )

    target = learnt(1)
    source = learnt(0) if not shared else target if lowers[0] == lowers[1] else target.lowering()
    if data.features != "as_is":
        source = source.reading(data.features)
    if data.reverse_target:
        target = target.turned()
    if config.model.attention != "monotonic":
        return source, target
    some = augmented(pairs.sample(LEARNT_FROM), placeholders=data.placeholders, seed=0, part=0)
    written, ids = (t.encode_batch([pair[side] for pair in some]) for side, t in enumerate((source, target)))
    read = [row[::-1] for row in written] if data.reverse_source else written
    alignment = Alignment.learn(list(zip(read, ids, strict=True)), source=source.size, target=target.size)
    aligned = target.aligned(alignment)
    if not shared:
        return source, aligned
    return aligned if source is target else source.aligned(alignment), aligned


def _counted(
    span: Span,
    *,
    learnt_from: Callable[[Span], list[Pair]],
    kinds: tuple[TokenizerKind, TokenizerKind],
    lowers: tuple[bool, bool],
    digits: bool,
) -> list[Counter[str]]:
    pairs = learnt_from(span)
    return [census((pair[side] for pair in pairs), kinds[side], lower=lowers[side], digits=digits) for side in (0, 1)]


def _plan(data: DataConfig, train: Shards) -> BucketPlan:
    if not isinstance(data.buckets, int):
        return BucketPlan.by_hand(data.buckets)
    source, target, pairs = train.lengths.T
    longest = {"max_source": data.max_source, "max_target": data.max_target}
    # EOS is counted
    return BucketPlan.fit(source + 1, target + 1, count=data.buckets, too_long=data.too_long, pairs=pairs, **longest)


def unknown_share(shards: Shards) -> float:
    """Share of UNK among the target ids, 0..1."""
    return float(shards.counts[UNK] / max(shards.counts.sum() - len(shards), 1))
