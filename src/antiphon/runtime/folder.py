"""A run or model folder: its files, written atomically, read with bounds, locked while in use.

config.json          every knob, version, facts of the data
tokenizer.json       or source.tokenizer.json and target.tokenizer.json
model.safetensors    the best averaged weights
onnx/                encoder.onnx and step.onnx: an exported model, which needs no PyTorch
state.safetensors    weights, optimizer, random state and counters to go on from
state.before.safetensors  the same of an earlier validation, to go back to
log.jsonl            the events of training, one a line
ids/                 the corpus as shards of token ids, unless data.ids is another place
README.md            the model card
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from antiphon.config import MOST_MEMBERS, Config, parse_config
from antiphon.data.tokenizer import Tokenizer
from antiphon.errors import FolderError, SaveError, UsageError
from antiphon.version import VERSION

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
SOURCE_TOKENIZER = "source.tokenizer.json"
TARGET_TOKENIZER = "target.tokenizer.json"
WEIGHTS = "model.safetensors"
STATE = "state.safetensors"
BEFORE = "state.before.safetensors"
LOG = "log.jsonl"
IDS = "ids"
CARD = "README.md"
GRAPHS = "onnx"
ENCODER = "encoder.onnx"
STEP = "step.onnx"
LOCK = ".lock"
MEMBERS = "members"
"""The folder, in that of a model of several, with all but the first; and among the facts of its config.json how many
answer together, the first counted."""
STUDENT = "student"
"""The folder, in that of such a model, with the one that all of them have taught; and among the facts whether that one
answers in their place."""
SPOOL = f".{IDS}.new"
"""Ids on their way to several shards."""
SUMS = "sha256"
"""Among the facts of a config.json: the sums of the run's own tokenizers and ids."""
LARGEST_CONFIG = 1 << 20
"""Bytes beyond which a config.json is taken for an attack."""
LONGEST_LINE = 1 << 24
"""Bytes beyond which a line of a .jsonl file is none of ours."""
_OWN = re.compile(rf"(?:source\.|target\.)?{TOKENIZER}|{IDS}/\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
"""Names that `digests` gives."""
LEARNT_FROM = "learnt_from"
"""The entry of facts for what was learnt from (`antiphon.data.corpus.Learnt`)."""
AGAIN = "copy the folder again or train again"


def write_atomically(path: Path, write: Callable[[Path], None], *, before: Path | None = None) -> None:
    """Lets ``write`` fill a new file beside ``path``, makes it durable, then puts it in place in one motion.

    Args:
        path: the file to write.
        write: fills the file it is given.
        before: the name under which what was at ``path`` is kept; None: it goes.

    Raises:
        SaveError: the disk is full or refuses; what was at ``path`` before is untouched.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        write(fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        if before is not None and path.exists():
            _keep(path, before)
        os.replace(fresh, path)
        _sync_folder(path.parent)
    except Exception as error:
        # Native writers report a full disk with exceptions of their own kind, not always OSError.
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        if isinstance(error, OSError) or "No space left" in str(error) or "I/O error" in str(error):
            raise SaveError(
                f"cannot save ({error})", where=str(path), cure="free some space; what was saved before still loads"
            ) from None
        raise


def _keep(path: Path, before: Path) -> None:
    """The file at ``path`` under the name ``before`` too, in one motion."""
    second = before.with_name(f".{before.name}.new")
    with suppress(OSError):
        second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # a file system without second names: for a moment there is only the one before
        os.replace(path, before)
    else:
        os.replace(second, before)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""

    def write(fresh: Path) -> None:
        fresh.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def read_card(folder: Path, *, title: Path) -> str:
    """The model card of a folder; where there is none, the title of one, after the name of this folder."""
    card = folder / CARD
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else f"# {title.resolve().name}\n"


def write_json(path: Path, tree: Any) -> None:
    """`write_atomically` for a JSON document, legible to people."""
    write_text(path, json.dumps(tree, ensure_ascii=False, indent=2) + "\n")


def write_config(folder: Path, config: Config, facts: dict[str, Any]) -> None:
    """``config.json``: every knob, the version that wrote it, facts of the data. Raises SaveError."""
    write_json(folder / CONFIG, {"antiphon": VERSION, **config.model_dump(mode="json"), "facts": facts})


def read_config(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The knobs and the facts of a run or model folder.

    Raises:
        FolderError: no such folder, no config.json in it, damaged, absurdly large, or from a newer Antiphon.
    """
    if not os.path.isdir(folder):  # also of a text that no path can be
        raise _no_folder(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise FolderError(
            f"not a model folder: no {CONFIG}", where=str(folder), cure="antiphon train --out makes model folders"
        )
    try:
        tree = json.loads(_read(path, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number of a million digits
        raise FolderError(f"damaged: not JSON ({error})", where=str(path), cure=AGAIN) from None
    if not isinstance(tree, dict):
        raise FolderError("damaged: not a JSON object", where=str(path), cure=AGAIN)
    made_by = str(tree.get("antiphon", ""))
    if _major(made_by) > _major(VERSION):
        raise FolderError(
            f"made by antiphon {made_by:.20}, this is {VERSION}", where=str(path), cure="pip install --upgrade antiphon"
        )
    groups = {name: tree[name] for name in Config.model_fields if tree.get(name) is not None}
    facts = tree.get("facts")
    try:
        return parse_config(groups), facts if isinstance(facts, dict) else {}
    except UsageError as error:
        raise FolderError(f"damaged: {error.what}", where=str(path), cure=AGAIN) from None


def member(folder: Path, number: int) -> Path:
    """Where a model of several is, the first being 1."""
    return folder if number == 1 else folder / MEMBERS / str(number)


def members(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Where all models are that answer together, by the facts of the first; or the one that they have taught.

    Raises:
        FolderError: the facts tell of a number of them that cannot be.
    """
    if facts.get(STUDENT) is True:
        return [folder / STUDENT]
    count = facts.get(MEMBERS, 1)
    if not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
        raise FolderError(f"damaged: not a number of members ({count!r:.20})", where=str(folder / CONFIG), cure=AGAIN)
    return [member(folder, number) for number in range(1, count + 1)]


def read_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Source and target tokenizer, one object when they are shared.

    Raises:
        FolderError: missing, damaged, or absurdly large.
    """
    shared = (folder / TOKENIZER).exists()
    found = []
    for name in [TOKENIZER] if shared else [SOURCE_TOKENIZER, TARGET_TOKENIZER]:
        path = folder / name
        if not path.is_file():
            missing = TOKENIZER if name == SOURCE_TOKENIZER else name
            raise FolderError(f"not a whole model folder: no {missing}", where=str(folder), cure=AGAIN)
        found.append(Tokenizer.load(path))
    return found[0], found[-1]


def ids_of(config: Config, folder: Path) -> str:
    """Where the token ids of a run are."""
    return config.data.ids or str(folder / IDS)


def _no_folder(folder: Path) -> FolderError:
    if os.path.exists(folder):
        return FolderError("not a folder", where=str(folder), cure="give the folder that holds config.json")
    try:
        beside = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()]
    except (OSError, ValueError):
        beside = []
    near = difflib.get_close_matches(folder.name, beside, n=1)
    cure = f"did you mean {folder.parent / near[0]}?" if near else "antiphon train --out makes model folders"
    return FolderError("no such folder", where=str(folder), cure=cure)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise FolderError(f"cannot be read ({error.strerror})", where=str(path)) from None
    if len(content) > most:
        raise FolderError(f"larger than {most >> 20} MB", where=str(path), cure="this is no file that antiphon made")
    return content


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) < 10 else 0


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Adds one JSON object to a .jsonl file. Raises SaveError when the disk refuses."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    except OSError as error:
        raise SaveError(
            f"cannot write the log ({error})", where=str(path), cure="free some space, then go on with --resume"
        ) from None


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """A .jsonl file, whole or not at all. Raises SaveError."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; what a crash cut off or something else damaged is left out."""
    found = []
    with suppress(OSError), path.open("rb") as file:
        # A line longer than any of ours is read, and thrown away, in pieces.
        while line := file.readline(LONGEST_LINE):
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    found.append(record)
    return found


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the files that are made once and relied on ever after: the tokenizers and the ids.

    Returns:
        Hexadecimal sums by the files' names within the folder.
    """
    names = (TOKENIZER, SOURCE_TOKENIZER, TARGET_TOKENIZER)
    paths = [folder / name for name in names if (folder / name).is_file()]
    paths += sorted(path for path in (folder / IDS).rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): digest(path) for path in paths}


def sums_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """What `digests` said when the run was begun, from the facts of its config.json."""
    found = facts.get(SUMS)
    if not isinstance(found, dict):
        return {}
    # A stranger's config.json must not send us to read what is no file of the folder's.
    return {name: str(value) for name, value in found.items() if _OWN.fullmatch(name)}


def changed(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Which of the files with these sha256 are missing or hold something else now; names within the folder."""
    return [name for name, sha256 in sums.items() if digest(folder / name) != sha256]


def digest(path: Path) -> str:
    """Hexadecimal sha256 of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def resumable(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return (folder / STATE).exists() or (folder / BEFORE).exists()


def taken(folder: Path) -> bool:
    """Whether the folder holds anything but what a training leaves that ended before its first save."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        return True
    # safetensors writes beside the file it is asked for, under a name of its own, and a kill leaves that
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".tmp")}
    begun = {LOCK, CONFIG, TOKENIZER, SOURCE_TOKENIZER, TARGET_TOKENIZER, LOG, IDS}
    begun |= {f".{name}.new" for name in (*begun, STATE)}
    return bool(names) and not (LOCK in names and names <= begun)


def refuse_taken(folder: Path) -> None:
    """Raises FolderError where something lies already."""
    if taken(folder):
        what = "the folder exists already" if folder.is_dir() else "a file, where a folder is to be made"
        cure = "go on with --resume, or choose another --out" if resumable(folder) else "choose another --out"
        raise FolderError(what, where=str(folder), cure=cure)


def refuse_new(folder: Path) -> None:
    """Raises FolderError where there is nothing to go on from."""
    if not resumable(folder):
        raise FolderError("nothing to resume", where=str(folder), cure="start it without --resume")


def cleared(folder: Path) -> None:
    """Takes away what a training left that ended before its first save. Raises SaveError."""
    assert not taken(folder), "the folder holds more than that"
    try:
        for entry in folder.iterdir():
            if entry.name in (IDS, SPOOL):
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
    except OSError as error:
        raise SaveError(
            f"cannot be cleared ({error.strerror})", where=str(folder), cure="choose another --out"
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for one process; the lock ends with the process, however it ends.

    Where the file system or the system knows no locks (Windows, some network disks), nobody is kept out.

    Raises:
        FolderError: another process trains in it, or nothing can be written in it.
    """
    try:
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise FolderError(
            f"cannot write in it ({error.strerror})", where=str(folder), cure="check its rights, or use another --out"
        ) from None
    with file:
        try:
            import fcntl  # not on Windows, which goes without

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FolderError(
                    "another process is training in it", where=str(folder), cure="wait for it, or use another --out"
                ) from None
        yield


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
