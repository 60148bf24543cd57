"""What a run begins with, or goes on with: its knobs and its data, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon.config import Config, override, parse_config
from antiphon.data.automatic import Overrides, known, settle
from antiphon.data.corpus import Corpus, read_corpus
from antiphon.errors import FolderError, UsageError
from antiphon.runtime import folder as files
from antiphon.training.checkpoint import RESUMABLE
from antiphon.training.preparation import Prepared, unknown_share
from antiphon.training.teachers import check_teachers

_NONE_SUCH = object()
_PRESET_SUM = "preset_sha256"
"""Fact: of the preset's file, where it is one."""


def begin_anew(
    data: str | Path, folder: Path, preset: str | None, overrides: Overrides | None
) -> tuple[Config, Corpus, str]:
    """A new run: its knobs, its corpus, what `auto` saw; the folder is made last, when both are known to be good."""
    files.refuse_taken(folder)
    config = known(preset, overrides or {})
    check_teachers(config)  # a slip is told before hours of reading
    corpus = _read(data, config)
    context = (overrides or {}).get("data", {}).get("context")
    if corpus.card is not None and context not in (None, corpus.card.context):
        raise UsageError(
            f"the turns of {data} were joined already, with a context of {corpus.card.context}",
            where="--data.context",
            cure="leave it out, or make the folder again with that context (antiphon data NAME --context N)",
        )
    config, reason = settle(corpus.train, preset, overrides or {})
    if corpus.card is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"context": corpus.card.context})})
    _make(folder)
    return config, corpus, reason


def begin_alike(data: str | Path, folder: Path, config: Config) -> tuple[Config, Corpus, str]:
    """A new run with the knobs of another on the same data."""
    files.refuse_taken(folder)
    check_teachers(config)
    corpus = _read(data, config)
    _make(folder)
    return config, corpus, ""


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make the folder ({error})", where=str(folder), cure="choose another --out") from None


def knobs_again(folder: Path, preset: str | None, overrides: Overrides | None) -> tuple[Config, dict[str, Any]]:
    """A run that goes on: its own knobs, but for those that may change, and its facts; nothing is chosen anew."""
    files.refuse_new(folder)
    config, facts = files.read_config(folder)
    if preset is not None and preset != facts.get("preset"):
        raise UsageError(
            f'the run was begun with preset "{facts.get("preset")}"', where="--preset", cure="leave it out"
        )
    wanted = dict(overrides or {})
    if isinstance(wanted.get("data", {}).get("buckets"), int):  # so many were chosen when the run began
        wanted["data"] = {key: value for key, value in wanted["data"].items() if key != "buckets"}
    tree = config.model_dump()
    override(tree, wanted)
    changed, fault = None, None
    try:
        changed = parse_config(tree)
    except UsageError as error:  # perhaps only since it goes with a knob that stays
        fault = error
    for group, values in wanted.items():
        for key in [name for name in values if group != "train" or name not in RESUMABLE]:
            own = getattr(getattr(config, group, None), key, _NONE_SUCH)
            new = values[key] if changed is None else getattr(getattr(changed, group), key)
            if own not in (new, _NONE_SUCH):
                where = f"--{group}.{key}"
                raise UsageError("a knob that a resumed run cannot change", where=where, cure="leave it out")
    if changed is None:
        assert fault is not None
        raise fault
    return changed, facts


def not_read_again(folder: Path, preset: str | None) -> list[str]:
    """In words, that a preset's file was changed since a run began which goes on as it was."""
    was = files.read_config(folder)[1].get(_PRESET_SUM)
    if preset is None or was in (None, _sum_of(preset)):
        return []
    return [f"{preset} is not what it was when the run began, and is not read again: what is to change is a flag"]


def _sum_of(preset: str | None) -> str:
    """Of a preset's own file, its sha256; empty if it is none, or not there."""
    return files.digest(Path(preset)) if preset is not None and preset.endswith(".toml") else ""


def begin_again(
    data: str | Path, folder: Path, preset: str | None, overrides: Overrides | None
) -> tuple[Config, Corpus, str]:
    """A run that goes on, and its own data."""
    config, facts = knobs_again(folder, preset, overrides)
    corpus = _read(data, config)
    if corpus.fingerprint != facts.get("fingerprint"):
        before, now = facts.get("train_pairs"), len(corpus.train)
        differ = (
            f"{now:,} pairs to learn from, there were {before:,}" if isinstance(before, int) and now != before else ""
        )
        raise FolderError(
            f"the data is not what this run was begun with ({differ or 'as many pairs, but not the same'})",
            where=str(data),
            cure="give the data it was begun with, or start anew with another --out",
        )
    _refuse_other_tokenizer(folder, files.sums_of(facts))
    return config, corpus, ""


def _refuse_other_tokenizer(folder: Path, sums: Mapping[str, str]) -> None:
    names = {files.TOKENIZER, files.SOURCE_TOKENIZER, files.TARGET_TOKENIZER}
    if other := files.changed(folder, {name: sums[name] for name in names & sums.keys()}):
        raise FolderError(
            "the tokenizer is not what this run was begun with",
            where=str(folder / other[0]),
            cure="put it back, or start anew with another --out",
        )


def _read(data: str | Path, config: Config) -> Corpus:
    wish = config.data
    return read_corpus(data, context=wish.context, dev_pairs=wish.dev_pairs)


def write_config(folder: Path, preset: str | None, prepared: Prepared, corpus: Corpus) -> None:
    """The knobs of a prepared run and the facts of its data, into its folder."""
    facts = {
        "preset": preset,
        **({_PRESET_SUM: found} if (found := _sum_of(preset)) else {}),
        "fingerprint": corpus.fingerprint,
        files.LEARNT_FROM: dataclasses.asdict(corpus.learnt(prepared.config.data.dev_pairs)),
        "train_pairs": len(corpus.train),
        "dev_pairs": len(prepared.dev_pairs),
        "source_vocabulary": prepared.source_tokenizer.size,
        "target_vocabulary": prepared.target_tokenizer.size,
        "unknown_share": unknown_share(prepared.train),
        "corpus": None if corpus.card is None else dataclasses.asdict(corpus.card),
        files.SUMS: files.digests(folder),
    }
    files.write_config(folder, prepared.config, facts)
