"""What the recurrent translator that PyTorch's own tutorials teach comes to in the same time.

    antiphon data tatoeba --pair en-fr --out data/tatoeba
    python -m benchmarks.tutorial data/tatoeba --minutes 60 --threads 1
    antiphon train data/tatoeba --out runs/tatoeba --minutes 60 --train.threads 1
    antiphon evaluate runs/tatoeba data/tatoeba/test.tsv --metrics bleu,chrf

The model and its training are those of the chatbot tutorial (pytorch.org/tutorials/beginner/chatbot_tutorial.html),
written anew: GRUs of two layers, 500 wide, the encoder's two directions added up, "dot" attention (Luong et al. 2015),
a Python step over time with a masked loss each, 64 pairs drawn at random, Adam at 1e-4 (the decoder five times that),
the whole target given as input, gradients clipped at 50, a greedy answer. What is not the tutorial's: texts are cut
into words by this project's tokenizer and keep their case and punctuation, and a text may be longer than ten words,
since both models are asked for the same test sentences.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import antiphon
from antiphon import metrics
from antiphon.data.tokenizer import BOS, EOS, PAD, Tokenizer
from benchmarks import machine

WIDTH, LAYERS, DROPOUT, ROWS = 500, 2, 0.1, 64
RATE, DECODER_FASTER, CLIP = 1e-4, 5.0, 50.0
VOCABULARY = 8500
"""Words a side: with them the model has as many weights as the tutorial's size is quoted with, 23.8 M."""
LONGEST = 60
"""Words of an answer."""


class Tutorial(nn.Module):
    """Embeddings, encoder, decoder with attention, softmax."""

    def __init__(self, sources: int, targets: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(sources, WIDTH), nn.Embedding(targets, WIDTH)
        self.encoder = nn.GRU(WIDTH, WIDTH, LAYERS, dropout=DROPOUT, bidirectional=True)
        self.embedding_dropout = nn.Dropout(DROPOUT)
        self.decoder = nn.GRU(WIDTH, WIDTH, LAYERS, dropout=DROPOUT)
        self.join, self.out = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, targets)

    def encode(self, rows: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Sources → outputs (S, B, H), the decoder's first state (layers, B, H), mask (S, B), True = real."""
        padded = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], padding_value=PAD)
        lengths = torch.tensor([len(row) for row in rows])
        packed = nn.utils.rnn.pack_padded_sequence(self.source(padded), lengths, enforce_sorted=False)
        read, state = self.encoder(packed)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(read)
        # its first states are the lowest layer's two directions, which is what the tutorial hands over
        return outputs[:, :, :WIDTH] + outputs[:, :, WIDTH:], state[:LAYERS].contiguous(), padded != PAD

    def step(self, words: Tensor, state: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """words (B,) → log-probabilities (B, V) and the state after them."""
        output, state = self.decoder(self.embedding_dropout(self.target(words)).unsqueeze(0), state)
        scores = (output * memory).sum(dim=2).masked_fill(~mask, float("-inf")).t()
        context = torch.bmm(torch.softmax(scores, dim=1).unsqueeze(1), memory.transpose(0, 1)).squeeze(1)
        joined = torch.tanh(self.join(torch.cat((output.squeeze(0), context), dim=1)))
        return torch.log_softmax(self.out(joined), dim=1), state


def loss_of(model: Tutorial, sources: list[list[int]], targets: list[list[int]]) -> tuple[Tensor, int]:
    """Mean nats a real target word, and how many there are."""
    memory, state, mask = model.encode(sources)
    wanted = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in targets], padding_value=PAD)
    words, total = torch.full((len(sources),), BOS), torch.zeros(())
    for now in wanted:
        log_probs, state = model.step(words, state, memory, mask)
        total = total + F.nll_loss(log_probs, now, ignore_index=PAD, reduction="sum")
        words = now
    count = int((wanted != PAD).sum())
    return total / count, count


@torch.inference_mode()
def answers(model: Tutorial, sources: list[list[int]], tokenizer: Tokenizer) -> list[str]:
    """Greedy."""
    said: list[str] = []
    for start in range(0, len(sources), ROWS):
        memory, state, mask = model.encode(sources[start : start + ROWS])
        words = torch.full((mask.shape[1],), BOS)
        steps = []
        for _ in range(LONGEST):
            log_probs, state = model.step(words, state, memory, mask)
            words = log_probs.argmax(dim=1)
            steps.append(words)
        for row in torch.stack(steps, dim=1).tolist():
            said.append(tokenizer.decode(row[: row.index(EOS)] if EOS in row else row))
    return said


def main() -> None:
    """Trains for so many minutes, answers the test part, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder of antiphon data")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    pairs = antiphon.read_pairs(asked.data / "train.tsv")
    sides = [pair.source for pair in pairs], [pair.target for pair in pairs]
    tokenizers = [Tokenizer.train(side, kind="word", vocabulary=VOCABULARY) for side in sides]
    sources, targets = (
        [[*row, EOS] for row in tokenizer.encode_batch(side)] for tokenizer, side in zip(tokenizers, sides, strict=True)
    )
    model = Tutorial(tokenizers[0].size, tokenizers[1].size)
    parts = (model.source, model.encoder), (model.target, model.decoder, model.join, model.out)
    weights = [[weight for part in side for weight in part.parameters()] for side in parts]
    optimizers = torch.optim.Adam(weights[0], RATE), torch.optim.Adam(weights[1], RATE * DECODER_FASTER)
    begun, told, updates, tokens = time.monotonic(), 0.0, 0, 0
    while (now := time.monotonic() - begun) < 60 * asked.minutes:
        rows = torch.randint(len(pairs), (ROWS,)).tolist()
        loss, count = loss_of(model, [sources[row] for row in rows], [targets[row] for row in rows])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for side, optimizer in zip(weights, optimizers, strict=True):
            nn.utils.clip_grad_norm_(side, CLIP)
            optimizer.step()
        updates, tokens = updates + 1, tokens + count
        if now - told >= 60:
            told = now
            print(f"{updates} updates, {tokens / now:.0f} tokens/s, loss {float(loss.detach()):.3f}", flush=True)
    trained = time.monotonic() - begun
    model.eval()
    test = antiphon.read_pairs(asked.data / "test.tsv")
    rows = [[*row, EOS] for row in tokenizers[0].encode_batch([pair.source for pair in test])]
    said, wanted = answers(model, rows, tokenizers[1]), [pair.target for pair in test]
    facts = {
        "data": machine.corpus(asked.data),
        "seed": asked.seed,
        "threads": asked.threads,
        "minutes": round(trained / 60, 2),
        "updates": updates,
        "tokens_per_second": round(tokens / trained),
        "weights": sum(weight.numel() for weight in model.parameters()),
        "bleu": round(metrics.bleu(said, wanted), 2),
        "chrf": round(metrics.chrf(said, wanted), 2),
    }
    print(json.dumps({**machine.describe(), **facts}))


if __name__ == "__main__":
    main()
