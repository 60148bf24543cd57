"""The chat through a pipe: whole outputs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from antiphon.conversations import Conversations
from antiphon.faces.chat import COMMANDS, Keepsake, chat
from antiphon.faces.conversation import Conversation, Transcript
from fake_model import FakeModel

COMMAND_LINES = """\
  /again      another answer to the same
  /attention  what the last answer looked at
  /sample     draw answers at random, or no longer
  /good       the last answer was good: kept, to learn from
  /bad        it was not: kept too
  /better     what it should have said (/better …): kept, to learn from
  /help       these commands
  /quit       leave (also Ctrl-D)
"""
GREETING = f"talking with fake: type something\n{COMMAND_LINES}"


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(lines: str, model: FakeModel | None = None, keepsake: Keepsake | None = None, **options) -> tuple[str, str]:
        model = model or FakeModel()
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        chat(Conversation(model, **options), model, keepsake)
        out, err = capsys.readouterr()
        assert err.startswith(GREETING)
        return out, err.removeprefix(GREETING)

    return run


def test_every_line_gets_an_answer_line(talk):
    assert talk("hello\n\n😀 мир\r\nno newline at the end") == ("HELLO\n\n😀 МИР\nNO NEWLINE AT THE END\n", "")


def test_no_input_is_no_conversation(talk):
    assert talk("") == ("", "")


def test_commands_answer_on_standard_error_and_other_answers_on_standard_output(talk):
    out, err = talk("/again\n/attention\nhello\n/again\n/help\n/sample\nhello\n/sample\n", search={"seed": 7})
    assert out == "HELLO\nHELLO 2\nHELLO drawn 7\n"
    assert err == (
        "(nothing was said yet)\n(nothing was said yet)\n"
        + COMMAND_LINES
        + "(answers are drawn at random)\n(the best answer is searched)\n"
    )


def test_again_says_when_there_is_nothing_else(talk):
    out, err = talk("hello\n" + "/again\n" * 5)
    assert out == "HELLO\nHELLO 2\nHELLO 3\nHELLO 4\n"
    assert err == "(there is no other answer; /sample draws new ones)\n" * 2


def test_attention_is_drawn(talk):
    out, err = talk("is it\n/attention\n")
    assert out == "IS IT\n"
    assert err.splitlines() == [
        "          <",
        "          /",
        "      i i s",
        "      s t >",
        "  IS  ██",
        "  IT    ██",
        "</s>      ██",
    ]


def test_quit_leaves_at_once(talk):
    assert talk("hello\n/quit\nnot read\n") == ("HELLO\n", "")


def test_a_slash_that_is_no_command_is_talk(talk):
    assert talk("/home is sweet\n") == ("/HOME IS SWEET\n", "(taken as talk: /help lists the commands)\n")


def test_too_long_is_told_and_answered(talk):
    model = FakeModel(max_source=3)
    assert talk("one two three\none two\n", model) == (
        "ONE TWO THREE\nONE TWO\n",
        "(too long: only the last 2 tokens of what you said were read)\n",
    )


def test_what_drives_terminals_is_taken_out_and_markup_is_text(talk):
    out, _ = talk("\x1b[31mred\x07 [bold]b[/bold]\u202e :smile:\n", FakeModel(beam=1))
    assert out == "[31MRED [BOLD]B[/BOLD] :SMILE:\n"


def test_transcript_holds_all_that_was_said(talk, tmp_path: Path):
    with Transcript(tmp_path / "talk.txt") as transcript:
        talk("hello\n/again\n/help\n", transcript=transcript)
    lines = (tmp_path / "talk.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["HUMAN ++++ hello", "BOT ++++ HELLO", "BOT ++++ HELLO 2", "=" * 45]


def test_ctrl_c_leaves_politely(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    class Impatient(io.StringIO):
        def __next__(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Impatient())
    model = FakeModel()
    chat(Conversation(model), model)
    assert capsys.readouterr().out == ""


def test_every_command_is_handled(talk):
    out, err = talk("".join(f"{command}\n" for command in COMMANDS))
    assert out == ""
    assert "taken as talk" not in err


def test_a_terminal_gets_line_editing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    model = FakeModel()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("hellp\x7fo\r/again\r\x04")  # backspace, a command, Ctrl-D
        chat(Conversation(model), model)
    out, err = capsys.readouterr()
    assert out == "\x1b[36mHELLO\x1b[0m\n\x1b[36mHELLO 2\x1b[0m\n"
    assert err == f"{GREETING}bye\n"


def test_what_is_judged_is_kept_and_nothing_else(talk, tmp_path: Path):
    address = str(tmp_path / "kept.db")
    out, err = talk("/good\nhello\n", keepsake=Keepsake(address, "fake", all_turns=False))
    assert err == "(nothing was said yet)\n"
    assert not (tmp_path / "kept.db").exists()
    lines = "hello\nand you\n/better fine \x1b thanks\n/good\n/again\n/bad\n/better\n"
    out, err = talk(lines, FakeModel(context=1), keepsake=Keepsake(address, "fake", all_turns=False))
    assert err.count("antiphon learn learns from it") == 3
    assert err.endswith("(write what it should have said: /better …)\n")
    store = Conversations(address)
    told = [(turn.said, turn.answer, turn.thumb, turn.better, turn.model) for turn in store.every_turn()]
    first, second = out.splitlines()[1:]
    assert told == [("and you", first, 1, "fine  thanks", "fake"), ("and you", second, -1, None, "fake")]
    assert [turn.source for turn in store.every_turn()] == ["HELLO <turn> and you"] * 2
    assert len(store.list()) == 1
    store.close()


def test_every_turn_is_kept_where_a_store_is_named(talk, tmp_path: Path):
    talk("one\n/again\ntwo\ntwo\n", keepsake=Keepsake(str(tmp_path / "kept.db"), "fake", all_turns=True))
    store = Conversations(tmp_path / "kept.db")
    assert [turn.answer for turn in store.every_turn()] == ["ONE", "ONE 2", "TWO", "TWO"]
    store.close()


def test_a_store_that_fails_does_not_end_the_talk(talk, tmp_path: Path):
    (tmp_path / "kept.db").mkdir()
    out, err = talk("one\n/good\ntwo\n", keepsake=Keepsake(str(tmp_path / "kept.db"), "fake", all_turns=False))
    assert out == "ONE\nTWO\n"
    assert err.startswith("(not kept: the store of conversations cannot be read")
    assert talk("one\n/good\n")[1] == "(nothing is kept: start without --no-store)\n"
