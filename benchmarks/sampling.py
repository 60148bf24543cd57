"""What sampled softmax costs in quality: perplexity over the whole vocabulary after equal updates, full and sampled.

    python -m benchmarks.sampling data/cornell --updates 2000

Two runs of one model on the same batches, words as tokens; only `model.softmax` differs: the full one samples none at
first either. Perplexity is over the whole vocabulary on dev, for both.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

from antiphon.runtime.folder import LOG, read_lines
from benchmarks import machine

MODEL = (
    *("--preset", "chat", "--data.tokenizer", "word", "--data.vocabulary", "25000", "--train.label_smoothing", "0"),
    *("--train.patience", "1000", "--train.dev_answers", "20", "--train.sampled_until", "0"),
)


def perplexity(data: Path, softmax: str, updates: int, seed: int, flags: list[str]) -> dict[str, float]:
    """A run's last perplexity on dev, and its vocabulary."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(data), "--out", str(out), *MODEL]
        command += ["--model.softmax", softmax, "--train.max_updates", str(updates), "--seed", str(seed), *flags]
        machine.ran(command)
        told = read_lines(out / LOG)
    losses = [record["dev_loss"] for record in told if record["event"] == "validated"]
    [size] = [record["target_vocabulary"] for record in told if record["event"] == "started"]
    return {"perplexity": round(math.exp(losses[-1]), 2), "vocabulary": size}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    asked, flags = parser.parse_known_args()
    rows = []
    print(f"{'seed':>4}{'full':>9}{'sampled':>9}{'ratio':>8}")
    for seed in asked.seeds:
        full, sampled = (perplexity(asked.data, kind, asked.updates, seed, flags) for kind in ("full", "sampled"))
        ratio = round(sampled["perplexity"] / full["perplexity"], 4)
        rows.append({"seed": seed, "full": full, "sampled": sampled, "ratio": ratio})
        print(f"{seed:>4}{full['perplexity']:>9.2f}{sampled['perplexity']:>9.2f}{ratio:>8.3f}", flush=True)
    facts = {"data": machine.corpus(asked.data), "updates": asked.updates, "flags": flags, "runs": rows}
    print(json.dumps({**machine.describe(), **facts}))


if __name__ == "__main__":
    main()
