"""Chatbots side by side on held-out conversations.

    python -m benchmarks.chatbots runs/cs20 runs/chat --data data/cornell

For each run folder: perplexity per word and bits per character over the full vocabulary (words that the model spells
as UNK are charged for their spelling), hits@1 of 20, and how varied its answers are under its own search and under one
search for all. Everything is seeded.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import antiphon
from antiphon.runtime.folder import LOG, read_lines
from benchmarks import machine

LIKELIHOOD = (
    "perplexity_per_word",
    "bits_per_character",
    "bits_per_character_uncharged",
    "unknown_share",
    "hits_at_1",
    "hits_at_1_mmi",
)
VARIETY = ("distinct_1", "distinct_2", "distinct_2_beside_human", "ten_commonest", "repeats_4gram")
MMI = 0.3
"""Share of log P(T) that is taken off in the second ranking of hits."""
SEARCHES = {"own search": {}, "greedy": {"beam": 1, "sample": False, "no_repeat_ngram": 0}}


def measure(folder: Path, pairs: list[antiphon.Pair], answers: int) -> dict[str, float]:
    """All figures of one run folder."""
    model = antiphon.load(folder)
    found = antiphon.evaluate(model, pairs, metrics=("perplexity", "hits"), mmi=MMI)
    row = {name: found[name] for name in LIKELIHOOD}
    for label, search in SEARCHES.items():
        said = antiphon.evaluate(model, pairs[:answers], metrics=("distinct",), **({"seed": 1} | search))
        row |= {f"{name} ({label})": said[name] for name in VARIETY}
    log = read_lines(folder / LOG)
    row["minutes"] = round(log[-1]["seconds"] / 60, 1)
    row["updates"] = log[-1]["update"]
    row["best_dev_loss"] = round(min(r["dev_loss"] for r in log if r["event"] == "validated"), 4)
    row["weights"] = next(r["parameters"] for r in log if r["event"] == "started")
    return row


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=2000, help="test sources answered for the variety figures")
    asked = parser.parse_args()
    pairs = antiphon.read_pairs(asked.data / "test.tsv")
    table = {str(folder): measure(folder, pairs, asked.answers) for folder in asked.runs}
    names = list(next(iter(table.values())))
    width = max(map(len, names))
    print(" " * width, *(f"{name:>14}" for name in table))
    for name in names:
        print(f"{name:<{width}}", *(f"{row[name]:>14.4g}" for row in table.values()))
    print(json.dumps({**machine.describe(), "data": machine.corpus(asked.data), "pairs": len(pairs), "runs": table}))


if __name__ == "__main__":
    main()
