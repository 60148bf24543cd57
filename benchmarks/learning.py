"""What ``antiphon learn`` makes of forty corrections, and whether it forgets.

    python -m benchmarks.learning runs/chat --data data/self-dialogue --minutes 4

Twenty pairs of the test part, drawn with a seed among those whose source and answer are short and which the model does
not answer so by itself, become forty corrections: each source is asked in two ways and corrected both times to the
pair's own target. After learning, every source is asked in two further ways that nobody corrected. The ways are
mechanical: "well ,", "hey ,", "by the way ," in front, or nothing; of data with context in front of the oldest turn.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import asdict
from pathlib import Path

import antiphon
from antiphon.conversations import Conversations, Turn, new_id
from antiphon.data.pairs import Pair
from antiphon.learning import learn
from antiphon.training.tuning import answered
from benchmarks import machine

WAYS = ("{}", "well , {}", "hey , {}", "by the way , {}")
CORRECTED = 2
"""Ways of asking that are corrected; the rest are only asked."""


def chosen(model: antiphon.Model, pairs: list[Pair], count: int, seed: int) -> list[Pair]:
    """Pairs to correct: short, of different sources and targets, not answered so already."""
    rng = random.Random(seed)
    found: dict[str, str] = {}
    for pair in rng.sample(pairs, len(pairs)):
        short = 3 <= len(pair.source.split()) <= 12 and 3 <= len(pair.target.split()) <= 12
        # Only what the model's own letters can spell can be answered exactly.
        spelt = model.target_tokenizer.decode(model.target_tokenizer.encode(pair.target)) == pair.target
        new = pair.source not in found and pair.target not in found.values()
        if short and spelt and new and not answered(model, [pair]):
            found[pair.source] = pair.target
        if len(found) == count:
            break
    return [Pair(source, target) for source, target in found.items()]


def main() -> None:
    """Parses, corrects, learns, asks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corrections", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    model = antiphon.load(asked.run)
    texts = antiphon.read_pairs(asked.data / "test.tsv")
    pairs = chosen(model, texts, asked.corrections // CORRECTED, asked.seed)
    corrected = [Pair(way.format(p.source), p.target) for p in pairs for way in WAYS[:CORRECTED]]
    others = [Pair(way.format(p.source), p.target) for p in pairs for way in WAYS[CORRECTED:]]
    with tempfile.TemporaryDirectory() as folder:
        store = Conversations(Path(folder) / "conversations.db")
        name, talk = asked.run.resolve().name, new_id()
        turns = [Turn(talk, p.source, model.predict(p.source, sample=False).text, p.source, name) for p in corrected]
        store.add(turns)
        for turn, pair in zip(turns, corrected, strict=True):
            store.judge(turn.id, better=pair.target)
        out = Path(folder) / "learnt"
        report = learn(asked.run, store, out, minutes=asked.minutes, seed=asked.seed)
        store.close()
        again = antiphon.load(out) if report.better else model
        found = {
            **machine.describe(),
            "data": machine.corpus(asked.data),
            "run": name,
            "examples": [p._asdict() for p in pairs[:3]],
            "unseen_ways": {"before": answered(model, others), "after": answered(again, others), "count": len(others)},
            "dev_loss_rise": report.after["dev_loss"] / report.before["dev_loss"] - 1,
            **asdict(report),
        }
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
