"""Training on the screen: a live line while it runs, a few lines at every validation, all on standard error.

Where standard error is no terminal (a log file, a pipe), plain lines, one every ten seconds or so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from antiphon.faces.screen import duration, say, shown, stderr
from antiphon.training.progress import Event, Joined, Member, Progress, Started, Stopped, Student, Validated, Warned

_FAR = 10 * 365 * 86_400
"""Seconds from which on nobody asks when."""
EXAMPLE = "some text"
_TYPED = re.compile(r"[^\W_][^\x00-\x1f\"\\$`!%]{0,59}")
"""What stands between quotes as it is, in any shell, and fits a line."""


class TrainingScreen:
    """An observer of training (see `antiphon.training.progress`), used as a context manager.

    Args:
        console: where to; standard error by default.
        every: seconds of training between two plain lines where there is no live line.
        samples: real answers shown at a validation.
        now: the clock on the wall, which the time of stopping is told by.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        every: float = 10.0,
        samples: int = 3,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._console = console or stderr()
        self._every = every
        self._samples = samples
        self._now = now
        self.example = EXAMPLE
        """A source that the run was shown with, such as can be typed."""
        self._dev = ""
        self._last_line = float("-inf")
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.update(Text(), refresh=True)
            self._live.stop()

    def __call__(self, event: Event, /) -> None:
        """Show one event."""
        match event:
            case Started():
                self._started(event)
            case Progress():
                self._progress(event)
            case Validated():
                self._validated(event)
            case Warned():
                self._say(f"warning: {shown(event.message)}", "yellow")
            case Stopped():
                self._stopped(event)
            case Member():
                self._dev, self._last_line = "", float("-inf")
                self._say(f"model {event.number} of {event.members}, which will answer together", "bold")
            case Student():
                self._dev, self._last_line = "", float("-inf")
                self._say(f"and one that learns from {_many(event.members, 'model')}, to answer alone", "bold")
            case Joined(student=None):
                scores = f"dev {event.metric} {event.together:.3f}, the first alone {event.alone:.3f}"
                self._say(f"{event.members} models answer together: {scores}", "bold green")
            case Joined():
                teachers = "its teacher" if event.members == 1 else f"its {event.members} teachers together"
                scores = f"dev {event.metric} {event.student:.3f}, {teachers} {event.together:.3f}"
                self._say(f"the one that has learnt from them answers: {scores}", "bold green")

    def _started(self, event: Started) -> None:
        vocabulary = f"{event.source_vocabulary:,}"
        if event.target_vocabulary != event.source_vocabulary:
            vocabulary += f" → {event.target_vocabulary:,}"
        made = f" (and {event.made_pairs:,} made of them)" if event.made_pairs else ""
        held = f"{event.dev_pairs:,} held out; {vocabulary} tokens known"
        self._say(f"{event.train_pairs:,} pairs to learn from{made}, {held}")
        for reason, number in event.skipped.items():
            self._say(f"left out: {number:,} {reason}", "yellow")
        if event.chosen:
            self._say(f"taken for {event.chosen}; --preset and flags win over it", "dim")
        shapes = " ".join(f"{source}·{target}" for source, target, _ in event.buckets)
        self._say(f"buckets (source·target) {shapes}: {event.padding:.0%} padding", "dim")
        if event.too_long:
            fate = "cut" if event.cut else "left out"
            self._say(f"{event.too_long:,} pairs are longer than the largest bucket: {fate}", "yellow")
        self._say(
            f"{event.parameters:,} weights, {event.precision} on {_many(event.threads, 'thread')}, "
            f"{event.updates_per_epoch:,} updates an epoch",
            "dim",
        )
        begins = f"goes on at update {event.update:,}" if event.update else "begins"
        self._say(f"training {begins}; stops {shown(event.stops)}")
        self._say("Ctrl-C stops it earlier and keeps all", "dim")

    def _progress(self, event: Progress) -> None:
        parts = [
            f"{event.update:,} updates",
            f"{event.tokens_per_second:,.0f} tokens/s",
            f"loss {event.loss:.3f}{' (sampled)' if event.sampled else ''}",
        ]
        if self._dev:
            parts.append(self._dev)
        if event.seconds_left is None:
            parts.append(f"{duration(event.seconds)} so far")
        else:
            parts.append(f"{duration(event.seconds_left)} left{self._end(event.seconds_left)}")
        parts.append(f"epoch {event.epoch:.1f}")
        line = " · ".join(parts)
        if self._live.is_started:
            self._live.update(Text(line, style="cyan", no_wrap=True, overflow="ellipsis"), refresh=True)
        elif event.seconds - self._last_line >= self._every:
            self._last_line = event.seconds
            self._say(line)

    def _end(self, seconds: float) -> str:
        """When it stops, if that is a day that anybody thinks of."""
        if seconds > _FAR:
            return ""
        now = self._now()
        end = now + timedelta(seconds=seconds)
        return f", stops at {end:%H:%M}" if seconds < 86_400 else f", stops on {end:%d %B, %H:%M}"

    def _validated(self, event: Validated) -> None:
        self._dev = f"dev {event.dev_loss:.3f}"
        head = f"after {event.update:,} updates ({duration(event.seconds)}): dev loss {event.dev_loss:.3f} nats/token"
        if event.metric != "loss":
            self._dev = f"dev {event.metric} {event.score:.2f}"
            head += f", {event.metric} {event.score:.2f}"
        since = f"no better for {_many(event.since_best, 'validation')}" if event.since_best else "no better yet"
        head += f", {'the best so far' if event.best else since}"
        self._say(head, "bold green" if event.best else "bold")
        if len(event.bucket_losses) > 1:
            losses = "  ".join(f"{source}·{target} {loss:.2f}" for source, target, loss, _ in event.bucket_losses)
            self._say(f"  buckets    {losses}", "dim")
        different = {sample.source: sample for sample in event.samples}
        self.example = next(filter(_TYPED.fullmatch, different), EXAMPLE)
        for sample in list(different.values())[: self._samples]:
            self._say(f"  source     {shown(sample.source)}", "dim")
            self._say(f"  answer     {shown(sample.answer)}")
            self._say(f"  reference  {shown(sample.reference)}", "dim")
        if event.dominating is not None:
            answer, share = event.dominating
            self._say(f'warning: {share:.0%} of all answers are "{shown(answer)}"', "yellow")

    def _stopped(self, event: Stopped) -> None:
        self._say(f"stopped after {event.update:,} updates ({duration(event.seconds)}): {shown(event.reason)}")
        if event.skipped:
            self._say(f"{_many(event.skipped, 'update')} skipped: not finite, or exploded", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        say(self._console, text, style)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
