"""Requests that meet are answered together: three threads a model, between the event loop and the engine.

One decodes streams, greedy and drawn answers, a token each a step: a request joins those under way, once a second
thread has read it, and leaves when it is done or its client has gone. The third does what must be done whole, beams,
n-best lists and scores: it takes all that waits and is alike, and calls the model once; of a large request it takes a
part, and the rest waits behind the others. A request that finds nobody else is begun at once. The queues are bounded:
who finds one full is told so, rather than kept waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from antiphon.config import SearchConfig
from antiphon.model import Spoken
from antiphon.streams import Entry, Read, Streams, read

if TYPE_CHECKING:
    from antiphon.model import Model

WAIT = 0.03
"""Longest, in seconds, that a request waits for others, twice (to be read, to join), when many are under way."""
MANY = 16
"""Answers under way that are many."""
PACE = 0.05
"""Seconds between two pieces of a stream when many are under way: each costs as much as a step of a row."""

GATHER = 0.004
"""How long, in seconds, the first that must be done whole waits for company, if the last had some."""


class Busy(Exception):
    """The queue is full."""


class Gone(Exception):
    """The request was given up before it was answered."""


@dataclass(frozen=True)
class Sizes:
    """How much is taken on at once."""

    rows: int = 128
    """Answers decoded together."""
    queue: int = 256
    """Answers that may wait beside them."""


@dataclass(eq=False)
class Answer:
    """An answer on its way: an asynchronous iterator over its pieces, and what is known at its end."""

    text: str
    settings: SearchConfig
    live: bool
    """Whether pieces are wanted as they come; else there is one, the whole."""
    loop: asyncio.AbstractEventLoop
    arrived: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    source_tokens: int = 0
    """With the end mark."""
    tokens: int = 0
    """Taken so far: the end mark counts, marks of an alignment do not."""
    finished: bool = False
    """Whether it ended by itself."""

    _pieces: list[str] = field(default_factory=list)
    """Not yet taken."""
    _end: Exception | None = None
    _woken: asyncio.Future[None] | None = None

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> str:
        """What has come since the last time: one piece, or several joined for who is behind."""
        while not self._pieces:
            if self._end is not None:
                raise self._end
            self._woken = self.loop.create_future()
            await self._woken
        piece = "".join(self._pieces)
        self._pieces.clear()
        return piece

    def give(self, piece: str | Exception | None) -> None:
        """A piece, why there will be none, or None: that was all. In the event loop's thread."""
        if isinstance(piece, str):
            self._pieces.append(piece)
        else:
            self._end = piece or StopAsyncIteration()
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def cancel(self) -> None:
        """Nobody waits for it any more: its row is free after the next step."""
        self.cancelled = True


class Batcher:
    """One model's three threads, and the way to them. To be used from one event loop.

    Args:
        model: who answers.
        sizes: how much at once.
        observe: told the number of rows of every batch (``stream`` or ``whole``).
    """

    def __init__(self, model: Model, sizes: Sizes, observe: Callable[[str, int], None] = lambda _kind, _rows: None):
        self.model = model
        self._streams = _StreamWorker(model, sizes, observe)
        self._whole = _WholeWorker(model, sizes, observe)

    def close(self) -> None:
        """End the threads; what still waits is given up."""
        self._streams.close()
        self._whole.close()

    @property
    def waiting(self) -> int:
        """Answers that wait, of both kinds."""
        return self._streams.waiting + self._whole.waiting

    @property
    def decoding(self) -> int:
        """Answers being decoded, of both kinds."""
        return self._streams.decoding + self._whole.decoding

    def stream(self, text: str, settings: Sequence[SearchConfig], *, live: bool) -> list[Answer]:
        """Begin an answer for each of the settings, greedily or drawn; all of them or none. Raises Busy."""
        loop = asyncio.get_running_loop()
        answers = [Answer(text, one, live, loop) for one in settings]
        self._streams.put(answers)
        return answers

    def predict(self, texts: Sequence[str], settings: SearchConfig) -> _Work:
        """`Model.predict` on a list; await its ``result``. Raises Busy."""
        # Draws depend on the seed and on the place in the list: no company where a seed was given.
        alone = settings.sample and settings.seed is not None

        def run(texts: list[Any], first: int) -> list[Any]:
            return self.model.answers(texts, settings, first=first)

        width = settings.nbest if settings.sample else settings.beam
        return self._whole.put(list(texts), None if alone else settings, width, run)

    def score(self, pairs: Sequence[tuple[str, str]]) -> _Work:
        """`Model.score_tokens` as a list of (nats, tokens); await its ``result``. Raises Busy."""

        def run(pairs: list[Any], _first: int) -> list[Any]:
            nats, tokens = self.model.score_tokens(pairs)
            return list(zip(nats.tolist(), tokens.tolist(), strict=True))

        return self._whole.put(list(pairs), "score", 1, run)

    def attention(self, source: str, target: str) -> _Work:
        """`Model.attention` of one pair, as a list of one; await its ``result``. Raises Busy."""

        def run(pairs: list[Any], _first: int) -> list[Any]:
            return [self.model.attention(*pair) for pair in pairs]

        return self._whole.put([(source, target)], "attention", 1, run)


class _Worker:
    """A thread with a bounded queue."""

    def __init__(self, model: Model, sizes: Sizes, observe: Callable[[str, int], None], name: str) -> None:
        self._model, self._sizes, self._observe = model, sizes, observe
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _work(self) -> None:
        raise NotImplementedError


_Told = list[tuple[Answer, str | Exception | None]]
_Key = tuple[SearchConfig, int]
"""Who is decoded together: those of like settings; and where there are many, of like length."""


@dataclass(eq=False)
class _Going:
    """An answer under way."""

    answer: Answer
    key: _Key
    spoken: Spoken
    ids: list[int] = field(default_factory=list)
    held: str = ""
    """What is said, but not yet handed over."""


class _StreamWorker(_Worker):
    """Steps every answer under way; what was read meanwhile joins in between. Reading has a thread of its own."""

    def __init__(self, model: Model, sizes: Sizes, observe: Callable[[str, int], None]) -> None:
        self._arrived: deque[Answer] = deque()
        self._reading = 0
        self._ready: deque[tuple[SearchConfig, Read, list[Answer], float]] = deque()
        self._going: dict[int, _Going] = {}
        self._groups: dict[_Key, Streams] = {}
        self._number = 0
        self._handed = 0.0
        super().__init__(model, sizes, observe, "streams")
        self._reader = threading.Thread(target=self._read, name="reader", daemon=True)
        self._reader.start()

    def close(self) -> None:
        super().close()
        self._reader.join()

    @property
    def waiting(self) -> int:
        return len(self._arrived)

    @property
    def decoding(self) -> int:
        return self._reading + len(self._going)

    def put(self, answers: list[Answer]) -> None:
        with self._condition:
            if self._closed or len(self._arrived) + len(answers) > self._sizes.queue:
                raise Busy
            self._arrived += answers
            self._condition.notify_all()

    # The reader's thread.

    def _read(self) -> None:
        while True:
            with self._condition:
                while not self._closed and (patience := self._patience()) is not None:
                    self._condition.wait(patience or None)
                if self._closed:
                    return
                room = self._sizes.rows - self.decoding
                new = [self._arrived.popleft() for _ in range(min(room, len(self._arrived)))]
                self._reading += len(new)
            told: _Told = [(answer, Gone()) for answer in new if answer.cancelled]
            groups: dict[SearchConfig, list[Answer]] = {}
            for answer in new:
                if not answer.cancelled:
                    groups.setdefault(_shared(answer.settings), []).append(answer)
            ready = []
            for settings, answers in groups.items():
                ready += self._read_group(settings, answers, told)
            with self._condition:
                self._reading -= len(told)
                self._ready += ready
                self._condition.notify_all()
            _tell(told)

    def _patience(self) -> float | None:
        """Seconds to wait before reading, 0: until somebody comes or goes; None: read now.

        A few read alone cost almost as much as many: where many are being answered, a few wait for a few more.
        """
        waiting, room = len(self._arrived), self._sizes.rows - self.decoding
        if not waiting or room <= 0:
            return 0.0
        if self.decoding < MANY or min(waiting, room) >= self.decoding // 2:
            return None
        if waiting > room:
            return 0.0  # more will end, and there will be more room
        left = self._arrived[0].arrived + WAIT - time.monotonic()
        return left if left > 0 else None

    def _read_group(
        self, settings: SearchConfig, answers: list[Answer], told: _Told
    ) -> list[tuple[SearchConfig, Read, list[Answer], float]]:
        entries: dict[int, Answer] = {}
        asked = []
        for answer in answers:
            self._number += 1
            entries[self._number] = answer
            asked.append(Entry(self._number, answer.text, answer.settings.seed, answer.settings.max_length))
        try:
            found = read(self._model, asked)
        except Exception as error:  # a fault of one model or text must not end the thread
            told += [(answer, error) for answer in answers]
            return []
        now = time.monotonic()
        return [(settings, texts, [entries[entry.number] for entry in texts.entries], now) for texts in found]

    # The stepper's thread.

    def _work(self) -> None:
        while True:
            with self._condition:
                while not (self._ready or self._going or self._closed):
                    self._condition.wait()
                if self._closed:
                    break
                ready = self._due()
            told: _Told = []
            for settings, texts, answers, _ in ready:
                self._let_in(settings, texts, answers, told)
            with self._condition:
                self._reading -= sum(len(answers) for _, _, answers, _ in ready)
            self._let_go(told)
            now = time.monotonic()
            if hand := self.decoding < MANY or now - self._handed >= PACE:
                self._handed = now
            for key, streams in list(self._groups.items()):
                self._step(key, streams, told, hand)
            if self._arrived:
                with self._condition:
                    self._condition.notify_all()  # there may be room now
            _tell(told)
        left = [*self._arrived, *(going.answer for going in self._going.values())]
        left += [answer for _, _, answers, _ in self._ready for answer in answers]
        _tell([(answer, Gone()) for answer in left])

    def _due(self) -> list[tuple[SearchConfig, Read, list[Answer], float]]:
        """What joins now. Joining costs a copy of all that is under way, so a few wait for a few more, briefly."""
        if not self._ready:
            return []
        count = sum(len(answers) for _, _, answers, _ in self._ready)
        if self.decoding >= MANY and 4 * count < len(self._going) and time.monotonic() - self._ready[0][3] < WAIT:
            return []
        found = list(self._ready)
        self._ready.clear()
        return found

    def _let_in(self, settings: SearchConfig, texts: Read, answers: list[Answer], told: _Told) -> None:
        # Every row costs as much as the longest source beside it.
        key = settings, _length_class(max(texts.lengths)) if self.decoding >= MANY else 0
        streams = self._groups.get(key)
        if streams is None:
            streams = self._groups[key] = Streams(self._model, settings)
        try:
            streams.join(texts)
        except Exception as error:
            told += [(answer, error) for answer in answers]
            self._abandon(key, error, told)
            return
        for entry, answer, length in zip(texts.entries, answers, texts.lengths, strict=True):
            answer.source_tokens = length
            self._going[entry.number] = _Going(answer, key, self._model.spoken(entry.text))

    def _let_go(self, told: _Told) -> None:
        gone = [number for number, going in self._going.items() if going.answer.cancelled]
        if gone:
            for streams in self._groups.values():
                streams.leave(gone)
            told += [(self._going.pop(number).answer, Gone()) for number in gone]

    def _step(self, key: _Key, streams: Streams, told: _Told, hand: bool) -> None:
        if not len(streams):
            del self._groups[key]
            return
        self._observe("stream", len(streams))
        try:
            tokens = streams.step()
        except Exception as error:
            self._abandon(key, error, told)
            return
        for token in tokens:
            going = self._going[token.number]
            answer, spoken, ids = going.answer, going.spoken, going.ids
            answer.tokens += token.id is None or token.id != self._model.target_tokenizer.next_id
            if token.id is not None:
                if answer.live:
                    going.held += spoken.add(token.id)
                    if going.held and hand:
                        told.append((answer, going.held))
                        going.held = ""
                else:
                    ids.append(token.id)
            if token.ended:
                answer.finished = token.id is None
                last = going.held + spoken.end() if answer.live else spoken.text(ids)
                told += [(answer, last), (answer, None)] if last else [(answer, None)]
                del self._going[token.number]

    def _abandon(self, key: _Key, error: Exception, told: _Told) -> None:
        """A group whose decoding failed: all in it are told, the others go on."""
        del self._groups[key]
        lost = [number for number, going in self._going.items() if going.key == key]
        told += [(self._going.pop(number).answer, error) for number in lost]


def _length_class(length: int) -> int:
    """16, 32, 64 … tokens: the least that holds the length."""
    return max(16, 1 << (length - 1).bit_length())


def _shared(settings: SearchConfig) -> SearchConfig:
    """What rows that are decoded together must have in common."""
    own = {"seed": None, "max_length": None, "beam": 1, "nbest": 1, "mmi": 0.0, "candidates": 1, "length_penalty": 0.0}
    if not settings.sample:
        own |= {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
    return settings.model_copy(update=own)


def _tell(told: list[tuple[Answer, str | Exception | None]]) -> None:
    """Hand all of a step over in one call of the event loop."""
    if not told:
        return

    def deliver() -> None:
        for answer, piece in told:
            answer.give(piece)

    in_loop(told[0][0].loop, deliver)


def in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have an event loop call something, from another thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(call)


@dataclass(eq=False)
class _Work:
    """Something to be done whole."""

    items: list[Any]
    key: Any
    """Work of one key is done together; None: alone."""
    width: int
    """Rows of an item."""
    run: Callable[[list[Any], int], list[Any]]
    """Of items, the first of which is the n-th of its work: what is found for each."""
    result: asyncio.Future[list[Any]]
    loop: asyncio.AbstractEventLoop
    cancelled: bool = False
    found: list[Any] = field(default_factory=list)
    """For the first of the items."""

    def next(self, rows: int) -> list[Any]:
        """The items to be done next: as many as these rows hold."""
        return self.items[len(self.found) : len(self.found) + rows // self.width]

    def cancel(self) -> None:
        """Nobody waits for it any more: what is not begun yet never is. To be called in the event loop."""
        self.cancelled = True
        self.result.cancel()


class _WholeWorker(_Worker):
    """Takes the first that waits, and all others like it that fit. What is too large for once is done in parts, and
    others have their turn between them; who has gone, or a server that ends, waits for a part at most."""

    def __init__(self, model: Model, sizes: Sizes, observe: Callable[[str, int], None]) -> None:
        self._queue: deque[_Work] = deque()
        self.decoding = 0
        super().__init__(model, sizes, observe, "whole")

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def put(self, items: list[Any], key: Any, width: int, run: Callable[[list[Any], int], list[Any]]) -> _Work:
        loop = asyncio.get_running_loop()
        work = _Work(items, key, width, run, loop.create_future(), loop)
        with self._condition:
            if self._closed or len(self._queue) >= self._sizes.queue:
                raise Busy
            self._queue.append(work)
            self._condition.notify()
        return work

    def _work(self) -> None:
        company = False  # whether others were there the last time: a lone client never waits for anybody
        while True:
            with self._condition:
                while not (self._queue or self._closed):
                    self._condition.wait()
                if self._closed:
                    break
            if company:
                time.sleep(GATHER)
            with self._condition:
                group = self._group()
            company = len(group) > 1
            if group:
                self._do(group)
        for work in self._queue:
            _settle(work, Gone())

    def _do(self, group: list[tuple[_Work, list[Any]]]) -> None:
        first = group[0][0]
        items = [item for _, part in group for item in part]
        self.decoding = len(items)
        self._observe("whole", len(items))
        try:
            found = iter(first.run(items, len(first.found)))
        except Exception as error:
            for work, _ in group:
                _settle(work, error)
        else:
            left = []
            for work, part in group:
                work.found += islice(found, len(part))
                if len(work.found) == len(work.items):
                    _settle(work, work.found)
                else:
                    left.append(work)
            with self._condition:
                self._queue.extend(left)
        self.decoding = 0

    def _group(self) -> list[tuple[_Work, list[Any]]]:
        """The first that waits and those like it, up to the rows decoded together, each with the part of it that is
        done now; the others stay in their order."""
        self._queue = deque(work for work in self._queue if not work.cancelled)
        group: list[tuple[_Work, list[Any]]] = []
        rows, rest = 0, deque[_Work]()
        while self._queue:
            work = self._queue.popleft()
            part = work.next(max(self._sizes.rows, work.width))
            more = len(part) * work.width
            alike = not group or (work.key is not None and work.key == group[0][0].key)
            if alike and (not group or rows + more <= 4 * self._sizes.rows):
                group.append((work, part))
                rows += more
            else:
                rest.append(work)
        self._queue = rest
        return group


def _settle(work: _Work, found: list[Any] | Exception) -> None:
    def deliver() -> None:
        if work.result.done():
            return
        if isinstance(found, Exception):
            work.result.set_exception(found)
        else:
            work.result.set_result(found)

    in_loop(work.loop, deliver)
