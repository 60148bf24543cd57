"""Run by yoyodyne's own Python, in a folder with train.tsv and dev.tsv: trains and says how fast.

python -I yoyodyne_training.py UPDATES REPORT THREADS SEED
"""

import sys
import time

import torch
from lightning.pytorch import Callback, seed_everything
from yoyodyne import data, models, trainers
from yoyodyne.models import modules

UPDATES, REPORT, THREADS, SEED = map(int, sys.argv[1:])


class Clock(Callback):
    """Target symbols a second, end of sequence counted, padding not, every so many updates."""

    def __init__(self) -> None:
        self.begun, self.tokens, self.updates = time.monotonic(), 0, 0

    def on_train_batch_end(self, trainer, model, outputs, batch, index) -> None:
        self.tokens += int((~batch.target.mask).sum())
        self.updates += 1
        if self.updates % REPORT == 0:
            now = time.monotonic()
            print("rate", round(self.tokens / (now - self.begun)), flush=True)
            self.begun, self.tokens = now, 0


def main() -> None:
    """Trains its attentive LSTM with every default."""
    torch.set_num_threads(THREADS)
    seed_everything(SEED)
    corpus = data.DataModule(
        model_dir="yoyodyne-model", train="train.tsv", val="dev.tsv", source_sep=" ", target_sep=" "
    )
    model = models.SoftAttentionLSTMModel(
        source_encoder=modules.LSTMEncoder(), target_vocab_size=corpus.target_vocab_size, vocab_size=corpus.vocab_size
    )
    print("weights", sum(weight.numel() for weight in model.parameters()))
    trainer = trainers.Trainer(
        accelerator="cpu",
        max_steps=UPDATES,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, corpus)


if __name__ == "__main__":
    main()
