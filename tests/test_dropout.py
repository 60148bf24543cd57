"""Dropout: what is dropped, how often, and that a row's mask is one and the same at all its positions."""

from __future__ import annotations

import pytest
import torch

from antiphon.config import ModelConfig
from antiphon.nn.dropout import TimeConstantDropout, drop_words
from antiphon.nn.packing import Packing
from antiphon.nn.seq2seq import Seq2Seq

SRC, SRC_LEN = torch.tensor([[5, 6, 7, 2], [8, 9, 4, 2]]), torch.tensor([4, 4])
TGT_IN = torch.tensor([[1, 5, 0, 0, 0], [1, 5, 6, 8, 7], [1, 6, 7, 0, 0]])


def a_model(**knobs) -> Seq2Seq:
    torch.manual_seed(3)
    config = ModelConfig.model_validate({"embedding": 12, "hidden": 16, "dropout": 0.0, **knobs})
    return Seq2Seq(config, source_vocabulary=20, target_vocabulary=20)


def test_a_row_has_one_mask_for_all_its_steps_and_another_row_another():
    torch.manual_seed(0)
    packing = Packing(torch.tensor([40, 7, 40]), 40)
    found = TimeConstantDropout(0.25).train()(torch.ones(packing.size, 2000), packing)[: packing.real]
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 4 / 3]))
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    rows = [found[packing.row[: packing.real] == row] for row in range(3)]
    assert [len(row) for row in rows] == [40, 7, 40]
    assert all(torch.equal(row, row[:1].expand_as(row)) for row in rows)
    for one, other in ((0, 1), (0, 2), (1, 2)):  # where masks are independent: 2 x 0.25 x 0.75
        assert float((rows[one][0] != rows[other][0]).float().mean()) == pytest.approx(0.375, abs=0.04)


def test_each_call_draws_anew():
    packing, x = Packing(torch.tensor([2]), 2), torch.ones(32, 100)
    drop = TimeConstantDropout(0.5).train()
    assert not torch.equal(drop(x, packing), drop(x, packing))


def test_nothing_is_dropped_in_evaluation_or_by_no_chance():
    packing, x = Packing(torch.tensor([3, 1]), 3), torch.randn(32, 8)
    assert torch.equal(TimeConstantDropout(0.5).eval()(x, packing), x)
    assert torch.equal(TimeConstantDropout(0.0).train()(x, packing), x)


@pytest.mark.parametrize("chance", [0.0, 0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 301)])
def test_a_mask_drops_as_often_as_it_says_and_keeps_the_mean(chance, shape):
    torch.manual_seed(0)
    mask = TimeConstantDropout(chance).mask(*shape)
    assert mask.shape == shape
    assert set((mask * (1 - chance)).unique().round(decimals=5).tolist()) <= {0.0, 1.0}
    if mask.numel() > 1000:
        assert float((mask == 0).float().mean()) == pytest.approx(chance, abs=0.01)


def test_words_are_dropped_whole_and_the_others_left_as_they_are():
    torch.manual_seed(0)
    x = torch.rand(5000, 3) + 1
    found = drop_words(x, 0.2)
    dropped = (found == 0).all(dim=1)
    assert float(dropped.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert torch.equal(found[~dropped], x[~dropped])


@pytest.mark.parametrize("knob", ["word_dropout", "dropout"])
def test_a_model_drops_only_while_it_is_trained(knob):
    model, plain = a_model(**{knob: 0.5}), a_model()
    model.load_state_dict(plain.state_dict())
    src, src_len, tgt_in = SRC, SRC_LEN, TGT_IN[1:]
    wanted, _ = plain.eval().features(src, src_len, tgt_in)
    found, packing = model.eval().features(src, src_len, tgt_in)
    real = packing.real
    assert torch.equal(found[:real], wanted[:real])
    once, again = (model.train().features(src, src_len, tgt_in)[0][:real] for _ in range(2))
    assert not torch.allclose(once, wanted[:real], atol=1e-3)
    assert not torch.allclose(once, again, atol=1e-3)


def test_whole_words_of_both_sides_are_dropped():
    model = a_model(word_dropout=0.5).train()
    packing = Packing(torch.tensor([400]), 400)
    for table in (model.source_embedding, model.target_embedding):
        found = model._embed(table, torch.full((1, 400), 5), packing)[:400]
        dropped = (found == 0).all(dim=1)
        assert float(dropped.float().mean()) == pytest.approx(0.5, abs=0.1)
        assert torch.equal(found[~dropped], table(torch.full((int((~dropped).sum()),), 5)))


@pytest.mark.parametrize("training", [True, False])
def test_a_decoder_that_feeds_drops_between_its_layers_the_same_units_at_every_step(training, monkeypatch):
    model = a_model(attention="additive", feed=True, decoder_layers=3, residual=False, dropout=0.5, hidden=64).train(
        training
    )
    below, above, top = [], [], []

    def noting(layer, note):
        step = layer.stepper()

        def noted(x, state):
            after = step(x, state)
            note(x, after[0])
            return after

        return lambda: noted

    first, second, third = model.decoder.layers
    monkeypatch.setattr(first, "stepper", noting(first, lambda _, h: below.append(h.detach())))
    monkeypatch.setattr(second, "stepper", noting(second, lambda x, h: above.append((x.detach(), h.detach()))))
    monkeypatch.setattr(third, "stepper", noting(third, lambda x, _: top.append(x.detach())))
    with torch.no_grad():
        model.features(SRC[[0, 1, 0]], SRC_LEN[[0, 1, 0]], TGT_IN)
    assert [len(h) for h in below] == [3, 3, 2, 1, 1]  # the longest row first
    lower = [x / h for (x, _), h in zip(above, below, strict=True)]
    upper = [x / h for x, (_, h) in zip(top, above, strict=True)]
    for masks in (lower, upper):
        if not training:
            assert all((mask == 1).all() for mask in masks)
            continue
        torch.testing.assert_close(masks[0].round(decimals=4).unique(), torch.tensor([0.0, 2.0]))
        for mask in masks:
            torch.testing.assert_close(mask, masks[0][: len(mask)], atol=1e-4, rtol=0)
        assert not torch.equal(masks[0][0] == 0, masks[0][1] == 0)
    assert torch.equal(lower[0] == 0, upper[0] == 0) is not training
