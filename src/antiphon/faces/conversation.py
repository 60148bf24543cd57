"""A conversation with a model: the turns it remembers, the answers it gives, the transcript it leaves."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from antiphon.data.pairs import join_context
from antiphon.errors import SaveError
from antiphon.faces.screen import shown

if TYPE_CHECKING:
    from antiphon.model import Model, Prediction

SEPARATOR = "=" * 45
"""Ends a conversation in a text transcript."""


class Transcript:
    """A file conversations are added to as they happen; every turn is on disk before the next one.

    Text, as the CS20 chatbot wrote it::

        HUMAN ++++ hello
        BOT ++++ hi there .
        =============================================

    or, in a file named ``*.jsonl``, ``{"conversation": "2026-11-22T10:00:00", "speaker": "HUMAN", "text": "hello"}``.

    Raises:
        SaveError: the file cannot be opened or written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._began = datetime.now().isoformat(timespec="seconds")
        self._turns = 0
        try:
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, speaker: Literal["HUMAN", "BOT"], text: str) -> None:
        """Write one turn. Raises SaveError."""
        self._turns += 1
        if self._path.suffix == ".jsonl":
            record = {"conversation": self._began, "speaker": speaker, "text": text}
            self._write(json.dumps(record, ensure_ascii=False))
        else:
            self._write(f"{speaker} ++++ {shown(text)}")

    def close(self) -> None:
        """End the conversation. Raises SaveError."""
        if self._turns and self._path.suffix != ".jsonl":
            self._write(SEPARATOR)
        self._turns = 0
        self._file.close()

    def _write(self, line: str) -> None:
        try:
            # A lone surrogate from a broken input stream must not end the conversation.
            self._file.write(line.encode("utf-8", "replace").decode("utf-8") + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> SaveError:
        cure = "check the folder, space and rights"
        return SaveError(f"the transcript cannot be written ({error.strerror})", where=str(self._path), cure=cure)


class Conversation:
    """Turns with one model. It remembers as many earlier turns as the model was trained with.

    Args:
        model: who answers.
        search: `SearchConfig` fields that override the model's own.
        transcript: where turns are written; None: nowhere.
    """

    def __init__(
        self, model: Model, *, search: Mapping[str, Any] | None = None, transcript: Transcript | None = None
    ) -> None:
        self._model = model
        self._transcript = transcript
        self._search = model.config.search.model_copy(update=dict(search or {}))
        self._turns: list[str] = []
        self._drawn = 0
        self._asked: dict[str, Any] = {}
        self._prediction: Prediction | None = None
        self._others: list[Prediction] | None = None

    @property
    def sampling(self) -> bool:
        """Whether answers are drawn at random."""
        return self._search.sample

    @sampling.setter
    def sampling(self, on: bool) -> None:
        self._search = self._search.model_copy(update={"sample": on})

    @property
    def turns(self) -> list[str]:
        """All that was said, the human's turns and the bot's by turns."""
        return list(self._turns)

    @property
    def prediction(self) -> Prediction | None:
        """The last answer with all that is known of it; None before the first.

        A streamed answer is computed once more, when this is first asked for: the same search gives the same.
        """
        if self._prediction is None and self._turns:
            self._prediction = self._model.predict(self._source(), **self._asked)
        return self._prediction

    @property
    def source(self) -> str:
        """What the model read for the last answer: the human's turn with the turns before it; empty before any."""
        return self._source() if self._turns else ""

    def cut(self) -> int:
        """How many tokens of the last human turn were read, if it was too long to be read whole; else 0."""
        if not self._turns:
            return 0
        most = self._model.max_source - 1  # EOS takes a place
        return most if len(self._model.source_tokenizer.encode(self._turns[-2])) > most else 0

    def answer(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; whatever the text, there is one. The turn is kept when the last piece is out.

        Raises:
            SaveError: the transcript cannot be written.
        """
        text = shown(text).strip()
        self._turns.append(text)
        self._note("HUMAN", text)
        self._others = None
        pieces: list[str] = []
        try:
            for piece in self._pieces():
                pieces.append(piece)
                yield piece
        finally:
            # Broken off or not: what was said was said.
            self._turns.append("".join(pieces))
            self._note("BOT", self._turns[-1])

    def again(self) -> Iterator[str] | None:
        """Another answer to the same turn, in place of the last one: a new draw, or the next best.

        None where there is no other, or nothing was asked yet.

        Raises:
            SaveError: the transcript cannot be written.
        """
        if not self._turns:
            return None
        if self.sampling:
            return self._instead(self._pieces())
        if self._others is None:
            self._others = self._next_best()
        if not self._others:
            return None
        self._prediction = self._others.pop(0)
        return self._instead(iter([self._prediction.text]))

    def _instead(self, pieces: Iterator[str]) -> Iterator[str]:
        text = ""
        for piece in pieces:
            text += piece
            yield piece
        self._turns[-1] = text
        self._note("BOT", text)

    def _pieces(self) -> Iterator[str]:
        """The answer to the last human turn; sets what `prediction` needs."""
        self._prediction = None
        self._asked = self._search.model_dump() | {"nbest": 1}
        source = self._source()
        if self.sampling:
            # Every answer has a seed of its own, so that it can be computed once more and asked for again.
            seed = self._search.seed
            self._asked["seed"] = secrets.randbits(31) if seed is None else seed + self._drawn
            self._drawn += 1
        if (self.sampling or self._search.beam == 1) and not self._search.mmi:
            yield from self._model.stream(source, **self._asked)
        else:
            self._prediction = self._model.predict(source, **self._asked)
            yield self._prediction.text

    def _next_best(self) -> list[Prediction]:
        width = max(self._search.beam, 4)
        best = self._model.predict(self._source(), **(self._asked | {"sample": False, "beam": width, "nbest": width}))
        given = {self._turns[-1]}
        others = []
        for prediction in [best, *best.alternatives]:
            if prediction.text not in given:
                given.add(prediction.text)
                others.append(prediction)
        return others

    def _source(self) -> str:
        """What the model reads: the last human turn with the turns before it."""
        said = self._turns if len(self._turns) % 2 else self._turns[:-1]
        return join_context(said, self._model.config.data.context)

    def _note(self, speaker: Literal["HUMAN", "BOT"], text: str) -> None:
        if self._transcript is not None:
            self._transcript.add(speaker, text)
