"""Models on the network: OpenAI's chat completions, predictions, scores, kept conversations, one page."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, TypeVar

from antiphon.config import SearchConfig
from antiphon.data.pairs import TURN, join_context
from antiphon.errors import AntiphonError, DataError, FolderError, MissingExtraError, SaveError
from antiphon.faces.record import as_record, looks
from antiphon.faces.screen import shown
from antiphon.version import VERSION

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import Response
    from starlette.exceptions import HTTPException
    from starlette.types import Receive, Scope, Send

    from antiphon.conversations import Conversations, Keeper, Turn, new_id
    from antiphon.conversations import as_record as as_turn_record
    from antiphon.faces import messages as forms
    from antiphon.faces.batching import Answer, Batcher, Busy, Gone, Sizes, in_loop
    from antiphon.faces.guard import Guard, Limits, Refusal
    from antiphon.faces.meters import Meters
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "sqlalchemy", "prometheus_client"):
        raise
    raise MissingExtraError("a server", "serve") from None

if TYPE_CHECKING:
    from antiphon.model import Model, Prediction

_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": forms.FaultAnswer, "description": why}
    for status, why in {
        400: "a request that cannot be read or answered",
        401: "no token, or a wrong one",
        403: "a stranger's page, or a name this server does not have",
        404: "no such model, conversation or turn",
        408: "the body or the answer took too long",
        413: "too large a body",
        422: "a field that is missing or cannot be",
        429: "busy: come again after Retry-After seconds",
        503: "the database is down, the model damaged, or the server being shut down",
    }.items()
}
KEEP_SECONDS = 30.0
"""For a turn to be kept; a database that takes longer is taken to be down."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Service:
    """How a server serves."""

    limits: Limits = field(default_factory=Limits)
    sizes: Sizes = field(default_factory=Sizes)
    token: str | None = None
    hosts: Sequence[str] | None = ()
    """Names it goes by besides the loopback's; None: any."""
    days: float | None = None
    """Days after its last turn that a conversation is kept; None: for ever."""


class _Room:
    """A model of this server."""

    def __init__(self, name: str, model: Model, batcher: Batcher, created: int) -> None:
        self.name, self.model, self.batcher = name, model, batcher
        search = model.config.search
        knobs = {knob: getattr(search, knob) for knob in forms.SEARCH}
        context = model.config.data.context
        self.turns = context + 1
        self.record = {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "antiphon",
            "antiphon": {
                "search": knobs,
                "context": context,
                "max_source": model.max_source,
                "attention": model.config.model.attention,
                "talks": bool(search.sample or context),
            },
        }


class _Rooms:
    """The models by name, each with its threads."""

    def __init__(self, models: Mapping[str, Model], sizes: Sizes, meters: Meters) -> None:
        created = int(time.time())
        self._rooms = {
            name: _Room(name, model, Batcher(model, sizes, meters.batch), created) for name, model in models.items()
        }

    def __iter__(self) -> Any:
        return iter(self._rooms.values())

    def waiting(self) -> int:
        """Answers that wait, of all models."""
        return sum(room.batcher.waiting for room in self._rooms.values())

    def decoding(self) -> int:
        """Answers being decoded, of all models."""
        return sum(room.batcher.decoding for room in self._rooms.values())

    def of(self, name: str) -> _Room:
        """The room of a model; of the first, if none is named. Raises Refusal."""
        if not name:
            return next(iter(self._rooms.values()))
        if name not in self._rooms:
            raise Refusal(404, f"no model of that name; there is {', '.join(self._rooms)}")
        return self._rooms[name]


def create_app(models: Mapping[str, Model], conversations: Conversations | None, service: Service) -> Guard:
    """The server as an ASGI application.

    Args:
        models: by the names clients know them by; the first is the default.
        conversations: where turns are kept; None: nowhere.
        service: limits, sizes, token, names.
    """
    limits = service.limits
    meters = Meters()
    rooms = _Rooms(models, service.sizes, meters)
    keeper = None if conversations is None else Keeper(conversations, days=service.days)
    meters.watch(rooms.waiting, rooms.decoding)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        for room in rooms:
            room.batcher.close()
        if keeper is not None:
            keeper.close()

    app = FastAPI(
        title="Antiphon",
        summary="Recurrent sequence-to-sequence models that answer.",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_FAULTS,
    )
    _answer_faults(app)

    def kept() -> Conversations:
        if conversations is None:
            raise Refusal(404, "this server keeps no conversations")
        return conversations

    @app.post("/v1/chat/completions", response_model=forms.ChatAnswer, tags=["answers"])
    async def chat_completions(form: forms.ChatForm, request: Request) -> Response:
        """Answer the last turn of a conversation, in OpenAI's format; with ``stream`` as server-sent events."""
        room = rooms.of(form.model or "")
        said = _texts(form.messages, room.turns)
        _check_texts(said, limits)
        source = join_context(said, room.turns - 1)
        settings, whole = _chat_settings(form, room.model, limits)
        turn = _Turns(keeper if form.store is not False else None, form.conversation, said[-1], source, room.name)
        asked = _Asked(request, limits.seconds)
        if whole:
            work = _begin(lambda: room.batcher.predict([source], settings))
            found = [_Choice(p.text, len(p.tokens), _ended(p)) for p in _every(await asked.whole(work))]
            found = list(islice(cycle(found), form.n or 1))
            read = _source_tokens(room.model, source)
            meters.tokens.inc(sum(choice.tokens for choice in found))
            if not form.stream:
                return _json(await _chat_answer(room.name, found, read, turn))
            events = _events(room.name, form, turn, found=found, read=read)
            return _Events(events, asked)
        answers = _begin(lambda: room.batcher.stream(source, _draws(settings, form.n or 1), live=bool(form.stream)))
        if form.stream:
            return _Events(_events(room.name, form, turn, answers=answers), asked.holding(answers))
        texts = await asked.texts(answers)
        found = [_Choice(text, a.tokens, a.finished) for text, a in zip(texts, answers, strict=True)]
        return _json(await _chat_answer(room.name, found, answers[0].source_tokens, turn))

    @app.get("/v1/models", response_model=forms.ModelList, tags=["models"])
    async def list_models() -> Response:
        """All models of this server, the first is the default."""
        return _json({"object": "list", "data": [room.record for room in rooms]})

    @app.get("/v1/models/{name}", response_model=forms.ModelRecord, tags=["models"])
    async def get_model(name: str) -> Response:
        """One model."""
        return _json(rooms.of(name).record)

    @app.post("/predict", response_model=forms.Predictions, tags=["answers"])
    async def predict(form: forms.PredictForm, request: Request) -> Response:
        """Answer texts, with n-best lists and attention."""
        room = rooms.of(form.model)
        _check_texts(form.texts, limits, turns=room.turns)
        settings = _predict_settings(form, room.model, limits)
        work = _begin(lambda: room.batcher.predict(form.texts, settings))
        found = await _Asked(request, limits.seconds).whole(work)
        meters.tokens.inc(sum(len(prediction.tokens) for prediction in found))
        pairs = zip(form.texts, found, strict=True)
        records = [as_record(text, prediction, attention=form.attention) for text, prediction in pairs]
        return _json({"model": room.name, "predictions": records})

    @app.post("/score", response_model=forms.Scores, tags=["answers"])
    async def score(form: forms.ScoreForm, request: Request) -> Response:
        """log P(target | source) of pairs."""
        room = rooms.of(form.model)
        pairs = [(pair.source, pair.target) for pair in form.pairs]
        _check_texts([source for source, _ in pairs], limits, turns=room.turns)
        _check_texts([target for _, target in pairs], limits)
        work = _begin(lambda: room.batcher.score(pairs))
        found = await _Asked(request, limits.seconds).whole(work)
        return _json({"model": room.name, "scores": [{"nats": nats, "tokens": tokens} for nats, tokens in found]})

    @app.post("/attention", response_model=forms.AttentionAnswer, tags=["answers"])
    async def attention(form: forms.AttentionForm, request: Request) -> Response:
        """Where a model looks while it is made to write a target: the attention of any answer."""
        room = rooms.of(form.model)
        _check_texts([form.source], limits, turns=room.turns)
        _check_texts([form.target], limits)
        work = _begin(lambda: room.batcher.attention(form.source, form.target))
        [found] = await _Asked(request, limits.seconds).whole(work)
        return _json({"model": room.name, "nats": float(found.score), **looks(found)})

    @app.get("/conversations/{conversation}", response_model=forms.ConversationRecord, tags=["conversations"])
    def get_conversation(conversation: str) -> Response:
        """A conversation that was kept. Who knows its id may read it."""
        turns = kept().turns(_key(conversation))
        if not turns:
            raise Refusal(404, "no such conversation")
        return _json({"id": conversation, "turns": [_turn_record(turn) for turn in turns]})

    @app.delete("/conversations/{conversation}", status_code=204, tags=["conversations"])
    def delete_conversation(conversation: str) -> Response:
        """Forget a conversation with all its turns."""
        if not kept().delete([_key(conversation)]):
            raise Refusal(404, "no such conversation")
        return Response(status_code=204)

    @app.put("/turns/{turn}", status_code=204, tags=["conversations"])
    def judge_turn(turn: str, form: forms.JudgementForm) -> Response:
        """Like or dislike an answer, or give a better one; ``antiphon learn`` learns from it."""
        better = None if form.better is None else shown(form.better).strip()
        _check_texts([better or ""], limits)
        if not kept().judge(_key(turn), thumb=form.thumb, better=better):
            raise Refusal(404, "no such turn")
        return Response(status_code=204)

    @app.get("/healthz", response_model=forms.Health, responses={}, tags=["server"])
    async def health() -> Response:
        """The server is up, and how busy it is."""
        names, storing = [room.name for room in rooms], keeper is not None
        told = {"models": names, "waiting": rooms.waiting(), "decoding": rooms.decoding(), "storing": storing}
        return _json({"status": "ok", "version": VERSION, **told})

    @app.get("/metrics", response_class=_PlainText, tags=["server"])
    async def metrics() -> Response:
        """What Prometheus reads."""
        content, kind = meters.page()
        return Response(content, headers={"content-type": kind})

    _serve_pages(app)
    return Guard(app, limits=limits, token=service.token, hosts=service.hosts, observe=meters.request)


class _PlainText(Response):
    media_type = "text/plain"


@dataclass(frozen=True)
class _Choice:
    text: str
    tokens: int
    finished: bool


class _Turns:
    """The turn that is being answered, and where it will be kept."""

    def __init__(self, keeper: Keeper | None, conversation: str | None, said: str, source: str, model: str) -> None:
        self._keeper = keeper
        self._conversation = conversation or (new_id() if keeper is not None else None)
        self._said, self._source, self._model = said, source, model

    async def keep(self, answer: str) -> dict[str, Any]:
        """Keep it; when this returns it would outlive a crash. Raises SaveError."""
        if self._keeper is None or self._conversation is None:
            return {"source": self._source, "conversation": None, "turn": None}
        turn = Turn(self._conversation, self._said, _storable(answer), self._source, self._model)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(failure: Exception | None) -> None:
            if not done.done():
                done.set_result(None) if failure is None else done.set_exception(failure)

        def tell(failure: Exception | None) -> None:
            in_loop(loop, lambda: settle(failure))

        self._keeper.keep(turn, tell)
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                await done
        except TimeoutError:
            raise SaveError("the database does not answer") from None
        return {"source": self._source, "conversation": turn.conversation, "turn": turn.id}


class _Asked:
    """A request whose answer is awaited: it may be given up by its client, or by the clock.

    Raises, from everything that waits:
        Refusal: 408, the time is over, or the client has gone.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        self._receive, self._seconds = request.receive, seconds
        self._late = False
        self._held: list[Any] = []

    def holding(self, held: Sequence[Any]) -> _Asked:
        """What is cancelled when the client goes or the time is over."""
        self._held = list(held)
        return self

    async def whole(self, work: Any) -> list[Any]:
        """The result of what is done whole."""
        async with self.watching([work]):
            return await work.result

    async def texts(self, answers: list[Answer]) -> list[str]:
        """The whole texts of streamed answers."""
        async with self.watching(answers):
            return ["".join([piece async for piece in answer]) for answer in answers]

    @asynccontextmanager
    async def watching(self, held: Sequence[Any] | None = None) -> AsyncIterator[None]:
        """While this lasts, whoever hangs up frees what is held."""
        self._held = list(held) if held is not None else self._held
        watcher = asyncio.ensure_future(self._disconnected())
        clock = asyncio.get_running_loop().call_later(self._seconds, self._too_late)
        try:
            yield
        except (Gone, asyncio.CancelledError):
            if self._late:
                why = f"not answered within {self._seconds:g} seconds: the server is busy, or much was asked"
                raise Refusal(408, why, retry_after="5") from None
            if watcher.done():
                raise Refusal(408, "the client has gone") from None
            raise Refusal(503, "the server is being shut down", retry_after="5") from None
        finally:
            clock.cancel()
            watcher.cancel()
            self._cancel()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()

    def _too_late(self) -> None:
        self._late = True
        self._cancel()

    def _cancel(self) -> None:
        for held in self._held:
            held.cancel()


class _Events(Response):
    """Server-sent events, sent as they come; what is decoded for them is given up when the client goes."""

    def __init__(self, events: AsyncIterator[bytes], asked: _Asked) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._events, self._asked = events, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with self._asked.watching():
                async for event in self._events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except (Refusal, AntiphonError) as error:
            await send(
                {"type": "http.response.body", "body": _data(_refusal(error).body().decode()), "more_body": True}
            )
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _data(event: str) -> bytes:
    return f"data: {event}\n\n".encode()


async def _events(
    name: str,
    form: forms.ChatForm,
    turn: _Turns,
    *,
    answers: list[Answer] | None = None,
    found: list[_Choice] | None = None,
    read: int = 0,
) -> AsyncIterator[bytes]:
    """A chat completion in pieces: OpenAI's chunks, the last of which are sent when the turn is kept."""
    head = {"id": f"chatcmpl-{new_id()}", "object": "chat.completion.chunk", "created": int(time.time()), "model": name}
    texts = [""] * (len(answers) if answers is not None else len(found or ()))

    def chunk(index: int, delta: dict[str, str], reason: str | None = None, **more: Any) -> bytes:
        return _data(_text({**head, "choices": [{"index": index, "delta": delta, "finish_reason": reason}], **more}))

    yield b"".join(chunk(index, {"role": "assistant", "content": ""}) for index in range(len(texts)))
    if answers is not None:
        async for index, piece in _merged(answers):
            texts[index] += piece
            yield chunk(index, {"content": piece})
        found = [_Choice(text, a.tokens, a.finished) for text, a in zip(texts, answers, strict=True)]
        read = answers[0].source_tokens
    else:
        for index, choice in enumerate(found or ()):
            yield chunk(index, {"content": choice.text})
    found = found or []
    kept = await turn.keep(found[0].text)
    last = [chunk(i, {}, _reason(choice), **({"antiphon": kept} if i == 0 else {})) for i, choice in enumerate(found)]
    if form.stream_options is not None and form.stream_options.include_usage:
        last.append(_data(_text({**head, "choices": [], "usage": _usage(read, found)})))
    yield b"".join([*last, _data("[DONE]")])


async def _merged(answers: list[Answer]) -> AsyncIterator[tuple[int, str]]:
    """The pieces of several answers as they come, each with the answer's place."""
    if len(answers) == 1:
        async for piece in answers[0]:
            yield 0, piece
        return
    pieces: asyncio.Queue[tuple[int, str | Exception | None]] = asyncio.Queue()

    async def pour(index: int) -> None:
        try:
            async for piece in answers[index]:
                pieces.put_nowait((index, piece))
            pieces.put_nowait((index, None))
        except Exception as error:
            pieces.put_nowait((index, error))

    pouring = [asyncio.ensure_future(pour(index)) for index in range(len(answers))]
    try:
        left = len(answers)
        while left:
            index, piece = await pieces.get()
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                left -= 1
            else:
                yield index, piece
    finally:
        for task in pouring:
            task.cancel()


async def _chat_answer(name: str, found: list[_Choice], read: int, turn: _Turns) -> dict[str, Any]:
    kept = await turn.keep(found[0].text)
    choices = [
        {"index": index, "message": {"role": "assistant", "content": choice.text}, "finish_reason": _reason(choice)}
        for index, choice in enumerate(found)
    ]
    head = {"id": f"chatcmpl-{new_id()}", "object": "chat.completion", "created": int(time.time()), "model": name}
    return {**head, "choices": choices, "usage": _usage(read, found), "antiphon": kept}


def _reason(choice: _Choice) -> str:
    return "stop" if choice.finished else "length"


def _usage(read: int, found: Sequence[_Choice]) -> dict[str, int]:
    written = sum(choice.tokens for choice in found)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _draws(settings: SearchConfig, n: int) -> list[SearchConfig]:
    """The same settings n times, each with a seed of its own."""
    if settings.seed is None or n == 1:
        return [settings] * n
    return [settings.model_copy(update={"seed": settings.seed + draw}) for draw in range(n)]


def _chat_settings(form: forms.ChatForm, model: Model, limits: Limits) -> tuple[SearchConfig, bool]:
    """The search that is asked for, and whether it must be done whole, as a beam must. Raises Refusal, UsageError."""
    n = form.n or 1
    if n > limits.answers:
        raise Refusal(422, f"n may be {limits.answers} at most")
    knobs = _knobs(form, model, limits)
    mmi = knobs.setdefault("mmi", 0.0)  # several answers to each, and each read again: only for who asks for it
    if form.stream and form.beam is None and not mmi:
        knobs["beam"] = 1  # what is streamed is greedy or drawn, unless a beam was asked for
    usual = model.config.search
    sample = knobs.get("sample", usual.sample)
    length = form.max_completion_tokens or form.max_tokens or usual.max_length or limits.tokens
    knobs["max_length"] = min(length, limits.tokens)
    if sample and not mmi:
        return model.settings({**knobs, "nbest": 1}), False
    beam = max(knobs.get("beam", usual.beam), n)
    if beam == 1 and not mmi:
        return model.settings({**knobs, "beam": 1, "nbest": 1}), False
    return model.settings({**knobs, "beam": min(beam, limits.answers), "nbest": n}), True


def _predict_settings(form: forms.PredictForm, model: Model, limits: Limits) -> SearchConfig:
    """Raises Refusal, UsageError."""
    if form.nbest > limits.answers:
        raise Refusal(422, f"nbest may be {limits.answers} at most")
    knobs = _knobs(form, model, limits)
    length = form.max_length or model.config.search.max_length or limits.tokens
    knobs |= {"max_length": min(length, limits.tokens), "nbest": form.nbest}
    if form.beam is None and not knobs.get("sample", model.config.search.sample):
        knobs["beam"] = max(model.config.search.beam, form.nbest)
    return model.settings(knobs)


def _knobs(form: forms.SearchForm, model: Model, limits: Limits) -> dict[str, Any]:
    """The search knobs that were given. Raises Refusal."""
    if form.beam is not None and form.beam > limits.answers:
        raise Refusal(422, f"beam may be {limits.answers} at most")
    knobs = {name: value for name in forms.SEARCH if (value := getattr(form, name)) is not None}
    temperature = knobs.get("temperature")
    if temperature == 0 or knobs.get("top_p") == 0:  # OpenAI's ways to say: always the likeliest
        knobs = {name: value for name, value in knobs.items() if name not in ("temperature", "top_p")}
        knobs |= {"sample": False, "beam": knobs.get("beam", 1)}
    elif temperature is not None and form.beam is None:
        knobs.setdefault("sample", True)
    return knobs


def _texts(messages: Sequence[forms.Message], most: int) -> list[str]:
    """What was said, turn by turn, so many turns at most, the last by a person. Raises Refusal."""
    talk = [one for one in messages if one.role == "user" or (one.role == "assistant" and one.content is not None)]
    if not talk or talk[-1].role != "user":
        raise Refusal(422, "the last message must be a user's")
    texts = []
    for message in talk[-most:]:
        content = message.content
        parts = [] if content is None or isinstance(content, str) else content
        if message.role == "user" and (content is None or any(part.type != "text" for part in parts)):
            raise Refusal(422, "a user's message must have a content, and nothing but text")
        text = content if isinstance(content, str) else " ".join(part.text for part in parts if part.type == "text")
        texts.append(shown(text).strip())
    return texts


def _check_texts(texts: Sequence[str], limits: Limits, *, turns: int = 1) -> None:
    """Raises Refusal.

    Args:
        texts: what is to be read or written.
        limits: the server's.
        turns: of a conversation that a text may be made of.
    """
    if len(texts) > limits.texts:
        raise Refusal(422, f"a request may have {limits.texts} texts at most")
    longest, most = max(map(len, texts), default=0), turns * limits.text + (turns - 1) * len(f" {TURN} ")
    if longest > most:
        raise Refusal(422, f"a text may have {most:,} characters at most, this has {longest:,}")


def _source_tokens(model: Model, source: str) -> int:
    return min(len(model.source_tokenizer.encode(source)) + 1, model.max_source)


def _every(found: Sequence[Prediction]) -> list[Prediction]:
    return [found[0], *found[0].alternatives]


def _ended(prediction: Prediction) -> bool:
    from antiphon.model import END

    return bool(prediction.tokens) and prediction.tokens[-1] == END


def _storable(text: str) -> str:
    """Without the one character that PostgreSQL cannot hold, and halves of characters, which UTF-8 cannot."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _turn_record(turn: Turn) -> dict[str, Any]:
    record = as_turn_record(turn)
    return {name: record[name] for name in forms.TurnRecord.model_fields}


def _key(text: str) -> str:
    """An id from a path; one that cannot be is looked for in vain, not given to the database. Raises Refusal."""
    if len(text) > 64 or not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
        raise Refusal(404, "no such conversation or turn")
    return text


def _begin(call: Callable[[], _T]) -> _T:
    """Put something in a queue. Raises Refusal."""
    try:
        return call()
    except Busy:
        raise Refusal(429, "the queue is full; come again in a second", retry_after="1") from None


def _text(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def _json(tree: Any) -> Response:
    return Response(_text(tree).encode("utf-8", "replace"), media_type="application/json")


def _refusal(error: Refusal | AntiphonError) -> Refusal:
    """What a client is told: of what is no fault of its own, no more than that, for it may name paths and addresses."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (SaveError, DataError)):  # the database is down
        return Refusal(503, "conversations cannot be kept just now", retry_after="5")
    if isinstance(error, FolderError):
        return Refusal(503, "the model cannot answer just now", retry_after="5")
    return Refusal(400, str(error))


def _answer_faults(app: FastAPI) -> None:
    """Every refusal in one form."""

    async def refusal(_request: Request, error: Exception) -> Response:
        assert isinstance(error, (Refusal, AntiphonError))
        told = _refusal(error)
        return Response(told.body(), told.status, headers=told.headers, media_type="application/json")

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = {name.replace("-", "_"): value for name, value in (error.headers or {}).items()}
        return await refusal(request, Refusal(error.status_code, str(error.detail), **headers))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault.get("loc", ()))
        # What was sent is not repeated: it may be what cannot be written.
        return await refusal(request, Refusal(422, f"{where}: {fault.get('msg', 'cannot be')}"))

    handlers: dict[type[Exception], Callable[[Request, Exception], Response | Awaitable[Response]]] = {
        Refusal: refusal,
        HTTPException: http,
        RequestValidationError: invalid,
        AntiphonError: refusal,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _serve_pages(app: FastAPI) -> None:
    """The page's few files, read once."""
    web = resources.files("antiphon.faces") / "web"
    for path, (name, kind) in _PAGES.items():
        content = (web / name).read_bytes()

        async def page(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, headers={"content-type": kind, "cache-control": "no-cache"})

        app.add_api_route(path, page, include_in_schema=False)
