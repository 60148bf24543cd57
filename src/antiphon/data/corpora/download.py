"""Fetching a corpus once, from its authors' address."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from antiphon.errors import DataError

_BEGINS = {".zip": b"PK", ".gz": b"\x1f\x8b"}
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Download:
    """One file on the web."""

    url: str
    name: str
    """What it is called in the cache."""


def cache_folder() -> Path:
    """``$ANTIPHON_CACHE``, or ``~/.cache/antiphon``."""
    chosen = os.environ.get("ANTIPHON_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "antiphon"


def cached(corpus: str, downloads: Sequence[Download]) -> Path:
    """The downloaded file, or the folder of them where there are several; what is there is not fetched again.

    Raises:
        DataError: a file could not be fetched, or is none of its kind.
    """
    folder = cache_folder() / corpus
    for download in downloads:
        if not (folder / download.name).exists():
            _fetch(download, folder / download.name)
    return folder / downloads[0].name if len(downloads) == 1 else folder


def _fetch(download: Download, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    cure = "get it by hand and give it with --from PATH"
    request = urllib.request.Request(download.url, headers={"User-Agent": "antiphon"})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
            if (promised := answer.headers.get("Content-Length", "")).isdecimal() and int(promised) != file.tell():
                raise OSError(f"the connection ended after {file.tell():,} of {int(promised):,} bytes")
        _verify(part, download, cure)
        part.replace(path)
    except (OSError, HTTPException) as error:
        raise DataError(f"could not be downloaded ({error})", where=download.url, cure=cure) from None
    finally:
        part.unlink(missing_ok=True)


def _verify(path: Path, download: Download, cure: str) -> None:
    begins = next((begin for ending, begin in _BEGINS.items() if download.name.endswith(ending)), b"")
    with path.open("rb") as file:
        if file.read(len(begins)) != begins:  # a page of a network that first wants a password, perhaps
            what = f"what came is no {download.name.rpartition('.')[2]} file"
            raise DataError(what, where=download.url, cure=cure)
