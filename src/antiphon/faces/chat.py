"""Chat in a terminal; or line by line where standard input or output is none, an answer line for every line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from antiphon.errors import AntiphonError
from antiphon.faces.conversation import Conversation
from antiphon.faces.heatmap import draw_attention
from antiphon.faces.screen import note, shown, stderr, stdout
from antiphon.runtime.bundled import introduction

if TYPE_CHECKING:
    from antiphon.conversations import Conversations
    from antiphon.model import Model

ANSWER = "36"
"""How answers look on a terminal: cyan, which reads on black and on white."""

COMMANDS = {
    "/again": "another answer to the same",
    "/attention": "what the last answer looked at",
    "/sample": "draw answers at random, or no longer",
    "/good": "the last answer was good: kept, to learn from",
    "/bad": "it was not: kept too",
    "/better": "what it should have said (/better …): kept, to learn from",
    "/help": "these commands",
    "/quit": "leave (also Ctrl-D)",
}


def chat(conversation: Conversation, model: Model, keepsake: Keepsake | None = None) -> None:
    """Talk until the human leaves: by /quit, at the end of the input, or by Ctrl-C.

    Answers go to standard output, one a line; all else goes to standard error. A bundled model is introduced by what
    its card says first.

    Args:
        conversation: the turns.
        model: who answers.
        keepsake: where turns and what the human thinks of them are kept; None: nowhere.

    Raises:
        SaveError: the transcript, or the store, cannot be written.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    name = model.folder.resolve().name if model.folder is not None else "the model"
    note(introduction(model.folder) or f"talking with {name}: type something")
    _help()
    try:
        for line in _typed() if terminal else _piped():
            if line.strip() == "/quit":
                break
            _turn(line, conversation, keepsake)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    if terminal:
        note("bye")


class Keepsake:
    """Keeps turns of one conversation in a store: all of them, or those that are judged.

    The store is opened when something is kept first, so that a chat that keeps nothing leaves nothing.

    Args:
        address: a file or a database URL.
        model: the name turns are kept under; ``antiphon learn`` looks for it.
        all_turns: whether turns nobody judged are kept too.
    """

    def __init__(self, address: str, model: str, *, all_turns: bool) -> None:
        self._address, self._model, self._all = address, model, all_turns
        self._store: Conversations | None = None
        self._conversation = ""
        self._last: tuple[int, str, str] | None = None  # what was kept last: which turn, answer, id

    def answered(self, conversation: Conversation) -> None:
        """An answer was given."""
        if self._all:
            self._kept(conversation)

    def judged(self, conversation: Conversation, *, thumb: int | None = None, better: str | None = None) -> str:
        """The last answer was judged; gives where that was kept. Raises SaveError, DataError, MissingExtraError."""
        turn = self._kept(conversation)
        self._open().judge(turn, thumb=thumb, better=better)
        return self._open().address

    def _kept(self, conversation: Conversation) -> str:
        """The id of the last turn, which is kept now if it was not yet."""
        from antiphon.conversations import Turn

        count, (said, answer) = len(conversation.turns), conversation.turns[-2:]
        if self._last is None or self._last[:2] != (count, answer):
            turn = Turn(self._conversation_id(), said, answer, conversation.source, self._model)
            self._open().add([turn])
            self._last = count, answer, turn.id
        return self._last[2]

    def _conversation_id(self) -> str:
        from antiphon.conversations import new_id

        self._conversation = self._conversation or new_id()
        return self._conversation

    def _open(self) -> Conversations:
        if self._store is None:
            from antiphon.conversations import Conversations

            self._store = Conversations(self._address)
        return self._store


def _turn(line: str, conversation: Conversation, keepsake: Keepsake | None) -> None:
    commands: dict[str, Callable[[], None]] = {
        "/again": lambda: _again(conversation, keepsake),
        "/attention": lambda: _attention(conversation),
        "/sample": lambda: _sample(conversation),
        "/good": lambda: _judge(conversation, keepsake, thumb=1),
        "/bad": lambda: _judge(conversation, keepsake, thumb=-1),
        "/help": _help,
    }
    command = line.strip()
    first, _, rest = command.partition(" ")
    if first == "/better":
        _judge(conversation, keepsake, better=shown(rest).strip())
        return
    if command in commands:
        commands[command]()
        return
    if command.startswith("/"):
        note("(taken as talk: /help lists the commands)")
    _speak(conversation.answer(line))
    if keepsake is not None:
        keepsake.answered(conversation)
    cut = conversation.cut()
    if cut:
        note(f"(too long: only the last {cut:,} tokens of what you said were read)")


def _again(conversation: Conversation, keepsake: Keepsake | None) -> None:
    other = conversation.again()
    if other is not None:
        _speak(other)
        if keepsake is not None:
            keepsake.answered(conversation)
    elif conversation.turns:
        note("(there is no other answer; /sample draws new ones)")
    else:
        note("(nothing was said yet)")


def _judge(
    conversation: Conversation, keepsake: Keepsake | None, *, thumb: int | None = None, better: str | None = None
) -> None:
    if not conversation.turns:
        note("(nothing was said yet)")
    elif better == "":
        note("(write what it should have said: /better …)")
    elif keepsake is None:
        note("(nothing is kept: start without --no-store)")
    else:
        try:
            where = keepsake.judged(conversation, thumb=thumb, better=better)
        except AntiphonError as error:  # the talk goes on
            note(f"(not kept: {error})")
        else:
            note(f"(kept in {where}; antiphon learn learns from it)")


def _attention(conversation: Conversation) -> None:
    prediction = conversation.prediction
    if prediction is None:
        note("(nothing was said yet)")
    else:
        draw_attention(prediction.source_tokens, prediction.tokens, prediction.attention, stderr())


def _sample(conversation: Conversation) -> None:
    conversation.sampling = not conversation.sampling
    note("(answers are drawn at random)" if conversation.sampling else "(the best answer is searched)")


def _help() -> None:
    width = max(map(len, COMMANDS))
    for command, meaning in COMMANDS.items():
        note(f"  {command:{width}}  {meaning}")


def _speak(pieces: Iterator[str]) -> None:
    """Print pieces as they come, as one line; in colour where there is a terminal that has it."""
    console = stdout()
    begin, end = (f"\x1b[{ANSWER}m", "\x1b[0m") if console.is_terminal and console.color_system else ("", "")
    sys.stdout.write(begin)
    try:
        for piece in pieces:
            sys.stdout.write(shown(piece))
            sys.stdout.flush()
    finally:
        sys.stdout.write(f"{end}\n")
        sys.stdout.flush()


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        yield line.rstrip("\r\n")


def _typed() -> Iterator[str]:
    """Lines with editing and history, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import InMemoryHistory

    session: PromptSession[str] = PromptSession(history=InMemoryHistory())
    completer = WordCompleter(list(COMMANDS), sentence=True)
    while True:
        try:
            yield session.prompt([("bold ansired", "> ")], completer=completer, complete_while_typing=False)
        except EOFError:
            return
