"""Runs of seconds: a small model, made-up pairs, an observer that can interrupt."""

from __future__ import annotations

import os
import random
import signal

from antiphon.training.progress import Validated

SMALL = {
    "data": {"tokenizer": "symbol", "buckets": 3},
    "model": {
        "embedding": 16,
        "hidden": 16,
        "encoder_hidden": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dropout": 0.2,
    },
    "train": {
        "batch_size": 16,
        "validate_every": 10,
        "dev_answers": 8,
        "dev_metric": "loss",
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "warmup": 5,
        "average": 0.998,
        "patience": 6,
        "precision": "f32",
    },
}


def knobs(*, updates: int, **groups) -> dict:
    merged = {name: {**values, **groups.get(name, {})} for name, values in SMALL.items()}
    merged["train"]["max_updates"] = updates
    return merged


def write_pairs(path, count):
    draw = random.Random(5)
    words = [[draw.choice("abcdefgh") for _ in range(draw.randint(1, 7))] for _ in range(count)]
    path.write_text("".join(f"{' '.join(w)}\t{' '.join(w[::-1])}\n" for w in words))


class Watcher:
    def __init__(self, stop_at: int = 0) -> None:
        self.events = []
        self.stop_at = stop_at

    def __call__(self, event) -> None:
        self.events.append(event)
        if self.stop_at and isinstance(event, Validated) and event.update >= self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]
