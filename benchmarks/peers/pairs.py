"""Pairs of runs, kept one a line, and what they come to together.

A long measurement may be done in pieces: every pair has a line of its own with all that it depends on, and only pairs
that agree in all of it, but for date and seed, are put together. A pair is never left out.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.peers.peer import Measured

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Pair:
    """A peer's run and ours after it."""

    peer: str
    toolkit: str
    machine: dict[str, object]
    """From `machine.describe`."""
    sources: str
    """Fingerprint of this project's code and of this bench."""
    threads: int
    instructions: str
    """"all", or what both sides were held to."""
    seed: int
    others: float
    """Share of the time of the cores in use that other processes took meanwhile, 0..1."""
    theirs: Measured
    ours: dict[str, Measured]
    """By precision, or by precision and decoder."""
    data: str = ""
    """From `machine.corpus`; empty in lines of earlier days."""


def fingerprint() -> str:
    """Of all code and settings that a figure depends on."""
    folders = ROOT / "src" / "antiphon", ROOT / "benchmarks" / "peers"
    files = [path for folder in folders for ending in ("py", "c") for path in folder.rglob(f"*.{ending}")]
    digest = hashlib.sha256()
    for path in sorted([*files, *(ROOT / "benchmarks").glob("*.toml")]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def append(pair: Pair, path: Path) -> None:
    """Writes a pair behind those that are there; of what a toolkit's run came to, what all of them have."""
    pair = replace(pair, theirs=Measured(pair.theirs.rate, pair.theirs.weights))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(pair)) + "\n")


def read(path: Path) -> list[Pair]:
    """All pairs of a file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        ours = {name: Measured(**measured) for name, measured in fields.pop("ours").items()}
        found.append(Pair(theirs=Measured(**fields.pop("theirs")), ours=ours, **fields))
    return found


def summaries(pairs: Iterable[Pair]) -> list[dict[str, object]]:
    """One for each group of pairs that differ only in date and seed: medians, and the ratio within each pair."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        machine = {key: value for key, value in pair.machine.items() if key != "date"}
        how = pair.sources, pair.threads, pair.instructions, sorted(pair.ours)
        same = (pair.peer, pair.toolkit, pair.data, machine, *how)
        groups[json.dumps(same, sort_keys=True)].append(pair)
    return [_summary(group) for group in groups.values()]


def _summary(group: list[Pair]) -> dict[str, object]:
    first = group[0]
    ours = {}
    for name in first.ours:
        ratios = [pair.ours[name].rate / pair.theirs.rate for pair in group]
        ours[name] = {
            "tokens/s": round(statistics.median(pair.ours[name].rate for pair in group)),
            "weights": first.ours[name].weights,
            "ratio": round(statistics.median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
        }
    return {
        "peer": first.peer,
        "toolkit": first.toolkit,
        "data": first.data,
        "machine": {**first.machine, "date": sorted({str(pair.machine["date"]) for pair in group})},
        "sources": first.sources,
        "threads": first.threads,
        "instructions": first.instructions,
        "seeds": [pair.seed for pair in group],
        "pairs": len(group),
        "others": [round(pair.others, 2) for pair in group],
        "theirs": {
            "tokens/s": round(statistics.median(pair.theirs.rate for pair in group)),
            "weights": first.theirs.weights,
        },
        "ours": ours,
    }


def table(found: Iterable[dict]) -> str:
    """Summaries as Markdown."""
    lines = ["| | threads | instructions | pairs | weights, M | tokens/s | ratio | ratio of each pair | others |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for each in found:
        common = f"{each['threads']} | {each['instructions']} | {each['pairs']}"
        theirs = each["theirs"]
        lines.append(
            f"| {each['toolkit']} | {common} | {theirs['weights'] / 1e6:.1f} | {theirs['tokens/s']:,} | 1 | | |"
        )
        others = " ".join(f"{share:.0%}" for share in each["others"])
        for name, row in each["ours"].items():
            ratios = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
            speed = f"{row['weights'] / 1e6:.1f} | {row['tokens/s']:,} | **{row['ratio']:.2f}** | {ratios} | {others}"
            lines.append(f"| Antiphon, {name} | {common} | {speed} |")
    return "\n".join(lines)
