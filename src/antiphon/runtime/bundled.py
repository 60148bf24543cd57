"""The trained models that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from antiphon.runtime.folder import CONFIG


def bundled() -> dict[str, Path]:
    """Folders of the bundled models by name."""
    home = Path(str(resources.files("antiphon"))) / "models"
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{CONFIG}"))}


def resolved(name: str | Path) -> Path:
    """The folder that is meant: a model's that is there, or else the bundled model of this name."""
    folder = Path(name).expanduser()
    return folder if (folder / CONFIG).is_file() else bundled().get(str(name), folder)
