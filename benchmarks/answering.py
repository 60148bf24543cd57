"""How fast model folders answer: run, export in f32, export in int8, side by side.

    python -m benchmarks.answering runs/chat models/chat models/chat-int8 --data data/cornell

For each folder: size on the disk; milliseconds of reading a source of 12 tokens and of one decoder step with one row,
and steps a second; sentences a second over the first sources of the data's test part, greedily and with a beam of 5,
32 at a time. Folders take turns inside one run; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import antiphon
from antiphon.search import beam, greedy
from benchmarks import machine

LENGTH, STEPS, ROWS = 12, 12, 32


def one_row(model: antiphon.Model) -> dict[str, float]:
    """Milliseconds with one row."""
    src, src_len = np.full((1, LENGTH), 50), np.array([LENGTH])
    begun = time.perf_counter()
    memory, state = model.engine.encode(src, src_len)
    read = time.perf_counter()
    y = np.ones(1, np.int64)
    for _ in range(STEPS):
        out = model.engine.step(y, state, memory, 8)
        state, y = out.state, out.ids[:, 0]
    done = time.perf_counter()
    return {"encode_ms": 1000 * (read - begun), "step_ms": 1000 * (done - read) / STEPS}


def sentences(model: antiphon.Model, texts: list[str], width: int) -> float:
    """Sentences a second with a beam of ``width``, 32 at a time, sorted by length, tokenising not counted."""
    config = model.config.search.model_copy(update={"beam": width, "nbest": 1, "sample": False})
    ids = sorted(([*row[: model.max_source - 1], 2] for row in model.source_tokenizer.encode_batch(texts)), key=len)
    begun = time.perf_counter()
    for start in range(0, len(ids), ROWS):
        some = ids[start : start + ROWS]
        src = np.zeros((len(some), max(map(len, some))), np.int64)
        for row, one in enumerate(some):
            src[row, : len(one)] = one
        src_len = np.array([len(one) for one in some])
        search = greedy if width == 1 else beam
        search(model.engine, src, src_len, config, np.full(len(some), model.max_target))
    return len(ids) / (time.perf_counter() - begun)


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    models = {folder.name: antiphon.load(folder, threads=asked.threads) for folder in asked.folders}
    texts = [pair.source for pair in antiphon.read_pairs(asked.data / "test.tsv")[: asked.texts]]
    if any("antiphon.nn" in type(model.engine).__module__ for model in models.values()):
        import torch

        torch.set_num_threads(asked.threads)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for repeat in range(asked.repeats + 1):
        for name, model in models.items():
            row = one_row(model)
            for width in (1, 5):
                row[f"beam_{width}_sentences_per_second"] = sentences(model, texts, width)
            if repeat:  # the first makes kernels
                for key, value in row.items():
                    found[name].setdefault(key, []).append(value)
    table = {}
    for folder in asked.folders:
        files = [path for path in folder.rglob("*") if path.suffix in (".onnx", ".safetensors")]
        size = sum(path.stat().st_size for path in files if not path.name.startswith("state"))
        row = {key: statistics.median(values) for key, values in found[folder.name].items()}
        table[folder.name] = {"mb": size / 1e6, **row, "steps_per_second": 1000 / row["step_ms"]}
    width = max(map(len, table))
    names = list(next(iter(table.values())))
    print(" " * 30, *(f"{name:>{max(width, 12)}}" for name in table))
    for name in names:
        print(f"{name:<30}", *(f"{row[name]:>{max(width, 12)},.2f}" for row in table.values()))
    print(json.dumps({**machine.describe(), "threads": asked.threads, "texts": len(texts), "folders": table}))


if __name__ == "__main__":
    main()
