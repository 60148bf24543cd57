"""What a server does with clients that mean no good, while one who does asks it a question every tenth of a second.

    python -m benchmarks.abuse dates

In turn: bodies of 10 MB, requests that never end, bodies that come a byte a second, answers that nobody reads, and a
thousand streams at once. Told: what each was answered, and how long the honest client waited at worst meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from antiphon.faces.listener import ask_for_files
from benchmarks import machine
from benchmarks.serving import HEAD, memory, server

ASKED = json.dumps({"stream": True, "messages": [{"role": "user", "content": "3 de mayo de 1979 " * 5}]}).encode()
LARGE = 10 << 20


async def _status(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    return line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"


async def large(port: int) -> str:
    """A body of 10 MB."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(LARGE).encode())
    for _ in range(LARGE >> 16):
        writer.write(b"x" * (1 << 16))
        await writer.drain()
    return await _status(reader)


async def half(port: int) -> str:
    """Half a head, then nothing; what happens within 15 seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /predict HTTP/1.1\r\nHost: local")
    return await asyncio.wait_for(_status(reader), 15)


async def slow(port: int) -> str:
    """A body of 600 bytes, one a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(600).encode())
    answer = asyncio.ensure_future(_status(reader))
    while not answer.done():
        writer.write(b"{")
        await asyncio.wait([answer], timeout=1)
    return answer.result()


async def deaf(port: int) -> str:
    """Asks for a hundred streams on one connection and reads none."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((HEAD.format(len(ASKED)).encode() + ASKED) * 100)
    await asyncio.sleep(5)
    writer.close()
    return "left"


async def stream(port: int) -> str:
    """A stream, read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(len(ASKED)).encode() + ASKED)
    status = await _status(reader)
    if status == "200":
        text = await reader.readuntil(b"data: [DONE]")
        status = "200, whole" if text else "200, broken"
    writer.close()
    return status


async def honest(port: int, waits: list[float], done: asyncio.Event) -> None:
    """Asks every tenth of a second until told to stop; an answer that is not 200 or 429 ends the trial."""
    body = json.dumps({"messages": [{"role": "user", "content": "3 de mayo de 1979"}]}).encode()
    while not done.is_set():
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD.format(len(body)).encode() + body)
        status = await asyncio.wait_for(_status(reader), 60)
        if status not in ("200", "429"):
            raise SystemExit(f"the honest client was told {status}")
        waits.append(time.monotonic() - begun)
        writer.close()
        await asyncio.sleep(0.1)


async def trial(port: int, kind: Callable[[int], Awaitable[str]], count: int) -> dict[str, Any]:
    """So many of one kind at once, and the honest one beside them."""
    waits: list[float] = []
    done = asyncio.Event()
    beside = asyncio.ensure_future(honest(port, waits, done))

    async def told() -> str:
        try:
            return await kind(port)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            return type(error).__name__

    answers = Counter(await asyncio.gather(*(told() for _ in range(count))))
    done.set()
    await beside
    return {
        "clients": count,
        "answers": dict(answers),
        "honest_asked": len(waits),
        "honest_median_ms": 1000 * statistics.median(waits),
        "honest_worst_ms": 1000 * max(waits),
    }


def main() -> None:
    """Parses, abuses, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="dates")
    asked = parser.parse_args()
    ask_for_files()
    found: dict[str, Any] = {}
    with server([asked.model], "--no-store", "--seconds", "10") as (process, port):
        before = memory(process.pid)
        for kind, count in ((large, 20), (half, 300), (slow, 300), (deaf, 20), (stream, 1000)):
            found[kind.__name__] = asyncio.run(trial(port, kind, count))
        asyncio.run(asyncio.sleep(1))
        found["memory_mb"] = {"before": before, "after": memory(process.pid)}
        found["alive"] = process.poll() is None
    print(json.dumps({**machine.describe(), "model": asked.model, **found}, indent=2))


if __name__ == "__main__":
    main()
