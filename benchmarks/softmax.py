"""What the softmax costs as the vocabulary grows: full, sampled with dense gradients, sampled with sparse rows.

    python -m benchmarks.softmax

One layer: forward, backward and Adam's update of a table of V x E and its bias, for one batch of positions. Whole: an
update of the model of `cs20` with a vocabulary of V on made-up ids. Medians, in milliseconds; the ways take turns
inside one run.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from torch import nn

from antiphon.config import Config, load_config
from antiphon.data.batches import make_batch
from antiphon.nn.kernels import compiled
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.nn.softmax import LogUniformSampler, full_loss, sampled_loss
from antiphon.training.loss import batch_loss, optimizer_for
from antiphon.training.optimizer import Optimizer
from benchmarks import machine

POSITIONS, WIDTH, SAMPLES = 1280, 256, 512


class Table(nn.Module):
    """A softmax layer alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, WIDTH) * WIDTH**-0.5)
        self.bias = nn.Parameter(torch.zeros(size, 1))


def frequencies(size: int) -> np.ndarray:
    """(V,) counts after Zipf's law."""
    return (1e9 / np.arange(1, size + 1)).astype(np.int64)


def words(size: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Ids drawn by Zipf's law."""
    weight = frequencies(size).astype(np.float64)
    return rng.choice(size, number, p=weight / weight.sum())


def layer(size: int, way: str, repeats: int) -> float:
    """Milliseconds of one update of the layer."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    table = Table(size)
    config = load_config(None, {"train": {"average": 0.0}}).train
    sparse = way == "sampled, sparse"
    optimizer = Optimizer(table, config, sparse=[table.weight, table.bias] if sparse else [])
    sampler = LogUniformSampler(frequencies(size), 1)
    features = torch.randn(POSITIONS, WIDTH, requires_grad=True)
    targets = torch.from_numpy(words(size, POSITIONS, rng))
    count = 0

    def update() -> None:
        nonlocal count
        count += 1
        if way == "full":
            loss, _ = full_loss(features, targets, POSITIONS, table.weight, table.bias.squeeze(1), 0.0)
        else:
            ids, tries = sampler.draw(SAMPLES, count)
            expected = sampler.log_expected(np.concatenate((targets.numpy(), ids)), tries)
            drawn = torch.from_numpy(ids), torch.from_numpy(expected)
            loss, _ = sampled_loss(features, targets, POSITIONS, table.weight, table.bias, *drawn, sparse=sparse)
        (loss / POSITIONS).backward()
        features.grad = None
        optimizer.update(1e-3)

    return 1000 * machine.seconds(update, repeats=repeats)


def whole(size: int, repeats: int) -> float:
    """Milliseconds of one update of the whole model of cs20, sampled, its buckets' middle shape."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    config: Config = load_config("cs20")
    model = Seq2Seq(config.model, source_vocabulary=size, target_vocabulary=size).train()
    optimizer = optimizer_for(model, config)
    sampler = LogUniformSampler(frequencies(size), 1)
    texts = [[words(size, 15, rng).tolist() for _ in range(config.train.batch_size or 64)] for _ in range(2)]
    batch = make_batch(texts[0], texts[1], (19, 19))
    count = 0

    def update() -> None:
        nonlocal count
        count += 1
        loss, _, _ = batch_loss(model, batch, config, precision="f32", sampler=sampler, update=count)
        loss.backward()
        optimizer.update(0.1)

    return 1000 * machine.seconds(update, repeats=repeats)


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[25_000, 100_000, 400_000])
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    ways = ("full", "sampled, dense", "sampled, sparse")
    table = {
        size: {way: layer(size, way, asked.repeats) for way in ways if way != "full" or size <= 100_000}
        | {"whole update, sparse": whole(size, asked.repeats)}
        for size in asked.sizes
    }
    columns = (*ways, "whole update, sparse")
    print(f"{'V':>9}", *(f"{name:>22}" for name in columns))
    for size, row in table.items():
        print(f"{size:>9,}", *(f"{row[name]:>22.1f}" if name in row else f"{'-':>22}" for name in columns))
    first, last = table[asked.sizes[0]], table[asked.sizes[-1]]
    ratios = {
        "full / sparse, smallest V": first["full"] / first["sampled, sparse"],
        "whole update, largest / smallest V": last["whole update, sparse"] / first["whole update, sparse"],
    }
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    facts = {"positions": POSITIONS, "width": WIDTH, "samples": SAMPLES, "kernels": "C" if compiled() else "torch"}
    print(json.dumps({**machine.describe(), **facts, "milliseconds": table, **ratios}))


if __name__ == "__main__":
    main()
