"""What a training run costs, from the command line to a steady pace.

    python -m benchmarks.training_speed data/cornell --preset cs20 --minutes 2

Starts `antiphon train` in a process of its own and reads its log: seconds from the start of the process to the end of
the first update, real (non-padding) target tokens per second after that (the median of the reports of about one
second each, and the mean), and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from antiphon.runtime.folder import LOG, read_lines
from benchmarks import machine


def measure(data: Path, preset: str, minutes: float, flags: list[str]) -> dict[str, float]:
    """One run; its folder is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(data), "--out", str(out)]
        command += ["--preset", preset, "--minutes", str(minutes), "--train.validate_every", "1000000", *flags]
        started, first = time.monotonic(), 0.0
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if not first and any(record["event"] == "progress" for record in read_lines(out / LOG)):
                first = time.monotonic() - started
            time.sleep(0.1 if not first else 1.0)
        if process.returncode:
            sys.exit(f"training failed with exit code {process.returncode}")
        log = [record for record in read_lines(out / LOG) if record["event"] == "progress"][1:]
    rates = [record["tokens_per_second"] for record in log]
    return {
        "first_update_seconds": round(first, 1),
        "tokens_per_second_median": round(statistics.median(rates)),
        "tokens_per_second_mean": round(statistics.fmean(rates)),
        "updates": log[-1]["update"],
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="cs20")
    parser.add_argument("--minutes", type=float, default=2.0)
    asked, flags = parser.parse_known_args()
    row = measure(asked.data, asked.preset, asked.minutes, flags)
    for name, value in row.items():
        print(f"{name:<26}{value:>12,}")
    print(json.dumps({**machine.describe(), "preset": asked.preset, "flags": flags, **row}))


if __name__ == "__main__":
    main()
