"""Answers decoded together are the answers decoded alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon
from antiphon.config import SearchConfig
from antiphon.search import Walk, likeliest
from antiphon.streams import Entry, Streams, read
from fakes import FakeEngine

DATES = ["3 de mayo de 1979", "Montag, den 11. Juli 2033", "1 января 2001 г.", "yesterday", "", "12 mars 1999 " * 6]


@cache
def dates() -> antiphon.Model:
    return antiphon.load("dates")


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(DATES), st.integers(0, 9), st.integers(-5, 5)), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([0, 2, 3]),
)
def test_whoever_is_beside_it_an_answer_is_the_same(asked, sample, no_repeat):
    model = dates()
    knobs = {"sample": sample, "temperature": 2.0, "no_repeat_ngram": no_repeat, "max_length": 14}
    streams = Streams(model, model.settings(knobs))
    found: dict[int, list[int]] = {number: [] for number in range(len(asked))}
    step, waiting = 0, {number: begin for number, (_, begin, _) in enumerate(asked)}
    while waiting or len(streams):
        now = [number for number, begin in waiting.items() if begin <= step]
        if now:
            entries = [Entry(number, asked[number][0], asked[number][2], 14) for number in now]
            for texts in read(model, entries):
                streams.join(texts)
            for number in now:
                del waiting[number]
        if len(streams):
            for token in streams.step():
                found[token.number] += [] if token.id is None else [token.id]
        step += 1
    for number, (text, _, seed) in enumerate(asked):
        alone = "".join(model.stream(text, **knobs, seed=seed))
        assert model.target_tokenizer.decode(found[number]) == alone


def test_who_leaves_is_gone_and_the_others_go_on():
    model = dates()
    streams = Streams(model, model.settings({"sample": True, "temperature": 3.0}))
    [texts] = read(model, [Entry(7, DATES[0], 1), Entry(8, DATES[1], 2), Entry(9, DATES[2], 3)])
    streams.join(texts)
    streams.step()
    streams.leave([8, 100])
    assert {token.number for token in streams.step()} == {7, 9}
    streams.leave([7, 9])
    assert len(streams) == 0


def test_a_late_row_repeats_nothing_either():
    engine = FakeEngine()
    walk = Walk(engine, likeliest, SearchConfig(no_repeat_ngram=1, unknown=True), wanted=1)
    taken: dict[int, list[int]] = {0: [], 1: []}
    for step in range(12):
        if step in (0, 3):
            src = np.array([[4 + step, 2]])
            walk.join(*engine.encode(src, np.array([2])), np.array([step // 3]), np.array([8]))
        if len(walk.rows):
            found = walk.step()
            for row, token in zip(found.rows.tolist(), found.tokens.tolist(), strict=True):
                taken[row].append(token)
    assert all(len(set(tokens)) == len(tokens) for tokens in taken.values())
    assert all(taken.values())


def test_where_others_always_join_only_what_is_going_is_remembered():
    engine = FakeEngine()
    walk = Walk(engine, likeliest, SearchConfig(no_repeat_ngram=2, unknown=True), wanted=1)
    for step in range(300):
        src = np.array([[4 + step % 3, 2]])
        walk.join(*engine.encode(src, np.array([2])), np.array([step]), np.array([1 + step % 7]))
        walk.step()
        assert walk._prefixes.shape[1] <= 14


@pytest.mark.parametrize("attention", ["none", "additive", "dot", "general", "multihead"])
@pytest.mark.parametrize("feed", [False, True])
def test_pytorch_rows_join_as_if_read_together(attention, feed):
    torch = pytest.importorskip("torch")
    from antiphon.config import ModelConfig
    from antiphon.nn.engine import TorchEngine
    from antiphon.nn.seq2seq import Seq2Seq

    torch.manual_seed(1)
    config = ModelConfig(embedding=8, hidden=8, attention=attention, feed=feed, heads=2)
    engine = TorchEngine(Seq2Seq(config, source_vocabulary=20, target_vocabulary=20))
    src = np.array([[5, 6, 7, 2, 0, 0], [8, 2, 0, 0, 0, 0], [9, 10, 11, 12, 13, 2]])
    src_len = np.array([4, 2, 6])
    memory, state = engine.encode(src, src_len)
    joined = engine.encode(src[:1, :4], src_len[:1]), engine.encode(src[1:], src_len[1:])
    y = np.array([5, 6, 7])
    one = engine.step(y, state, memory, 5)
    two = engine.step(y, joined[0][1].join(joined[1][1]), joined[0][0].join(joined[1][0]), 5)
    assert np.allclose(one.log_probs, two.log_probs, atol=1e-5)
    assert np.allclose(one.attention, two.attention, atol=1e-5)
    kept = (
        two.state.select(np.array([1])),
        joined[0][0].join(joined[1][0]).select(np.array([0])).join(engine.encode(src[1:2], src_len[1:2])[0]),
    )
    assert kept[1].mask.shape == (2, 4)
