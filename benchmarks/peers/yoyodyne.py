"""yoyodyne: attentive LSTM at its default sizes: embedding 128, one layer of 512 (a direction), 32 pairs a batch.

It has no figure of its own for tokens: a callback of `yoyodyne_training.py` counts and times them.

Its decoder reads, at each step, the context that the state before it found: so the model here that is most like it
feeds contexts too. The parallel decoder of the same widths is the one a user of Antiphon would take.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from benchmarks.peers.ours import LSTM512
from benchmarks.peers.peer import Environment, Job, Measured, Peer, call

UPDATES, REPORT = 60, 10
YOYODYNE = Environment(
    "yoyodyne",
    "yoyodyne==0.5.27",  # it asks for torchaudio and torchvision and imports neither
    needs=("jsonargparse[signatures]", "lightning", "maxwell", "omegaconf", "torchmetrics", "wandb"),
)
SIZES = ("--preset", str(LSTM512))


def train(python: Path, job: Job) -> Measured:
    """One run; the first report is left out."""
    script = Path(__file__).with_name("yoyodyne_training.py")
    # isolated: the script's own folder has a file called as the toolkit is
    told = call(python, "-I", str(script), str(UPDATES), str(REPORT), str(job.threads), str(job.seed), job=job)
    rates = [float(rate) for rate in re.findall(r"rate (\d+)", told)]
    [weights] = re.findall(r"weights (\d+)", told)
    return Measured(statistics.median(rates[1:]), int(weights))


PEER = Peer(
    YOYODYNE,
    "letters",
    train,
    ours={"feeding": (*SIZES, "--model.feed", "true"), "parallel": SIZES},
    updates=600,
)
