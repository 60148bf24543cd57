"""What training tells whoever watches: five kinds of event, also the lines of a run's ``log.jsonl``.

The trainer knows no screen; a face (terminal, test, notebook) is any callable that takes an event.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from antiphon.runtime.folder import read_lines


@dataclass(frozen=True)
class Started:
    """Before the first update of a run, or of its continuation."""

    folder: str
    update: int
    """Updates done before (0 unless resumed)."""
    train_pairs: int
    """Of the data: those made of them are counted beside."""
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
    made_pairs: int = 0
    """Pairs made of the data's, to learn from as well: joined, hallucinated, with letters hidden."""
    cut: bool = True
    """Whether pairs that are too long are cut; else they are left out."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What the readers left out: reason and number."""
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
    """Until the budget ends; None without a budget, and while the pace is unknown: by the first update, in which
    everything happens for the first time, it would be hours."""
    peak_memory_mb: float
    sampled: bool = False
    """Whether the loss is that of choosing among sampled words, an easier problem."""
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
    skipped: int = 0
    """Updates left out because their gradient was not finite or exploded."""
    event: str = "stopped"


@dataclass(frozen=True)
class Member:
    """Of several models that will answer together the next one is begun, or gone on with."""

    number: int
    """From 1; the first is not told of."""
    members: int
    folder: str
    event: str = "member"


@dataclass(frozen=True)
class Student:
    """The model that these have taught, or will teach, is begun, or gone on with."""

    members: int
    folder: str
    event: str = "student"


@dataclass(frozen=True)
class Joined:
    """Several models answer together from now on, or the one that they have taught answers in their place."""

    members: int
    metric: str
    alone: float
    """The score of the first, on dev, with the search of the run."""
    together: float
    """That of all."""
    student: float | None = None
    """That of the one that they have taught, if there is one."""
    event: str = "joined"


Event = Started | Progress | Validated | Warned | Stopped | Member | Student | Joined


class Observer(Protocol):
    """Whoever watches."""

    def __call__(self, event: Event, /) -> None: ...


def as_record(event: Event) -> dict[str, Any]:
    """The event as one JSON-ready object of log.jsonl."""
    return asdict(event)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl`` that are whole events; what a crash or a stranger left beside them is left out."""
    return [record for record in read_lines(path) if _is_event(record)]


_KINDS = {kind.__name__.lower(): kind for kind in (Started, Progress, Validated, Warned, Stopped)}
_NUMBERS = (int, float)
_FITTING: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": _NUMBERS,
    "float | None": (*_NUMBERS, type(None)),
    "str": (str,),
    "bool": (bool,),
}
"""What a field may hold, by its type as it is written above; lists are taken as they are."""


def _is_event(record: dict[str, Any]) -> bool:
    name = record.get("event")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return False
    for entry in fields(kind):
        if entry.name not in record:
            if entry.default is MISSING and entry.default_factory is MISSING:
                return False
            continue
        value, fitting = record[entry.name], _FITTING.get(str(entry.type), (list, tuple, dict, type(None)))
        if not isinstance(value, fitting) or (isinstance(value, bool) and bool not in fitting):
            return False
    return True
