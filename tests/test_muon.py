"""Muon: its directions are orthogonal, gate by gate, and all of one size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from antiphon.config import Config, TrainConfig
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.training.muon import SIZE, Muon, orthogonal
from antiphon.training.optimizer import Optimizer


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(2, 24), st.integers(0, 24), st.integers(0, 2**31), st.floats(-6, 6))
def test_singular_values_come_near_to_one_and_singular_vectors_stay(count, rows, more, seed, scale):
    torch.manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(count, size, rows))[0] for size in (rows, rows + more))
    x = u @ torch.diag_embed(torch.linspace(0.2, 1.0, rows).expand(count, rows)) @ v.transpose(1, 2)
    straight = orthogonal(x * 10.0**scale)
    values = u.transpose(1, 2) @ straight @ v  # diagonal where the vectors are x's
    diagonal = values.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.2
    assert diagonal.max() < 1.3
    torch.testing.assert_close(values, torch.diag_embed(diagonal), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("height", "width", "blocks"), [(12, 4, 3), (16, 8, 4), (5, 9, 1), (9, 5, 1)])
def test_each_gate_moves_by_itself_and_whatever_its_gradient_by_the_same_size(height, width, blocks):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(height, width))
    together = Muon({"w": parameter}, {"w": blocks}, number=torch.float32, decay=0.0)
    gradient = torch.randn(blocks, height // blocks, width) * torch.tensor([1e-3, 1.0, 1e3, 1.0])[:blocks, None, None]
    together.step(0.01, {"w": gradient.reshape(height, width)})
    for block, moved in zip(gradient, parameter.detach().split(height // blocks), strict=True):
        alone = nn.Parameter(torch.zeros_like(block))
        Muon({"w": alone}, {"w": 1}, number=torch.float32, decay=0.0).step(0.01, {"w": block})
        torch.testing.assert_close(moved, alone.detach(), atol=1e-6, rtol=1e-4)
        assert 0.1 * SIZE < moved.square().mean().sqrt() / 0.01 < 1.3 * SIZE
        assert (moved * block).sum() < 0  # downhill


def test_muon_has_the_hidden_layers_and_adam_the_rest():
    config = Config.model_validate(
        {"model": {"embedding": 8, "hidden": 8, "attention": "general"}, "train": {"optimizer": "muon"}}
    )
    model = Seq2Seq(config.model, source_vocabulary=20, target_vocabulary=20)
    hidden = model.hidden_matrices()
    named = dict(model.named_parameters())
    assert hidden.keys() <= named.keys()
    assert {name for name, p in named.items() if p.dim() == 2 and name not in hidden} == {
        "softmax_weight",
        "softmax_bias",
    }
    optimizer = Optimizer(model, TrainConfig(optimizer="muon", precision="f32"), sparse=[], hidden=hidden)
    before = {name: p.detach().clone() for name, p in named.items()}
    for p in named.values():
        p.grad = torch.ones_like(p)
    optimizer.update(0.1)
    assert all((p.detach() != before[name]).any() for name, p in named.items())
    slots = optimizer.state().keys()
    assert {f"mean/{name}" for name in hidden} <= slots
    assert not {f"first/{name}" for name in hidden} & slots


def test_weights_decay():
    parameter = nn.Parameter(torch.ones(4, 4))
    Muon({"w": parameter}, {"w": 1}, number=torch.float32, decay=0.5).step(0.1, {"w": torch.zeros(4, 4)})
    torch.testing.assert_close(parameter.detach(), torch.full((4, 4), 0.95))
