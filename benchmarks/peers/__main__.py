"""Training speed beside another toolkit: the same architecture, symbols, batch size and PyTorch, in turn.

    python -m benchmarks.peers opennmt --data data/multi30k --pairs 5
    python -m benchmarks.peers yoyodyne --data data/cmudict --pairs 5 --threads 1 --avx2
    python -m benchmarks.peers joeynmt --data data/multi30k --pairs 1 --seed 4 --json joeynmt.jsonl

The data are training pairs as `antiphon data` wrote them. Subwords are cut once, by Antiphon, and written as text
separated by spaces: both read the same symbols. Each toolkit is installed in an environment of its own (--home), which
sees the PyTorch of this one, with what it needs to start and does not declare. Then A B A B: its run, Antiphon's in
each precision, again with the next seed. A figure is real target tokens per second (end of sentence counted, padding
not), the median of the reports of one run after the first; a ratio is that of a pair, and the one in bold print the
median of the pairs. How much of the cores' time other processes took meanwhile stands beside it: figures from a machine
with other work are worth little.

--json FILE writes each pair behind those that are in the file and tells about all of them: so a measurement can be
done in pieces. --pairs 0 only tells.

--avx2 keeps both sides to what a processor without AVX-512 and AMX has: ATen, oneDNN, MKL and Antiphon's own kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from antiphon.training.precision import choose_precision
from benchmarks import machine
from benchmarks.peers import joeynmt, marian, opennmt, ours, pairs, yoyodyne
from benchmarks.peers.peer import Job
from benchmarks.peers.symbols import write_symbols

PEERS = {
    "opennmt": opennmt.WITHOUT_FEEDING,
    "opennmt-feeding": opennmt.WITH_FEEDING,
    "joeynmt": joeynmt.PEER,
    "yoyodyne": yoyodyne.PEER,
    "marian": marian.PEER,
}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""Each library has its own way to be told; PyTorch's products in f32 are MKL's."""


def instructions(environment: Mapping[str, str]) -> str:
    """What both sides are held to, also where the user said it in another way than by --avx2."""
    held = {name: environment[name] for name in AVX2 if name in environment}
    if held == AVX2:
        return "AVX2"
    return ", ".join(f"{name}={value}" for name, value in held.items()) or "all"


def measure(name: str, job: Job, home: Path, held: str, data: str) -> pairs.Pair:
    """One pair: their run, then ours in each precision that this processor multiplies fast."""
    peer = PEERS[name]
    python = peer.environment.python(home)
    begun, (busy, own) = time.monotonic(), machine.cpu_seconds()
    theirs = peer.train(python, job)
    found = {}
    for precision in ["bf16", "f32"] if choose_precision("auto") == "bf16" else ["f32"]:
        for model, flags in peer.ours.items():
            found[f"{precision}, {model}" if model else precision] = ours.train(job, flags, precision, peer.updates)
    seconds, (busy_then, own_then) = time.monotonic() - begun, machine.cpu_seconds()
    cores = len(os.sched_getaffinity(0))
    return pairs.Pair(
        peer=name,
        toolkit=peer.environment.toolkit,
        machine=machine.describe(),
        sources=pairs.fingerprint(),
        threads=job.threads,
        instructions=held,
        seed=job.seed,
        others=max(busy_then - busy - (own_then - own), 0.0) / (seconds * cores),
        theirs=theirs,
        ours=found,
        data=data,
    )


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--data", type=Path, required=True, help="a folder made by antiphon data")
    parser.add_argument("--home", type=Path, default=Path("runs/peers"), help="where environments are made and kept")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the first pair; the next has the next")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of either side; all cores unless given")
    parser.add_argument("--avx2", action="store_true", help="no AVX-512 and no AMX, on either side")
    parser.add_argument("--json", type=Path, help="a file of pairs, to be written on")
    asked = parser.parse_args()
    if asked.avx2 and any(os.environ.get(name) != value for name, value in AVX2.items()):
        # PyTorch reads these once, when it is loaded: begin anew with them
        os.environ.update(AVX2)
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.peers", *sys.argv[1:]])
    found = pairs.read(asked.json) if asked.json and asked.json.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        if asked.pairs:
            write_symbols(asked.data, Path(scratch), PEERS[asked.peer].symbols)
        for seed in range(asked.seed, asked.seed + asked.pairs):
            job = Job(Path(scratch), asked.threads, seed)
            pair = measure(asked.peer, job, asked.home, instructions(os.environ), machine.corpus(asked.data))
            found.append(pair)
            if asked.json:
                pairs.append(pair, asked.json)
            told = ", ".join(f"{name} {measured.rate:,.0f}" for name, measured in pair.ours.items())
            print(f"{pair.toolkit} {pair.theirs.rate:,.0f}; Antiphon: {told}", file=sys.stderr)
    told = pairs.summaries(found)
    print(pairs.table(told))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
