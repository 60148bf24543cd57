"""Chat in a terminal; or line by line where standard input or output is none, an answer line for every line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from antiphon.faces.conversation import Conversation
from antiphon.faces.heatmap import draw_attention
from antiphon.faces.screen import note, shown, stderr

if TYPE_CHECKING:
    from antiphon.model import Model

COMMANDS = {
    "/again": "another answer to the same",
    "/attention": "what the last answer looked at",
    "/sample": "draw answers at random, or no longer",
    "/help": "these commands",
    "/quit": "leave (also Ctrl-D)",
}


def chat(conversation: Conversation, model: Model) -> None:
    """Talk until the human leaves: by /quit, at the end of the input, or by Ctrl-C.

    Answers go to standard output, one a line; all else goes to standard error.

    Raises:
        SaveError: the transcript cannot be written.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    name = model.folder.resolve().name if model.folder is not None else "the model"
    note(f"talking with {name}: type something")
    _help()
    try:
        for line in _typed() if terminal else _piped():
            if line.strip() == "/quit":
                break
            _turn(line, conversation, model)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    if terminal:
        note("bye")


def _turn(line: str, conversation: Conversation, model: Model) -> None:
    commands: dict[str, Callable[[], None]] = {
        "/again": lambda: _again(conversation),
        "/attention": lambda: _attention(conversation),
        "/sample": lambda: _sample(conversation),
        "/help": _help,
    }
    command = line.strip()
    if command in commands:
        commands[command]()
        return
    if command.startswith("/"):
        note("(taken as talk: /help lists the commands)")
    _speak(conversation.answer(line))
    cut = conversation.cut()
    if cut:
        note(f"(too long: only the last {cut:,} tokens of what you said were read)")


def _again(conversation: Conversation) -> None:
    other = conversation.again()
    if other is not None:
        _speak(other)
    elif conversation.turns:
        note("(there is no other answer; /sample draws new ones)")
    else:
        note("(nothing was said yet)")


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
    """Print pieces as they come, as one line."""
    for piece in pieces:
        sys.stdout.write(shown(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")
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
            yield session.prompt("> ", completer=completer, complete_while_typing=False)
        except EOFError:
            return
