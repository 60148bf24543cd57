"""How a server bears many clients: answers a second, latency, memory; and what a crash costs.

    python -m benchmarks.serving dates --data data/dates --clients 200 --seconds 60
    python -m benchmarks.serving dates --data data/dates --kill --store postgresql://user@localhost/name

Starts ``antiphon serve`` on a free port of the loopback, lets one client ask for a while, then many: each sends its
next request when the last is answered, to ``/v1/chat/completions``, half of them streaming. A client that is told to
come again (429) does so after a tenth of a second. The clients run in a process of their own, on the same machine.

With --kill the server is killed (SIGKILL) in the middle, and every turn that a client had been told of in full is
looked for in the store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import antiphon
from antiphon.conversations import Conversations
from benchmarks import machine

WARM = 2.0
"""Seconds of asking that are not counted."""
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)


@dataclass
class Tally:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    """Of every answer, from the request's first byte to the answer's last."""
    first: list[float] = field(default_factory=list)
    """Of streamed answers, to the first piece of text."""
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    turns: list[str] = field(default_factory=list)
    """Ids of turns whose answer had arrived whole."""
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """Who asks what, for how long."""

    port: int
    clients: int
    seconds: float
    texts: list[str]
    streaming: float
    """Share of the clients that stream."""
    extra: dict[str, Any]


@contextmanager
def server(models: list[str], *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``antiphon serve`` in a process of its own, and its port."""
    command = [sys.executable, "-m", "antiphon", "serve", *models, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if match := re.search(r"http://[^ ]+:(\d+)", line):
                break
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=lambda: sys.stderr.writelines(process.stderr or ()), daemon=True).start()
        _wait(int(match[1]))
        yield process, int(match[1])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(port: int) -> None:
    import socket

    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if b" 200 " in connection.recv(64):
                    return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server does not answer")


def ask(load: Load) -> Tally:
    """All clients of a load, in a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_ask, (load,))


def _ask(load: Load) -> Tally:
    tally = Tally()

    async def main() -> None:
        begun = time.monotonic()
        ends = begun + WARM + load.seconds
        await asyncio.gather(*(_client(load, number, begun + WARM, ends, tally) for number in range(load.clients)))

    asyncio.run(main())
    return tally


async def _client(load: Load, number: int, counts: float, ends: float, tally: Tally) -> None:
    streams = number < load.streaming * load.clients
    place, connection = number * 7919, None
    while time.monotonic() < ends:
        text = load.texts[place % len(load.texts)]
        place += 1
        tree = {"model": "", "stream": streams, "messages": [{"role": "user", "content": text}], **load.extra}
        if streams:
            tree["stream_options"] = {"include_usage": True}
        body = json.dumps(tree).encode()
        head = HEAD.format(len(body))
        begun = time.monotonic()
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", load.port)
            reader, writer = connection
            writer.write(head.encode() + body)
            status, answer, first = await _read(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            tally.errors.append(type(error).__name__)
            connection = None
            if len(tally.errors) > 3 * load.clients:
                return  # the server is gone
            await asyncio.sleep(0.05)
            continue
        now, tokens = time.monotonic(), 0
        if status == 200:
            turn, tokens = _told(answer, streams)
            if turn:
                tally.turns.append(turn)
        if begun >= counts and now <= ends:
            tally.statuses[status] += 1
            if status == 200:
                tally.seconds.append(now - begun)
                tally.tokens += tokens
                if streams and first is not None:
                    tally.first.append(first - begun)
        if status == 429:
            await asyncio.sleep(0.1)
    if connection is not None:
        connection[1].close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes, float | None]:
    """Status and body of a response, and when its first piece of text came."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if match := re.search(rb"content-length: (\d+)", head):
        return status, await reader.readexactly(int(match[1])), None
    parts, first = [], None
    while size := int(await reader.readuntil(b"\r\n"), 16):
        part = (await reader.readexactly(size + 2))[:-2]
        if first is None and b'"delta":{"content":"' in part and b'"content":""' not in part:
            first = time.monotonic()
        parts.append(part)
    await reader.readexactly(2)
    return status, b"".join(parts), first


def _told(answer: bytes, streams: bool) -> tuple[str | None, int]:
    """The turn's id and the answer's tokens; a stream's turn counts once all of it is there."""
    if not streams:
        tree = json.loads(answer)
        return tree["antiphon"]["turn"], tree["usage"]["completion_tokens"]
    if not answer.endswith(b"data: [DONE]\n\n"):
        raise ValueError("a stream that broke off")
    *_, last, usage, _, _ = answer.split(b"\n\n")
    turn, told = (json.loads(event.removeprefix(b"data: ")) for event in (last, usage))
    return turn["antiphon"]["turn"], told["usage"]["completion_tokens"]


def memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def _watched(pid: int, load: Load) -> tuple[Tally, list[float]]:
    """A load, and the server's memory every second of it."""
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            seen.append(memory(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return ask(load), seen
    finally:
        done.set()
        thread.join()


def summary(load: Load, tally: Tally) -> dict[str, Any]:
    """The figures of a load."""
    ordered = sorted(tally.seconds) or [float("nan")]
    firsts = sorted(tally.first) or [float("nan")]
    return {
        "clients": load.clients,
        "answers_per_second": len(tally.seconds) / load.seconds,
        "tokens_per_second": tally.tokens / load.seconds,
        "p50_ms": 1000 * statistics.median(ordered),
        "p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1))],
        "first_piece_p50_ms": 1000 * statistics.median(firsts),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "broken": len(tally.errors),
    }


def measure(asked: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """One client, then many."""
    options = ["--no-store"] if asked.no_store else ["--store", asked.store]
    with server([asked.model], *options, *asked.options) as (process, port):
        found = {}
        for name, clients, seconds in (("one", 1, asked.alone), ("many", asked.clients, asked.seconds)):
            load = Load(port, clients, seconds, texts, asked.streaming if clients > 1 else 0.0, asked.extra)
            tally, seen = _watched(process.pid, load)
            settled = seen[len(seen) // 4 :] or [memory(process.pid)]
            found[name] = {**summary(load, tally), "memory_mb": {"then": settled[0], "end": settled[-1]}}
    found["ratio"] = found["many"]["answers_per_second"] / found["one"]["answers_per_second"]
    return found


def crash(asked: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """Kills the server under load; looks for every turn that had been told of."""
    with server([asked.model], "--store", asked.store, *asked.options) as (process, port):
        threading.Timer(WARM + asked.seconds / 2, lambda: os.kill(process.pid, signal.SIGKILL)).start()
        tally = ask(Load(port, asked.clients, asked.seconds, texts, asked.streaming, asked.extra))
    with server([asked.model], "--store", asked.store):  # it starts again on what was left
        pass
    kept = {turn.id for turn in Conversations(asked.store).every_turn()}
    lost = [turn for turn in tally.turns if turn not in kept]
    return {"acknowledged": len(tally.turns), "kept": len(kept), "lost": len(lost), "broken": len(tally.errors)}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="dates")
    parser.add_argument("--data", type=Path, required=True, help="a folder made by antiphon data, for its test part")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--alone", type=float, default=10, help="seconds of one client")
    parser.add_argument("--streaming", type=float, default=0.5, help="share of clients that stream")
    parser.add_argument("--extra", type=json.loads, default={}, help="further fields of every request, as JSON")
    parser.add_argument("--store", help="where turns are kept; else a new SQLite file")
    parser.add_argument("--no-store", action="store_true")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--option", dest="options", action="append", default=[], help="a word more for antiphon serve")
    asked = parser.parse_args()
    texts = [pair.source for pair in antiphon.read_pairs(asked.data / "test.tsv")]
    folder = Path(tempfile.mkdtemp())
    asked.store = asked.store or str(folder / "conversations.db")
    try:
        found = crash(asked, texts) if asked.kill else measure(asked, texts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({**machine.describe(), "model": asked.model, **found}, indent=2))


if __name__ == "__main__":
    main()
