"""What a corpus comes in: a zip, a tar, a folder or a single file, read alike."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

from antiphon.errors import DataError

MOST = 1 << 31
"""Bytes that a member, or a tar as a whole, may unpack to: the largest of the corpora has a tenth of it."""

_DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    UnicodeDecodeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)


class Source:
    """The files of a corpus by name, whatever they are packed in; ``.gz`` is unpacked on the way."""

    def __init__(self, path: Path, *, fetched: bool = False) -> None:
        """Raises DataError when there is nothing at `path`.

        Args:
            path: an archive, a folder or a file.
            fetched: whether it was downloaded, and may be again.
        """
        if not path.exists():
            raise DataError("no such file or folder", where=str(path), cure="check the path given with --from")
        self.path = path
        self._again = "delete it, and run again" if fetched else ""

    def sha256(self) -> str:
        """Of the archive or file, in hexadecimal; empty of a folder. Raises DataError."""
        if self.path.is_dir():
            return ""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", where=str(self.path), cure="check it") from None

    def names(self, *endings: str) -> list[str]:
        """Members whose name ends in one of `endings`, sorted."""
        return [name for name in self._members if name.endswith(endings)]

    def find(self, *names: str) -> str | None:
        """The member called like the first of `names` that is there; in whatever folder, nearest the top first."""
        for name in names:
            called = [member for member in self._members if PurePosixPath(member).name == name]
            if called:
                return min(called, key=lambda member: (member.count("/"), member))
        return None

    def need(self, *names: str) -> str:
        """As `find`, but raises DataError where none is there."""
        found = self.find(*names)
        if found is None:
            raise DataError(
                f"no {names[0]} in it", where=str(self.path), cure=self._again or "is this the authors' archive?"
            )
        return found

    def read(self, member: str) -> bytes:
        """The content of a member. Raises DataError when it is damaged."""
        try:
            content = self._members[member]()
            if content.startswith(b"\x1f\x8b"):
                content = _unpacked(content)
            return content
        except _DAMAGED as error:
            raise self._damaged(error, member) from None

    def lines(self, member: str, encoding: str = "utf-8-sig", errors: str = "strict") -> list[str]:
        """The lines of a member; only LF and CRLF end a line. Raises DataError when it is not in `encoding`."""
        try:
            text = self.read(member).decode(encoding, errors)
        except UnicodeDecodeError as error:
            what = f"{member} is not {encoding.removesuffix('-sig').upper()} (offset {error.start})"
            raise DataError(what, where=str(self.path), cure="is this the authors' archive?") from None
        return text.replace("\r\n", "\n").removesuffix("\n").split("\n")

    @cached_property
    def _members(self) -> Mapping[str, Callable[[], bytes]]:
        try:
            members = self._open()
        except _DAMAGED as error:
            raise self._damaged(error) from None
        # Finder leaves "._name" files with its own notes in archives.
        hidden = {name for name in members if PurePosixPath(name).name.startswith("._")}
        return {name: members[name] for name in sorted(members) if name not in hidden}

    def _open(self) -> dict[str, Callable[[], bytes]]:
        path = self.path
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.is_file() and ".git" not in file.parts)
            return {file.relative_to(path).as_posix(): file.read_bytes for file in files}
        if zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            return {entry.filename: _unzipped(archive, entry) for entry in archive.infolist() if not entry.is_dir()}
        if tarfile.is_tarfile(path):
            # Corpora fit in memory; a gzipped tar cannot be read out of order without unpacking it again and again.
            content, total = {}, 0
            with tarfile.open(path) as tar:
                for entry in tar:
                    if entry.isfile():
                        total += entry.size
                        _refuse_larger(total)
                        content[entry.name] = _content(tar, entry)
            return {name: lambda data=data: data for name, data in content.items()}
        return {path.name: path.read_bytes}

    def _damaged(self, error: BaseException, member: str = "") -> DataError:
        what = f"{member or 'the archive'} cannot be read ({error})"
        return DataError(what, where=str(self.path), cure=self._again or "get it again from its authors")


def _refuse_larger(size: int) -> None:
    if size > MOST:
        raise OSError(f"it unpacks to more than {MOST >> 20:,} MB")


def _unpacked(content: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
        return _in_pieces(packed)


def _in_pieces(file: IO[bytes] | gzip.GzipFile) -> bytes:
    # Asked for all at once, the libraries would set aside what the archive claims to hold.
    pieces, total = [], 0
    while piece := file.read(1 << 20):
        total += len(piece)
        _refuse_larger(total)
        pieces.append(piece)
    return b"".join(pieces)


def _unzipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with archive.open(entry) as file:
            return _in_pieces(file)

    return read


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    assert file is not None  # a regular file has content
    return _in_pieces(file)
