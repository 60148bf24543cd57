"""Training speed beside OpenNMT-py: same architecture, same tokens, same batches, same PyTorch, in turn.

    python -m benchmarks.peers data/multi30k --pairs 5
    python -m benchmarks.peers data/multi30k --pairs 5 --feeding

The data are training pairs as `antiphon data` wrote them. Subwords are cut once, by Antiphon, and written as text
separated by spaces: both read the same symbols. OpenNMT-py is installed in an environment of its own (``--home``) which
sees the PyTorch of this one, with what it needs to start and does not declare. Then A B A B: its run, Antiphon's in
each precision, again. A figure is real target tokens per second
(end of sentence counted, padding not), the median of the reports of one run after the first; the ratio is that of a
pair, and what is printed is the median of the pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import antiphon
from antiphon.data.tokenizer import Tokenizer
from antiphon.runtime.folder import LOG, read_lines
from antiphon.training.precision import choose_precision
from benchmarks import machine

UPDATES = 60
"""Of OpenNMT-py's run; Antiphon does three times as many, since it is that much faster."""
LSTM500 = Path(__file__).with_name("lstm500.toml")


PACKAGES = "OpenNMT-py==3.5.1", "fasttext"
"""Installed without what they ask for: they pin an older PyTorch."""
NEEDS = "setuptools<80", "spacy", "configargparse", "pyonmttok", "pyahocorasick", "tensorboard", "six", "pyyaml"
"""Installed with what they ask for."""


def opennmt_run(
    python: Path, folder: Path, threads: int, *, feeding: bool, updates: int = UPDATES, save: str = ""
) -> list[float]:
    """Reports of one run of OpenNMT-py: bi-LSTM 2 x 250 a direction, LSTM 2 x 500, general attention.

    With ``save`` its checkpoint is kept as SAVE_step_UPDATES.pt.
    """
    config = {
        "save_data": "onmt",
        "src_vocab": "onmt.vocab",
        "share_vocab": "true",
        "overwrite": "true",
        "data": "{train: {path_src: train.src, path_tgt: train.tgt}, valid: {path_src: dev.src, path_tgt: dev.tgt}}",
        "save_model": save or "onmt-model",
        "encoder_type": "brnn",
        "decoder_type": "rnn",
        "rnn_type": "LSTM",
        "enc_layers": 2,
        "dec_layers": 2,
        "hidden_size": 500,
        "word_vec_size": 500,
        "global_attention": "general",
        "input_feed": int(feeding),
        "dropout": "[0.3]",
        "batch_size": 64,
        "batch_type": "sents",
        "bucket_size": 29000,
        "num_workers": 0,
        "optim": "adam",
        "learning_rate": 0.001,
        "max_grad_norm": 1.0,
        "train_steps": updates,
        "report_every": 10,
        "valid_steps": 100000,
        "save_checkpoint_steps": updates if save else 100000,
        "seed": 1,
    }
    (folder / "onmt.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    if not (folder / "onmt.vocab").exists():
        _call(python, "-m", "onmt.bin.build_vocab", "-config", "onmt.yaml", "-n_sample", "-1", folder=folder)
    told = _call(python, "-m", "onmt.bin.train", "-config", "onmt.yaml", folder=folder, threads=threads)
    return [float(rate) for rate in re.findall(r"/\s*(\d+) tok/s", told)]


def environment(home: Path) -> Path:
    """The Python of OpenNMT-py's own environment, made if need be."""
    folder = (home / "opennmt").absolute()
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    print(f"installing OpenNMT-py into {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "torch_of_the_bench.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *NEEDS], check=True)
    subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
    done.touch()
    return python


def write_symbols(corpus: Path, folder: Path) -> None:
    """Training and dev pairs as symbols separated by spaces: two files a side, and TSV."""
    pairs = {part: antiphon.read_pairs(corpus / f"{part}.tsv") for part in ("train", "dev")}
    texts = (text for pair in pairs["train"] for text in (pair.source, pair.target))
    tokenizer = Tokenizer.train(texts, kind="bpe", vocabulary=10000)

    def cut(text: str) -> str:
        return " ".join(tokenizer.tokens(tokenizer.encode(text)))

    for part, found in pairs.items():
        rows = [(cut(pair.source), cut(pair.target)) for pair in found]
        (folder / f"{part}.src").write_text("".join(f"{source}\n" for source, _ in rows))
        (folder / f"{part}.tgt").write_text("".join(f"{target}\n" for _, target in rows))
        (folder / f"{part}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in rows))


def antiphon_run(folder: Path, precision: str, threads: int, *, feeding: bool) -> list[float]:
    """Reports of one run of this project."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "antiphon", "train", str(folder / "train.tsv"), "--out", str(out)]
        command += ["--preset", str(LSTM500), "--model.feed", str(feeding).lower(), "--train.precision", precision]
        command += ["--data.tokenizer", "symbol", "--data.vocabulary", "20000"]
        command += ["--train.max_updates", str(3 * UPDATES), "--train.validate_every", "1000000"]
        command += ["--train.threads", str(threads)] if threads else []
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return [record["tokens_per_second"] for record in read_lines(out / LOG) if record["event"] == "progress"]


def _call(python: Path, *words: str, folder: Path, threads: int = 0) -> str:
    own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else {}
    done = subprocess.run(
        [str(python), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def compare(corpus: Path, home: Path, pairs: int, threads: int, *, feeding: bool) -> dict[str, object]:
    """A B A B; returns the medians."""
    python = environment(home)
    precisions = ["bf16", "f32"] if choose_precision("auto") == "bf16" else ["f32"]
    theirs: list[float] = []
    ours: dict[str, list[float]] = {precision: [] for precision in precisions}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_symbols(corpus, folder)
        for _ in range(pairs):
            theirs.append(statistics.median(opennmt_run(python, folder, threads, feeding=feeding)[1:]))
            for precision in precisions:
                rates = antiphon_run(folder, precision, threads, feeding=feeding)
                ours[precision].append(statistics.median(rates[len(rates) // 3 :]))
            told = ", ".join(f"Antiphon in {precision} {rates[-1]:,.0f}" for precision, rates in ours.items())
            print(f"OpenNMT-py {theirs[-1]:,.0f}, {told}", file=sys.stderr)
    row: dict[str, object] = {"feeding": feeding, "pairs": pairs, "threads": threads or os.cpu_count()}
    row["OpenNMT-py tokens/s"] = statistics.median(theirs)
    for precision, rates in ours.items():
        row[f"Antiphon tokens/s, {precision}"] = round(statistics.median(rates))
        ratios = [our / their for our, their in zip(rates, theirs, strict=True)]
        row[f"ratio, {precision}"] = round(statistics.median(ratios), 2)
        row[f"ratios, {precision}"] = [round(ratio, 2) for ratio in ratios]
    return row


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder made by antiphon data")
    parser.add_argument("--home", type=Path, default=Path("runs/peers"), help="where the environment is made and kept")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--feeding", action="store_true", help="with input feeding, on both sides")
    asked = parser.parse_args()
    row = compare(asked.data, asked.home, asked.pairs, asked.threads, feeding=asked.feeding)
    for key, value in row.items():
        print(f"{key:<28}{value}")
    limited = {name: os.environ[name] for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA") if name in os.environ}
    print(json.dumps({**machine.describe(), **limited, **row}))


if __name__ == "__main__":
    main()
