"""Minutes from raw text until a translator is good: one command, tokenizer included.

    antiphon data multi30k --pair de-en --out data/multi30k
    python -m benchmarks.speedrun data/multi30k --minutes 1.5 3 12
    python -m benchmarks.speedrun data/multi30k --peer --updates 2300

For each budget: `antiphon train` from the files to the saved model, by the clock on the wall, then BLEU of its answers
on dev (beam of the preset). A budget's learning rate ends with the budget, so each is a run of its own.

`--peer`: OpenNMT-py beside it (LSTM 2 x 500, no input feeding, `benchmarks/peers/opennmt.py`) on the same texts in
10,000 joint subwords: one run, and the dev BLEU (beam 5) of every 460th update, about an epoch, with the minutes that
training had taken by then; what it does before the first update is not counted. Its last checkpoint is where
`benchmarks.decoding peers` looks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import antiphon
from antiphon import metrics
from antiphon.nn.kernels import compiled
from benchmarks import machine
from benchmarks.decoding import opennmt, whole
from benchmarks.peers.opennmt import OPENNMT, REPORT, train
from benchmarks.peers.peer import Job
from benchmarks.peers.symbols import write_symbols

EPOCH = 460
"""Updates between two looks at OpenNMT-py."""


def measure(data: Path, preset: str, minutes: float, seed: int, flags: list[str]) -> dict[str, float]:
    """One run and its score."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(data), "--out", str(out), "--preset", preset]
        command += ["--minutes", str(minutes), "--seed", str(seed), *flags]
        begun = time.monotonic()
        machine.ran(command)
        wall = time.monotonic() - begun
        model = antiphon.load(out)
        row: dict[str, float] = {"minutes": minutes, "seed": seed, "wall_minutes": round(wall / 60, 2)}
        for part in ("dev", "test"):
            pairs = antiphon.read_pairs(data / f"{part}.tsv")
            answers = [prediction.text for prediction in model.predict([pair.source for pair in pairs])]
            bleu = metrics.bleu(answers, [pair.target for pair in pairs], tokenize="none")
            row[f"{part}_bleu"] = round(bleu, 2)
        return row


def measure_peer(data: Path, home: Path, updates: int, seed: int) -> list[dict[str, float]]:
    """OpenNMT-py's dev BLEU by minutes of training."""
    folder = machine.place(home, "speedrun", data)
    folder.mkdir(parents=True, exist_ok=True)
    write_symbols(data, folder, "subwords")
    python = OPENNMT.python(home)
    threads = os.cpu_count() or 1
    run = train(python, Job(folder, threads, seed), feeding=False, updates=updates, save="model", every=EPOCH)
    wanted = [pair.target for pair in antiphon.read_pairs(data / "dev.tsv")]
    rows: list[dict[str, float]] = []
    for done in [*range(EPOCH, updates, EPOCH), updates]:
        ways, model = {"beam": (5, 32)}, f"model_step_{done}.pt"
        found = opennmt(python, folder, model=model, threads=threads, texts=0, ways=ways, alone=0, timed=False)
        answers = [whole(text) for text in found["beam"]["answers"]]
        bleu = metrics.bleu(answers, wanted, tokenize="none")
        minutes = run.seconds[done // REPORT * REPORT] / 60
        rows.append({"updates": done, "minutes": round(minutes, 2), "dev_bleu": round(bleu, 2)})
        print(f"{done:>8} updates{minutes:>8.2f} minutes{bleu:>10.2f}", flush=True)
    return rows


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.5, 3.0, 12.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--peer", action="store_true", help="OpenNMT-py instead")
    parser.add_argument("--updates", type=int, default=2300, help="of OpenNMT-py")
    parser.add_argument("--home", type=Path, default=Path("runs/peers"), help="where OpenNMT-py is installed")
    asked, flags = parser.parse_known_args()
    corpus = machine.corpus(asked.data)
    print(corpus)
    if asked.peer:
        rows = measure_peer(asked.data, asked.home, asked.updates, asked.seeds[0])
        facts = {"toolkit": OPENNMT.toolkit, "seed": asked.seeds[0], "run": rows}
        print(json.dumps({**machine.describe(), "data": corpus, **facts}))
        return
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
    print(json.dumps({**machine.describe(), "data": corpus, **facts}))


if __name__ == "__main__":
    main()
