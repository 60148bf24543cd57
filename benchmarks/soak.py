"""A long training beside a neighbour who wants the same core: throughput and memory over time.

    taskset -c 1 python -m benchmarks.soak data/multi30k --preset translate --minutes 30

A busy loop runs beside the training in every other tenth of the time, so that the figures with it and without can be
compared. Both are on the processors this process was given. Prints JSON: target tokens a second and resident memory
of each part of the time, and by how much memory grew from the second tenth to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine

PARTS = 10
EVERY = 5.0
"""Seconds between two looks at the memory."""
NEIGHBOUR = "x = 1\nwhile True: x = x * 3 % 1000003"


def resident(process: int) -> float:
    """Megabytes of a process that are in memory now (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def soak(data: str, flags: list[str], minutes: float, out: Path) -> list[dict[str, Any]]:
    """A training of so many minutes; (seconds, MB, whether the neighbour was there) every few seconds."""
    command = [sys.executable, "-m", "antiphon", "train", data, "--out", str(out), *flags, "--minutes", str(minutes)]
    looks: list[dict[str, Any]] = []
    neighbour: subprocess.Popen[bytes] | None = None
    begun = time.monotonic()
    with (out.parent / "told.txt").open("w") as told:
        training = subprocess.Popen(command, stderr=told)
        try:
            while training.poll() is None:
                seconds = time.monotonic() - begun
                busy = int(seconds / (60 * minutes) * PARTS) % 2 == 1
                if busy and neighbour is None:
                    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
                elif not busy and neighbour is not None:
                    neighbour.kill()
                    neighbour.wait()
                    neighbour = None
                looks.append({"seconds": seconds, "mb": resident(training.pid), "neighbour": busy})
                time.sleep(EVERY)
        finally:
            for process in (neighbour, training):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
    assert training.returncode == 0, (out.parent / "told.txt").read_text(encoding="utf-8")[-2000:]
    return looks


def parts(looks: list[dict[str, Any]], log: list[dict[str, Any]], minutes: float) -> list[dict[str, Any]]:
    """Tenths of the time: median target tokens a second, median and largest memory."""
    found = []
    for part in range(PARTS):
        first, last = (60 * minutes / PARTS * edge for edge in (part, part + 1))
        rates = [r["tokens_per_second"] for r in log if r["event"] == "progress" and first <= r["seconds"] < last]
        memory = [look["mb"] for look in looks if first <= look["seconds"] < last]
        found.append(
            {
                "minutes": round(last / 60, 1),
                "neighbour": part % 2 == 1,
                "tokens_per_second": round(statistics.median(rates)) if rates else None,
                "mb": round(statistics.median(memory)) if memory else None,
                "most_mb": round(max(memory)) if memory else None,
            }
        )
    return found


def main() -> None:
    """Parses, soaks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--preset", default="translate")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    from antiphon.runtime import folder as files
    from antiphon.training.progress import read_log

    flags = ["--preset", asked.preset, "--seed", str(asked.seed), "--train.patience", "100000"]
    with tempfile.TemporaryDirectory(prefix="soak") as name:
        out = Path(name) / "run"
        looks = soak(asked.data, flags, asked.minutes, out)
        log = read_log(out / files.LOG)
    table = parts(looks, log, asked.minutes)
    stopped = log[-1]
    print(
        json.dumps(
            {
                **machine.describe(),
                "processors": sorted(os.sched_getaffinity(0)),
                "threads": log[0]["threads"],
                "preset": asked.preset,
                "updates": stopped["update"],
                "skipped": stopped["skipped"],
                "best": stopped["best_score"],
                "parts": table,
                "grown_mb": table[-1]["mb"] - table[1]["mb"],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
