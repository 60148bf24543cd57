"""The socket: uvicorn, on httptools where it is there, with patience for slow clients, but not without end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from antiphon.errors import UsageError

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ModuleNotFoundError:  # pure Python does the same, slower
    HttpToolsProtocol = None

HEAD_SECONDS = 10.0
"""For the head of a request to arrive, counted from its first byte or from the connection."""
KEEP_SECONDS = 15
"""A connection may be idle between requests."""
SWITCH = 0.001
"""Seconds after which a thread of Python gives way: the decoder must not wait for the event loop after every step."""
COLLECT = 10_000, 20, 20
"""New objects after which Python looks for cycles; generations after which it looks at older ones."""
FILES = 65_536
"""Open files asked of the system: a connection is one."""


if HttpToolsProtocol is not None:

    class _Patient(HttpToolsProtocol):
        """Closes connections whose request does not arrive; uvicorn alone would keep them for ever."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._arrived()
            self._wait()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._arrived()
            super().on_headers_complete()

        def _wait(self) -> None:
            self._clock = self.loop.call_later(HEAD_SECONDS, self._close)

        def _arrived(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _close(self) -> None:
            self.transport.close()

    _PROTOCOL: Any = _Patient
else:
    _PROTOCOL = "h11"


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UsageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen there ({reason})", where=f"{host}:{port}", cure="choose another --port or --host"
        ) from None
    listening.listen(2048)
    listening.set_inheritable(True)
    return listening


def listen(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until interrupted; what is being answered then is answered first, for five seconds at most."""
    ask_for_files()
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # models and modules stay: looking through them for cycles again and again cost a twentieth of all work
    gc.set_threshold(*COLLECT)
    config = uvicorn.Config(
        app,
        http=_PROTOCOL,
        loop="auto",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listening])


def ask_for_files() -> None:
    """Have the system allow as many open files as it will."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))
