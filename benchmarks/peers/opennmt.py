"""OpenNMT-py: bi-LSTM 2 x 250 a direction, LSTM 2 x 500, general attention, with or without input feeding.

Its "tok/s", the second figure, counts target tokens that are not padding, end of sentence included
(`onmt/utils/loss.py`, `_stats`).
"""

from __future__ import annotations

import functools
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.ours import LSTM500
from benchmarks.peers.peer import Environment, Job, Measured, Peer, call

UPDATES, REPORT = 60, 10
OPENNMT = Environment(
    "opennmt",
    "OpenNMT-py==3.5.1",  # it asks for an older PyTorch
    bare=("fasttext",),  # asked for by its parts, and imported
    needs=("spacy", "configargparse", "pyonmttok", "pyahocorasick", "tensorboard", "six", "pyyaml"),
)


@dataclass(frozen=True)
class Run(Measured):
    """And when it had made how many updates."""

    seconds: dict[int, float]
    """Of training, by updates, at every report; its preparation is not counted."""


def train(
    python: Path, job: Job, *, feeding: bool, updates: int = UPDATES, save: str = "", every: int | None = None
) -> Run:
    """One run; of its rate the first report, in which everything happens for the first time, is left out.

    With ``save`` its checkpoints are kept, ``every`` so many updates (or the last alone), as SAVE_step_UPDATES.pt.
    """
    config = {
        "save_data": "onmt",
        "src_vocab": "onmt.vocab",
        "share_vocab": "true",
        "overwrite": "true",
        "data": "{train: {path_src: train.src, path_tgt: train.tgt}, valid: {path_src: dev.src, path_tgt: dev.tgt}}",
        "save_model": save or "onmt-model",
        "encoder_type": "brnn",
        "decoder_type": "rnn",
        "rnn_type": "LSTM",
        "enc_layers": 2,
        "dec_layers": 2,
        "hidden_size": 500,
        "word_vec_size": 500,
        "global_attention": "general",
        "input_feed": int(feeding),
        "dropout": "[0.3]",
        "batch_size": 64,
        "batch_type": "sents",
        "bucket_size": 29000,
        "num_workers": 0,
        "optim": "adam",
        "learning_rate": 0.001,
        "max_grad_norm": 1.0,
        "train_steps": updates,
        "report_every": REPORT,
        "valid_steps": 100000,
        "save_checkpoint_steps": (every or updates) if save else 100000,
        "seed": job.seed,
    }
    (job.folder / "onmt.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    if not (job.folder / "onmt.vocab").exists():
        call(python, "-m", "onmt.bin.build_vocab", "-config", "onmt.yaml", "-n_sample", "-1", job=job)
    told = call(python, "-m", "onmt.bin.train", "-config", "onmt.yaml", job=job)
    rates = [float(rate) for rate in re.findall(r"/\s*(\d+) tok/s", told)]
    [weights] = re.findall(r"number of parameters: (\d+)", told)
    seconds = {int(step): float(took) for step, took in re.findall(r"Step (\d+)/.*?tok/s;\s*(\d+) sec", told)}
    return Run(statistics.median(rates[1:]), int(weights), seconds)


WITHOUT_FEEDING = Peer(
    OPENNMT,
    "subwords",
    functools.partial(train, feeding=False),
    ours={"": ("--preset", str(LSTM500))},
    updates=80,
)
WITH_FEEDING = Peer(
    OPENNMT,
    "subwords",
    functools.partial(train, feeding=True),
    ours={"feeding": ("--preset", str(LSTM500), "--model.feed", "true")},
    updates=80,
)
