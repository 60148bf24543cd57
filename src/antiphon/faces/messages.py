"""What the server is asked and what it answers, field by field: the forms its OpenAPI description is made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Form(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class _Strict(_Form):
    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class SearchForm(_Form):
    """How an answer is searched; what is not given is the model's own."""

    beam: Annotated[int, Field(ge=1)] | None = None
    """Hypotheses kept; 1: greedy."""
    sample: bool | None = None
    """Draw tokens at random instead of searching."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """Below 1: nearer to the likeliest; above: bolder. 0: not drawn at all."""
    top_k: Annotated[int, Field(ge=1, le=256)] | None = None
    """Draw among this many likeliest tokens."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draw among the fewest tokens that hold this much probability. 0: not drawn at all."""
    seed: Seed | None = None
    """Same seed, same draws."""
    no_repeat_ngram: Annotated[int, Field(ge=0, le=64)] | None = None
    """No n-gram of this size twice in one answer; 0: no rule."""
    length_penalty: Annotated[float, Field(ge=0, le=10)] | None = None
    """Exponent of the length penalty of a beam."""
    mmi: Annotated[float, Field(ge=0, le=10)] | None = None
    """Rank answers by log P(T | S) less this share of log P(T)."""


SEARCH = tuple(SearchForm.model_fields)
"""Fields of a form that are knobs of the search, by the names of the config."""


class ContentPart(_Form):
    """A part of a message."""

    type: str
    """Only ``text`` is read; of a user nothing else is taken."""
    text: str = ""


class Message(_Form):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """What a system or developer says, or a tool, is passed over: these models take no instructions."""
    content: str | list[ContentPart] | None = None
    """null, as where tools are called: passed over. A user's may not be."""


class StreamOptions(_Form):
    """What a stream tells besides."""

    include_usage: bool | None = None


class ChatForm(SearchForm):
    """A request in OpenAI's format. Fields of theirs that are not here are passed over."""

    model: str | None = None
    """One of ``/v1/models``; empty: the first."""
    messages: Annotated[list[Message], Field(min_length=1)]
    """The last must be a user's. Of a long conversation the model reads the last turns, and the others are not looked
    at."""
    n: Annotated[int, Field(ge=1)] | None = None
    """Answers; one, if not given. Where fewer different ones are found, some come again."""
    stream: bool | None = None
    """Server-sent events, a piece each. Greedy or drawn; a ``beam`` that is asked for comes in one piece."""
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an answer, its end mark counted."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The same, by its newer name, which wins."""
    store: bool | None = None
    """false: this turn is not kept."""
    conversation: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")] | None = None
    """Where the turn is kept: an id that nobody can guess, the client's own or one that an answer told. Without one
    a new conversation begins."""


class AnswerMessage(_Form):
    """What was answered."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(_Form):
    """An answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]


class Usage(_Form):
    """Tokens, end marks counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Kept(_Form):
    """Antiphon's own additions to an answer."""

    source: str
    """What the model read: the last turn, perhaps with turns before it. ``/attention`` takes it."""
    conversation: str | None
    """Where the turn was kept; null: it was not."""
    turn: str | None
    """The turn's id, for ``PUT /turns/{id}``."""


class ChatAnswer(_Form):
    """An answer in OpenAI's format."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    antiphon: Kept


class PredictForm(SearchForm):
    """Texts to be answered."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    model: str = ""
    """One of ``/v1/models``; empty: the first."""
    texts: Annotated[list[str], Field(min_length=1)]
    nbest: Annotated[int, Field(ge=1)] = 1
    """Answers given for each text, the best first."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an answer, its end mark counted."""
    attention: bool = False
    """Whether to tell the tokens and what each looked at."""


class Alternative(_Form):
    """One of the n-best that is not the best."""

    text: str
    score: float


class Looks(_Form):
    """What each token of an answer looked at."""

    source_tokens: list[str]
    """(S,) the last is the end mark."""
    tokens: list[str]
    """(T,) the last is the end mark, if the answer ended by itself."""
    attention: list[list[float]]
    """(T, S) rows sum to 1, or are 0 where the model has no attention."""


class PredictionRecord(_Form):
    """An answer to a text."""

    source: str
    text: str
    score: float
    """Log-probability in nats over the length penalty; nearer to 0 is better. With ``mmi``: what answers are ranked
    by; more is better."""
    truncated: bool
    """Whether the text was too long and lost its beginning."""
    unknown: int
    """How many of its tokens are letters, or words, that the vocabulary lacks."""
    alternatives: list[Alternative]
    source_tokens: list[str] | None = None
    tokens: list[str] | None = None
    attention: list[list[float]] | None = None


class Predictions(_Form):
    """Answers in the order of the texts."""

    model: str
    predictions: list[PredictionRecord]


class PairForm(_Strict):
    """A text and what might be answered."""

    source: str
    target: str


class ScoreForm(_Strict):
    """Pairs to be scored."""

    model: str = ""
    pairs: Annotated[list[PairForm], Field(min_length=1)]


class ScoreRecord(_Form):
    """How likely a target is."""

    nats: float
    """log P(target | source), at most 0."""
    tokens: int
    """It is the sum over so many tokens, the end mark counted."""


class Scores(_Form):
    """Scores in the order of the pairs."""

    model: str
    scores: list[ScoreRecord]


class AttentionForm(_Strict):
    """A text and a target the model is made to write."""

    model: str = ""
    source: str
    target: str


class AttentionAnswer(Looks):
    """Where the model looks while it writes the target."""

    model: str
    nats: float
    """log P(target | source)."""


class JudgementForm(_Strict):
    """What a person thinks of an answer; what is not given stays."""

    thumb: Literal[-1, 0, 1] | None = None
    """1 liked, -1 disliked, 0 neither."""
    better: str | None = None
    """A better answer; empty: taken back."""


class TurnRecord(_Form):
    """What was said, what was answered, what was thought of it."""

    id: str
    said: str
    answer: str
    source: str
    model: str
    thumb: int
    better: str | None
    created: str


class ConversationRecord(_Form):
    """A conversation that was kept."""

    id: str
    turns: list[TurnRecord]


class ModelRecord(_Form):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "antiphon"
    antiphon: dict[str, Any]
    """Its own search settings; how many earlier turns it reads; the longest source in tokens; whether its answers
    are drawn (a talker) or searched."""


class ModelList(_Form):
    """All models of this server, the first is the default."""

    object: Literal["list"] = "list"
    data: list[ModelRecord]


class Health(_Form):
    """The server is up."""

    status: Literal["ok"] = "ok"
    version: str
    models: list[str]
    waiting: int
    """Answers that wait."""
    decoding: int
    """Answers being decoded."""
    storing: bool
    """Whether turns are kept."""


class Fault(_Form):
    """What is wrong."""

    message: str
    type: str
    param: str | None = None
    code: int


class FaultAnswer(_Form):
    """The one form of every refusal, which is OpenAI's."""

    error: Fault
