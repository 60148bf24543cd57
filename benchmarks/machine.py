"""What a figure must say of where and on what it was made, and how fast that machine multiplies."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from antiphon.data.pairs import Card
from antiphon.version import VERSION

SQUARE = 2048
"""Side of the matrices whose product is the machine's own rate."""


def describe() -> dict[str, object]:
    """Date, processor, cores, versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "onnxruntime": metadata.version("onnxruntime"),
        "antiphon": VERSION,
    }


def corpus(folder: Path) -> str:
    """Which corpus a folder made by `antiphon data` holds, with its options: a direction that is not said is mistaken.

    Other folders and files are told by their name.
    """
    card = Card.load(folder) if folder.is_dir() else None
    if card is None:
        return folder.name
    return " ".join([card.name, *(f"{name}={value}" for name, value in card.options.items())])


def place(home: Path, what: str, data: Path) -> Path:
    """Where a benchmark keeps what it made of a corpus: a folder for each, so that none is taken for another."""
    return home.absolute() / what / re.sub(r"[^\w-]+", "-", corpus(data))


def ran(command: list[str]) -> None:
    """Runs a command to its end; if it fails, what it said is said again and the process ends."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def seconds(work: Callable[[], object], *, repeats: int = 9, warm: int = 3) -> float:
    """Median seconds of a call."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def cpu_seconds() -> tuple[float, float]:
    """Seconds that the cores this process may use have been at work, for anyone; and for this process and its children.

    Children count when they have ended. What a virtual machine's neighbours took counts as work for others. Linux only.
    """
    tick = os.sysconf("SC_CLK_TCK")
    lines = dict(line.split(maxsplit=1) for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    busy = 0
    for core in os.sched_getaffinity(0):
        user, nice, system, _idle, _waiting, interrupts, soft, stolen, *_ = map(int, lines[f"cpu{core}"].split())
        busy += user + nice + system + interrupts + soft + stolen
    times = os.times()
    return busy / tick, times.user + times.system + times.children_user + times.children_system


def matmul_rates(precision: str) -> tuple[float, float]:
    """FLOP/s of the product of two square matrices (2048) in this precision (f32, bf16): `torch.mm`, and the library
    that training takes. In f32 they differ where MKL keeps AVX-512 to another maker's processors."""
    import torch

    from antiphon.nn.products import product

    number = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(SQUARE, SQUARE).to(number) for _ in range(2))
    plain, ours = (
        2 * SQUARE**3 / seconds(lambda multiply=multiply: multiply(a, b)) for multiply in (torch.mm, product)
    )
    return plain, ours


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith("flags")), "")
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    widest = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    return f"{name} ({widest})" if widest else name
