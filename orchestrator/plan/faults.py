"""Where a fault is: a path into the plan, its field in words, and the line that it stands in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from orchestrator.errors import Fault

Path: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the plan's root: `("subtasks", 2, "depends_on")`."""


class FaultList:
    """Collects the faults of one plan. `lines` maps the paths of a document to lines; empty for a plan from
    Python."""

    def __init__(self, lines: Mapping[Path, int]) -> None:
        self._lines = lines
        self._faults: list[tuple[Path, Fault]] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, path: Path, message: str, hint: str = "") -> None:
        fault = Fault(one_line(message), one_line(field_in_words(path)), self._line(path), one_line(hint))
        self._faults.append((path, fault))

    def in_order(self) -> list[Fault]:
        """The faults in the order of the file; without one, in the order of the subtasks."""
        return [fault for _, fault in sorted(self._faults, key=_position)]

    def _line(self, path: Path) -> int | None:
        """The line of the path, or of the nearest thing around it: a key that is missing has no line of its own."""
        for length in range(len(path), -1, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None


def _position(entry: tuple[Path, Fault]) -> tuple[int, list[int]]:
    path, fault = entry
    return fault.line or 0, [part for part in path if isinstance(part, int)]


def field_in_words(path: Path) -> str:
    """`subtasks[2].depends_on`; empty for the plan itself."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in path)
    return words.removeprefix(".")


def one_line(words: str) -> str:
    """The words with line breaks, control characters and the like escaped: they may quote what the plan says."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in words)
