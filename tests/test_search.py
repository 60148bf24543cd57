"""Laws of search, over an engine that is no model at all."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.config import SearchConfig
from antiphon.data.tokenizer import BOS, EOS, PAD, UNK
from antiphon.search import Ensemble, Hypothesis, beam, greedy, rerank, sample, stream_greedy, stream_sample
from antiphon.search.hypothesis import length_penalty
from fakes import FakeEngine

sources = st.lists(st.lists(st.integers(4, 11), max_size=6), min_size=1, max_size=5)
few = settings(max_examples=40)


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    src_len = np.array([len(row) + 1 for row in rows])
    src = np.full((len(rows), src_len.max()), PAD)
    for n, row in enumerate(rows):
        src[n, : len(row) + 1] = [*row, EOS]
    return src, src_len


def limits(rows: list[list[int]], most: int = 9) -> np.ndarray:
    return np.array([most - len(row) % 3 for row in rows])


def same(one: list[list[Hypothesis]], other: list[list[Hypothesis]]) -> bool:
    def told(found: list[list[Hypothesis]]) -> list:
        return [[(h.ids, h.score, h.log_prob, h.finished, h.attention.tolist()) for h in row] for row in found]

    return told(one) == told(other)


configs = st.builds(
    SearchConfig,
    beam=st.integers(1, 5),
    nbest=st.integers(1, 3),
    length_penalty=st.sampled_from([0.0, 0.6, 1.5]),
    no_repeat_ngram=st.integers(0, 3),
    unknown=st.booleans(),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([1, 3, 40]),
    top_p=st.sampled_from([0.5, 0.95, 1.0]),
    seed=st.integers(-3, 3),
)


@few
@given(sources, configs)
def test_beam_of_one_is_greedy(rows, config):
    config = config.model_copy(update={"beam": 1})
    src, src_len = padded(rows)
    assert same(
        beam(FakeEngine(), src, src_len, config, limits(rows)), greedy(FakeEngine(), src, src_len, config, limits(rows))
    )


@few
@given(sources, configs, st.sampled_from([beam, greedy]))
def test_a_batch_equals_its_singles(rows, config, search):
    src, src_len = padded(rows)
    together = search(FakeEngine(), src, src_len, config, limits(rows))
    for row, found in zip(rows, together, strict=True):
        assert same(search(FakeEngine(), *padded([row]), config, limits([row])), [found])


@few
@given(sources, configs)
def test_a_sampled_batch_equals_its_singles_of_the_same_numbers(rows, config):
    src, src_len = padded(rows)
    together = sample(FakeEngine(), src, src_len, config, limits(rows))
    for number, (row, found) in enumerate(zip(rows, together, strict=True)):
        assert same(sample(FakeEngine(), *padded([row]), config, limits([row]), numbers=[number]), [found])


@few
@given(sources, configs, st.sampled_from([beam, greedy, sample]))
def test_every_hypothesis_is_what_it_says(rows, config, search):
    src, src_len = padded(rows)
    engine = FakeEngine()
    for n, found in enumerate(search(engine, src, src_len, config, limits(rows))):
        assert 1 <= len(found) <= max(1, config.nbest)
        assert sorted((h.score for h in found), reverse=True) == [h.score for h in found]
        assert len({tuple(h.ids) for h in found}) == len(found)
        for h in found:
            out = np.array([h.ids + [EOS] * h.finished])
            scored = engine.score(src[[n]], src_len[[n]], np.array([[BOS, *out[0, :-1]]]), out)
            assert np.allclose(scored[0], h.token_log_probs, atol=1e-6)
            assert h.log_prob == pytest.approx(scored.sum(), abs=1e-5)
            assert h.score == pytest.approx(h.log_prob / length_penalty(out.size, config.length_penalty))
            assert h.ids
            assert h.attention.shape == (out.size, src_len[n])
            assert np.allclose(h.attention.sum(axis=1), 1, atol=1e-5)
            assert out.size <= limits(rows)[n]
            assert h.finished or out.size == limits(rows)[n]
            assert not {PAD, BOS, EOS, *([] if config.unknown else [UNK])} & set(h.ids)
            if (size := config.no_repeat_ngram) > 0:
                ngrams = [tuple(h.ids[i : i + size]) for i in range(len(h.ids) - size + 1)]
                assert len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize("exponent", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("source", [[4], [5, 6], [9, 4, 4]])
def test_a_beam_that_holds_everything_finds_what_enumeration_finds(source, exponent):
    engine, longest = FakeEngine(vocabulary=7, sharpness=1.0), 3
    src, src_len = padded([source])
    every = []
    for length in range(1, longest):  # no answer is empty
        for ids in itertools.product([4, 5, 6], repeat=length):
            out = np.array([[*ids, EOS]])
            nats = engine.score(src, src_len, np.array([[BOS, *ids]]), out).astype(np.float64).sum()
            every.append((nats / length_penalty(length + 1, exponent), list(ids)))
    every.sort(key=lambda pair: -pair[0])
    for nbest in (1, 3, len(every)):
        config = SearchConfig(beam=64, nbest=nbest, length_penalty=exponent)
        [found] = beam(engine, src, src_len, config, np.array([longest]))
        assert [h.ids for h in found] == [ids for _, ids in every[:nbest]]
        assert [h.score for h in found] == pytest.approx([score for score, _ in every[:nbest]], abs=1e-6)


def test_the_length_penalty_is_the_papers():
    assert length_penalty(1, 0.7) == 1
    assert length_penalty(7, 1.0) == 2
    assert length_penalty(13, 2.0) == 9
    assert length_penalty(np.array([1, 19]), 0.5).tolist() == [1, 2]
    assert length_penalty(100, 0.0) == 1


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_sentence_that_is_done_early_has_the_answer_it_would_have_had(width):
    """With as many answers wanted as there are places a beam goes on for longer; the first of them is the same."""
    rows = [[one, other] for one in range(4, 12) for other in range(4, 12)]
    src, src_len = padded(rows)
    found = []
    for nbest in (1, width):
        config = SearchConfig(beam=width, nbest=nbest, length_penalty=1.5, no_repeat_ngram=0)
        engine = FakeEngine(sharpness=1.0)
        found.append([row[:1] for row in beam(engine, src, src_len, config, limits(rows, 14))])
    assert same(*found)


@pytest.mark.parametrize("search", [beam, greedy, sample])
def test_an_answer_is_empty_only_if_there_is_nothing_to_say(search):
    src, src_len = padded([[1]])
    for vocabulary, said in ((4, [[]]), (5, [[4], [4, 4], [4, 4, 4]])):
        engine = FakeEngine(vocabulary=vocabulary)
        [[found]] = search(engine, src, src_len, SearchConfig(nbest=1, unknown=False), np.array([3]))
        assert found.ids in said


@few
@given(sources, configs)
def test_sampling_without_freedom_is_greedy(rows, config):
    src, src_len = padded(rows)
    config = config.model_copy(update={"nbest": 1, "temperature": 1.0, "top_k": 40, "top_p": 1.0})
    likeliest = greedy(FakeEngine(), src, src_len, config, limits(rows))
    for cold in ({"temperature": 1e-9}, {"temperature": 5e-324}, {"top_k": 1}, {"top_p": 1e-9}):
        frozen = config.model_copy(update=cold)
        assert same(sample(FakeEngine(), src, src_len, frozen, limits(rows)), likeliest)


def test_sampling_follows_its_seed_and_the_model():
    src, src_len = padded([[5, 6]] * 2000)
    config = SearchConfig(temperature=1.0, top_k=256, top_p=1.0, unknown=True, seed=3)
    most = np.full(2000, 1)
    once, again = (sample(FakeEngine(), src, src_len, config, most) for _ in range(2))
    assert same(once, again)
    assert not same(once, sample(FakeEngine(), src, src_len, config.model_copy(update={"seed": 4}), most))
    memory, state = FakeEngine().encode(*padded([[5, 6]]))
    out = FakeEngine().step(np.array([BOS]), state, memory, 12)
    allowed = np.exp(out.log_probs[0]) * ~np.isin(out.ids[0], [PAD, BOS])
    drawn = [h.ids[0] if h.ids else EOS for [h] in once]
    for token, share in zip(out.ids[0], allowed / allowed.sum(), strict=True):
        assert drawn.count(token) / 2000 == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_log_probabilities(temperature):
    src, src_len = padded([[5, 6]] * 3000)
    config = SearchConfig(temperature=temperature, top_k=256, top_p=1.0, unknown=True, seed=3)
    memory, state = FakeEngine(sharpness=1.0).encode(src[:1], src_len[:1])
    out = FakeEngine(sharpness=1.0).step(np.array([BOS]), state, memory, 12)
    allowed = np.exp(out.log_probs[0] / temperature) * ~np.isin(out.ids[0], [PAD, BOS, EOS])
    drawn = [h.ids[0] for [h] in sample(FakeEngine(sharpness=1.0), src, src_len, config, np.full(3000, 1))]
    for token, share in zip(out.ids[0], allowed / allowed.sum(), strict=True):
        assert drawn.count(token) / 3000 == pytest.approx(share, abs=0.03)


def test_top_p_keeps_the_fewest_that_hold_it():
    src, src_len = padded([[7]] * 300)
    config = SearchConfig(temperature=1.0, top_k=256, top_p=0.6, unknown=True, seed=0)
    memory, state = FakeEngine().encode(src[:1], src_len[:1])
    out = FakeEngine().step(np.array([BOS]), state, memory, 12)
    ids = [int(i) for i in out.ids[0] if i not in (PAD, BOS)]
    shares = np.exp([lp for lp, i in zip(out.log_probs[0], out.ids[0], strict=True) if i not in (PAD, BOS)])
    kept = ids[: int(np.searchsorted(np.cumsum(shares / shares.sum()), 0.6)) + 1]
    drawn = {h.ids[0] if h.ids else EOS for [h] in sample(FakeEngine(), src, src_len, config, np.full(300, 1))}
    assert drawn == set(kept)


@few
@given(st.lists(st.integers(4, 11), max_size=6), configs)
def test_streams_give_what_the_whole_gives(row, config):
    config = config.model_copy(update={"nbest": 1})
    src, src_len = padded([row])
    most = limits([row], 80)
    assert (
        list(stream_greedy(FakeEngine(), src, src_len, config, most))
        == greedy(FakeEngine(), src, src_len, config, most)[0][0].ids
    )
    assert (
        list(stream_sample(FakeEngine(), src, src_len, config, most))
        == sample(FakeEngine(), src, src_len, config, most)[0][0].ids
    )


def test_finished_sentences_leave_the_batch():
    src, src_len = padded([[n] for n in range(4, 12)])
    for search, width in ((greedy, 1), (beam, 3)):
        engine = FakeEngine()
        search(engine, src, src_len, SearchConfig(beam=width), np.full(8, 30))
        rows = [n for n, _ in engine.asked[1:]]
        assert rows == sorted(rows, reverse=True)
        assert rows[-1] < 8 * width


def test_a_rule_that_forbids_too_much_asks_for_more_candidates():
    engine = FakeEngine(vocabulary=40)
    src, src_len = padded([[5]])
    config = SearchConfig(beam=2, no_repeat_ngram=1)
    [[found]] = beam(engine, src, src_len, config, np.array([60]))
    assert len(set(found.ids)) == len(found.ids)
    [[all_of_them]] = greedy(engine, src, src_len, config, np.array([60]))
    assert len(set(all_of_them.ids)) == len(all_of_them.ids)
    assert max(k for _, k in engine.asked) <= 40


def test_a_vocabulary_run_dry_ends_the_hypothesis():
    class Endless(FakeEngine):
        def _after(self, y, state):
            hashed, log_probs = super()._after(y, state)
            log_probs[:, EOS] = -50
            return hashed, log_probs

    src, src_len = padded([[5]])
    for search in (greedy, beam, sample):
        engine = Endless(vocabulary=8)
        [[found]] = search(engine, src, src_len, SearchConfig(no_repeat_ngram=1), np.array([60]))
        assert found.finished
        assert sorted(found.ids) == [4, 5, 6, 7]
    [cut] = beam(Endless(vocabulary=8), src, src_len, SearchConfig(beam=3, nbest=3), np.array([4]))
    assert all(len(h.ids) == 4 or h.finished for h in cut)
    [[short]] = greedy(Endless(), src, src_len, SearchConfig(), np.array([4]))
    assert not short.finished
    assert len(short.ids) == 4


def test_reranking_prefers_what_the_source_has_to_do_with():
    engine = FakeEngine()
    src, src_len = padded([[5, 6], [7]])
    most = np.array([6, 6])
    config = SearchConfig(beam=6, nbest=6, mmi=0.7, length_penalty=0.5)
    found = beam(engine, src, src_len, config, most)
    ranked = rerank(engine, found, config)
    for before, after in zip(found, ranked, strict=True):
        assert sorted(h.ids for h in before) == sorted(h.ids for h in after)
        assert [h.score for h in after] == sorted((h.score for h in after), reverse=True)
        for h in after:
            out = np.array([[*h.ids, EOS] if h.finished else h.ids])
            tgt_in = np.concatenate(([[BOS]], out[:, :-1]), axis=1)
            alone = engine.score(np.array([[EOS]]), np.array([1]), tgt_in, out).sum()
            expected = (h.log_prob - 0.7 * alone) / length_penalty(out.shape[1], 0.5)
            assert h.score == pytest.approx(float(expected), abs=1e-5)
    assert any(before[0].ids != after[0].ids for before, after in zip(found, ranked, strict=True))
    none = rerank(engine, found, config.model_copy(update={"mmi": 0.0}))
    assert [[h.ids for h in of] for of in none] == [[h.ids for h in of] for of in found]


# Ensembles.


@few
@given(sources, configs)
def test_an_ensemble_of_one_model_is_that_model(rows, config):
    src, src_len = padded(rows)
    alone = beam(FakeEngine(), src, src_len, config, limits(rows))
    for members in (1, 3):
        together = beam(Ensemble([FakeEngine()] * members), src, src_len, config, limits(rows))
        assert [[h.ids for h in row] for row in together] == [[h.ids for h in row] for row in alone]
        for one, other in zip(itertools.chain(*together), itertools.chain(*alone), strict=True):
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)


@few
@given(sources)
def test_an_ensembles_probability_is_the_mean(rows):
    src, src_len = padded(rows)
    members = [FakeEngine(sharpness=sharpness) for sharpness in (0.5, 2.0, 4.0)]
    config = SearchConfig(length_penalty=0.0, unknown=True)
    for engine in (Ensemble(members), Ensemble(members[::-1])):
        for row, [found] in enumerate(greedy(engine, src, src_len, config, limits(rows))):
            ids = np.array([[*found.ids, EOS] if found.finished else found.ids])
            tgt_in = np.concatenate([[[BOS]], ids[:, :-1]], axis=1)
            one = src[row : row + 1, : src_len[row]], src_len[row : row + 1], tgt_in, ids
            each = [np.exp(member.score(*one)) for member in members]
            np.testing.assert_allclose(np.exp(engine.score(*one)), np.mean(each, axis=0), rtol=1e-5)
            assert found.log_prob == pytest.approx(float(engine.score(*one).sum()), abs=1e-4)


@dataclass
class Blind(FakeEngine):
    """As a model without attention."""

    def step(self, y, state, memory, k):
        out = super().step(y, state, memory, k)
        return dataclasses.replace(out, attention=np.zeros_like(out.attention))


@pytest.mark.parametrize(("members", "whole"), [([FakeEngine(), Blind()], 1), ([Blind(), Blind()], 0)])
def test_an_ensemble_looks_where_those_look_that_look(members, whole):
    engine = Ensemble(members)
    memory, state = engine.encode(*padded([[5, 6, 7], [8]]))
    assert engine.step(np.array([BOS, BOS]), state, memory, 1).attention.sum(axis=1) == pytest.approx([whole, whole])


@pytest.mark.parametrize("members", range(1, 9))
def test_padding_scores_0_in_an_ensemble(members):
    tgt_out = np.array([[5, EOS, PAD, PAD], [5, 6, 7, EOS]])
    tgt_in = np.array([[BOS, 5, PAD, PAD], [BOS, 5, 6, 7]])
    scores = Ensemble([FakeEngine()] * members).score(*padded([[5, 6], [7]]), tgt_in, tgt_out)
    assert scores[0, 2:].tolist() == [0, 0]
