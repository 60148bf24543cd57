"""How much of what is computed is padding: CS20's buckets, plain sorting, our buckets, and our buckets packed.

    python -m benchmarks.padding data/cornell:cs20 data/multi30k:translate data/cmudict:g2p

Each argument is DATA:PRESET; the preset gives tokenizer and batch size. No training: one epoch's batches are made and
their positions counted, source and target together.

- cs20: the lecture's six buckets, proportional order, whole rectangles; pairs beyond the largest are cut.
- sorted: pairs sorted by target and source length, cut into batches of about equal positions, each padded to its own
  longest; as many shapes as there are different batches.
- buckets: ours (12), whole rectangles.
- packed: ours (12); what the recurrent layers and the softmax compute, with rounding: positions to a multiple of
  `antiphon.nn.packing.GRAIN`, and in bf16 the rows of a step to a multiple of 8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from antiphon.config import load_config
from antiphon.data.batches import BatchStream
from antiphon.data.buckets import BucketPlan, rows_per_bucket
from antiphon.data.corpus import read_corpus
from antiphon.nn.packing import Packing
from antiphon.nn.products import LoopProduct
from antiphon.training.preparation import Prepared, prepare
from benchmarks import machine

CS20 = [(19, 19), (28, 28), (33, 33), (40, 43), (50, 53), (60, 63)]
SHAPES = 12


def rectangles(prepared: Prepared, plan: BucketPlan, rows: list[int], order: str) -> dict[str, float]:
    """Padding of whole batches."""
    stream = BatchStream(*prepared.train.shard(0)[:2], plan, rows, order=order, seed=1)  # type: ignore[arg-type]
    real = computed = 0
    for index in range(stream.batches_per_epoch):
        batch = stream.batch(0, index)
        real += int(batch.src_len[: batch.rows].sum()) + int((batch.tgt_out != 0).sum())
        computed += batch.src.size + batch.tgt_out.size
    return {"padding": 1 - real / computed, "shapes": len(plan.buckets)}


def packed(prepared: Prepared, plan: BucketPlan, rows: list[int]) -> dict[str, float]:
    """Padding of what is left when rows that have ended leave, in bf16."""
    stream = BatchStream(*prepared.train.shard(0)[:2], plan, rows, seed=1)
    real = rounded = stepped = 0
    for index in range(stream.batches_per_epoch):
        batch = stream.batch(0, index)
        for lengths, width in (
            (batch.src_len, batch.src.shape[1]),
            ((batch.tgt_out != 0).sum(axis=1), batch.tgt_out.shape[1]),
        ):
            packing = Packing(torch.from_numpy(lengths), width)
            real += int(lengths[: batch.rows].sum())
            rounded += packing.size
            counts = np.array(packing.counts)
            stepped += int((counts + -counts % LoopProduct.GRAIN).sum())
    # of a layer's products half are over all positions at once, half step by step
    return {"padding": 1 - 2 * real / (rounded + stepped), "shapes": len(plan.buckets)}


def sorted_batches(prepared: Prepared, positions: int) -> dict[str, float]:
    """Padding of sorted batches."""
    source, target = (store.lengths.astype(np.int64) + 1 for store in prepared.train.shard(0)[:2])
    data = prepared.config.data
    source, target = np.minimum(source, data.max_source), np.minimum(target, data.max_target)
    order = np.lexsort((source, target))
    computed, shapes, start = 0, set(), 0
    while start < len(order):
        rows = max(1, positions // int(target[order[start : start + 1]].max()))
        some = order[start : start + rows]
        shape = len(some), int(source[some].max()), int(target[some].max())
        shapes.add(shape)
        computed += shape[0] * (shape[1] + shape[2])
        start += rows
    return {"padding": 1 - float(source.sum() + target.sum()) / computed, "shapes": len(shapes)}


def measure(data: Path, preset: str) -> dict[str, dict[str, float]]:
    """All ways for one corpus."""
    config = load_config(preset, {"data": {"buckets": SHAPES}, "train": {"batch_tokens": 3000}})
    corpus = read_corpus(data, context=config.data.context, dev_pairs=config.data.dev_pairs)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(corpus, config, Path(scratch))
        by_hand = BucketPlan.by_hand(CS20)
        rows = rows_per_bucket(prepared.plan, config.train.batch_tokens, None)
        return {
            "cs20": rectangles(prepared, by_hand, [64] * len(CS20), "proportional"),
            "sorted": sorted_batches(prepared, config.train.batch_tokens),
            "buckets": rectangles(prepared, prepared.plan, rows, "shuffled"),
            "packed": packed(prepared, prepared.plan, rows),
        }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", help="DATA:PRESET")
    asked = parser.parse_args()
    table = {}
    for argument in asked.corpora:
        data, _, preset = argument.rpartition(":")
        table[argument] = measure(Path(data), preset)
    ways = ("cs20", "sorted", "buckets", "packed")
    width = max(map(len, table))
    print(" " * width, *(f"{way:>22}" for way in ways))
    for name, row in table.items():
        cells = (f"{row[way]['padding']:.1%} ({row[way]['shapes']} shapes)" for way in ways)
        print(f"{name:<{width}}", *(f"{cell:>22}" for cell in cells))
    print(json.dumps({**machine.describe(), "padding": table}))


if __name__ == "__main__":
    main()
