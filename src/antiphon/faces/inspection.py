"""What there is to know about data, a run or a model: facts as a JSON-ready tree, and the same facts as lines."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from antiphon.config import Config
from antiphon.errors import FolderError, UsageError
from antiphon.faces.curve import draw_curve, print_curve
from antiphon.faces.screen import bar, duration, shown, size, table
from antiphon.runtime import folder as files
from antiphon.runtime.bundled import is_model, resolved
from antiphon.training.progress import read_log

if TYPE_CHECKING:
    from rich.console import Console

    from antiphon.data.pairs import Card, Pair

_GROUPS = ("data", "model", "train", "search")
_ROWS = 12
_BAR = 32
_HEADER_MOST = 64 << 20
"""Largest header of a weights file we read, in bytes; an honest one has a few kilobytes."""


def kind_of(path: str) -> str:
    """``"data"``, ``"run"`` (a folder with a log) or ``"model"``. Raises UsageError where there are several."""
    folder, several = resolved(path), path.split(",")
    if not is_model(folder):
        if len(several) > 1 and all(is_model(resolved(one)) for one in several):
            raise UsageError("several models", where=path, cure="look at one of them at a time")
        return "data"
    return "run" if (folder / files.LOG).is_file() else "model"


# Data.


def data_facts(path: str, preset: str | None, asked: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Counts, lengths in tokens and the buckets a run with this preset and these knobs would use.

    Trains the tokenizer on the training pairs and chooses buckets just as training does.

    Raises:
        DataError: as `read_corpus`.
    """
    from antiphon.data.automatic import known, settle
    from antiphon.data.corpus import read_corpus

    config = known(preset, asked)
    corpus = read_corpus(path, context=config.data.context, dev_pairs=config.data.dev_pairs)
    config, chosen = settle(corpus.train, preset, asked)
    from antiphon.training.preparation import prepare  # which imports PyTorch: after what a slip would end

    knobs = config.model_dump(mode="json", exclude_unset=True)
    config = config.model_copy(update={"data": config.data.model_copy(update={"ids": None})})  # nothing is left behind
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(corpus, config, Path(scratch))
        source, target, pairs = prepared.train.lengths.T
        report = prepared.report()
    facts: dict[str, Any] = {
        "kind": "data",
        "path": path,
        "pairs": {"train": len(corpus.train), "dev": len(corpus.dev), "test": len(corpus.test)},
        "skipped": corpus.skipped,
        "chosen": chosen,
        "knobs": knobs,
    }
    if corpus.card is not None:
        facts |= {key: getattr(corpus.card, key) for key in ("name", "origin", "licence", "citation")}
    return facts | {
        "vocabulary": {"source": prepared.source_tokenizer.size, "target": prepared.target_tokenizer.size},
        "lengths": {"source": _lengths(source + 1, pairs), "target": _lengths(target + 1, pairs)},  # EOS is counted
        "buckets": [
            {"source": bucket.source, "target": bucket.target, "pairs": pairs, "rows": count}
            for bucket, pairs, count in zip(report.buckets, report.pairs, prepared.rows, strict=True)
        ],
        "padding": {
            "source": round(report.padding_source, 4),
            "target": round(report.padding_target, 4),
            "both": round(report.padding, 4),
        },
        "updates_per_epoch": sum(report.batches),
        "too_long": report.too_long,
        "cut": config.data.too_long == "truncate",
    }


def data_lines(facts: Mapping[str, Any]) -> list[str]:
    """`data_facts` to be read by a person."""
    pairs = facts["pairs"]
    lines = [f"{facts['path']}: {pairs['train']:,} pairs to learn from, {pairs['dev']:,} dev, {pairs['test']:,} test"]
    if "name" in facts:
        lines.append(f"{facts['name']}, {facts['origin']} ({facts['licence']})")
    lines += [f"left out: {number:,} {reason}" for reason, number in facts["skipped"].items()]
    if facts["chosen"]:
        lines.append(f"auto takes them for {facts['chosen']}")
    for group, knobs in facts["knobs"].items():
        lines += [f"{group}: " + ", ".join(f"{key} {value}" for key, value in knobs.items())] if knobs else []
    vocabulary = facts["vocabulary"]
    lines.append(f"vocabulary: {vocabulary['source']:,} source, {vocabulary['target']:,} target tokens")
    for side in ("source", "target"):
        lines += [
            "",
            *_histogram_lines(f"{side} length in tokens, {_counted(facts['knobs'], side)}", facts["lengths"][side]),
        ]
    lines += ["", "buckets"]
    most = max(bucket["pairs"] for bucket in facts["buckets"])
    columns = ("source", "target", "pairs", "rows")
    rows = [[*columns, ""]]
    for bucket in facts["buckets"]:
        rows.append([*(f"{bucket[key]:,}" for key in columns), bar(bucket["pairs"] / (most or 1), _BAR)])
    lines += [f"  {line}" for line in table(rows, right=(0, 1, 2, 3))]
    padding = facts["padding"]
    lines.append(f"padding {padding['both']:.1%} (source {padding['source']:.1%}, target {padding['target']:.1%})")
    lines.append(f"{facts['updates_per_epoch']:,} updates an epoch")
    if facts["too_long"]:
        fate = "cut" if facts["cut"] else "left out"
        lines.append(f"{facts['too_long']:,} pairs are longer than the largest bucket: {fate}")
    return [shown(line) for line in lines]


def corpus_lines(card: Card, train: Iterable[Pair], out: Path) -> list[str]:
    """What `antiphon data` says of a folder it made: counts, terms, what was left out, lengths."""
    counts = ", ".join(f"{number:,} {part}" for part, number in card.counts.items())
    lines = [f"{card.name} → {out}: {counts}", f"origin    {card.origin}", f"licence   {card.licence}"]
    lines.append(f"citation  {card.citation}")
    lines += [f"skipped   {number:,} {reason}" for reason, number in card.skipped.items()]
    if card.note:
        lines.append(f"note      {card.note}")
    spaced, characters, words = [0, 0], [Counter[int](), Counter[int]()], [Counter[int](), Counter[int]()]
    for pair in train:
        for side, text in enumerate(pair):
            spaced[side] += " " in text
            characters[side][len(text)] += 1
            words[side][len(text.split())] += 1
    for side, name in enumerate(("source", "target")):
        # Spelled words (pronunciation, inflection) are one "word" each: their characters are what varies.
        spelled = spaced[side] * 20 < words[side].total()
        unit, counts = ("characters", characters[side]) if spelled else ("words", words[side])
        lengths = _lengths(np.array(list(counts)), np.array(list(counts.values())))
        lines += ["", *_histogram_lines(f"{name} length in {unit}", lengths)]
    return [shown(line) for line in lines]


def _lengths(lengths: np.ndarray, pairs: np.ndarray) -> dict[str, Any]:
    """Summary and histogram ([from, to, pairs], the last one up to the longest) of lengths that so many pairs have."""
    order = np.argsort(lengths)
    lengths, pairs = lengths[order], pairs[order]
    reached = np.cumsum(pairs) / pairs.sum()

    def quantile(share: float) -> int:
        return int(lengths[np.searchsorted(reached, share - 1e-12)])

    shortest, longest, most = int(lengths[0]), int(lengths[-1]), quantile(0.99)
    width = -(-(most - shortest + 1) // _ROWS)
    rows = []
    for first in range(shortest, most + 1, width):
        last = first + width - 1
        rows.append([first, last, int(pairs[(lengths >= first) & (lengths <= last)].sum())])
    if longest > rows[-1][1]:
        beyond = rows[-1][1] + 1
        rows.append([beyond, longest, int(pairs[lengths >= beyond].sum())])
    return {
        "mean": round(float(np.average(lengths, weights=pairs)), 2),
        "median": quantile(0.5),
        "p95": quantile(0.95),
        "longest": longest,
        "histogram": rows,
    }


def _counted(knobs: Mapping[str, Mapping[str, Any]], side: str) -> str:
    """What lengths are of that a user did not write."""
    marks = side == "target" and knobs.get("model", {}).get("attention") == "monotonic"
    made = any(knobs.get("data", {}).get(name) for name in ("joined", "hallucinated", "placeholders"))
    what = f"EOS{' and a mark for each source token' if marks else ''} counted"
    return f"{what}, pairs that are made up among them" if made else what


def _histogram_lines(title: str, lengths: Mapping[str, Any]) -> list[str]:
    summary = f"median {lengths['median']:,}, 95 % up to {lengths['p95']:,}, longest {lengths['longest']:,}"
    most = max(count for *_, count in lengths["histogram"]) or 1
    rows = [
        (f"{first}–{last}" if first < last else f"{first}", f"{count:,}", bar(count / most, _BAR))
        for first, last, count in lengths["histogram"]
    ]
    return [f"{title}: {summary}", *(f"  {line}" for line in table(rows, right=(0, 1)))]


# Runs and models.


def folder_facts(path: str) -> dict[str, Any]:
    """Knobs that differ from the defaults, sizes, vocabulary, and how far training came.

    Raises:
        FolderError: no such folder, or damaged.
    """
    folder = resolved(path)
    config, facts = files.read_config(folder)
    log = read_log(folder / files.LOG)
    names = sorted(entry for entry in folder.rglob("*") if entry.is_file() and not entry.name.startswith("."))
    return {
        "kind": kind_of(path),
        "path": path,
        "changed": changed_knobs(config),
        "facts": facts,
        "weights": _weights(folder / files.WEIGHTS),
        "vocabulary": _vocabulary(folder),
        "files": {entry.relative_to(folder).as_posix(): entry.stat().st_size for entry in names},
        **_training_facts(log),
    }


def folder_lines(facts: Mapping[str, Any]) -> list[str]:
    """`folder_facts` to be read by a person."""
    preset = facts["facts"].get("preset")
    lines = [f"{facts['path']}: a {facts['kind']}{f' by the preset {preset}' if preset else ''}"]
    members = facts["facts"].get(files.MEMBERS, 1)
    if facts["facts"].get(files.STUDENT) is True:
        answers = f"antiphon inspect {Path(facts['path']) / files.STUDENT}"
        lines.append(
            f"models      {members}, and the one that has learnt from them, which answers ({answers}); of the first:"
        )
    elif members != 1:
        lines.append(f"models      {members} that answer together; of the first:")
    if facts["weights"] is not None:
        weights = facts["weights"]
        lines.append(f"weights     {weights['count']:,} ({', '.join(weights['formats'])})")
    for side, vocabulary in facts["vocabulary"].items():
        lines.append(f"vocabulary  {vocabulary['size']:,} tokens, {vocabulary['kind']} ({side})")
    if facts["updates"]:
        lines.append(f"trained     {facts['updates']:,} updates in {duration(facts['seconds'])}: {facts['stopped']}")
    if facts["best"] is not None:
        best = facts["best"]
        lines.append(f"best dev    {best['metric']} {best['score']:.3f} after {best['update']:,} updates")
    changed = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in facts["changed"].items()]
    lines += ["", "knobs that differ from the defaults", *(f"  {line}" for line in changed or ["none"])]
    lines += ["", "files"]
    lines += [
        f"  {line}" for line in table([(name, size(count)) for name, count in facts["files"].items()], right=(1,))
    ]
    return [shown(line) for line in lines]


def show_curve(path: str | Path, console: Console) -> None:
    """Print the curve of a run folder."""
    print_curve(read_log(Path(path) / files.LOG), console)


def save_curve(path: str | Path, png: Path | None = None) -> Path | None:
    """Write the curve of a run folder as a PNG, by default ``curve.png`` in it; None while there is no point to draw.
    See `draw_curve` for what it raises."""
    target = png or Path(path) / "curve.png"
    return target if draw_curve(read_log(Path(path) / files.LOG), target) else None


def changed_knobs(config: Config) -> dict[str, Any]:
    """The knobs whose values are not the defaults, ``{"model.cell": "gru"}``."""
    usual, mine = Config().model_dump(mode="json"), config.model_dump(mode="json")
    return {
        f"{group}.{name}": value
        for group in _GROUPS
        for name, value in mine[group].items()
        if value != usual[group][name]
    }


def _training_facts(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = {"updates": 0, "seconds": 0.0, "stopped": "not stopped in order", "best": None}
    for record in log:
        if "seconds" in record:
            facts |= {"updates": record["update"], "seconds": record["seconds"], "stopped": "not stopped in order"}
        if record.get("event") == "stopped":
            facts["stopped"] = record["reason"]
        if record.get("event") == "validated" and record["best"]:
            facts["best"] = {key: record[key] for key in ("metric", "score", "update", "dev_loss")}
    return facts


def _weights(path: Path) -> dict[str, Any] | None:
    """Number and formats, from the header alone; None where there are no such weights."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _HEADER_MOST:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        count = sum(int(np.prod(entry["shape"], dtype=np.int64)) for entry in tensors)
        return {"count": count, "formats": sorted({str(entry["dtype"]).lower() for entry in tensors})}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FolderError(f"damaged weights ({error})", where=str(path), cure="train or copy the model again") from None


def _vocabulary(folder: Path) -> dict[str, dict[str, Any]]:
    source, target = files.read_tokenizers(folder)
    sides = {"both sides": source} if source is target else {"source": source, "target": target}
    return {side: {"size": tokenizer.size, "kind": tokenizer.kind} for side, tokenizer in sides.items()}
