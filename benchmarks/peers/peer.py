"""Another toolkit: what it needs to start, how it is run, what it says of its speed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch


@dataclass(frozen=True)
class Measured:
    """What one training run came to."""

    rate: float
    """Real target tokens a second: end of sentence counted, padding not."""
    weights: int
    """Numbers that are learnt."""


@dataclass(frozen=True)
class Job:
    """What a toolkit is asked to train on."""

    folder: Path
    """Holds train and dev pairs as symbols separated by spaces: .src, .tgt, .tsv. A toolkit may write here too."""
    threads: int
    seed: int


class Training(Protocol):
    """Trains for a while, in a process of its own."""

    def __call__(self, python: Path, job: Job, /) -> Measured: ...


@dataclass(frozen=True)
class Environment:
    """Where a toolkit is installed: a virtual environment of its own that sees the PyTorch of this one."""

    name: str
    toolkit: str
    """The requirement that is compared, ``name==version``."""
    bare: tuple[str, ...] = ()
    """Installed without what they ask for, as the toolkit is: they ask for another PyTorch, or for gigabytes."""
    needs: tuple[str, ...] = ()
    """Installed with what they ask for."""

    def python(self, home: Path) -> Path:
        """Its Python; the environment is made if need be."""
        folder = (home / self.name).absolute()
        python, done = folder / "bin" / "python", folder / "installed"
        if done.exists():
            return python
        print(f"installing {self.toolkit} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "torch_of_the_bench.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # setuptools: older toolkits import pkg_resources, which later ones no longer have
        subprocess.run([*pip, "setuptools<80", *self.needs], check=True)
        subprocess.run([*pip, "--no-deps", self.toolkit, *self.bare], check=True)
        done.touch()
        return python


@dataclass(frozen=True)
class Peer:
    """A comparison: one toolkit with one model, and the same or the nearest model here."""

    environment: Environment
    symbols: Literal["subwords", "letters"]
    """How the corpus is cut: joint subwords (translation), or letters on the left and phones as they stand."""
    train: Training
    ours: Mapping[str, tuple[str, ...]]
    """Flags of `antiphon train` for each model here that is compared with it."""
    updates: int
    """Of a run here."""


def call(python: Path, *words: str, job: Job) -> str:
    """What a command of a toolkit says, run in the job's folder with the job's number of threads."""
    threads = str(job.threads)
    done = subprocess.run(
        [str(python), *words],
        cwd=job.folder,
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout[-3000:]}")
    return done.stdout
