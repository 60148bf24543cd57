"""`antiphon serve`: the models, the store and the socket brought together, and told to the user."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from antiphon.errors import MissingExtraError, UsageError
from antiphon.faces.screen import note
from antiphon.model import Model, load

try:
    from antiphon.conversations import Conversations
    from antiphon.faces.batching import Sizes
    from antiphon.faces.guard import Limits
    from antiphon.faces.listener import listen, open_socket
    from antiphon.faces.server import Service, create_app
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn", "sqlalchemy"):
        raise
    raise MissingExtraError("a server", "serve") from None


def serve(
    folders: Sequence[str],
    *,
    host: str,
    port: int,
    token: str | None,
    store: str | None,
    days: float | None,
    rows: int,
    queue: int,
    seconds: float,
    threads: int | None,
) -> None:
    """Serve until interrupted.

    Raises:
        AntiphonError: a folder, the store or the address cannot be had; no token where one is needed.
    """
    if not token and not _is_loopback(host):
        raise UsageError(
            "an address that others can reach needs a token",
            where=f"--host {host}",
            cure="set ANTIPHON_TOKEN to a long secret, or stay on 127.0.0.1",
        )
    models = load_all(folders, threads=threads)
    listening = open_socket(host, port)
    conversations = None if store is None else Conversations(store)
    service = Service(
        limits=Limits(seconds=seconds),
        sizes=Sizes(rows=rows, queue=queue),
        token=token or None,
        hosts=None if token else (f"[{host}]" if ":" in host else host,),
        days=days,
    )
    app = create_app(models, conversations, service)
    bound = listening.getsockname()[1]
    note(f"serving {', '.join(models)} on http://{f'[{host}]' if ':' in host else host}:{bound}  (Ctrl-C ends it)")
    note("nothing is kept" if conversations is None else f"conversations are kept in {conversations.address}")
    try:
        listen(app, listening)
    finally:
        if conversations is not None:
            conversations.close()


def load_all(folders: Sequence[str], *, threads: int | None = None) -> dict[str, Model]:
    """Models by the names of their folders.

    Raises:
        AntiphonError: a folder is none, or two have one name.
    """
    models: dict[str, Model] = {}
    for folder in folders:
        name = Path(folder).expanduser().resolve().name
        if name in models:
            raise UsageError(f'two models named "{name}"', where=folder, cure="rename one of the folders")
        models[name] = load(folder, threads=threads)
    return models


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
