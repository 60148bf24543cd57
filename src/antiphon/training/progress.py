"""What training tells whoever watches: five kinds of event, also the lines of a run's ``log.jsonl``.

The trainer knows no screen; a face (terminal, test, notebook) is any callable that takes an event.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Started:
    """Before the first update of a run, or of its continuation."""

    folder: str
    update: int
    """Updates done before (0 unless resumed)."""
    train_pairs: int
    dev_pairs: int
    parameters: int
    source_vocabulary: int
    target_vocabulary: int
    buckets: list[tuple[int, int, int]]
    """(S, T, pairs) of each bucket, shortest first."""
    padding: float
    """Share of padding in source and target positions together, 0..1."""
    too_long: int
    """Pairs beyond the largest bucket (cut or left out as configured)."""
    updates_per_epoch: int
    precision: str
    threads: int
    stops: str
    """When it will stop, in words."""
    chosen: str = ""
    """What preset `auto` saw in the data, in words."""
    event: str = "started"


@dataclass(frozen=True)
class Progress:
    """Every second or so."""

    update: int
    epoch: float
    loss: float
    """Training loss, nats per target token, running mean since the last such event."""
    tokens_per_second: float
    """Real (non-padding) target tokens."""
    learning_rate: float
    seconds: float
    """Training time so far, earlier sessions of the run included."""
    seconds_left: float | None
    """Until the budget ends; None without a budget."""
    peak_memory_mb: float
    event: str = "progress"


@dataclass(frozen=True)
class Sample:
    """One dev source, what the model answers now, and what was right."""

    source: str
    answer: str
    reference: str


@dataclass(frozen=True)
class Validated:
    """After every validation."""

    update: int
    seconds: float
    dev_loss: float
    """Full-vocabulary nats per target token over all of dev."""
    metric: str
    """Name of the score that decides (``train.dev_metric``)."""
    score: float
    best: bool
    """Whether this is the best so far, and so what was kept."""
    since_best: int
    """Validations since the best one."""
    bucket_losses: list[tuple[int, int, float, int]]
    """(S, T, nats per token, tokens) of each bucket that has dev pairs."""
    samples: list[Sample] = field(default_factory=list)
    dominating: tuple[str, float] | None = None
    """An answer that makes up too much of all answers, and its share: the bot has become a bore."""
    event: str = "validated"


@dataclass(frozen=True)
class Warned:
    """Something the user should know, in a sentence."""

    update: int
    message: str
    event: str = "warned"


@dataclass(frozen=True)
class Stopped:
    """The end of this sitting."""

    update: int
    seconds: float
    reason: str
    """In words: the budget is used up; no better dev score for 6 validations; interrupted."""
    finished: bool
    """False if the run can sensibly go on with ``--resume``."""
    best_update: int
    best_score: float
    metric: str
    folder: str
    event: str = "stopped"


Event = Started | Progress | Validated | Warned | Stopped


class Observer(Protocol):
    """Whoever watches."""

    def __call__(self, event: Event, /) -> None: ...


def as_record(event: Event) -> dict[str, Any]:
    """The event as one JSON-ready object of log.jsonl."""
    return asdict(event)
