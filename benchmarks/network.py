"""How far a run can be spread over machines: simulated from measured compute and counted bytes.

    python -m benchmarks.network data/multi30k --preset translate

Measured here, on one thread, in seconds of the processor: what the first and the last of n processes need for their
shares of a batch (forward, backward), batch by batch, and what the optimizer needs, which every process runs in
full. Counted: the bytes of the gradients. Simulated: n machines of that speed that go through those batches
together. An update takes as long as the slower share, then the all-reduce (a ring: 2 (n − 1) messages of 1/n of the
bytes, one by one), then the gathering of the sparse rows (n − 1 messages), then the optimizer. Nothing overlaps, as
in the program; machines that falter now and then are not simulated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from antiphon.config import load_config
from antiphon.data.corpus import read_corpus
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.training.loss import batch_loss, optimizer_for, sampler_for
from antiphon.training.precision import choose_precision
from antiphon.training.preparation import prepare
from benchmarks import machine

LINKS = {"1 Gbit/s": (1e9 / 8, 100e-6), "10 Gbit/s": (10e9 / 8, 30e-6), "100 Gbit/s": (100e9 / 8, 10e-6)}
"""Bytes a second and seconds of latency."""
COUNTS = (1, 2, 4, 8, 16, 32)
WARM = 4
"""Batches before those that are timed."""


@dataclass(frozen=True)
class Measured:
    """What one process does."""

    compute: dict[int, np.ndarray]
    """Seconds of the slower share of each batch, by how many share it."""
    optimizer: float
    dense_bytes: int
    sparse_bytes: dict[int, float]
    """Of one process's touched rows, by how many share a batch."""
    tokens: float
    """Of an update."""


def measure(data: Path, preset: str, updates: int, knobs: dict[str, dict[str, object]], share: float) -> Measured:
    """Times shares of batches in this process, as they are at this share of the budget."""
    torch.set_num_threads(1)
    config = load_config(preset, knobs)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = read_corpus(data, context=config.data.context, dev_pairs=8)
        prepared = prepare(corpus, config, Path(scratch))
        config = prepared.config
        sizes = prepared.source_tokenizer.size, prepared.target_tokenizer.size
        model = Seq2Seq(config.model, source_vocabulary=sizes[0], target_vocabulary=sizes[1]).train()
        tables = model.sparse_parameters()
        dense = sum(p.numel() for p in model.parameters() if not any(p is table for table in tables))
        optimizer, sampler = optimizer_for(model, config), sampler_for(prepared)
        precision = choose_precision(config.train.precision)
        compute, rows, total, tokens, steps = {}, {}, 0, [], []
        for count in COUNTS:
            streams = [replace(prepared, part=(rank, count)).stream(0, 0) for rank in sorted({0, count - 1})]
            times, touched = [], []
            for number in range(updates + WARM):
                slowest = 0.0
                for stream in streams:
                    batch = stream.batch(0, number)
                    if not batch.rows:
                        continue
                    begun = time.process_time()
                    loss, _, total = batch_loss(
                        model, batch, config, precision=precision, sampler=sampler, update=number, share=share
                    )
                    loss.backward()
                    slowest = max(slowest, time.process_time() - begun)
                    touched.append(sum(4 * _touched(p) * (1 + p[0].numel()) for p in tables))
                    begun = time.process_time()
                    optimizer.update(1e-4)
                    steps.append(time.process_time() - begun)
                if number >= WARM:
                    times.append(slowest)
                    tokens.append(total)
            compute[count], rows[count] = np.array(times), statistics.fmean(touched)
    return Measured(compute, statistics.median(steps), 4 * dense, rows, statistics.fmean(tokens))


def simulate(found: Measured, count: int, bandwidth: float, latency: float) -> tuple[float, float]:
    """Seconds of an update by ``count`` machines, and those of them that are spent on the network."""
    network = 0.0
    if count > 1:
        network += 2 * (count - 1) * (found.dense_bytes / count / bandwidth + latency)
        if found.sparse_bytes[count]:
            network += 2 * (count - 1) * latency + (count - 1) * found.sparse_bytes[count] / bandwidth
    return float(found.compute[count].mean()) + found.optimizer + network, network


def _touched(table: torch.nn.Parameter) -> int:
    return 0 if table.grad is None else len(table.grad.coalesce().values())


def main() -> None:
    """Parses, measures, simulates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="translate")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.0, help="of the budget: what is sampled at first is not later")
    parser.add_argument("--batch-tokens", type=int, default=None, help="instead of the preset's")
    asked = parser.parse_args()
    knobs: dict[str, dict[str, object]] = {"train": {}}
    if asked.batch_tokens:
        knobs["train"] = {"batch_tokens": asked.batch_tokens, "batch_size": None}
    found = measure(asked.data, asked.preset, asked.updates, knobs, asked.share)
    alone = simulate(found, 1, 1.0, 0.0)[0]
    print(f"{asked.preset}: {found.tokens:,.0f} tokens an update, {alone * 1000:.1f} ms alone, of which the optimizer")
    print(f"{found.optimizer * 1000:.1f} ms; {found.dense_bytes / 1e6:.1f} MB of dense gradients,")
    print(f"{found.sparse_bytes[1] / 1e6:.2f} MB of touched rows. Times faster than alone (share of the network):")
    print(f"{'machines':<12}" + "".join(f"{name:>18}" for name in LINKS))
    table = {}
    for count in COUNTS:
        row = {name: simulate(found, count, *link) for name, link in LINKS.items()}
        table[count] = {name: (round(alone / whole, 2), round(net / whole, 2)) for name, (whole, net) in row.items()}
        print(f"{count:<12}" + "".join(f"{up:>11.2f} ({share:>3.0%})" for up, share in table[count].values()))
    facts = {"data": machine.corpus(asked.data), "preset": asked.preset, "share": asked.share}
    facts |= {"batch_tokens": asked.batch_tokens, "alone_seconds": alone}
    facts |= {"optimizer_seconds": found.optimizer, "dense_bytes": found.dense_bytes, "tokens": found.tokens}
    facts["compute_seconds"] = {count: float(np.median(times)) for count, times in found.compute.items()}
    print(json.dumps({**machine.describe(), **facts, "faster": table}))


if __name__ == "__main__":
    main()
