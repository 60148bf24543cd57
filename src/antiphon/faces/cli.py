"""The command line: parse, call, print. Results on standard output, everything else on standard error.

Exit codes: 0 done; 2 the user's mistake, told in one line; 130 interrupted, with all saved that could be.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter, validators
from cyclopts.exceptions import CycloptsError, UnknownOptionError, UnusedCliTokensError
from rich.text import Text

from antiphon.config import parse_config
from antiphon.data.corpus import Part
from antiphon.errors import AntiphonError, DataError, MissingExtraError, SaveError, UsageError
from antiphon.faces.knobs import (
    BareSearchFlags,
    DataFlags,
    ModelFlags,
    SearchFlags,
    TrainFlags,
    given,
    nearest,
    spelled_alike,
    whole,
)
from antiphon.faces.record import as_record
from antiphon.faces.screen import escaped, note, shown, speak_utf8, stderr, stdout, table, write_lines
from antiphon.runtime.bundled import is_model
from antiphon.version import VERSION

if TYPE_CHECKING:
    from antiphon.data.pairs import Pair
    from antiphon.model import Model, Prediction

CONVERSATIONS = "conversations.db"
"""Where conversations are kept unless --store says otherwise."""

_CHUNK = 256
"""Lines answered together when a file or a pipe is read."""


app = App(
    name="antiphon",
    help="Learn from pairs of texts, then answer: chat, translate, pronounce. Recurrent sequence-to-sequence models.",
    version=VERSION,
    suppress_keyboard_interrupt=False,
)

_Whole = Annotated[int, Parameter(converter=whole)]
_Switch = Annotated[bool, Parameter(negative=(), show_default=False)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    speak_utf8()
    tokens = spelled_alike(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AntiphonError as error:
        fault = str(error)
    except CycloptsError as error:
        fault = _in_one_line(error, tokens)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read us has enough (`antiphon … | head`). What is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # whatever no reader or writer has told in better words: a name too long, a disk gone
        place = f", {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
        fault = f"the system says: {error.strerror or error}{place:.200}; check path, space and rights"
    note(f"error: {fault}")
    return 2


@app.command(sort_key=0)
def data(
    name: str | None = None,
    /,
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    out: Path | None = None,
    seed: _Whole = 1,
    raw: Annotated[bool | None, Parameter(negative="--tok")] = None,
    json: _Switch = False,
    **options: str,
) -> None:
    """Fetch or read a corpus; write train, dev and test as source TAB target. Without NAME: list the corpora.

    Parameters
    ----------
    name
        A corpus of the list.
    source
        The authors' archive, or a folder with what is in it; without it the archive is downloaded once.
    out
        The folder to write [default: data/NAME].
    seed
        Decides the split.
    raw
        --raw: text as written; --tok: as tokenised by the corpus's authors.
    json
        Print the data card as JSON.
    options
        What the corpus offers: --context 2, --language fre, --pair en-de … (the list names them).
    """
    from antiphon.data.corpora import RECIPES, prepare
    from antiphon.data.corpus import Pairs
    from antiphon.data.pairs import spans_of
    from antiphon.faces.inspection import corpus_lines

    if name is None:
        for recipe in RECIPES.values():
            choices = " ".join(f"--{key.replace('_', '-')} {option.default}" for key, option in recipe.options.items())
            _print(f"{recipe.name:17} {recipe.title}{f' [{choices}]' if choices else ''}")
        return
    if raw is not None:
        options["form"] = "raw" if raw else "tok"
    out = out or Path("data") / name
    card = prepare(name, source=source, out=out, options=options, seed=seed)
    if json:
        _print((out / "data.json").read_text(encoding="utf-8").rstrip(), raw=True)
        return
    for line in corpus_lines(card, Pairs(tuple(spans_of(out / "train.tsv"))), out):
        _print(line)


@app.command(sort_key=1)
def train(
    pairs: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    out: Path,
    preset: str | None = None,
    minutes: float | None = None,
    seed: Annotated[int | None, Parameter(converter=whole)] = None,
    resume: _Switch = False,
    data: DataFlags = None,
    model: ModelFlags = None,
    train: TrainFlags = None,
    search: SearchFlags = None,
) -> int:
    """Learn from DATA into the run folder; Ctrl-C keeps all, --resume goes on.

    Parameters
    ----------
    pairs
        A TSV, "src.txt,tgt.txt", a .jsonl, a .dialogue, or a folder made by antiphon data.
    out
        The run folder, which is also the model.
    preset
        Knobs to start from: a bundled name or a TOML file; auto, the default, asks the data. Flags win over it.
    minutes
        Time budget: --train.minutes.
    seed
        Everything random follows from it: --train.seed.
    resume
        Go on with the run in the folder.
    """
    knobs = {"data": given(data), "model": given(model), "train": given(train), "search": given(search)}
    for key, value in (("minutes", minutes), ("seed", seed)):
        if value is not None:
            knobs["train"][key] = value
    if not resume:
        from antiphon.data.automatic import known

        known(preset, knobs)  # a slip is told before the seconds it takes to import PyTorch
    import antiphon
    from antiphon.faces import inspection
    from antiphon.faces.progress import TrainingScreen

    with TrainingScreen() as screen:
        run = antiphon.train(pairs, out, preset=preset, resume=resume, observer=screen, knobs=knobs)
    if os.environ.get("RANK", "0") != "0":  # of the processes that a launcher started, the first one speaks
        return 0 if run.finished else 130
    try:
        inspection.save_curve(run.folder)
    except AntiphonError as error:
        note(f"warning: no picture of the curve: {error}")  # what was learnt is safe all the same
    console = stderr()
    judged = run.best_dev == run.best_dev
    if judged:
        console.print(f"best dev {run.metric} {run.best_dev:.3f}; try it:", soft_wrap=True)
        console.print(f"  antiphon chat {run.folder}", soft_wrap=True)
        console.print(Text(f'  antiphon predict {run.folder} "{shown(screen.example)}"'), soft_wrap=True)
        console.print(f"  antiphon evaluate {run.folder} {pairs}", soft_wrap=True)
    if run.finished:
        return 0
    waits = "" if judged else ", and answers after its first validation"
    console.print(f"it can go on{waits}: antiphon train {pairs} --out {run.folder} --resume", soft_wrap=True)
    return 130


@app.command(sort_key=2)
def evaluate(
    model: str,
    pairs: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    split: Part | None = None,
    metrics: str | None = None,
    tokenize: Literal["13a", "none"] = "13a",
    limit: Annotated[int | None, Parameter(converter=whole, validator=validators.Number(gte=1))] = None,
    json: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    search: BareSearchFlags = None,
) -> None:
    """Answer DATA and compare with what was right.

    Parameters
    ----------
    model
        A run or model folder, or a bundled model: dates; "A,B": the mean of several.
    pairs
        A file of pairs, or a folder made by antiphon data.
    split
        test, dev or train; without it, of a folder test, or dev where there is no test, and of a file all pairs, or
        dev if MODEL has learnt from it. What has no dev part has what training holds out.
    metrics
        Comma-separated: accuracy, bleu, chrf, distinct, hits, loss, per, perplexity, wer; without it what suits
        the model's tokens.
    tokenize
        How BLEU cuts words: none where the text is tokenised already.
    limit
        Look at the first so many pairs only.
    json
        Write the scores as a JSON object to this file; - is standard output.
    """
    from antiphon import evaluation

    overrides = _search_overrides(search)
    names = None if metrics is None else evaluation.named(metrics.split(","))
    scores: dict[str, Any] = {}

    def measured() -> str:
        loaded = _load(model)
        chosen = _part(pairs, split, loaded, unseen=True)
        scores.update(evaluation.evaluate(loaded, chosen, names, tokenize=tokenize, limit=limit, **overrides))
        return _json_text(scores)

    if json is None:
        measured()
    elif str(json) == "-":
        _print(measured(), raw=True)
        return
    else:
        write_lines(json, (measured() for _ in range(1)))  # the file is opened before anything is measured
    for line in table([(name, _score(value)) for name, value in scores.items()], right=(1,)):
        _print(line)


@app.command(sort_key=3)
def predict(
    model: str,
    /,
    *text: str,
    input: Path | None = None,
    output: Path | None = None,
    attention: _Switch = False,
    attention_png: Path | None = None,
    json: _Switch = False,
    search: BareSearchFlags = None,
) -> None:
    """Answer each TEXT, else each line of --input or of standard input, on a line of its own.

    With --nbest above 1: input number TAB score TAB answer, the best first.

    Parameters
    ----------
    model
        A run or model folder, or a bundled model: dates. Of several ("A,B", or folders A B) the mean of
        their probabilities.
    text
        Sources; put -- before the first if one begins with a hyphen.
    input
        A file with one source a line.
    output
        The file to write instead of standard output.
    attention
        Draw what each target token looked at (in --json: give the weights).
    attention_png
        Draw it for the first source, as a PNG file.
    json
        One JSON object a line: source, text, score (log-probability over the length penalty; with --mmi what answers
        are ranked by), truncated, unknown, alternatives.
    """
    overrides = _search_overrides(search)
    if text and input is not None:
        raise UsageError("both TEXT and --input", where="antiphon predict", cure="give one of them")
    members = [model, *takewhile(is_model, text)]
    text = text[len(members) - 1 :]
    sources = iter(text) if text else _lines(input)
    loaded = _load(",".join(members))
    usual = loaded.config.search
    nbest = overrides.get("nbest", usual.nbest)
    if "beam" not in overrides and not overrides.get("sample", usual.sample):
        overrides["beam"] = max(usual.beam, nbest)
    # A person at the keyboard wants an answer after every line.
    chunk = 1 if not text and input is None and sys.stdin.isatty() else _CHUNK
    console = stdout()
    answered = cut = strange = tabs = 0

    def answers() -> Iterator[str]:
        nonlocal answered, cut, strange, tabs
        while sources_now := list(islice(sources, chunk)):
            for source, prediction in zip(sources_now, loaded.predict(sources_now, **overrides), strict=True):
                answered += 1
                cut += prediction.truncated
                strange += prediction.unknown > 0
                tabs += "\t" in source
                if attention_png is not None and answered == 1:
                    _save_attention(prediction, attention_png, title=source)
                if json:
                    yield _json_text(as_record(source, prediction, attention=attention), line=True)
                elif nbest > 1:
                    for one in (prediction, *prediction.alternatives):
                        yield f"{answered}\t{one.score:.4f}\t{shown(one.text)}"
                else:
                    yield shown(prediction.text)
                if attention and not json:
                    # Beside answers in a file the drawing would be one more answer.
                    _draw_attention(prediction, stderr() if output is not None else console)

    if output is not None:
        write_lines(output, answers())
        note(f"{answered:,} answers in {output}")
    else:
        for line in answers():
            _print(line, raw=True)
    if tabs:
        note(f"{tabs:,} of {answered:,} sources have a TAB: all was read as the source; of pairs give the first column")
    if cut:
        most = loaded.max_source - 1
        note(f"{cut:,} of {answered:,} sources had more than {most:,} tokens: of those the last {most:,} were read")
    if strange:
        note(f"{strange:,} of {answered:,} sources have tokens that the vocabulary lacks: they were read as <unk>")


@app.command(sort_key=4)
def score(
    model: str,
    pairs: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    split: Part | None = None,
    json: _Switch = False,
) -> None:
    """log P(target | source) of each pair: nats TAB tokens (EOS counted) TAB source TAB target.

    Parameters
    ----------
    model
        A run or model folder, or a bundled model: dates; "A,B": the mean of several.
    pairs
        A file of pairs, or a folder made by antiphon data.
    split
        test, dev or train; without it, of a folder test, or dev where there is no test, and of a file all pairs. What
        has no dev part has what training holds out.
    json
        One JSON object a line: nats, tokens, source, target.
    """
    import math

    loaded = _load(model)
    chosen = _part(pairs, split, loaded)
    nats_total, tokens_total = 0.0, 0
    rest = iter(chosen)
    while some := list(islice(rest, _CHUNK)):
        for pair, nats, tokens in zip(some, *loaded.score_tokens(some), strict=True):
            nats_total, tokens_total = nats_total + float(nats), tokens_total + int(tokens)
            if json:
                record = {"nats": round(float(nats), 4), "tokens": int(tokens), **pair._asdict()}
                _print(_json_text(record, line=True), raw=True)
            else:
                _print(f"{nats:.4f}\t{tokens}\t{shown(pair.source)}\t{shown(pair.target)}", raw=True)
    mean = -nats_total / max(tokens_total, 1)
    perplexity = math.exp(min(mean, 700.0))
    note(f"{len(chosen):,} pairs, {nats_total:,.2f} nats, {tokens_total:,} tokens: perplexity {perplexity:,.2f}")


@app.command(sort_key=5)
def chat(
    model: str | None = None,
    /,
    *,
    transcript: Path | None = None,
    store: Annotated[str | None, Parameter(env_var="ANTIPHON_STORE")] = None,
    no_store: _Switch = False,
    search: BareSearchFlags = None,
) -> None:
    """Talk with MODEL; lines are read from standard input when it is not a terminal.

    Parameters
    ----------
    model
        A run or model folder, a bundled model, or several: "A,B" [default: the bundled bot].
    transcript
        A file the conversation is added to, as text or (*.jsonl) as JSON.
    store
        Keep every turn there, a file or postgresql://user@host/name; without it only what you judge by /good, /bad
        and /better is kept, in conversations.db.
    no_store
        Keep nothing.
    """
    from antiphon.runtime.bundled import bot

    chosen = model or str(bot())
    overrides = _search_overrides(search)
    from contextlib import nullcontext

    from antiphon.faces import chat as terminal
    from antiphon.faces.conversation import Conversation, Transcript

    loaded = _load(chosen)
    with nullcontext() if transcript is None else Transcript(transcript) as written:
        keepsake = None
        if not no_store:
            name = loaded.folder.resolve().name if loaded.folder is not None else "model"
            keepsake = terminal.Keepsake(store or CONVERSATIONS, name, all_turns=store is not None)
        terminal.chat(Conversation(loaded, search=overrides, transcript=written), loaded, keepsake)


@app.command(sort_key=6)
def serve(
    *model: str,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(converter=whole, validator=validators.Number(gte=0, lte=65535))] = 8000,
    token: Annotated[str | None, Parameter(env_var="ANTIPHON_TOKEN")] = None,
    store: Annotated[str | None, Parameter(env_var="ANTIPHON_STORE")] = None,
    no_store: _Switch = False,
    keep_days: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    rows: Annotated[int, Parameter(converter=whole, validator=validators.Number(gte=1, lte=4096))] = 128,
    queue: Annotated[int, Parameter(converter=whole, validator=validators.Number(gte=1, lte=65536))] = 256,
    seconds: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 30.0,
    threads: Annotated[int | None, Parameter(converter=whole, validator=validators.Number(gte=1))] = None,
) -> None:
    """A web page, and models for programs: OpenAI's chat completions, predictions, scores. Ctrl-C ends it.

    Parameters
    ----------
    model
        Run or model folders, or bundled models; the first is the default [default: the bundled bot, or dates].
    host
        The address to listen on; any but the loopback's wants a --token.
    port
        The port to listen on; 0: a free one.
    token
        What clients must send as "Authorization: Bearer …"; better given as $ANTIPHON_TOKEN, which ps does not show.
    store
        Where conversations are kept: a file, or postgresql://user@host/name [default: conversations.db].
    no_store
        Keep nothing.
    keep_days
        Forget conversations in which nothing was said for so many days.
    rows
        Answers decoded together.
    queue
        Answers that may wait; who comes then is told to come again.
    seconds
        Longest time an answer may take.
    threads
        Parts of a list of texts that each exported model works on at once; default: one for each core.
    """
    from antiphon.faces import service
    from antiphon.runtime.bundled import BOT, bundled

    service.serve(
        model or ((BOT,) if BOT in bundled() else ("dates",)),
        host=host,
        port=port,
        token=token,
        store=None if no_store else store or CONVERSATIONS,
        days=keep_days,
        rows=rows,
        queue=queue,
        seconds=seconds,
        threads=threads,
    )


@app.command(sort_key=7)
def conversations(
    action: Literal["list", "show", "export", "delete"],
    /,
    *id: str,
    store: Annotated[str, Parameter(env_var="ANTIPHON_STORE")] = CONVERSATIONS,
    out: Path | None = None,
    limit: Annotated[int, Parameter(converter=whole, validator=validators.Number(gte=1))] = 50,
    older_than: Annotated[float | None, Parameter(validator=validators.Number(gte=0))] = None,
    json: _Switch = False,
) -> None:
    """Conversations that were kept: list them, show some, export all or some, delete some.

    Parameters
    ----------
    action
        What to do.
    id
        Conversations, as list names them.
    store
        Where they are: a file, or postgresql://user@host/name.
    out
        (export) The file to write: .dialogue, a conversation a line, to learn from; else JSON, a turn a line.
    limit
        (list) So many, the last ones first.
    older_than
        (delete) All in which nothing was said for so many days.
    json
        (list) One JSON object a line.
    """
    from antiphon.faces import keeping

    for line in keeping.act(
        action, id, store=store or CONVERSATIONS, out=out, limit=limit, older_than=older_than, as_json=json
    ):
        _print(line, raw=True)


@app.command(sort_key=8)
def learn(
    run: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    store: Annotated[str, Parameter(name="--from", env_var="ANTIPHON_STORE")] = CONVERSATIONS,
    out: Path,
    model: str | None = None,
    minutes: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 3.0,
    seed: _Whole = 1,
    json: _Switch = False,
) -> None:
    """Learn from corrections and liked answers; a new run folder is made if it is better than RUN.

    Parameters
    ----------
    run
        A run folder.
    store
        Where conversations were kept: a file, or postgresql://user@host/name.
    out
        The run folder to make.
    model
        The name the model was served by [default: the run folder's].
    minutes
        Time budget.
    seed
        Decides what is held out to judge by.
    json
        Print the comparison as one JSON object.
    """
    from dataclasses import asdict

    from antiphon.conversations import Conversations
    from antiphon.learning import learn as teach

    def told(look: Any) -> None:
        held = f", of those held out {look.held:.0%}" if look.held or look.update else ""
        note(
            f"after {look.update:,} updates ({look.seconds:.0f} s): dev loss {look.dev_loss:.4f}, corrections "
            f"answered as corrected {look.learnt:.0%}{held}"
        )

    kept = Conversations(store or CONVERSATIONS, create=False)
    report = teach(run, kept, out, name=model, minutes=minutes, seed=seed, observer=told)
    if json:
        _print(_json_text(asdict(report)), raw=True)
    else:
        rows = [("", "before", "after")]
        rows += [(name, f"{report.before[name]:.4f}", f"{report.after[name]:.4f}") for name in report.before]
        for line in table(rows, right=(1, 2)):
            _print(line)
    if report.too_long:
        note(f"{report.too_long:,} are longer than what the model was trained on, and were left out")
    if report.better:
        note(f"better: {report.reason}; the new run is {out}")
    else:
        note(f"not better: {report.reason}; {run} stays what it was, and {out} was not made")


@app.command(sort_key=9)
def export(
    run: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    out: Path,
    quantize: Literal["int8"] | None = None,
) -> None:
    """Make a model folder that answers without PyTorch.

    Parameters
    ----------
    run
        A run folder.
    out
        The model folder to make.
    quantize
        Weights as whole numbers: smaller, faster, a little worse; says how much.
    """
    try:
        from antiphon.export.folder import export as write
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("onnx", "safetensors"):
            raise
        raise MissingExtraError("exporting", "train") from None
    made = write(run, out, quantise=quantize)
    note(f"{made.folder}: {made.size / 1e6:.1f} MB; no log-probability differs by more than {made.difference:.1g} nats")
    if made.losses is not None:
        before, after = made.losses
        note(f"dev loss {before:.4f} before, {after:.4f} now; {made.same:.1%} of the dev answers are the same")
    note(f'try it: antiphon predict {made.folder} "some text"')


@app.command(sort_key=10)
def inspect(
    path: Annotated[str, Parameter(name="DATA|RUN|MODEL")],
    /,
    *,
    preset: str | None = None,
    png: Path | None = None,
    json: _Switch = False,
    data: DataFlags = None,
) -> None:
    """Lengths and buckets of data; knobs, curve and sizes of a run; sizes and vocabulary of a model.

    Parameters
    ----------
    path
        Data as train takes it, a run folder or a model folder.
    preset
        The knobs data is looked at with; auto by default.
    png
        Where the curve of a run is drawn [default: curve.png in it].
    json
        Print the facts as one JSON object.
    """
    from antiphon.faces import inspection

    kind = inspection.kind_of(path)
    if kind != "data" and (preset is not None or given(data)):
        raise UsageError("knobs to look at data with, but a model has its own", where=path, cure="leave them out")
    if kind == "data":
        facts = inspection.data_facts(path, preset, {"data": given(data)})
        lines = inspection.data_lines(facts)
    else:
        facts = inspection.folder_facts(path)
        lines = inspection.folder_lines(facts)
    if json:
        _print(_json_text(facts), raw=True)
        return
    for line in lines:
        _print(line)
    if facts["kind"] == "run":
        _print("")
        inspection.show_curve(path, stdout())
        try:
            drawn = inspection.save_curve(path, png)
            if drawn or png is not None:
                note(f"the curve as a picture: {drawn}" if drawn else f"no curve yet, so {png} was not made")
        except SaveError as error:
            if png is not None:
                raise
            note(f"warning: no picture of the curve: {error}")  # a run that may only be read


# What the commands share.


def _in_one_line(error: CycloptsError, tokens: Sequence[str]) -> str:
    """A fault of the command line as `what; the cure`."""
    command = next((token for token in tokens if not token.startswith("-")), "")
    asked = f"antiphon {command} --help" if command in app else "antiphon --help"
    if isinstance(error, UnusedCliTokensError):
        first = (error.unused_tokens or [""])[0]
        return f'unexpected argument "{first}"; see {asked}'
    text = " ".join(str(error).split())
    text = text.partition(" Available commands")[0]  # of which it names a few
    what, *cure = re.split(r"\. (?=Did you mean|Choose from)", text, maxsplit=1)
    what = what[:1].lower() + what[1:].rstrip(".")
    if isinstance(error, UnknownOptionError):
        what = what.split(". ")[0].replace("option: ", "option ")
        option = what.rpartition(" ")[2].partition("=")[0]
        if "." in option:  # a knob, perhaps in another group than was thought
            cure = [f"did you mean {flag}?" for flag in nearest(option) if flag != option]
    advice = cure[0][:1].lower() + cure[0][1:].rstrip(".") if cure else f"see {asked}"
    return f"{what}; {advice}"


def _search_overrides(flags: Any) -> dict[str, Any]:
    """The search flags that were given, checked before any model is loaded. Raises UsageError."""
    overrides = given(flags)
    parse_config({"search": overrides})
    return overrides


def _load(folder: str) -> Model:
    from antiphon.model import load

    return load(*([folder] if os.path.exists(folder) else folder.split(",")))


def _part(data: str, part: Part | None, model: Model, *, unseen: bool = False) -> list[Pair]:
    """The pairs of `evaluation.pairs_for`, and a word on which they are. Raises DataError, UsageError."""
    from antiphon.evaluation import pairs_for

    place, pairs = pairs_for(model, data, part, unseen=unseen)
    if place != data:
        note(f"on {place}")
    return pairs


def _lines(path: Path | None) -> Iterator[str]:
    """Lines of a file or of standard input. Raises DataError."""
    if path is None:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path), cure="check the path") from None
    except UnicodeDecodeError:
        cure = "convert it: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        raise DataError("not UTF-8", where=str(path), cure=cure) from None


def _draw_attention(prediction: Prediction, console: Any) -> None:
    from antiphon.faces.heatmap import draw_attention

    sys.stdout.flush()
    draw_attention(prediction.source_tokens, prediction.tokens, prediction.attention, console)


def _save_attention(prediction: Prediction, path: Path, *, title: str) -> None:
    from antiphon.faces.heatmap import save_attention

    save_attention(prediction.source_tokens, prediction.tokens, prediction.attention, path, title=title)
    note(f"the attention as a picture: {path}")


def _score(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _json_text(tree: Any, *, line: bool = False) -> str:
    return escaped(json.dumps(tree, ensure_ascii=False, indent=None if line else 2))


def _print(text: str, *, raw: bool = False) -> None:
    """One line (raw: as it is) of results."""
    print(text if raw else shown(text), flush=sys.stdout.isatty())
