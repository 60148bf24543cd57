"""A run of this project beside a peer's."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from antiphon.runtime.folder import LOG, read_lines
from benchmarks.peers.peer import Job, Measured

LSTM500, LSTM512 = (Path(__file__).parents[1] / f"lstm{width}.toml" for width in (500, 512))


def train(job: Job, flags: tuple[str, ...], precision: str, updates: int) -> Measured:
    """`antiphon train` on the same symbols; the median of its reports, one about each second, after the first third."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        words = command(job, out, flags, precision, updates)
        done = subprocess.run([sys.executable, "-m", "antiphon", *words], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"antiphon train failed:\n{done.stderr[-3000:]}")
        records = list(read_lines(out / LOG))
    rates = [record["tokens_per_second"] for record in records if record["event"] == "progress"]
    [weights] = [record["parameters"] for record in records if record["event"] == "started"]
    return Measured(statistics.median(rates[len(rates) // 3 :]), weights)


def command(job: Job, out: Path, flags: tuple[str, ...], precision: str, updates: int) -> list[str]:
    """What `antiphon` is told; 64 pairs are held out, since one validation ends every run."""
    words = ["train", str(job.folder / "train.tsv"), "--out", str(out), *flags]
    words += ["--data.tokenizer", "symbol", "--data.vocabulary", "20000", "--data.dev_pairs", "64"]
    words += ["--train.max_updates", str(updates), "--train.validate_every", "1000000", "--train.dev_answers", "0"]
    words += ["--train.precision", precision, "--train.seed", str(job.seed), "--train.threads", str(job.threads)]
    return words
