"""`antiphon export`: the graphs, the tokenizer, the knobs and the card, checked against the run they come from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import load_file

from antiphon.data.batches import padded
from antiphon.data.store import Shards, is_there
from antiphon.data.tokenizer import BOS, EOS, PAD, TURN_ID
from antiphon.errors import FolderError, SaveError
from antiphon.export.graph import encoder_graph, step_graph
from antiphon.model import Model, load_one
from antiphon.runtime import folder as files
from antiphon.runtime.bundled import resolved
from antiphon.search import greedy

TOLERANCE = 2e-3
"""Most that a log-probability of an export in f32 may differ from the run's, in nats."""
WORSE = 0.02
"""Most that a quantised export's dev loss may be above the run's, in nats per token."""
TRIALS = 8
DEV = 300
"""Dev pairs on which a quantised export is compared with the run."""


@dataclass(frozen=True)
class Exported:
    """What an export made; of several models together."""

    folder: Path
    size: int
    """Bytes of the graphs."""
    difference: float
    """Largest difference of a log-probability between run and export, in nats."""
    losses: tuple[float, float] | None
    """Mean dev loss in nats per token of run and export, if it is quantised and the run's dev ids are there."""
    same: float
    """Share of dev sources that both answer alike, if so (else 1)."""


def export(run: str | Path, out: str | Path, *, quantise: Literal["int8"] | None = None) -> Exported:
    """Writes a model folder that answers without PyTorch; of a run of several models that answer together, all.

    Args:
        run: a run folder.
        out: a folder to make; nothing may be in it.
        quantise: weights as whole numbers; smaller than a third, faster, and a little worse: how much is measured.

    Raises:
        FolderError: the run is missing or damaged, ``out`` holds something, or the export does not compute what the
            run computes (nothing is left behind then).
        SaveError: the disk refuses.
    """
    source, target = resolved(run), Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderError("the folder exists already", where=str(target), cure="choose another --out")
    _, facts = files.read_config(source)
    places = files.members(source, facts)
    found = []
    try:
        for number, place in enumerate(places, start=1):
            found.append(_export_one(place, files.member(target, number), quantise))
    except BaseException:  # also Ctrl-C: what was not compared is no model
        if found:
            shutil.rmtree(target, ignore_errors=True)
        raise
    losses = [each.losses for each in found if each.losses]
    return Exported(
        target,
        size=sum(each.size for each in found),
        difference=max(each.difference for each in found),
        losses=(float(np.mean([before for before, _ in losses])), float(np.mean([after for _, after in losses])))
        if losses
        else None,
        same=float(np.mean([each.same for each in found])),
    )


def _export_one(source: Path, target: Path, quantise: Literal["int8"] | None) -> Exported:
    original = load_one(source)
    if (source / files.GRAPHS).is_dir():
        raise FolderError("exported already", where=str(source), cure="give the run folder it was made from")
    weights = load_file(source / files.WEIGHTS)
    config, quantised = original.config, quantise is not None
    graphs = {
        files.ENCODER: encoder_graph(config, weights, quantised=quantised),
        files.STEP: step_graph(config, weights, quantised=quantised),
    }
    try:
        (target / files.GRAPHS).mkdir(parents=True, exist_ok=True)
        for name, graph in graphs.items():
            content = graph.SerializeToString()
            files.write_atomically(target / files.GRAPHS / name, lambda path, content=content: _write(path, content))
        for name in (files.TOKENIZER, files.SOURCE_TOKENIZER, files.TARGET_TOKENIZER, files.CONFIG):
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
        made = load_one(target)
        difference, losses, same = compare(original, made), None, 1.0
        if quantised and is_there(files.ids_of(original.config, source), "dev"):
            losses, same = on_dev(original, made, source)
        worse = losses[1] - losses[0] if losses else 0.0
        if not difference <= (np.finfo(np.float64).max if quantised else TOLERANCE) or not worse <= WORSE:
            raise FolderError(
                f"the export differs from the run: by {difference:.4f} nats at most, dev loss by {worse:.4f}",
                where=str(target),
                cure="export without --quantize" if quantised else "this is a fault of Antiphon; please report it",
            )
        written = files.read_card(source, title=target)
        files.write_text(target / files.CARD, f"{written.rstrip()}\n\n{_sentence(quantise, losses, same)}\n")
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError):
            cure = "check space and rights, or choose another --out"
            raise SaveError(f"cannot export ({error.strerror or error})", where=str(target), cure=cure) from None
        raise
    size = sum((target / files.GRAPHS / name).stat().st_size for name in graphs)
    return Exported(target, size, difference, losses, same)


def _sentence(quantise: str | None, losses: tuple[float, float] | None, same: float) -> str:
    """What the card says of the export."""
    if quantise is None:
        return "Exported in f32: it answers without PyTorch."
    cost = ""
    if losses is not None:
        before, after = losses
        cost = f": dev loss {before:.4f} nats per token before, {after:.4f} after, {same:.1%} of dev answers the same"
    return f"Exported in {quantise}, it answers without PyTorch{cost}."


def compare(one: Model, other: Model) -> float:
    """Largest difference, in nats, of log P of a token between two models, over random sources, lengths and rows."""
    rng = np.random.default_rng(1)
    worst = 0.0
    for trial in range(TRIALS):
        rows = int(rng.integers(1, 6))
        src, src_len = _texts(rng, rows, one.source_tokenizer.size, one.max_source if trial == 1 else 24)
        out, _ = _texts(rng, rows, one.target_tokenizer.size, 12)
        tgt_in = np.concatenate((np.full((rows, 1), BOS), np.where(out == EOS, PAD, out)[:, :-1]), axis=1)
        found = [model.engine.score(src, src_len, tgt_in, out) for model in (one, other)]
        worst = float(np.maximum(worst, np.abs(found[0] - found[1]).max()))  # NaN stays
    return worst


def on_dev(one: Model, other: Model, run: Path) -> tuple[tuple[float, float], float]:
    """Nats per token of both on the run's first dev pairs, and the share of sources both answer alike (greedily)."""
    stores = Shards.open(files.ids_of(one.config, run), "dev").shard(0)
    step = -1 if one.config.data.reverse_source else 1
    most, count = one.max_source - 1, min(DEV, len(stores[0]))
    sources = [stores[0][row][-most:].tolist()[::step] for row in range(count)]
    targets = [stores[1][row].tolist() for row in range(count)]
    nats, tokens, same = [0.0, 0.0], 0, 0
    for start in range(0, count, 32):
        src = padded([[*ids, EOS] for ids in sources[start : start + 32]])
        src_len = (src != PAD).sum(axis=1)
        tgt_out = padded([[*ids, EOS] for ids in targets[start : start + 32]])
        tgt_in = padded([[BOS, *ids] for ids in targets[start : start + 32]])
        tokens += int((tgt_out != PAD).sum())
        answers = []
        for index, model in enumerate((one, other)):
            nats[index] -= float(model.engine.score(src, src_len, tgt_in, tgt_out).sum())
            limits = np.full(len(src), model.max_target)
            answers.append(greedy(model.engine, src, src_len, model.config.search, limits))
        same += sum(mine[0].ids == yours[0].ids for mine, yours in zip(*answers, strict=True))
    return (nats[0] / tokens, nats[1] / tokens), same / count


def _texts(rng: np.random.Generator, rows: int, vocabulary: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids (rows, length) that end with EOS, padded, and their lengths."""
    lengths = rng.integers(1, longest + 1, rows)
    ids = rng.integers(min(TURN_ID, vocabulary - 1), vocabulary, (rows, int(lengths.max())))
    place = np.arange(ids.shape[1])
    ids = np.where(place < lengths[:, None] - 1, ids, np.where(place == lengths[:, None] - 1, EOS, PAD))
    return ids.astype(np.int64), lengths.astype(np.int64)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
