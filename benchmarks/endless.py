"""A corpus larger than memory: how long preparing takes and how much memory, at 200 thousand pairs and at 20 million.

    python -m benchmarks.endless make data/multi30k endless/small --pairs 200000
    python -m benchmarks.endless make data/multi30k endless/large --pairs 20000000
    python -m benchmarks.endless measure endless/small
    python -m benchmarks.endless measure endless/large
    python -m benchmarks.endless peer endless/small --home runs/peers [--subwords]

`make` writes pairs made from real ones: a real pair, or in half of the cases two of them joined, so that nearly all are
different and the words are real. `measure` runs `antiphon train` for some updates in a process of its own and watches
it: seconds from its start to the first update, of the clock and of the processor, the peak of its memory, and of that
with its helpers. `peer` does with
OpenNMT-py (benchmarks/peers) what stands there before and during its first epoch: `onmt_build_vocab` over all pairs,
then its own reader, which applies the transforms and looks words up, through one epoch, by as many processes as there
are cores. It cuts at spaces, or with --subwords learns and applies them as Antiphon does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import antiphon
from antiphon.data.pairs import write_pairs
from antiphon.runtime.folder import LOG, read_lines
from benchmarks import machine
from benchmarks.peers.opennmt import OPENNMT

EPOCH = """
import sys
from onmt.constants import CorpusTask
from onmt.inputters.dynamic_iterator import build_dynamic_dataset_iter
from onmt.inputters.inputter import build_vocab
from onmt.opts import train_opts
from onmt.transforms import get_specials, get_transforms_cls
from onmt.utils.parse import ArgumentParser
config, rank, size, pairs = sys.argv[1], *map(int, sys.argv[2:])
parser = ArgumentParser()
train_opts(parser)
opt, _ = parser.parse_known_args(["-config", config])
ArgumentParser.validate_train_opts(opt)
ArgumentParser.update_model_opts(opt)
ArgumentParser.validate_prepare_opts(opt)
transforms = get_transforms_cls(opt._all_transform)
vocabs = build_vocab(opt, get_specials(opt, transforms))
reader = build_dynamic_dataset_iter(opt, transforms, vocabs, task=CorpusTask.TRAIN, stride=size, offset=rank)
seen = 0
for bucket, _ in reader._bucketing():
    seen += len(bucket)
    if seen >= pairs // size:
        break
"""

LEARN = """
import pyonmttok
learner = pyonmttok.BPELearner(tokenizer=pyonmttok.Tokenizer("space"), symbols=8000)
learner.ingest_file("s")
learner.ingest_file("t")
learner.learn("codes")
"""
SUBWORDS = {
    "transforms": "[onmt_tokenize]",
    **{f"{side}_subword_type": "bpe" for side in ("src", "tgt")},
    **{f"{side}_subword_model": "codes" for side in ("src", "tgt")},
    **{f"{side}_onmttok_kwargs": "\"{'mode': 'space', 'joiner_annotate': True}\"" for side in ("src", "tgt")},
}
"""Its own tokenizer, with as many merges as Antiphon's preset `translate` learns."""


def made(real: list[antiphon.Pair], count: int, seed: int) -> Iterator[antiphon.Pair]:
    """Pairs from pairs."""
    draw = random.Random(seed)
    number, most = draw.random, len(real)
    for _ in range(count):
        first = real[int(number() * most)]
        if number() < 0.5:
            yield first
        else:
            second = real[int(number() * most)]
            yield antiphon.Pair(f"{first.source} {second.source}", f"{first.target} {second.target}")


def make(real: Path, out: Path, count: int, seed: int) -> None:
    """A folder with many pairs."""
    out.mkdir(parents=True, exist_ok=True)
    write_pairs(out / "train.tsv", made(antiphon.read_pairs(real / "train.tsv"), count, seed))
    shutil.copyfile(real / "dev.tsv", out / "dev.tsv")


def measure(data: Path, updates: int, flags: list[str]) -> dict[str, object]:
    """One run of the program; its folder is thrown away."""
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(data), "--out", str(out), "--preset", "translate"]
        command += ["--train.max_updates", str(updates), "--train.validate_every", str(updates // 2), *flags]
        begun, first, work, own, whole = time.monotonic(), 0.0, 0.0, 0.0, 0.0
        told = Path(scratch) / "told"
        with told.open("wb") as errors:
            process = subprocess.Popen(command, stderr=errors)
        while process.poll() is None:
            sizes = [_resident(number) for number in _family(process.pid)]
            own, whole = max(own, _resident(process.pid, "VmHWM")), max(whole, sum(sizes))
            if not first and any(record["event"] == "progress" for record in read_lines(out / LOG)):
                first, work = time.monotonic() - begun, _work(process.pid)
            time.sleep(0.2)
        if process.returncode:
            fault = told.read_text(encoding="utf-8", errors="replace")[-2000:]
            sys.exit(f"training failed with exit code {process.returncode}:\n{fault}")
        log = read_lines(out / LOG)
        ids = sum(path.stat().st_size for path in (out / "ids").iterdir())
        shards = len(list((out / "ids").glob("train-*.npz")))
    started = next(record for record in log if record["event"] == "started")
    return {
        "pairs": started["train_pairs"],
        "shards": shards,
        "megabytes_of_text": round((data / "train.tsv").stat().st_size / 1e6),
        "megabytes_of_ids": round(ids / 1e6),
        "seconds_to_first_update": round(first, 1),
        "cpu_seconds_to_first_update": round(work, 1),
        "peak_memory_mb": round(own),
        "peak_memory_with_helpers_mb": round(whole),
        "updates": log[-1]["update"],
    }


def peer(data: Path, home: Path, subwords: bool) -> dict[str, object]:
    """Seconds of OpenNMT-py's vocabulary and first epoch of transforms, without training."""
    python, cores = OPENNMT.python(home), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        folder, count = Path(scratch), 0
        with (data / "train.tsv").open() as lines, (folder / "s").open("w") as s, (folder / "t").open("w") as t:
            for count, line in enumerate(lines, start=1):  # noqa: B007
                for text, file in zip(line.split("\t"), (s, t), strict=True):
                    file.write(" ".join(text.split()) + "\n")  # it cannot read a vocabulary with other white space
        config = {
            "save_data": "onmt",
            "src_vocab": "onmt.vocab",
            "share_vocab": "true",
            "overwrite": "true",
            "data": "{train: {path_src: s, path_tgt: t}}",
            "save_model": "onmt-model",
            "bucket_size": min(262144, count // cores),  # a larger one would be filled with further epochs
            "num_workers": 0,
            "num_threads": cores,
            **(SUBWORDS if subwords else {}),
        }
        (folder / "onmt.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
        alone = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        begun, before = time.monotonic(), _reaped()
        with (folder / "told").open("w") as told:
            quiet = {"cwd": folder, "env": alone, "stdout": subprocess.DEVNULL, "stderr": told}

            def begin(*arguments: str) -> subprocess.Popen[str]:
                return subprocess.Popen([str(python), *arguments], text=True, **quiet)

            def end(*processes: subprocess.Popen[str]) -> float:
                if sum(process.wait() for process in processes):
                    sys.exit("OpenNMT-py failed: " + (folder / "told").read_text(encoding="utf-8")[-1500:])
                return time.monotonic()

            learnt = end(begin("-c", LEARN)) if subwords else begun
            words = end(begin("-m", "onmt.bin.build_vocab", "-config", "onmt.yaml", "-n_sample", "-1"))
            shares = [begin("-c", EPOCH, "onmt.yaml", str(rank), str(cores), str(count)) for rank in range(cores)]
            ended = end(*shares)
    return {
        "pairs": count,
        "OpenNMT-py_subwords_seconds": round(learnt - begun, 1),
        "OpenNMT-py_vocabulary_seconds": round(words - learnt, 1),
        "OpenNMT-py_transforms_seconds": round(ended - words, 1),
        "OpenNMT-py_seconds": round(ended - begun, 1),
        "OpenNMT-py_cpu_seconds": round(_reaped() - before, 1),
    }


def _resident(process: int, what: str = "VmRSS") -> float:
    """Megabytes of a process."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


def _work(process: int) -> float:
    """Processor seconds of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _reaped() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(process: int) -> list[int]:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(number for child in children for number in _family(int(child)))]


def main() -> None:
    """Parses, does, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure", "peer"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--home", type=Path, default=Path("runs/peers"), help="where OpenNMT-py is made and kept")
    parser.add_argument("--subwords", action="store_true", help="OpenNMT-py learns and applies subwords too")
    asked, flags = parser.parse_known_args()
    if asked.what == "make":
        make(asked.data, asked.out, asked.pairs, asked.seed)
        return
    if asked.what == "measure":
        row = measure(asked.data, asked.updates, flags)
    else:
        row = peer(asked.data, asked.home, asked.subwords)
    for key, value in row.items():
        print(f"{key:<32}{value:>14,}")
    print(json.dumps({**machine.describe(), "usable_cores": len(os.sched_getaffinity(0)), **row}))


if __name__ == "__main__":
    main()
