"""The loop: batch, loss, update; validate, keep the best, save, stop."""

from __future__ import annotations

import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from antiphon.config import Config
from antiphon.data.automatic import AUTO, known
from antiphon.data.batches import Batch
from antiphon.data.corpus import Corpus
from antiphon.errors import LinkError, UsageError
from antiphon.nn.engine import copy_weights
from antiphon.nn.kernels import missing
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime import folder as files
from antiphon.training import checkpoint
from antiphon.training.card import write_card
from antiphon.training.checkpoint import Origin, Position
from antiphon.training.distributed import Peers, joined
from antiphon.training.loss import batch_loss, optimizer_for, sampler_for, samples
from antiphon.training.memory import Heap, give_back, keep, passed_over, resident
from antiphon.training.opening import (
    Overrides,
    begin_again,
    begin_alike,
    begin_anew,
    knobs_again,
    not_read_again,
    write_config,
)
from antiphon.training.precision import Precision, choose_precision
from antiphon.training.preparation import Prepared, follow, prepare, reopen
from antiphon.training.progress import (
    Event,
    Observer,
    Progress,
    Started,
    Stopped,
    Validated,
    Warned,
    as_record,
    read_log,
)
from antiphon.training.schedule import learning_rate
from antiphon.training.stability import SETBACKS, SLOWER, Stability
from antiphon.training.teachers import InterruptedLesson, Teachers
from antiphon.training.validation import InterruptedValidation, Verdict, better, perfect, validate

REPORT_SECONDS = 1.0
"""Time between two progress events."""
TIDY_SECONDS = 5.0
"""Time between two looks at how much memory is held in vain."""
SAVE_SECONDS = 300.0
"""Most training time that a crash can cost."""
RARELY = 20
"""With a budget of minutes, a validation may take one part in so many of the time: short budgets get few of them."""
FEWEST_UPDATES = 100
"""Updates between validations of small data, whose epochs are too short to judge."""
COPIES = 5
"""Of the weights in memory: themselves, gradient, two moments, average."""
ONE_BY_ONE = 10
"""Skipped updates that are told one by one; after them only every hundredth."""
INTERRUPTED = "interrupted"
DIVERGED = 3.0
"""A dev loss of so many times that of guessing is not one of a model to go on with."""


@dataclass(frozen=True)
class Run:
    """What training leaves behind."""

    folder: Path
    best_dev: float
    metric: str
    updates: int
    seconds: float
    reason: str
    finished: bool


def train(
    data: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    overrides: Overrides | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    teachers: Sequence[Path] = (),
    like: Config | None = None,
) -> Run:
    """Trains a model on pairs until it stops getting better or its budget ends, and keeps the best in ``out``.

    Args:
        data: a TSV, ``src.txt,tgt.txt``, .jsonl or .dialogue file, or a folder made by ``antiphon data``.
        out: the run folder to make, or to go on with.
        preset: where the knobs start from; None or ``auto``: from what the pairs say.
        overrides: knobs by group, ``{"train": {"minutes": 5}}``.
        resume: go on with ``out`` where it stopped.
        observer: called with every event.
        teachers: runs on the same data with the same tokenizers to learn from, beside those that the knobs name.
        like: all knobs of a new run, where another was begun with them already; ``preset`` is what they are called.

    Raises:
        AntiphonError: everything in errors.py that is the data's, the knobs', the folder's or the disk's.
    """
    begun = time.monotonic()
    folder = Path(out)
    begin = begin_again if resume else begin_anew
    asked = like or (knobs_again(folder, preset, overrides)[0] if resume else known(preset, overrides or {}))
    with joined(asked.train.link_seconds, begun) as peers, ExitStack() as held:
        torch.manual_seed(asked.train.seed)
        keep()
        warnings: list[str] = []
        found: list[tuple[Prepared, Corpus | None, str]] = []

        def ready() -> None:
            if like is None:
                config, corpus, reason = begin(data, folder, preset, overrides)
            else:
                config, corpus, reason = begin_alike(data, folder, like)
            held.enter_context(files.locked(folder))
            if resume:
                warnings.extend(not_read_again(folder, preset))
                prepared = reopen(corpus, config, folder, warn=warnings.append)
                files.write_config(folder, config, files.read_config(folder)[1])  # a budget that was changed stays so
            else:
                files.refuse_taken(folder)  # again: another process may have trained here while we read
                files.cleared(folder)
                prepared = prepare(corpus, config, folder)
                write_config(folder, preset or AUTO, prepared, corpus)
            found.append((prepared, corpus, reason))

        peers.lead(ready)
        if not found:  # this process follows
            found.append((follow(folder, free=asked.train if resume else None), None, ""))
        [(prepared, corpus, reason)] = found
        if asked.train.threads or peers.size > 1:
            torch.set_num_threads(asked.train.threads or peers.threads())
        # Until here there is nothing to save: a signal ends it at once.
        with _interruptible(alone=peers.size == 1) as interrupted, _memory_told():
            trainer = _Trainer(prepared, folder, corpus, observer, interrupted, peers, reason, teachers)
            trainer.restore(warnings) if resume else trainer.begin()
            return trainer.run()


def ended(folder: Path) -> Run | None:
    """What a run came to, by its log; None if it has not ended, or is to go on."""
    log = read_log(folder / files.LOG)
    if not log or log[-1]["event"] != Stopped.event or not log[-1]["finished"]:
        return None
    last = log[-1]
    best, metric, reason = last["best_score"], last["metric"], last["reason"]
    return Run(folder, best, metric, last["update"], last["seconds"], reason, finished=True)


class _Trainer:
    """One sitting of a run."""

    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        corpus: Corpus | None,
        observer: Observer | None,
        interrupted: threading.Event,
        peers: Peers,
        reason: str,
        teachers: Sequence[Path],
    ) -> None:
        config = prepared.config.of_one()
        prepared = replace(prepared, config=config, part=(peers.rank, peers.size))
        self._prepared, self._config, self._folder, self._corpus = prepared, config, folder, corpus
        self._observer, self._interrupted, self._peers, self._reason = observer, interrupted, peers, reason
        self._had_ended = False  # before this sitting
        self._going_back = False
        self._stopping = False  # several processes: one of them was interrupted, and all know it
        vocabularies = {
            "source_vocabulary": prepared.source_tokenizer.size,
            "target_vocabulary": prepared.target_tokenizer.size,
        }
        _refuse_giant(config, vocabularies)
        self._model = Seq2Seq(config.model, **vocabularies)
        self._model.expect(
            prepared.train.counts, config.train.label_smoothing if config.model.softmax == "full" else 0.0
        )
        # a second set of weights only where the averaged ones differ from those that are trained
        self._averaged = Seq2Seq(config.model, **vocabularies) if config.train.average else self._model
        sparse = self._model.sparse_parameters()
        self._gradients = [p for p in self._model.parameters() if not any(p is table for table in sparse)], sparse
        self._optimizer = optimizer_for(self._model, config)
        self._precision: Precision = choose_precision(config.train.precision)
        self._sampler = sampler_for(prepared)
        tokenizers = prepared.source_tokenizer, prepared.target_tokenizer
        self._teachers = Teachers.of(config, tokenizers, self._precision, teachers)
        self._stability = Stability(config.train.clip)
        self._origin = Origin.of(config, peers.size)
        self._position = Position()
        self._seconds_before = 0.0
        self._stream = prepared.stream(0, 0)
        self._report = prepared.report()
        self._epoch_updates = sum(self._report.batches)
        self._saved = peers.seconds  # when, of this sitting
        self._saved_update, self._saved_landmark = -1, False
        self._validation_seconds = 0.0  # of the last one

    def begin(self) -> None:
        """Saves the first state, so that from now on there is one to go on from, or to go back to."""
        self._save()

    def restore(self, warnings: Iterable[str]) -> None:
        """Takes up the run where its folder says it stopped.

        Args:
            warnings: what was noticed before, to be told.
        """
        found = list(warnings)
        self._position = self._restored(found.append)
        position = self._position
        self._seconds_before = position.seconds
        if position.finished and position.since_best >= self._config.train.patience:
            position.since_best = 0  # it had stopped for want of patience, and is to go on: with new patience
        self._had_ended = position.finished
        if position.finished:
            position.finished, position.setbacks = False, 0
        if self._peers.leads:
            log = self._folder / files.LOG
            files.write_lines(
                log,
                (r for r in read_log(log) if r.get("update", 0) <= position.update and r["event"] != Stopped.event),
            )
        for message in found:
            self._tell(Warned(position.update, message))

    def _restored(self, warn: Callable[[str], None], *, landmark: bool = False) -> Position:
        state = self._model, self._optimizer, self._stability, self._origin
        found: list[Position] = []

        def read() -> None:
            found.append(checkpoint.restore_state(self._folder, *state, warn=warn, landmark=landmark))

        self._peers.lead(read)
        if not found:  # the leader has seen to it that what is there is whole
            read()
        self._peers.meet()  # nobody writes there before all have read
        [position] = found
        self._stream = self._prepared.stream(position.epoch, position.shard)
        self._saved_update, self._saved_landmark = position.update, position.landmark
        return position

    def run(self) -> Run:
        self._peers.align(list(self._model.parameters()))
        if self._corpus is not None:
            self._tell(self._started(self._corpus))
        if reason := missing():
            self._tell(Warned(self._position.update, f"training is slower without C kernels: {reason}"))
        if self._corpus is not None and (lost := self._prepared.dev_stream().dropped):
            what = f"{lost:,} of {len(self._prepared.dev):,} held-out pairs are longer than the largest bucket"
            self._tell(Warned(self._position.update, f"{what} and not in the dev loss"))
        try:
            with passed_over():
                return self._ran()
        except LinkError:
            if self._peers.leads and not self._going_back:  # an update that failed changed nothing: all before is kept
                self._position.seconds = self._seconds()
                self._write_state()
            raise

    def _ran(self) -> Run:
        begun, reason = self._position.update, self._descend()
        position = self._position
        finished = reason != INTERRUPTED
        if not finished and self._saved_update != position.update:
            self._save()
        position.seconds = self._seconds()
        stopped = Stopped(
            update=position.update,
            seconds=position.seconds,
            reason=reason,
            finished=finished,
            best_update=position.best_update,
            best_score=math.nan if position.best_score is None else position.best_score,
            metric=self._config.train.dev_metric,
            folder=str(self._folder),
            skipped=position.skipped,
        )
        if finished and position.update == 0 and not position.setbacks and self._budget_spent():
            self._tell(Warned(0, f"nothing was learnt: {reason} before the first update; give it more"))
        elif self._had_ended and position.update == begun:
            told = f"nothing more was learnt: {reason}"
            if self._budget_spent():
                told += ", and a budget counts from a run's beginning; give it more"
            self._tell(Warned(begun, told))
        self._tell(stopped)
        if self._corpus is not None:
            write_card(self._folder, self._config, self._corpus.card, len(self._corpus.train), stopped)
        if finished:  # said last: a run that is killed before this ends once more, and for the same reason
            position.finished = True
            self._save()
        return Run(
            self._folder,
            stopped.best_score,
            stopped.metric,
            position.update,
            position.seconds,
            reason,
            finished,
        )

    def _descend(self) -> str:
        """Updates until something ends them; returns what.

        All that is decided between two updates is decided before the next one, from what a save holds: so a run that
        is killed anywhere decides the same when it goes on.
        """
        losses = tokens = 0.0
        reported, first = time.monotonic(), True  # the first update is told at once: it works
        heap, tidied = Heap(), reported
        judging = False  # since something ended it
        while True:
            reason = self._ended()
            if reason == INTERRUPTED or (reason and (self._position.judged or judging)):
                return reason
            if reason or self._validation_due():
                judging = bool(reason)
                self._validate()
                reported, losses, tokens = time.monotonic(), 0.0, 0.0
                continue
            if self._peers.seconds - self._saved > SAVE_SECONDS:
                self._save()
            try:
                loss, count = self._update()
            except InterruptedLesson:
                self._stopping = True
                continue
            judging = False
            losses, tokens = losses + loss, tokens + count
            now = time.monotonic()
            if now - reported >= REPORT_SECONDS or first:
                first = False
                self._tell(self._progress(losses / max(tokens, 1), tokens / (now - reported)))
                losses = tokens = 0.0
                reported = now
            if now - tidied >= TIDY_SECONDS:
                heap.tidy(resident())
                tidied = now
            if self._stability.lost:
                self._go_back("too many updates were skipped")

    def _ended(self) -> str:
        """What ends training now, in words; empty while it goes on."""
        position, train = self._position, self._config.train
        if self._stopping or (self._peers.size == 1 and self._interrupted.is_set()):
            return INTERRUPTED
        if position.since_best >= train.patience:
            return f"no better dev {train.dev_metric} for {train.patience} validations"
        if perfect(train.dev_metric, position.best_score):
            return f"dev {train.dev_metric} cannot get better"
        if position.setbacks > SETBACKS:
            return f"its gradients explode even with a learning rate {1 / position.slower:,.0f} times lower"
        return self._budget_spent()

    def _next_batch(self) -> Batch:
        position = self._position
        if position.index >= self._stream.batches_per_epoch:
            position.shard, position.index = position.shard + 1, 0
            if position.shard == self._prepared.shards:
                position.epoch, position.shard = position.epoch + 1, 0
            self._stream = self._prepared.stream(position.epoch, position.shard)
        return self._stream.batch(position.epoch, position.index)

    def _update(self) -> tuple[float, int]:
        """One update; returns the batch's loss in nats and its real target tokens."""
        position, config, peers = self._position, self._config, self._peers
        batch = self._next_batch()
        if not self._model.training:  # to walk through all modules takes a fifth of a millisecond
            self._model.train()
        if peers.size > 1:  # whoever runs it later, and with whom: each process has its own numbers at each update
            torch.manual_seed(hash((config.train.seed, position.update, peers.rank)))
        nats, share = 0.0, self._budget_share()
        teachers = None if self._sampling(share) else self._asked()
        if batch.rows:  # a batch of few rows may leave nothing for this process
            loss, nats, _ = batch_loss(
                self._model,
                batch,
                config,
                precision=self._precision,
                sampler=self._sampler,
                update=position.update,
                share=share,
                lesson=None if teachers is None else teachers.lesson(batch),
            )
            loss.backward()
        nats, interrupts = peers.sum_gradients(*self._gradients, nats, float(self._interrupted.is_set()))
        self._stopping = peers.size > 1 and interrupts > 0
        norm = self._optimizer.update(self._rate(), most=self._stability.most)
        position.update, position.index = position.update + 1, position.index + 1
        if fault := self._stability.saw(norm):
            position.skipped += 1
            if position.skipped <= ONE_BY_ONE or position.skipped % 100 == 0:
                told = f"update {position.update} skipped: {fault}; {position.skipped:,} skipped so far"
                self._tell(Warned(position.update, told))
            return 0.0, 0
        return nats, batch.tokens

    def _sampling(self, share: float | None) -> bool:
        """Whether an update at this share of the budget learns from sampled words."""
        return self._sampler is not None and samples(self._config, share)

    def _asked(self) -> Teachers | None:
        """The teachers, if there are any; about a shard that is new to them they are asked first, by all processes.

        Raises:
            InterruptedLesson: they were, and a signal came.
        """
        teachers, position, peers = self._teachers, self._position, self._peers
        if teachers is None:
            return None
        shard = self._prepared.number(position.epoch, position.shard)
        if not teachers.knows(shard):
            if not teachers.asked:
                told = f"what {len(teachers)} other models predict is asked for every pair"
                self._tell(Warned(position.update, told))
            whole = replace(self._prepared, part=(0, 1)).stream(position.epoch, position.shard)
            teachers.learn(shard, whole, peers, interrupted=self._interrupted.is_set)
        return teachers

    def _rate(self) -> float:
        share = self._budget_share()
        usual = learning_rate(self._config.train, update=self._position.update, progress=share)
        return usual * self._position.slower

    def _go_back(self, why: str) -> None:
        """To the last landmark, with a lower rate; saved at once, so that a run killed now has gone back too."""
        left, saved_landmark = self._position, self._saved_landmark
        warnings: list[str] = []
        self._going_back = True  # from now on the weights are of one moment and the position is of another
        self._position = position = self._restored(warnings.append, landmark=True)
        self._saved_landmark = saved_landmark  # of the state that is in the folder, which may be a later one
        self._stability.forgive()
        position.skipped, position.setbacks = left.skipped, left.setbacks + 1
        position.slower = left.slower * SLOWER
        told = f"{why}: back to update {position.update}, with the learning rate halved"
        for message in (*warnings, f"{told} ({position.slower:g} of what it would be)"):
            self._tell(Warned(left.update, message))
        self._going_back = False
        self._save()

    def _validate(self) -> None:
        """Scores the averaged weights and keeps them if they are the best; goes back if they are of no use.

        If it is interrupted, nothing has happened.
        """
        position, begun, metric = self._position, self._seconds(), self._config.train.dev_metric
        verdicts: list[Verdict] = []
        guessing = math.log(self._prepared.target_tokenizer.size)

        def judged() -> tuple[float, float] | None:
            weights = self._optimizer.averaged()
            if self._averaged is not self._model:
                copy_weights(self._averaged, weights)
            give_back()
            asked, model = self._interrupted.is_set, self._averaged.eval()
            try:
                verdict = validate(model, self._prepared, self._config, precision=self._precision, interrupted=asked)
            except InterruptedValidation:
                return None
            verdicts.append(verdict)
            if verdict.loss <= DIVERGED * guessing and better(metric, verdict.score, position.best_score):
                checkpoint.save_weights(self._folder, weights)
            return verdict.score, verdict.loss

        judgement = self._peers.lead(judged)
        if judgement is None:
            self._stopping = True
            return
        score, loss = judgement
        diverged = not loss <= DIVERGED * guessing  # so written, NaN diverges too
        best = not diverged and better(metric, score, position.best_score)
        if best:
            position.best_score, position.best_update, position.setbacks = score, position.update, 0
        warming = position.update <= self._config.train.warmup
        position.since_best = 0 if best or warming else position.since_best + 1
        position.validated_update, position.validated_seconds = position.update, self._seconds()
        for verdict in verdicts:  # the leader's
            self._tell(
                Validated(
                    update=position.update,
                    seconds=position.validated_seconds,
                    dev_loss=verdict.loss,
                    metric=metric,
                    score=score,
                    best=best,
                    since_best=position.since_best,
                    bucket_losses=verdict.bucket_losses,
                    samples=verdict.samples,
                    dominating=None if warming else verdict.dominating,  # who has learnt nothing says one thing
                )
            )
        if diverged:
            self._go_back(f"a dev loss of {loss:.3g}, where guessing has {guessing:.3g}")
        else:
            self._save()
        self._peers.align(list(self._model.parameters()))  # processors of different make may differ in a last bit
        self._validation_seconds = self._seconds() - begun

    def _save(self) -> None:
        self._position.seconds = self._seconds()
        self._peers.lead(self._write_state)
        self._saved = self._peers.seconds
        self._saved_update, self._saved_landmark = self._position.update, self._position.landmark

    def _write_state(self) -> None:
        give_back()
        state = self._model, self._optimizer, self._stability, self._position, self._origin
        checkpoint.save_state(self._folder, *state, keep=self._saved_landmark)

    def _validation_due(self) -> bool:
        train, position = self._config.train, self._position
        since = position.update - position.validated_update
        if train.validate_every:
            return since >= train.validate_every
        if train.minutes:
            waited = self._seconds() - position.validated_seconds
            if waited < RARELY * self._validation_seconds:
                return False
            if waited >= 6 * train.minutes:
                return True
        epoch = self._epoch_updates
        budget = min(train.max_updates or math.inf, (train.epochs or math.inf) * epoch)
        return since >= min(max(epoch, FEWEST_UPDATES), math.ceil(budget / 10) if budget < math.inf else math.inf)

    def _seconds(self) -> float:
        return self._seconds_before + self._peers.seconds

    def _budget_share(self) -> float | None:
        train = self._config.train
        shares = []
        if train.minutes:
            shares.append(self._seconds() / (60 * train.minutes))
        if train.max_updates:
            shares.append(self._position.update / train.max_updates)
        if train.epochs:
            shares.append(self._epochs() / train.epochs)
        return max(shares, default=None)

    def _budget_spent(self) -> str:
        train = self._config.train
        if train.max_updates and self._position.update >= train.max_updates:
            return f"all of its {train.max_updates:,} updates are done"
        if train.epochs and self._epochs() >= train.epochs:
            return f"all of its {train.epochs:,} epochs are done"
        if train.minutes and self._seconds() >= 60 * train.minutes:
            return f"its {train.minutes:g} minutes are over"
        return ""

    def _epochs(self) -> float:
        position = self._position
        of_shard = position.index / self._stream.batches_per_epoch
        return position.epoch + (position.shard + of_shard) / self._prepared.shards

    def _stops(self) -> str:
        train = self._config.train
        ends = [f"after {train.patience} validations without a better dev {train.dev_metric}"]
        if train.minutes:
            ends.insert(0, f"after {train.minutes:g} minutes")
        if train.max_updates:
            ends.insert(0, f"after {train.max_updates:,} updates")
        if train.epochs:
            ends.insert(0, f"after {train.epochs:,} epochs")
        return " or ".join(ends)

    def _started(self, corpus: Corpus) -> Started:
        prepared = self._prepared
        report = self._report
        return Started(
            folder=str(self._folder),
            update=self._position.update,
            train_pairs=len(corpus.train),
            made_pairs=len(prepared.train) - len(corpus.train),
            dev_pairs=len(prepared.dev),
            parameters=sum(p.numel() for p in self._model.parameters()),
            source_vocabulary=prepared.source_tokenizer.size,
            target_vocabulary=prepared.target_tokenizer.size,
            buckets=[(b.source, b.target, n) for b, n in zip(prepared.plan.buckets, report.pairs, strict=True)],
            padding=report.padding,
            too_long=report.too_long,
            cut=prepared.config.data.too_long == "truncate",
            skipped=corpus.skipped,
            updates_per_epoch=self._epoch_updates,
            precision=self._precision,
            threads=torch.get_num_threads(),
            stops=self._stops(),
            chosen=self._reason,
        )

    def _progress(self, loss: float, tokens_per_second: float) -> Progress:
        position, train, seconds = self._position, self._config.train, self._seconds()
        share = self._budget_share()
        ways = [60 * train.minutes - seconds] if train.minutes else []
        if share and position.update > 1:  # of what all sittings took, since the share is of all
            ways.append(seconds / share * (1 - share))
        left = min(ways, default=None)
        return Progress(
            update=position.update,
            epoch=self._epochs(),
            loss=loss,
            tokens_per_second=tokens_per_second,
            learning_rate=self._rate(),
            seconds=seconds,
            seconds_left=left,
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            sampled=self._sampling(share),
        )

    def _tell(self, event: Event) -> None:
        if not self._peers.leads:
            return
        files.append_line(self._folder / files.LOG, as_record(event))
        if self._observer is not None:
            try:
                self._observer(event)
            except OSError:  # the terminal was closed, or a pipe's reader went: that is no reason to lose a training
                self._observer = None


def _refuse_giant(config: Config, vocabularies: Mapping[str, int]) -> None:
    with torch.device("meta"):  # shapes only
        weights = sum(p.numel() for p in Seq2Seq(config.model, **vocabularies).parameters())
    needed, held = 4 * COPIES * weights, _physical_memory()
    if needed > held:
        raise UsageError(
            f"a model of {weights:,} weights takes about {needed / 1e9:,.0f} GB to train, this machine has "
            f"{held / 1e9:,.0f}",
            where="--model",
            cure="make it narrower, or the vocabulary smaller",
        )


def _physical_memory() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # another system: it will tell by itself
        return math.inf


@contextmanager
def _memory_told() -> Iterator[None]:
    """A batch that does not fit becomes a UsageError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise UsageError(
            "not enough memory for a batch",
            where="--train.batch_tokens",
            cure="smaller batches or a smaller model; what was saved before is kept",
        ) from None


@contextmanager
def _interruptible(*, alone: bool) -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal (SIGHUP) sets; a second Ctrl-C stops at once,
    unless a launcher hands the first one on."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, _frame: object) -> None:
        if alone and event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What was ignored before stays ignored: nohup, and jobs in the background of a script.
    heard = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
