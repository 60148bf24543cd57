"""What can go wrong for a user, drawn first.

AntiphonError                 every mistake a user can make or mend; the command line prints it in one line, exit code 2
 ├─ UsageError                a flag, knob or argument that cannot be
 ├─ DataError                 a corpus file: missing, empty, not UTF-8, a line that is not a pair
 ├─ FolderError               a run or model folder: exists already, damaged, foreign, in use, other data
 ├─ SaveError                 the disk is full or refuses; what was saved before still loads
 ├─ LinkError                 another process of a distributed run is gone or does not answer
 └─ MissingExtraError         an optional part is not installed

`assert` is kept for our own bugs. Nothing here is raised for those.
"""

from __future__ import annotations


class AntiphonError(Exception):
    """A mistake told as: what is wrong, where, and the cure.

    Args:
        what: the fault in the user's words, no full stop.
        where: a file (with line: ``pairs.tsv:17``), a key (``--train.minutes``), or empty.
        cure: what to do about it, or empty.
    """

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        super().__init__(what, where, cure)
        self.what = what
        self.where = where
        self.cure = cure

    def __str__(self) -> str:
        text = f"{self.what}, {self.where}" if self.where else self.what
        if self.cure:
            text = f"{text}; {self.cure}"
        return " ".join(text.split())


class UsageError(AntiphonError):
    """A flag, knob or argument that cannot be."""


class DataError(AntiphonError):
    """A corpus file that is missing, empty, not UTF-8, or holds a line that is not a pair."""


class FolderError(AntiphonError):
    """A run or model folder that exists already, is damaged, foreign, in use, or made from other data."""


class SaveError(AntiphonError):
    """Writing failed (disk full, no permission); the earlier state on disk still loads."""


class LinkError(AntiphonError):
    """Another process of a distributed run is gone or does not answer; what was saved goes on with ``--resume``."""


class MissingExtraError(AntiphonError):
    """A feature whose optional packages are not installed.

    Args:
        feature: what was asked for (``training``).
        extra: the extra that brings it (``train``).
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed",
            cure=f'install them with: pip install "antiphon[{extra}]"',
        )
