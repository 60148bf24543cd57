"""Turns, context, other answers, transcripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.data.pairs import TURN
from antiphon.errors import SaveError
from antiphon.faces.conversation import SEPARATOR, Conversation, Transcript
from fake_model import FakeModel


def ask(conversation: Conversation, text: str) -> str:
    return "".join(conversation.answer(text))


def test_turns_are_kept_in_order():
    conversation = Conversation(FakeModel())
    assert [ask(conversation, "hello"), ask(conversation, "you")] == ["HELLO", "YOU"]
    assert conversation.turns == ["hello", "HELLO", "you", "YOU"]


@pytest.mark.parametrize(
    ("context", "read"),
    [(0, "third"), (1, f"SECOND {TURN} third"), (3, f"FIRST {TURN} second {TURN} SECOND {TURN} third")],
)
def test_the_model_reads_as_many_earlier_turns_as_it_was_trained_with(context: int, read: str):
    model = FakeModel(context=context)
    conversation = Conversation(model)
    conversation._turns = ["first", "FIRST", "second", "SECOND"]
    ask(conversation, "third")
    assert model.asked[-1][0] == read


@given(st.text())
def test_any_text_is_answered(text: str):
    conversation = Conversation(FakeModel(sample=True), search={"seed": 3})
    answer = ask(conversation, text)
    assert answer.endswith("drawn 3")
    assert conversation.turns[1] == answer


def test_a_beam_is_searched_and_greedy_and_samples_are_streamed():
    model = FakeModel()
    assert list(Conversation(model).answer("hello you")) == ["HELLO YOU"]
    assert model.streamed == 0
    assert list(Conversation(model, search={"beam": 1}).answer("hello you")) == ["HEL", "LO ", "YOU"]
    assert model.streamed == 1


def test_a_streamed_answer_and_its_prediction_are_the_same():
    conversation = Conversation(FakeModel(), search={"sample": True})
    first = ask(conversation, "hello")
    assert conversation.prediction is not None
    assert conversation.prediction.text == first


def test_again_gives_the_next_best_until_there_is_none_and_replaces_the_answer():
    conversation = Conversation(FakeModel(beam=1))
    assert conversation.again() is None
    ask(conversation, "hello")
    others = []
    while (other := conversation.again()) is not None:
        others.append("".join(other))
    assert others == ["HELLO 2", "HELLO 3", "HELLO 4"]
    assert conversation.turns == ["hello", "HELLO 4"]
    assert conversation.prediction is not None
    assert conversation.prediction.text == "HELLO 4"


def test_again_draws_anew_when_sampling():
    conversation = Conversation(FakeModel(), search={"sample": True, "seed": 7})
    assert ask(conversation, "hello") == "HELLO drawn 7"
    assert "".join(conversation.again() or ()) == "HELLO drawn 8"
    conversation.sampling = False
    assert ask(conversation, "hello") == "HELLO"


def test_context_after_again_holds_the_answer_that_was_given_last():
    model = FakeModel(context=1)
    conversation = Conversation(model)
    ask(conversation, "hello")
    assert list(conversation.again() or ()) == ["HELLO 2"]
    ask(conversation, "why")
    assert model.asked[-1][0] == f"HELLO 2 {TURN} why"


def test_cut_tells_how_much_of_a_long_turn_was_read():
    conversation = Conversation(FakeModel(max_source=4, context=2))
    assert conversation.cut() == 0
    ask(conversation, "one two three")
    assert conversation.cut() == 0
    ask(conversation, "one two three four")
    assert conversation.cut() == 3


def test_an_answer_broken_off_is_kept_as_far_as_it_was_said():
    conversation = Conversation(FakeModel(beam=1))
    pieces = conversation.answer("hello")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert conversation.turns == ["hello", "HEL"]


def test_a_text_transcript_is_the_lectures(tmp_path: Path):
    path = tmp_path / "talk.txt"
    for _ in range(2):
        with Transcript(path) as transcript:
            conversation = Conversation(FakeModel(), transcript=transcript)
            ask(conversation, "hello\tyou\x1b[2J")
            assert path.read_text(encoding="utf-8").endswith("BOT ++++ HELLO YOU[2J\n"), "each turn is on disk at once"
    talk = f"HUMAN ++++ hello you[2J\nBOT ++++ HELLO YOU[2J\n{SEPARATOR}\n"
    assert path.read_text(encoding="utf-8") == talk * 2


def test_a_json_transcript_is_one_object_a_turn(tmp_path: Path):
    path = tmp_path / "talk.jsonl"
    with Transcript(path) as transcript:
        ask(Conversation(FakeModel(), transcript=transcript), "grüß 😀")
    turns = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(turn["speaker"], turn["text"]) for turn in turns] == [("HUMAN", "grüß 😀"), ("BOT", "GRÜSS 😀")]
    assert turns[0]["conversation"] == turns[1]["conversation"]


def test_nothing_said_leaves_nothing(tmp_path: Path):
    with Transcript(tmp_path / "talk.txt"):
        pass
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8") == ""


def test_a_transcript_that_cannot_be_written_says_so(tmp_path: Path):
    with pytest.raises(SaveError, match=r"the transcript cannot be written .*no/talk\.txt; check the folder"):
        Transcript(tmp_path / "no" / "talk.txt")
