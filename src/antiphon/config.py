"""The page where every knob is: what it does, its unit, its default.

Four frozen groups, one file. A key is a TOML entry (``[train] minutes = 5``), a flag
(``--train.minutes 5``) and an entry of a model folder's ``config.json``; unknown keys are refused.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from antiphon.errors import UsageError

TokenizerKind = Literal["word", "bpe", "unigram", "char", "tagged", "symbol"]
Features = Literal["as_is", "before", "behind", "around"]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Length = Annotated[int, Field(ge=1, le=1 << 16)]
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Layers = Annotated[int, Field(ge=1, le=64)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


MOST_MEMBERS = 16
"""Models that may answer together as one."""
BUDGETS = frozenset(("minutes", "max_updates", "epochs"))
"""Knobs of [train] that say how much training there is."""
_UNSETTLED = {"settled": False}
"""Tells validation that preset `auto` has not chosen yet."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(_Group):
    """From text to batches of one static shape per bucket."""

    tokenizer: TokenizerKind = "bpe"
    """How source text becomes tokens: words, subwords (bpe, unigram), characters, characters
    beside features such as V;PST;3;SG (tagged), or space-separated symbols."""
    target_tokenizer: TokenizerKind | None = None
    """The same for the target; None: as the source."""
    share_vocabulary: bool = True
    """One vocabulary for both sides (needs the same kind of tokenizer on both); False: one each."""
    vocabulary: Annotated[int, Field(ge=8, le=1_000_000)] = 6000
    """Most tokens in a vocabulary; small data gives fewer."""
    min_count: Count = 1
    """Words, characters and symbols seen fewer times become UNK (the lecture's THRESHOLD is 2)."""
    lower: bool = False
    """Lower-case all text first."""
    lower_source: bool = False
    """Lower-case sources only: however a question is typed, the answer has its capitals."""
    digits: bool = False
    """Write every digit as # (word tokenizer)."""
    subword_dropout: Share = 0.0
    """Chance of leaving out a merge (bpe) or of sampling another segmentation (unigram) in training."""
    joined: Annotated[int, Field(ge=0, le=100)] = 0
    """Pairs made of two random ones, one behind the other, for each training pair: teaches few pairs not to skip or
    repeat (Kondo et al. 2021)."""
    hallucinated: Annotated[int, Field(ge=0, le=100)] = 0
    """Pairs made up for each training pair (Silfverberg et al. 2017). In half of them the stem that source and target
    share begins like another word, in half of them letters that both have become others. They teach few pairs to copy,
    in inflection above all."""
    placeholders: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training pairs that come once more with letters hidden behind placeholders, so that a letter which
    training has not seen can be carried over into the answer (characters; Luong et al. 2015 do so with words)."""
    features: Features = "as_is"
    """Where the features of a source are read (tagged): before its words, behind them, on both sides of them, or as
    they are written. Endings are learnt more easily from features behind, prefixes from features before; and users may
    then write either."""
    reverse_source: bool = False
    """Feed the source backwards, as Sutskever et al. 2014 and the lecture did."""
    reverse_target: bool = False
    """Write targets from their end (right to left, Liu et al. 2016): what a sound depends on may stand behind it.
    Nothing can be streamed then: the beginning comes last."""
    context: Annotated[int, Field(ge=0, le=1000)] = 0
    """Earlier turns joined in front of the source, for dialogue; the chat remembers as many."""
    buckets: Annotated[int, Field(ge=1, le=64)] | Annotated[tuple[tuple[Length, Length], ...], Field(min_length=1)] = 10
    """How many (source, target) shapes to choose by dynamic programming, or the shapes themselves, in tokens
    with EOS counted."""
    max_source: Annotated[Length, Field(ge=2)] = 200
    """Longest source in tokens (EOS counted); what to do beyond it is ``too_long``."""
    max_target: Annotated[Length, Field(ge=2)] = 200
    """Longest target in tokens (EOS counted)."""
    too_long: Literal["truncate", "drop"] = "truncate"
    """Pairs beyond the largest bucket: cut to fit, or left out; both are counted and reported."""
    dev_pairs: Count = 1000
    """Pairs to validate on, at most. Held out when DATA brings none (never more than a tenth of it)."""
    ids: str | None = None
    """Where the token ids are kept: a folder, or an address of fsspec's such as s3://bucket/ids; None: in the run
    folder."""


class ModelConfig(_Group):
    """Two RNNs and what joins them."""

    cell: Literal["gru", "lstm"] = "lstm"
    """The recurrent cell of both sides."""
    embedding: Width = 256
    """Width of token embeddings (E)."""
    hidden: Width = 256
    """Width of an RNN layer, per direction (H)."""
    encoder_hidden: Width | None = None
    """The same in the encoder, if it is to differ; None: ``hidden``."""
    encoder_layers: Layers = 2
    """RNN layers in the encoder."""
    decoder_layers: Layers = 2
    """RNN layers in the decoder."""
    bidirectional: bool = True
    """The encoder reads both ways; the memory is then 2 H wide."""
    attention: Literal["none", "additive", "dot", "general", "multihead", "monotonic"] = "multihead"
    """none: the fixed-vector model. additive: Bahdanau et al. 2015. dot, general: Luong et al. 2015. multihead:
    Vaswani et al. 2017. monotonic: one position at a time, from left to right, where both sides run in one direction
    (Aharoni & Goldberg 2017)."""
    heads: Width = 4
    """Heads of multihead attention; must divide ``hidden``."""
    feed: bool = False
    """The context of step t-1 enters step t (Bahdanau; Luong's input feeding): slower to train, since
    positions then wait for each other."""
    share_rnn: bool = False
    """One set of RNN weights for encoder and decoder (needs one direction and equal layers)."""
    bridge: Literal["linear", "copy"] = "linear"
    """How the decoder starts: a learnt projection of the encoder's last states, or those states as they are."""
    tied: Literal["none", "target", "all"] = "all"
    """target: target embedding = softmax weights. all: the source embedding too (needs a shared vocabulary)."""
    residual: bool = True
    """Add a layer's input to its output where widths agree."""
    layer_norm: bool = False
    """Layer normalisation of every RNN layer's output."""
    features: Literal["norm", "tanh"] = "norm"
    """From state and context to the softmax: a linear layer, then layer normalisation (learns in fewer updates) or tanh
    (Luong et al. 2015, equation 5)."""
    dropout: Share = 0.2
    """Chance of dropping a unit, the same one at every time step (Gal & Ghahramani 2016): embeddings, between
    layers, features."""
    word_dropout: Share = 0.0
    """Chance of dropping a whole token's embedding in training."""
    softmax: Literal["full", "sampled"] = "full"
    """Training loss over all of the vocabulary, or over the true and ``train.samples`` sampled words."""

    @model_validator(mode="after")
    def _agree(self) -> ModelConfig:
        twins = self.encoder_layers == self.decoder_layers and self.encoder_hidden in (None, self.hidden)
        if self.share_rnn and (self.bidirectional or not twins):
            raise ValueError("model.share_rnn needs model.bidirectional = false and equal layers on both sides")
        if self.bridge == "copy" and (self.bidirectional or not twins):
            raise ValueError('model.bridge = "copy" needs model.bidirectional = false and equal layers on both sides')
        if self.attention == "monotonic" and self.feed:
            raise ValueError('model.attention = "monotonic" needs model.feed = false: what it looks at is fed anyway')
        if self.attention == "multihead" and self.hidden % self.heads:
            raise ValueError(f"model.heads = {self.heads} does not divide model.hidden = {self.hidden}")
        return self


class TrainConfig(_Group):
    """The loop: how fast, how long, when to stop."""

    seed: Seed = 1
    """Everything random follows from it."""
    minutes: Annotated[float, Field(gt=0, le=10**7)] | None = None
    """Time budget; the learning rate reaches zero at its end. None: until the dev score stops improving."""
    max_updates: Count | None = None
    """Most updates; the learning rate reaches zero there."""
    epochs: Count | None = None
    """Most times through the data; the learning rate reaches zero there. A budget that you give (minutes, updates,
    epochs) takes the place of the preset's."""
    patience: Count = 6
    """Validations without a better dev score before training stops by itself."""
    optimizer: Literal["adam", "muon", "sgd"] = "adam"
    """adam: AdamW (Loshchilov & Hutter 2019). muon: orthogonal momentum for the hidden layers' matrices (Jordan et al.
    2024), AdamW for the rest. sgd: plain stochastic gradient descent."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Highest learning rate."""
    warmup: Annotated[int, Field(ge=0)] = 200
    """Updates over which the rate rises from zero."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: to zero at the end of the budget (without a budget: inverse square root after the warm-up)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay of matrices; tables of a sampled softmax, of which an update touches some rows, have none."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """Adam's decay of the first and second moments."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient."""
    label_smoothing: Share = 0.1
    """Probability given evenly to all words (full softmax only; where it is trained by sampling, to the sampled)."""
    consistency: Annotated[float, Field(ge=0)] = 0.0
    """R-Drop (Wu et al. 2021): every pair is learnt from twice at once, with two dropout masks, and this weight draws
    the two answers together; 0: once (full softmax only). An update costs about twice as much."""
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 1
    """Models trained one after the other, from a seed each, that answer together with the mean of their probabilities:
    better than one, for as many times the work. They share the minutes; updates and epochs are each one's."""
    distilled: bool = False
    """After ``members`` one more is trained, which learns from them as from ``teachers``, and answers in their place:
    nearly as good as all together, as small and fast as one (full softmax only). It has its share of the minutes."""
    teachers: str | None = None
    """Run folders, comma-separated, whose mean prediction is learnt from beside the truth: several models become one
    (Hinton et al. 2015; full softmax only). Same data and tokenizers. They are asked once, before the first update that
    learns from them; of data in several shards, once an epoch."""
    distillation: Share = 0.7
    """How much of what is learnt is the teachers' prediction; the rest is the truth."""
    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Sampled words an update (sampled softmax)."""
    sampled_until: Share = 0.0
    """Share of the budget, from its beginning, in which a full softmax is trained on the true and ``samples`` sampled
    words: an update is cheaper. The rest is trained on all words, and from the teachers; all of it without a budget,
    with fewer words than twice ``samples`` or with ``consistency``."""
    average: Share = 0.998
    """Decay of the moving average of the weights that is evaluated and kept; 0: none."""
    batch_tokens: Annotated[int, Field(ge=1, le=1 << 22)] = 2000
    """Budget of positions a batch, padding counted: rows of a bucket = budget / its longer side."""
    batch_size: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    """Rows of every batch; None: from ``batch_tokens``."""
    order: Literal["shuffled", "proportional"] = "shuffled"
    """Batches of all buckets shuffled, each once an epoch; or a bucket drawn at random in proportion to its
    size (the lecture's way)."""
    validate_every: Count | None = None
    """Updates between validations; None: an epoch, or a tenth of the budget, whichever is sooner, but with a budget of
    minutes never more than a twentieth of the time in all."""
    dev_metric: Literal["loss", "accuracy", "bleu", "chrf", "wer"] = "loss"
    """What "better" means on dev: nats per token, or a score of greedy answers."""
    dev_answers: Annotated[int, Field(ge=0)] = 200
    """Dev sources answered at each validation, for the dev score, the samples and the boredom warning."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Number format of matrix products; auto: bf16 where this CPU does it fast."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads; None: all cores, shared evenly by the processes that a launcher started on this machine."""
    link_seconds: Annotated[float, Field(gt=0, le=1e6)] = 60.0
    """Several processes: longest wait for another's answer before training ends with an error."""

    @property
    def models(self) -> int:
        """How many are trained in all."""
        return self.members + self.distilled

    @property
    def teacher_folders(self) -> list[Path]:
        """The run folders that ``teachers`` names."""
        return [Path(name.strip()) for name in (self.teachers or "").split(",") if name.strip()]

    @model_validator(mode="after")
    def _judged(self) -> TrainConfig:
        if self.teachers is not None and not self.teacher_folders:
            raise ValueError("train.teachers names no folder")
        if self.dev_metric != "loss" and not self.dev_answers:
            raise ValueError(f'train.dev_metric = "{self.dev_metric}" needs train.dev_answers to be 1 at least')
        return self


class SearchConfig(_Group):
    """From a distribution to an answer."""

    beam: Annotated[int, Field(ge=1, le=64)] = 4
    """Hypotheses kept; 1: greedy."""
    nbest: Count = 1
    """Answers given per source; of a search at most ``beam``."""
    length_penalty: Annotated[float, Field(ge=0, le=10)] = 0.6
    """Exponent a of the length penalty ((5 + length) / 6)^a (Wu et al. 2016); 0: none."""
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0
    """No n-gram of tokens of this size twice in one answer; 0: no rule."""
    max_length: Length | None = None
    """Most tokens of an answer; None: the model's longest bucket, or three times the source if that is more. With
    monotonic attention an answer that is cut short may have a few more."""
    unknown: bool = False
    """Whether UNK may be answered."""
    sample: bool = False
    """Draw tokens at random instead of searching."""
    temperature: Annotated[float, Field(gt=0)] = 0.8
    """Below 1: nearer to the likeliest; above: bolder (sampling)."""
    top_k: Annotated[int, Field(ge=1, le=256)] = 40
    """Sample among this many likeliest tokens."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Sample among the fewest tokens that hold this much probability."""
    seed: Seed | None = None
    """Seed of the sampling; None: different each time."""
    mmi: Annotated[float, Field(ge=0)] = 0.0
    """Rank answers by log P(T | S) less this share of log P(T), so that what fits everything loses (Li et al. 2016);
    0: by log P(T | S) alone."""
    candidates: Annotated[int, Field(ge=1, le=64)] = 8
    """Answers found for each source when they are ranked anew (``mmi``); ``beam`` at most, unless sampling."""


class Config(_Group):
    """All knobs of one run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()

    def of_one(self, number: int = 1) -> Config:
        """The knobs of one of ``train.models`` models, counted from 1: its seed, its share of the minutes."""
        data, train = self.data, self.train
        seed = (train.seed + number - 1 + (1 << 63)) % (1 << 64) - (1 << 63)  # the largest seed has one after it too
        minutes = train.minutes and train.minutes / train.models
        ids = f"{data.ids}/members/{number}" if data.ids and number > 1 else data.ids
        return self.model_copy(
            update={
                "data": data.model_copy(update={"ids": ids}),
                "train": train.model_copy(update={"members": 1, "distilled": False, "seed": seed, "minutes": minutes}),
            }
        )

    @model_validator(mode="after")
    def _tokens_agree(self, info: ValidationInfo) -> Config:
        """Of knobs that preset `auto` has a say in."""
        if info.context == _UNSETTLED:
            return self
        data, model = self.data, self.model
        shared = data.share_vocabulary and data.target_tokenizer in (None, data.tokenizer)
        if model.tied == "all" and not shared:
            raise ValueError('model.tied = "all" needs data.share_vocabulary and one kind of tokenizer')
        if model.attention == "monotonic" and data.reverse_source != data.reverse_target:
            raise ValueError(
                'model.attention = "monotonic" needs data.reverse_source = data.reverse_target: both sides run one way'
            )
        if model.attention == "monotonic" and data.too_long != "drop":
            raise ValueError('model.attention = "monotonic" needs data.too_long = "drop": what is cut is not aligned')
        kinds = {data.tokenizer, data.target_tokenizer or data.tokenizer}
        if data.placeholders and not kinds <= {"char", "tagged"}:
            raise ValueError("data.placeholders needs tokenizers of characters (char, tagged): it hides letters")
        if data.features != "as_is" and data.tokenizer != "tagged":
            raise ValueError(f'data.features = "{data.features}" needs data.tokenizer = "tagged": it has features')
        return self

    @model_validator(mode="after")
    def _agree(self) -> Config:
        data, model = self.data, self.model
        if model.attention == "monotonic" and data.subword_dropout:
            raise ValueError('model.attention = "monotonic" needs data.subword_dropout = 0')
        if model.attention == "monotonic" and self.search.no_repeat_ngram:
            raise ValueError('model.attention = "monotonic" needs search.no_repeat_ngram = 0: its marks may repeat')
        if self.train.weight_decay and self.train.optimizer == "sgd":
            raise ValueError('train.weight_decay needs train.optimizer = "adam" or "muon"')
        if self.train.consistency and model.softmax == "sampled":
            raise ValueError('train.consistency needs model.softmax = "full"')
        for name in ("teachers", "distilled"):
            if getattr(self.train, name) and model.softmax == "sampled":
                raise ValueError(f'train.{name} needs model.softmax = "full"')
            if getattr(self.train, name) and data.subword_dropout:
                raise ValueError(f"train.{name} needs data.subword_dropout = 0: what teachers say of a pair is kept")
        return self


def presets() -> dict[str, str]:
    """Names of the bundled presets and the first comment line of each."""
    found = {}
    for entry in sorted(resources.files("antiphon.presets").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".toml")] = first.lstrip("# ")
    return found


def load_config(
    preset: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    settled: bool = True,
) -> Config:
    """Defaults, then a preset, then overrides.

    Args:
        preset: a bundled name, or the path of a TOML file.
        overrides: ``{"train": {"minutes": 5}}``; wins over the preset.
        settled: False: what does not go together may still, once preset `auto` has seen the pairs.

    Raises:
        UsageError: no such preset, TOML that does not parse, an unknown knob (with the nearest name), a bad value.
    """
    tree: dict[str, dict[str, Any]] = {}
    where = ""
    if preset is not None:
        tree, where = _read_preset(preset)
    override(tree, overrides or {})
    return parse_config(tree, where=where, settled=settled)


def override(tree: dict[str, dict[str, Any]], values: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts knobs over those of a preset; a budget takes the place of the budgets that stand there."""
    if not BUDGETS.isdisjoint(values.get("train", {})):
        tree["train"] = {key: value for key, value in tree.get("train", {}).items() if key not in BUDGETS}
    for group, given in values.items():
        tree.setdefault(group, {}).update(given)


def parse_config(tree: Mapping[str, Any], *, where: str = "", settled: bool = True) -> Config:
    """A Config from a nested mapping. Raises UsageError as `load_config`."""
    try:
        return Config.model_validate(tree, context=None if settled else _UNSETTLED)
    except ValidationError as error:
        raise _in_the_users_words(error, where) from None


def _read_preset(preset: str) -> tuple[dict[str, Any], str]:
    path = Path(preset)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fault = error.strerror if isinstance(error, OSError) else "not UTF-8"
            cure = f"check the path, or name a bundled one: {', '.join(presets())}"
            raise UsageError(f"cannot read the preset file ({fault})", where=preset, cure=cure) from None
    else:
        names = presets()
        if preset not in names:
            near = difflib.get_close_matches(preset, names, n=1)
            cure = f'did you mean "{near[0]}"?' if near else f"bundled presets: {', '.join(names)}"
            raise UsageError(f'no preset "{preset}"', where="--preset", cure=cure)
        text = (resources.files("antiphon.presets") / f"{preset}.toml").read_text(encoding="utf-8")
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, nested too deep, or a number of thousands of digits
        raise UsageError(f"not TOML: {error}", where=preset, cure="see docs/concepts.md for the form") from None
    for group in Config.model_fields.keys() & tree.keys():
        if not isinstance(tree[group], dict):
            raise UsageError(f"{group} is no table of knobs", where=preset, cure=f"write [{group}] above its knobs")
    return tree, preset


def _in_the_users_words(error: ValidationError, where: str) -> UsageError:
    fault, *others = error.errors()
    for other in others:  # a knob may be a number or a list: of a list, what the list lacks is told
        if other["loc"][:2] == fault["loc"][:2] and isinstance(fault["input"], (list, tuple)):
            fault = other
    place = [str(part) for part in fault["loc"] if isinstance(part, (str, int))]
    key = ".".join(place[:2])
    if fault["type"] == "extra_forbidden":
        group = Config.model_fields.get(place[0])
        known = Config.model_fields if len(place) == 1 or group is None else group.annotation.model_fields  # type: ignore[union-attr]
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        prefix = "" if len(place) == 1 else f"{place[0]}."
        cure = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
        return UsageError(f"unknown knob {key}", where=where, cure=cure)
    message = fault["msg"].removeprefix("Value error, ")
    got = f" (got {_written(fault['input'])})"
    if fault["type"] == "value_error":  # knobs that do not go together; the sentence names them
        return UsageError(message, where=where, cure="change one of them")
    cure = f"see antiphon {'predict' if place[:1] == ['search'] else 'train'} --help"
    return UsageError(f"{key}: {message}{got}", where=where, cure=cure)


def _written(value: Any) -> str:
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # Python does not write numbers of thousands of digits
        return "something too large to show"
    return text if len(text) <= 200 else f"{text[:199]}…"
