"""Files that a command is asked to write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import ConfigurationError


def require_place_for(path: Path) -> None:
    """Raise `ConfigurationError` where the file can't be written, before anything is read for it."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder.", context={"path": str(path)}, recovery="Name a file in it.")
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"There is no folder {path.parent}.", context={"path": str(path)}, recovery="Make it, or name another file."
        )


def require_new(path: Path) -> None:
    """Raise `ConfigurationError` where there is such a file already."""
    if path.exists():
        raise ConfigurationError(
            f"There is a file {path} already.",
            context={"path": str(path)},
            recovery="Name another file, or say --force to overwrite it.",
        )


def write_text(path: Path, pieces: str | Iterable[str]) -> None:
    """Write the file in UTF-8, whatever the locale. Raises `ConfigurationError` in words."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines([pieces] if isinstance(pieces, str) else pieces)
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be written: {error.strerror or error}.",
            context={"path": str(path)},
            recovery="Name another file.",
        ) from error
