"""A server in this process, on a real socket, and a plain client for it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

import antiphon
from antiphon.conversations import Conversations
from antiphon.faces.listener import open_socket
from antiphon.faces.server import Service, create_app
from antiphon.search import StepOutput

DATE = "3 de mayo de 1979"
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)


class Slow:
    """An engine that takes its time over every step and counts how many rows it is asked for."""

    def __init__(self, engine: Any, seconds: float) -> None:
        self._engine, self._seconds = engine, seconds
        self.vocabulary = engine.vocabulary
        self.rows: list[int] = []

    def encode(self, src, src_len):
        return self._engine.encode(src, src_len)

    def step(self, y, state, memory, k) -> StepOutput:
        self.rows.append(len(y))
        time.sleep(self._seconds)
        return self._engine.step(y, state, memory, k)

    def score(self, *arrays):
        return self._engine.score(*arrays)


def slow(seconds: float) -> antiphon.Model:
    model = antiphon.load("dates")
    model.engine = Slow(model.engine, seconds)
    return model


class Running:
    """A server in a thread, and a plain client for it."""

    def __init__(self, port: int, conversations: Conversations | None) -> None:
        self.port, self.conversations = port, conversations

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, sent, given)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        told = {name.lower(): value for name, value in answer.getheaders()}
        if "json" in told.get("content-type", ""):
            return answer.status, json.loads(text), told
        return answer.status, text.decode(), told

    def chat(self, text: str, **fields: Any) -> tuple[int, Any, dict[str, str]]:
        return self.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    def decoding(self) -> int:
        """Answers being decoded now."""
        return self.ask("GET", "/healthz")[1]["decoding"]

    def events(self, text: str, **fields: Any) -> list[Any]:
        status, told, _ = self.chat(text, stream=True, **fields)
        assert status == 200, told
        lines = [line.removeprefix("data: ") for line in told.split("\n\n") if line]
        assert lines[-1] == "[DONE]" or "error" in lines[-1]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns as soon as this is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not so after {seconds:g} seconds"
        time.sleep(0.01)


@contextmanager
def running(models: dict[str, antiphon.Model], store: str | None = None, **service: Any) -> Iterator[Running]:
    conversations = None if store is None else Conversations(store)
    app = create_app(models, conversations, Service(**service))
    listening = open_socket("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Running(listening.getsockname()[1], conversations)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        if conversations is not None:
            conversations.close()
