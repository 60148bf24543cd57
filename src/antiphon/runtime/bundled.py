"""The trained models that come with the package."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from antiphon.errors import UsageError
from antiphon.runtime.folder import CARD, CONFIG

BOT = "chat"
"""The bundled model that `antiphon chat` starts where no other is named."""
MOST_WORDS = 60
"""Of an introduction."""


def bundled() -> dict[str, Path]:
    """Folders of the bundled models by name."""
    home = Path(str(resources.files("antiphon"))) / "models"
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{CONFIG}"))}


def is_model(folder: str | Path) -> bool:
    """Whether a run or model folder is there; of any text, also one that no path can be."""
    return os.path.isfile(Path(folder) / CONFIG)


def resolved(name: str | Path) -> Path:
    """The folder that is meant: a model's that is there, or else the bundled model of this name."""
    folder = Path(os.path.expanduser(name))
    return folder if is_model(folder) else bundled().get(str(name), folder)


def bot() -> Path:
    """The folder of the bundled bot. Raises UsageError where this copy came without one."""
    found = bundled()
    if BOT not in found:
        raise UsageError("which model? This copy has no bot of its own", cure="antiphon chat FOLDER, or dates")
    return found[BOT]


def introduction(folder: Path | None) -> str:
    """What the card of a bundled model says of it first, in one line; of other models nothing.

    That is the first paragraph beneath the title. Cards of other folders may say anything, so they are not quoted.
    """
    if folder is None or folder not in bundled().values():
        return ""
    paragraphs = (folder / CARD).read_text(encoding="utf-8").split("\n\n")
    return " ".join(next((part for part in paragraphs if not part.startswith("#")), "").split()[:MOST_WORDS])
