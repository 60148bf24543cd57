"""Marian (`pymarian`), its recurrent model ``s2s`` with LSTM cells, as like as it can be made; equal it cannot be.

- Its encoder has two stacks of two layers, one a direction, each 500 wide, joined at the top: ``dim-rnn`` is the width
  of every layer. Here a direction is 500 wide too in this comparison, but the second layer reads both directions.
- Its decoder is Bahdanau's: LSTM, additive attention, and a second LSTM that reads the context, within each step. Here
  the feeding decoder lets the context wait for the next step, and the parallel one has the same order without waiting.
- Its output layer reads the embedded last word too.
- With more than one thread it trains a copy of the model on a part of the batch on each.

Its "words/s" counts target words that are not masked, end of sentence included (`src/data/corpus_base.h`,
``batchWords``; `src/training/scheduler.h`, ``wordsDisp``).
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import numpy as np

from benchmarks.peers.ours import LSTM500
from benchmarks.peers.peer import Environment, Job, Measured, Peer, call

UPDATES, REPORT = 30, 5
MARIAN = Environment(
    "marian", "pymarian==1.12.42", needs=("huggingface-hub", "portalocker", "pyyaml", "requests", "tqdm")
)
SIZES = ("--preset", str(LSTM500), "--model.encoder_hidden", "500", "--model.attention", "additive")


def train(python: Path, job: Job) -> Measured:
    """One run; the first report is left out."""
    vocabulary = job.folder / "marian.yml"
    if not vocabulary.exists():
        words = {word for side in ("src", "tgt") for word in (job.folder / f"train.{side}").read_text().split()}
        numbered = enumerate(("</s>", "<unk>", *sorted(words)))
        vocabulary.write_text("".join(f"{_quoted(word)}: {number}\n" for number, word in numbered))
    for left in job.folder.glob("marian-model*"):
        left.unlink()
    options = {
        "type": "s2s",
        "train-sets": "train.src train.tgt",
        "vocabs": "marian.yml marian.yml",
        "model": "marian-model.npz",
        "enc-type": "bidirectional",
        "enc-cell": "lstm",
        "enc-depth": "2",
        "dec-cell": "lstm",
        "dec-cell-base-depth": "2",
        "dec-depth": "1",
        "dim-emb": "500",
        "dim-rnn": "500",
        "dropout-rnn": "0.3",
        "mini-batch": "64",
        "maxi-batch": "500",
        "max-length": "200",
        "cost-type": "ce-mean-words",
        "learn-rate": "0.001",
        "clip-norm": "1",
        "after": f"{UPDATES}u",
        "disp-freq": f"{REPORT}u",
        "save-freq": "1000000u",
        "cpu-threads": str(job.threads),
        "workspace": "1500",
        "seed": str(job.seed),
    }
    words = [word for key, value in options.items() for word in (f"--{key}", *value.split())]
    told = call(python, "-m", "pymarian", "train", *words, "--sync-sgd", job=job)
    rates = [float(rate) for rate in re.findall(r"([\d.]+) words/s", told)]
    with np.load(job.folder / "marian-model.npz") as kept:
        weights = sum(kept[name].size for name in kept.files if not name.startswith("special:"))
    return Measured(statistics.median(rates[1:]), weights)


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


PEER = Peer(
    MARIAN, "subwords", train, ours={"feeding": (*SIZES, "--model.feed", "true"), "parallel": SIZES}, updates=40
)
