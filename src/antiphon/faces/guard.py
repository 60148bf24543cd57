"""What stands before the server's rooms: who may come in, how much they may bring, how long they may take.

Pure ASGI, so that a stream passes through it untouched.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may load and ask nothing but this server, and no other page may frame it."""

_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_OPEN = ("/healthz", "/", "/app.js", "/style.css", "/docs", "/docs.js", "/favicon.svg")
"""May be read without a token: the page asks for it."""
DRAINED = 32 << 20
"""Bytes of a body too large that are still read, so that its sender hears why."""


@dataclass(frozen=True)
class Limits:
    """What a request may bring and how long it may take."""

    body: int = 1 << 20
    """Bytes of a body."""
    text: int = 4000
    """Characters of a text."""
    texts: int = 64
    """Texts or pairs of a request."""
    answers: int = 16
    """Answers to one text: ``n``, ``nbest``, ``beam``."""
    tokens: int = 512
    """Tokens of an answer."""
    seconds: float = 30.0
    """For an answer, from the request to its last piece; and for a body to arrive."""
    open: int = 2000
    """Requests being answered at once."""


class Refusal(Exception):
    """A request that is not served.

    Args:
        status: an HTTP status from 400 on.
        message: why, in a sentence.
        headers: to be sent along.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> bytes:
        """As JSON, in OpenAI's form."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "server_error"}
        kind = kinds.get(self.status, "invalid_request_error")
        fault = {"message": self.message, "type": kind, "param": None, "code": self.status}
        return json.dumps({"error": fault}).encode()


class Guard:
    """The server's door.

    Args:
        app: what is behind it.
        limits: see there.
        token: what a client must send as ``Authorization: Bearer``; None: nothing.
        hosts: names a client may call this server by, ports aside; None: any. Where there is no token this keeps
            out web pages of strangers, which can reach a loopback address through a name of their own.
        observe: told the route, the status and the seconds of every request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        token: str | None,
        hosts: Sequence[str] | None,
        observe: Callable[[Scope, int, float], None],
    ) -> None:
        self.app, self._limits, self._token, self._observe = app, limits, token, observe
        self._hosts = None if hosts is None else {host.lower() for host in (*hosts, *_LOOPBACK)}
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        begun, status, started = time.monotonic(), 500, False

        async def told(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        self._open += 1
        try:
            self._admit(scope)
            await self.app(scope, await self._with_body(scope, receive), told)
        except Refusal as refusal:
            if not started:
                await _refuse(refusal, told)
        finally:
            self._open -= 1
            self._observe(scope, status, time.monotonic() - begun)

    def _admit(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise Refusal(403, "this server does not go by that name: see --host, --token")
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Refusal(403, "pages of other servers may not ask this one")
        if self._open > self._limits.open:
            raise Refusal(429, "too many requests at once; come again in a second", retry_after="1")
        if self._token is not None and scope["path"] not in _OPEN:
            scheme, _, sent = headers.get(b"authorization", "").partition(" ")
            right = hmac.compare_digest(sent.strip().encode("latin-1"), self._token.encode())
            if scheme.lower() != "bearer" or not right:
                raise Refusal(401, "send the server's token: Authorization: Bearer …", www_authenticate="Bearer")

    async def _with_body(self, scope: Scope, receive: Receive) -> Receive:
        """The same receive, with a body that has arrived whole: in time, and not too large."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(400, "the request broke off")
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= self._limits.body:
                        parts.append(part)
                    elif size > DRAINED:
                        raise self._too_large(connection="close")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            why = f"the body did not arrive within {self._limits.seconds:g} seconds"
            raise Refusal(408, why, connection="close") from None
        if size > self._limits.body:
            raise self._too_large()
        whole: list[Any] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        return again

    def _too_large(self, **headers: str) -> Refusal:
        return Refusal(413, f"a body may have {self._limits.body:,} bytes at most", **headers)


def _name(host: str) -> str:
    """A Host header without its port, lower case."""
    end = host.find("]") + 1 if host.startswith("[") else host.find(":")
    return (host[:end] if end > 0 else host).lower()


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = refusal.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
