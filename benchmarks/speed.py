"""What a training run costs: from the command line to a steady pace, and where the time of an update goes.

    python -m benchmarks.speed data/cornell --preset cs20 --minutes 2
    python -m benchmarks.speed data/multi30k --preset benchmarks/lstm500.toml --minutes 1

First `antiphon train` runs in a process of its own and its log is read: seconds from the start of the process to the
end of the first update, real target tokens per second after that (median of the reports of about one second each),
the peak memory of the process. Then updates are timed in this process, phase by phase: building the batch, encoder,
decoder, attention (of a parallel decoder; a feeding one attends inside its loop), loss, backward, update; with the
floating-point operations of the matrix products per second beside the machine's own rate in the same precision,
measured in the same run.
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
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from antiphon.config import Config, load_config
from antiphon.data.batches import Batch
from antiphon.data.corpus import read_corpus
from antiphon.nn.kernels import compiled
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime.folder import LOG, read_lines
from antiphon.training.loss import batch_loss, optimizer_for, sampler_for, samples
from antiphon.training.memory import keep
from antiphon.training.precision import choose_precision
from antiphon.training.preparation import Prepared, prepare
from benchmarks import machine

SHARE = 0.0
"""Of the budget: where a softmax is sampled at first, as most updates are, it is here."""
WARM = 60
"""Updates before timing: every bucket's kernels are made by then."""


def run(data: Path, preset: str, minutes: float, flags: list[str]) -> dict[str, float]:
    """One run of the program; its folder is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(data), "--out", str(out)]
        command += ["--preset", preset, "--minutes", str(minutes), "--train.validate_every", "1000000", *flags]
        started, first = time.monotonic(), 0.0
        told = Path(scratch) / "told"
        with told.open("wb") as errors:
            process = subprocess.Popen(command, stderr=errors)
        while process.poll() is None:
            if not first and any(record["event"] == "progress" for record in read_lines(out / LOG)):
                first = time.monotonic() - started
            time.sleep(0.1 if not first else 1.0)
        if process.returncode:
            fault = told.read_text(encoding="utf-8", errors="replace")[-2000:]
            sys.exit(f"training failed with exit code {process.returncode}:\n{fault}")
        log = [record for record in read_lines(out / LOG) if record["event"] == "progress"][1:]
    rates = [record["tokens_per_second"] for record in log]
    return {
        "first_update_seconds": round(first, 1),
        "tokens_per_second_median": round(statistics.median(rates)),
        "tokens_per_second_mean": round(statistics.fmean(rates)),
        "updates": log[-1]["update"],
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def product_flops(model: Seq2Seq, config: Config, batch: Batch) -> float:
    """Operations of the matrix products of one update over real positions; look-ups and element-wise work left out.

    2 for each weight and position going forward, twice that going back; attention likewise for every pair of
    positions.
    """
    sources = float(batch.src_len[: batch.rows].sum())
    of_targets = (batch.tgt_out[: batch.rows] != 0).sum(axis=1)
    targets = float(of_targets.sum())
    encoder = sum(p.numel() for p in model.encoder.parameters() if p.dim() > 1)
    decoder = sum(p.numel() for name, p in model.decoder.named_parameters() if p.dim() > 1 and "bridge" not in name)
    bridges = sum(p.numel() for name, p in model.decoder.named_parameters() if p.dim() > 1 and "bridge" in name)
    memory_side = 0
    attention = model.decoder.attention
    pairs = 0.0
    if attention is not None:
        for part in (attention.key, attention.value):
            memory_side += sum(p.numel() for p in part.parameters() if p.dim() > 1)
        pairs = float((of_targets * batch.src_len[: batch.rows]).sum()) * (config.model.hidden + attention.width)
    words = config.train.samples + 1 if samples(config, SHARE) else len(model.softmax_weight)
    softmax = words * model.softmax_weight.shape[1]
    return 6 * (
        sources * (encoder + memory_side) + targets * (decoder - memory_side + softmax) + batch.rows * bridges + pairs
    )


class Clock:
    """Seconds by phase, of modules that are called and of blocks."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str):
        begun = time.perf_counter()
        yield
        self.spent[name] += time.perf_counter() - begun

    def watch(self, module: nn.Module, name: str) -> None:
        """Times every call of a module's ``forward``."""
        original = module.forward

        def timed(*args, **kwargs):
            with self.phase(name):
                return original(*args, **kwargs)

        module.forward = timed  # type: ignore[method-assign]


def phases(prepared: Prepared, config: Config, updates: int) -> dict[str, float]:
    """Where the time of an update goes, and what its products reach."""
    keep()  # as training does
    torch.manual_seed(config.train.seed)
    sizes = {
        "source_vocabulary": prepared.source_tokenizer.size,
        "target_vocabulary": prepared.target_tokenizer.size,
    }
    model, precision = Seq2Seq(config.model, **sizes).train(), choose_precision(config.train.precision)
    optimizer = optimizer_for(model, config)
    sampler = sampler_for(prepared)
    stream, clock = prepared.stream(0, 0), Clock()
    clock.watch(model.encoder, "encode")
    clock.watch(model.decoder, "decode and attend")
    if model.decoder.attention is not None:
        clock.watch(model.decoder.attention, "attend")
    begun, tokens, flops, rates = time.perf_counter(), 0, 0.0, []
    for number in range(WARM + updates):
        if number == WARM:
            clock.spent.clear()
            tokens, flops, begun = 0, 0.0, time.perf_counter()
        with clock.phase("data"):
            batch = stream.batch(*divmod(number, stream.batches_per_epoch))
        started = time.perf_counter()
        with clock.phase("forward"):
            loss, _, count = batch_loss(
                model, batch, config, precision=precision, sampler=sampler, update=number, share=SHARE
            )
        with clock.phase("backward"):
            loss.backward()
        with clock.phase("update"):
            optimizer.update(1e-3)
        updated = time.perf_counter()
        work = product_flops(model, config, batch)
        rates.append(work / (updated - started))
        tokens, flops = tokens + count, flops + work
        begun += time.perf_counter() - updated  # counting is not training
    whole, spent = time.perf_counter() - begun, clock.spent
    decode, attend = spent["decode and attend"], spent["attend"]
    of_phase = {
        "data": spent["data"],
        "encode": spent["encode"],
        "decode": decode - attend,
        "attend": attend,
        "embed and softmax": spent["forward"] - spent["encode"] - decode,
        "backward": spent["backward"],
        "update": spent["update"],
    }
    plain, own = machine.matmul_rates(precision)
    return {
        "ms_per_update": 1000 * whole / updates,
        "tokens_per_second": tokens / whole,
        **{f"ms {name}": 1000 * value / updates for name, value in of_phase.items()},
        "products_gflop_per_second": flops / whole / 1e9,
        "torch_mm_gflop_per_second": plain / 1e9,
        "share_of_torch_mm": flops / whole / plain,
        "machine_gflop_per_second": own / 1e9,
        "share_of_machine": flops / whole / own,
        "share_of_machine_best_update": max(rates[WARM:]) / own,
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="cs20")
    parser.add_argument("--minutes", type=float, default=2.0, help="of the run of the program; 0: no such run")
    parser.add_argument("--updates", type=int, default=100, help="timed phase by phase; 0: none")
    parser.add_argument("--precision", default=None, choices=("f32", "bf16"))
    parser.add_argument("--threads", type=int, default=None)
    asked, flags = parser.parse_known_args()
    knobs: dict[str, dict[str, object]] = {"train": {}}
    for name in ("precision", "threads"):
        if (value := getattr(asked, name)) is not None:
            knobs["train"][name] = value
    if flags and asked.updates:
        parser.error("flags are for the run of the program alone: give --updates 0 too")
    for name in ("precision", "threads"):
        if name in knobs["train"]:
            flags += [f"--train.{name}", str(knobs["train"][name])]
    row: dict[str, float] = run(asked.data, asked.preset, asked.minutes, flags) if asked.minutes else {}
    config = load_config(asked.preset, knobs)
    if asked.updates:
        if asked.threads:
            torch.set_num_threads(asked.threads)
        with tempfile.TemporaryDirectory() as scratch:
            corpus = read_corpus(asked.data, context=config.data.context, dev_pairs=config.data.dev_pairs)
            prepared = prepare(corpus, config, Path(scratch))
            report = prepared.report()
            row |= {"shapes": len(prepared.plan.buckets), "padding of the shapes": float(np.round(report.padding, 4))}
            row |= phases(prepared, prepared.config, asked.updates)
    for name, value in row.items():
        print(f"{name:<30}{value:>12,.3f}" if isinstance(value, float) else f"{name:<30}{value:>12,}")
    facts = {"preset": asked.preset, "flags": flags, "kernels": "C" if compiled() else "torch"}
    print(json.dumps({**machine.describe(), "data": machine.corpus(asked.data), **facts, **row}))


if __name__ == "__main__":
    main()
