"""The whole: embeddings, encoder, decoder, softmax, trained jointly to maximise log P(target | source)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.config import ModelConfig
from antiphon.data.tokenizer import PAD
from antiphon.nn.decoder import Decoder
from antiphon.nn.dropout import TimeConstantDropout, drop_words
from antiphon.nn.encoder import Encoder, source_mask
from antiphon.nn.packing import Packing
from antiphon.nn.pointer import looked_at, moved, pointers
from antiphon.nn.products import linear
from antiphon.nn.recurrent import RecurrentLayer
from antiphon.nn.softmax import full_log_probs
from antiphon.nn.state import DecoderState, Memory
from antiphon.nn.table import look_up


class Embedding(nn.Module):
    """V rows of E numbers; with ``sparse`` only the rows that were looked up get a gradient."""

    def __init__(self, size: int, width: int, *, sparse: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, width) * width**-0.5)
        self.sparse = sparse

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) → (..., E), scaled to unit variance so that a tied table serves input and softmax."""
        scale = self.weight.shape[1] ** 0.5
        if not self.sparse:
            return look_up(self.weight, ids) * scale
        rows, where = torch.unique(ids, return_inverse=True)
        return F.embedding(where, F.embedding(rows, self.weight, sparse=True)) * scale


class Seq2Seq(nn.Module):
    """Encoder, attention and decoder with their embeddings.

    Args:
        config: the model's knobs.
        source_vocabulary, target_vocabulary: number of tokens on each side.
    """

    def __init__(self, config: ModelConfig, *, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width = config.embedding
        sparse = config.softmax == "sampled"
        self.target_embedding = Embedding(target_vocabulary, width, sparse=sparse)
        self.source_embedding = (
            self.target_embedding if config.tied == "all" else Embedding(source_vocabulary, width, sparse=sparse)
        )
        self._mark = target_vocabulary - 1
        """The token that moves a monotonic decoder's pointer: the last of an aligned vocabulary."""
        self.softmax_bias = nn.Parameter(torch.zeros(target_vocabulary, 1))
        if config.tied == "none":
            self.softmax_weight = nn.Parameter(torch.randn(target_vocabulary, width) * width**-0.5)
        else:
            self.softmax_weight = self.target_embedding.weight
        self.dropout = TimeConstantDropout(config.dropout)
        self.encoder = Encoder(config, width)
        self.carries_words = config.residual and self.encoder.width == width
        """Whether what the attention reads of a position is the encoder's output and the word's embedding, added."""
        self.decoder = Decoder(
            config,
            inputs=width,
            memory=self.encoder.width,
            finals=self.encoder.finals,
            layers=self.encoder.forwards if config.share_rnn else None,
        )

    @torch.no_grad()
    def expect(self, counts: np.ndarray, smoothing: float) -> None:
        """Begins with how common each word is, so that this need not be learnt: by a sampled softmax, which shows a
        rare word seldom, it would be learnt slowly.

        Args:
            counts: (V,) how often each id is a target.
            smoothing: of the labels that will be learnt from.
        """
        share = torch.from_numpy(np.maximum(counts, 0.5) / max(counts.sum(), 1))
        log_share = torch.log((1 - smoothing) * share + smoothing / len(share))
        self.softmax_bias.copy_((log_share - log_share.mean()).unsqueeze(1))

    def encode(self, src: Tensor, src_len: Tensor) -> tuple[Memory, DecoderState]:
        """Sources (B, S) with lengths (B,) → the memory and the decoder's first state."""
        packing = Packing(src_len, src.shape[1])
        words = self._embed(self.source_embedding, src, packing)
        packed, finals = self.encoder(words, packing)
        compared, mask = packing.unpack(packed), source_mask(src_len, src.shape[1])
        attention = self.decoder.attention
        if attention is None:
            return Memory(compared, compared, mask), self.decoder.start(finals)
        read = packing.unpack(packed + words) if self.carries_words else compared
        return attention.memory(compared, read, mask), self.decoder.start(finals)

    def features(self, src: Tensor, src_len: Tensor, tgt_in: Tensor) -> tuple[Tensor, Packing]:
        """Teacher forcing, all target positions: (B, S), (B,), (B, T) → packed features (P, E), and which is which."""
        memory, state = self.encode(src, src_len)
        packing = Packing((tgt_in != PAD).sum(dim=1), tgt_in.shape[1])
        x = self._embed(self.target_embedding, tgt_in, packing)
        looked = None
        if self.decoder.points:
            pointer = pointers(tgt_in == self._mark, src_len).flatten().index_select(0, packing.order)
            looked = looked_at(memory, packing.row, pointer)
        return self.decoder(x, packing, state, memory, looked), packing

    def step(self, y: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, Tensor, DecoderState]:
        """One word y (N,) → logits (N, V), attention weights (N, S), the state after it."""
        if state.pointer is not None:
            state = replace(state, pointer=moved(state.pointer, y == self._mark, memory.mask))
        features, weights, state = self.decoder.step(self.target_embedding(y), state, memory)
        return linear(features, self.softmax_weight, self.softmax_bias.squeeze(1)).float(), weights, state

    @torch.no_grad()
    def log_probs(self, src: Tensor, src_len: Tensor, tgt_in: Tensor, tgt_out: Tensor) -> Tensor:
        """log P of every token of tgt_out over the full vocabulary, in nats: (B, T), 0 at padding."""
        features, packing = self.features(src, src_len, tgt_in)
        places = packing.order[: packing.real]
        targets = tgt_out.flatten().index_select(0, places)
        weight, bias = self.softmax_weight, self.softmax_bias.squeeze(1)
        found = full_log_probs(features[: packing.real], targets, weight, bias)
        return torch.zeros(tgt_out.numel()).index_copy_(0, places, found).view(tgt_out.shape)

    def _embed(self, table: Embedding, ids: Tensor, packing: Packing) -> Tensor:
        x = table(ids.flatten().index_select(0, packing.order))
        if self.training and self.config.word_dropout:
            x = drop_words(x, self.config.word_dropout)
        return self.dropout(x, packing)

    def sparse_parameters(self) -> list[nn.Parameter]:
        """The tables that get row-sparse gradients (none with a full softmax)."""
        if self.config.softmax != "sampled":
            return []
        tables = (self.source_embedding.weight, self.target_embedding.weight, self.softmax_weight, self.softmax_bias)
        return list(dict.fromkeys(tables))

    def hidden_matrices(self) -> dict[str, int]:
        """Names of the matrices between embeddings and softmax, and how many are stacked in each: a layer's gates."""
        stacked = {}
        for name, module in self.named_modules():
            if isinstance(module, RecurrentLayer):
                gates = 4 if module.cell == "lstm" else 3
                stacked |= {f"{name}.rnn.weight_ih_l0": gates, f"{name}.rnn.weight_hh_l0": gates}
            elif isinstance(module, nn.Linear):
                stacked[f"{name}.weight"] = 1
        return stacked
