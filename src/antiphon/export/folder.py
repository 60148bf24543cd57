"""`antiphon export`: the graphs, the tokenizer, the knobs and the card, checked against the run they come from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from antiphon.data.tokenizer import BOS, EOS, PAD, TURN_ID
from antiphon.errors import FolderError
from antiphon.export.graph import encoder_graph, step_graph
from antiphon.model import Model, load
from antiphon.runtime import folder as files

TOLERANCE = 2e-3
"""Most that a log-probability of the exported model may differ from the run's, in nats."""
TRIALS = 8


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    folder: Path
    size: int
    """Bytes of the graphs."""
    difference: float
    """Largest difference of a log-probability between run and export, in nats."""


def export(run: str | Path, out: str | Path) -> Exported:
    """Writes a model folder that answers without PyTorch.

    Args:
        run: a run folder.
        out: a folder to make; nothing may be in it.

    Raises:
        FolderError: the run is missing or damaged, ``out`` holds something, or the export does not compute what the
            run computes (nothing is left behind then).
        SaveError: the disk refuses.
    """
    source, target = Path(run), Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderError("the folder exists already", where=str(target), cure="choose another --out")
    original = load(source)
    if (source / files.GRAPHS).is_dir():
        raise FolderError("exported already", where=str(source), cure="give the run folder it was made from")
    weights = load_file(source / files.WEIGHTS)
    graphs = {files.ENCODER: encoder_graph(original.config, weights), files.STEP: step_graph(original.config, weights)}
    try:
        (target / files.GRAPHS).mkdir(parents=True, exist_ok=True)
        for name, graph in graphs.items():
            content = graph.SerializeToString()
            files.write_atomically(target / files.GRAPHS / name, lambda path, content=content: _write(path, content))
        for name in (files.TOKENIZER, files.SOURCE_TOKENIZER, files.TARGET_TOKENIZER, files.CONFIG, files.CARD):
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
        difference = compare(original, load(target))
        if not difference <= TOLERANCE:
            raise FolderError(
                f"the export differs from the run by {difference:.4f} nats",
                where=str(target),
                cure="this is a fault of Antiphon; please report it",
            )
    except Exception:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return Exported(target, sum((target / files.GRAPHS / name).stat().st_size for name in graphs), difference)


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
        worst = max(worst, float(np.abs(found[0] - found[1]).max()))
    return worst


def _texts(rng: np.random.Generator, rows: int, vocabulary: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids (rows, length) that end with EOS, padded, and their lengths."""
    lengths = rng.integers(1, longest + 1, rows)
    ids = rng.integers(min(TURN_ID, vocabulary - 1), vocabulary, (rows, int(lengths.max())))
    place = np.arange(ids.shape[1])
    ids = np.where(place < lengths[:, None] - 1, ids, np.where(place == lengths[:, None] - 1, EOS, PAD))
    return ids.astype(np.int64), lengths.astype(np.int64)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
