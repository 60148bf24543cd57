"""Two processes of one thread each, or one process of two threads: target tokens a second, in turn.

    python -m benchmarks.processes data/multi30k:translate data/cmudict:g2p --pairs 5

The cores are shared out either way, and the batch of an update is the same. A run is prepared once; then copies of it
go on for some seconds, A B A B. A figure is the median of a run's reports of about a second each, the first two left
out; what is printed is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from antiphon.runtime.folder import LOG, read_lines
from benchmarks import machine

FIRST = 3
"""Updates of the run that the others continue."""


def train(data: Path, out: Path, processes: int, threads: int, flags: list[str]) -> None:
    """The program, by itself or under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "antiphon", "train", str(data)]
    command += ["--out", str(out), "--train.threads", str(threads), *flags]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def rate(base: Path, data: Path, processes: int, threads: int, updates: int) -> float:
    """Target tokens a second of a copy of a run that goes on."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        shutil.copytree(base, out)
        train(data, out, processes, threads, ["--resume", "--train.max_updates", str(FIRST + updates)])
        reports = [record["tokens_per_second"] for record in read_lines(out / LOG) if record["event"] == "progress"]
    return statistics.median(reports[3:])


def compare(data: Path, preset: str, pairs: int, seconds: float, cores: int) -> dict[str, object]:
    """A B A B; the medians."""
    knobs = ["--data.dev_pairs", "8", "--train.dev_answers", "0", "--train.validate_every", "1000000"]
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        train(data, base, 1, cores, ["--preset", preset, "--train.max_updates", str(FIRST), *knobs])
        # how many updates make so many seconds
        with tempfile.TemporaryDirectory() as trial:
            probe = Path(trial) / "run"
            shutil.copytree(base, probe)
            train(data, probe, 1, cores, ["--resume", "--train.max_updates", str(FIRST + 20)])
            log = read_lines(probe / LOG)
            started = next(r for r in log if r["event"] == "progress" and r["update"] > FIRST)
            each = (log[-1]["seconds"] - started["seconds"]) / max(1, log[-1]["update"] - started["update"])
        updates = max(20, round(seconds / each))
        one: list[float] = []
        many: list[float] = []
        for _ in range(pairs):
            one.append(rate(base, data, 1, cores, updates))
            many.append(rate(base, data, cores, 1, updates))
            print(f"{preset}: 1 x {cores} {one[-1]:,.0f}, {cores} x 1 {many[-1]:,.0f}", file=sys.stderr)
    ratios = [b / a for a, b in zip(one, many, strict=True)]
    return {
        "data": machine.corpus(data),
        "preset": preset,
        "updates": updates,
        f"1 process x {cores} threads": round(statistics.median(one)),
        f"{cores} processes x 1 thread": round(statistics.median(many)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="DATA:PRESET")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run")
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    for data, _, preset in (what.rpartition(":") for what in asked.what):
        row = compare(Path(data), preset, asked.pairs, asked.seconds, cores)
        for key, value in row.items():
            print(f"{key:<28}{value}")
        print(json.dumps({**machine.describe(), **row}), flush=True)


if __name__ == "__main__":
    main()
