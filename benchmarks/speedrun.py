"""Minutes from raw text until a translator is good: one command, tokenizer included.

    python -m benchmarks.speedrun data/multi30k --minutes 1.5 3 12

For each budget: `antiphon train` from the files to the saved model, by the clock on the wall, then BLEU of its answers
on dev (beam of the preset). A budget's learning rate ends with the budget, so each is a run of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import antiphon
from antiphon import metrics
from antiphon.nn.kernels import compiled
from benchmarks import machine


def measure(data: Path, preset: str, minutes: float, seed: int, flags: list[str]) -> dict[str, float]:
    """One run and its score."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(data), "--out", str(out), "--preset", preset]
        command += ["--minutes", str(minutes), "--seed", str(seed), *flags]
        begun = time.monotonic()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        wall = time.monotonic() - begun
        model = antiphon.load(out)
        row: dict[str, float] = {"minutes": minutes, "seed": seed, "wall_minutes": round(wall / 60, 2)}
        for part in ("dev", "test"):
            pairs = antiphon.read_pairs(data / f"{part}.tsv")
            answers = [prediction.text for prediction in model.predict([pair.source for pair in pairs])]
            bleu = metrics.bleu(answers, [pair.target for pair in pairs], tokenize="none")
            row[f"{part}_bleu"] = round(bleu, 2)
        return row


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.5, 3.0, 12.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    asked, flags = parser.parse_known_args()
    rows = []
    print(f"{'budget':>8}{'seed':>6}{'wall':>8}{'dev BLEU':>10}{'test BLEU':>11}")
    for minutes in asked.minutes:
        for seed in asked.seeds:
            row = measure(asked.data, asked.preset, minutes, seed, flags)
            rows.append(row)
            print(
                f"{minutes:>8g}{seed:>6}{row['wall_minutes']:>8.2f}{row['dev_bleu']:>10.2f}{row['test_bleu']:>11.2f}",
                flush=True,
            )
    facts = {"preset": asked.preset, "flags": flags, "kernels": "C" if compiled() else "torch", "runs": rows}
    print(json.dumps({**machine.describe(), **facts}))


if __name__ == "__main__":
    main()
