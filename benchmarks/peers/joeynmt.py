"""JoeyNMT: bi-LSTM 2 x 250 a direction, LSTM 2 x 500, general ("luong") attention, input feeding off.

Its "Tokens per Sec" counts target tokens that are not padding, end of sentence included (`joeynmt/batch.py`,
``ntokens``). It draws its batches at random and does not sort by length, so that half of what it computes is padding.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from benchmarks.peers.ours import LSTM500
from benchmarks.peers.peer import Environment, Job, Measured, Peer, call

UPDATES, REPORT = 30, 5
JOEYNMT = Environment(
    "joeynmt",
    "joeynmt==2.3.0",  # it asks for a protobuf that nothing else bears
    needs=(
        *("datasets", "sacrebleu", "sacremoses", "sentencepiece", "subword-nmt", "tensorboard", "pyyaml", "pandas"),
        *("matplotlib", "importlib_metadata"),  # the last it imports without asking for it
    ),
)
_SIDE = "{{lang: {}, max_length: 200, lowercase: false, level: word, voc_file: joey.vocab, tokenizer_type: none}}"
_LAYERS = "rnn_type: lstm, num_layers: 2, hidden_size: {}, dropout: 0.3, hidden_dropout: 0.3"
_EMBEDDINGS = "embeddings: {embedding_dim: 500, scale: false, dropout: 0.3}"


def train(python: Path, job: Job) -> Measured:
    """One run; the first report is left out. With a constant rate, or its usual schedule, it no longer starts."""
    config = f"""
name: bench
joeynmt_version: 2.3.0
model_dir: joey-model
use_cuda: false
random_seed: {job.seed}
normalization: tokens
data:
  train: train
  dev: dev
  dataset_type: plain
  src: {_SIDE.format("src")}
  trg: {_SIDE.format("tgt")}
testing: {{beam_size: 1, eval_metrics: [bleu], batch_size: 64, batch_type: sentence}}
training:
  optimizer: adam
  learning_rate: 0.001
  clip_grad_norm: 1.0
  scheduling: warmupinversesquareroot
  learning_rate_warmup: 100
  learning_rate_min: 1.0e-9
  batch_size: 64
  batch_type: sentence
  updates: {UPDATES}
  epochs: 1000
  logging_freq: {REPORT}
  validation_freq: 1000000
  overwrite: true
  shuffle: true
model:
  encoder: {{type: recurrent, bidirectional: true, {_LAYERS.format(250)}, {_EMBEDDINGS}}}
  decoder: {{type: recurrent, attention: luong, input_feeding: false, init_hidden: bridge, {_LAYERS.format(500)},
            {_EMBEDDINGS}}}
"""
    (job.folder / "joey.yaml").write_text(config)
    if not (job.folder / "joey.vocab").exists():
        words = {word for side in ("src", "tgt") for word in (job.folder / f"train.{side}").read_text().split()}
        (job.folder / "joey.vocab").write_text("".join(f"{word}\n" for word in sorted(words)))
    told = call(python, "-m", "joeynmt", "train", "joey.yaml", "--skip-test", job=job)
    rates = [float(rate) for rate in re.findall(r"Tokens per Sec:\s*(\d+)", told)]
    [weights] = set(re.findall(r"Total params: (\d+)", told))
    return Measured(statistics.median(rates[1:]), int(weights))


PEER = Peer(JOEYNMT, "subwords", train, ours={"": ("--preset", str(LSTM500))}, updates=80)
