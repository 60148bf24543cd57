"""Conversations kept: who said what, what was answered, what people thought of it. SQLite in a file, or PostgreSQL.

A turn is what was said and what was answered. What a person found better than the answer stands beside it, never in
its place. Everything is text; nothing is executed, and no id can be guessed.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from antiphon.errors import DataError, MissingExtraError, SaveError, UsageError

try:
    import sqlalchemy as sql
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
except ModuleNotFoundError:
    raise MissingExtraError("keeping conversations", "serve") from None

GROUP = 256
"""Most turns written in one transaction."""
GATHER = 0.01
"""Seconds in which a group may grow if the last had several turns: most of a transaction's cost is its own."""
PURGE_SECONDS = 600.0
"""Time between two looks for what is older than the retention."""


@dataclass(frozen=True)
class Turn:
    """What a person said, and the answer."""

    conversation: str
    said: str
    answer: str
    source: str
    """What the model read: perhaps earlier turns in front of what was said."""
    model: str
    id: str = field(default_factory=lambda: token_urlsafe(12))
    thumb: int = 0
    """1 liked, -1 disliked, 0 neither."""
    better: str | None = None
    """What a person would rather have been answered."""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Summary:
    """A conversation in a list."""

    id: str
    model: str
    begun: datetime
    changed: datetime
    turns: int
    title: str
    """The first that was said in it."""


def new_id() -> str:
    """An id that cannot be guessed: who knows it may read the conversation."""
    return token_urlsafe(16)


_tables = sql.MetaData()
_conversations = sql.Table(
    "conversations",
    _tables,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("begun", sql.DateTime(timezone=True), nullable=False),
    sql.Column("changed", sql.DateTime(timezone=True), nullable=False, index=True),
)
_turns = sql.Table(
    "turns",
    _tables,
    # The order of turns: by number, for clocks may stand still.
    sql.Column("number", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True),
    sql.Column("id", sql.String(64), nullable=False, unique=True),
    sql.Column(
        "conversation",
        sql.String(64),
        sql.ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sql.Column("said", sql.Text, nullable=False),
    sql.Column("answer", sql.Text, nullable=False),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("thumb", sql.SmallInteger, nullable=False),
    sql.Column("better", sql.Text),
    sql.Column("created", sql.DateTime(timezone=True), nullable=False),
)
_TURN_COLUMNS = [column for column in _turns.c if column.name != "number"]


class Conversations:
    """A store of conversations. Threads may share one.

    Args:
        address: a file (made if it is not there) or a database URL: ``postgresql://user@host/name``.
        create: whether a file that is not there is made; else that is a mistake, and one that may not be written is
            read.

    Raises:
        DataError: it cannot be opened, or is no such store.
        MissingExtraError: the driver of that database is not installed.
        UsageError: no URL that could be understood.
    """

    def __init__(self, address: str | Path, *, create: bool = True) -> None:
        self._where = str(address)
        url = _url(self._where)
        self.address = url.render_as_string(hide_password=True)
        """Where it is, fit to be shown: without a password."""
        durable = url.get_backend_name() == "sqlite"
        if durable:
            path = Path(str(url.database))
            with _told(self._where):
                if not create and not path.is_file():
                    raise DataError(
                        "no such store of conversations", where=self._where, cure="antiphon serve makes one"
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                durable = create or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
                if not durable:
                    url = _read_only(path)
        with _told(self._where):
            try:
                self._engine = sql.create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
            except ModuleNotFoundError:
                raise MissingExtraError(f"a store on {url.get_backend_name()}", "postgresql") from None
            if durable:
                event.listen(self._engine, "connect", _make_sqlite_durable)
            _tables.create_all(self._engine)
            with self._engine.connect() as connection:
                connection.execute(sql.select(_turns).limit(1))
                connection.execute(sql.select(_conversations).limit(1))

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def add(self, turns: Sequence[Turn]) -> None:
        """Keep turns, all or none; when this returns they outlive a crash. A new conversation begins by itself.

        Raises:
            SaveError: the database refuses.
        """
        began = {turn.conversation: turn for turn in reversed(turns)}
        changed = {turn.conversation: turn.created for turn in turns}
        new = [
            {"id": key, "model": turn.model, "begun": turn.created, "changed": changed[key]}
            for key, turn in began.items()
        ]
        with self._writing() as connection:
            statement = _insert(connection, _conversations)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_={"changed": statement.excluded.changed}),
                new,
            )
            connection.execute(sql.insert(_turns), [asdict(turn) for turn in turns])

    def judge(self, turn: str, *, thumb: int | None = None, better: str | None = None) -> bool:
        """Note what a person thought of an answer; what is None stays, an empty ``better`` takes it back.

        Returns:
            Whether there is such a turn.

        Raises:
            SaveError: the database refuses.
        """
        changes: dict[str, Any] = {}
        if thumb is not None:
            changes["thumb"] = (thumb > 0) - (thumb < 0)
        if better is not None:
            changes["better"] = better or None
        with self._writing() as connection:
            if not changes:
                found = connection.execute(sql.select(_turns.c.id).where(_turns.c.id == turn))
                return found.first() is not None
            return connection.execute(sql.update(_turns).where(_turns.c.id == turn).values(changes)).rowcount > 0

    def turns(self, conversation: str) -> list[Turn]:
        """A conversation, first turn first; empty if there is none of this id. Raises DataError."""
        return list(self._select(_turns.c.conversation == conversation))

    def every_turn(self) -> Iterator[Turn]:
        """All turns in the order they were kept. Raises DataError."""
        return self._select(sql.true())

    def list(self, *, limit: int | None = None) -> list[Summary]:
        """Conversations, the last changed first. Raises DataError."""
        first = sql.select(sql.func.min(_turns.c.number)).group_by(_turns.c.conversation)
        titles = sql.select(_turns.c.conversation, _turns.c.said).where(_turns.c.number.in_(first)).subquery()
        counts = (
            sql.select(_turns.c.conversation, sql.func.count().label("turns"))
            .group_by(_turns.c.conversation)
            .subquery()
        )
        statement = (
            sql.select(_conversations, counts.c.turns, titles.c.said.label("title"))
            .join(counts, counts.c.conversation == _conversations.c.id)
            .join(titles, titles.c.conversation == _conversations.c.id)
            .order_by(_conversations.c.changed.desc(), _conversations.c.id)
            .limit(limit)
        )
        with _told(self._where), self._engine.connect() as connection:
            return [
                Summary(row.id, row.model, _utc(row.begun), _utc(row.changed), row.turns, row.title)
                for row in connection.execute(statement)
            ]

    def delete(self, conversations: Sequence[str]) -> int:
        """Forget conversations with all their turns; gives how many there were. Raises SaveError."""
        with self._writing() as connection:
            return connection.execute(sql.delete(_conversations).where(_conversations.c.id.in_(conversations))).rowcount

    def delete_older(self, days: float) -> int:
        """Forget conversations in which nothing was said for so many days. Raises SaveError."""
        now = datetime.now(UTC)
        before = now - timedelta(days=min(days, now.toordinal() - 1))
        with self._writing() as connection:
            return connection.execute(sql.delete(_conversations).where(_conversations.c.changed < before)).rowcount

    def _select(self, condition: Any) -> Iterator[Turn]:
        statement = sql.select(*_TURN_COLUMNS).where(condition).order_by(_turns.c.number)
        with _told(self._where), self._engine.connect() as connection:
            for row in connection.execute(statement):
                yield Turn(**{**row._mapping, "created": _utc(row.created)})

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            cure = "check space, rights and that the database is up"
            raise SaveError(f"conversations cannot be kept ({_reason(error)})", where=self.address, cure=cure) from None


class Keeper:
    """Keeps turns for many at once: one thread, one transaction for all that came while the last was written.

    Args:
        conversations: where to.
        days: retention; what is older is forgotten now and then. None: never.
    """

    def __init__(self, conversations: Conversations, *, days: float | None = None) -> None:
        self._conversations, self._days = conversations, days
        self._waiting: queue.SimpleQueue[tuple[Turn, Callable[[Exception | None], None]] | None]
        self._waiting = queue.SimpleQueue()
        self._purged = float("-inf")
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def keep(self, turn: Turn, done: Callable[[Exception | None], None]) -> None:
        """Have a turn kept; ``done`` is called in another thread, once it would outlive a crash or with what failed."""
        self._waiting.put((turn, done))

    def close(self) -> None:
        """Keep what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        group: list[tuple[Turn, Callable[[Exception | None], None]] | None] = []
        while True:
            self._purge()
            company = len(group) > 1
            try:
                group = [self._waiting.get(timeout=PURGE_SECONDS)]
            except queue.Empty:
                continue
            if company and group != [None]:
                time.sleep(GATHER)
            while len(group) < GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            kept = [entry for entry in group if entry is not None]
            failure: Exception | None = None
            if kept:
                try:
                    self._conversations.add([turn for turn, _ in kept])
                except Exception as error:  # whatever it was, those who wait must hear of it and the thread go on
                    failure = error
            for _, done in kept:
                done(failure)
            if len(kept) < len(group):
                return

    def _purge(self) -> None:
        if self._days is not None and time.monotonic() - self._purged > PURGE_SECONDS:
            self._purged = time.monotonic()
            with suppress(SaveError):  # the next look comes, and a turn that cannot be kept is told to who said it
                self._conversations.delete_older(self._days)


def as_record(turn: Turn) -> dict[str, Any]:
    """A turn as a JSON-ready object."""
    return {**asdict(turn), "created": turn.created.isoformat()}


def as_json(turn: Turn) -> str:
    """A turn as a line of JSON."""
    return json.dumps(as_record(turn), ensure_ascii=False)


def _url(address: str) -> sql.URL:
    try:
        url = sql.make_url(address) if "://" in address else sql.URL.create("sqlite", database=address)
    except ArgumentError:
        raise UsageError("no database URL", where="--store", cure="postgresql://user@host/name, or a file") from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("a store in memory would be forgotten", where="--store", cure="give a file")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        cure = "give a file, or postgresql://user@host/name"
        raise UsageError(f"no store on {url.get_backend_name()}", where="--store", cure=cure)
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _read_only(path: Path) -> sql.URL:
    """A file of SQLite's on a medium, or in a folder, where nothing may be written, not even its lock."""
    log = path.with_name(f"{path.name}-wal")
    still = {} if log.is_file() and log.stat().st_size else {"immutable": "1"}  # else what is in the log was not seen
    place = urllib.parse.quote(str(path.resolve()))
    return sql.URL.create("sqlite", database=f"file:{place}", query={"mode": "ro", **still, "uri": "true"})


def _make_sqlite_durable(connection: Any, _record: Any) -> None:
    """Readers and a writer at once; a commit is on the disk when it returns; cascades work."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _insert(connection: Any, table: sql.Table) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _utc(moment: datetime) -> datetime:
    # SQLite gives back what it was given without its zone, and all we give it is UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What a database refuses, as a DataError."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        shown = _url(where).render_as_string(hide_password=True) if "://" in where else where
        in_file = _url(where).get_backend_name() == "sqlite"
        cure = "check the path and your rights there, or name another --store" if in_file else "check that it is up"
        raise DataError(
            f"the store of conversations cannot be read ({_reason(error)})", where=shown, cure=cure
        ) from None


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
