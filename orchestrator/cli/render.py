"""How values are shown: tables for people, JSON for programs.

What agents, plans and repositories say is printed as plain text: no markup of ours, no control sequences of theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from orchestrator.text import in_one_line

JSON_FORMAT: Final = 1
"""The `format` field of every JSON document: it changes when a field goes or changes its meaning, not when one is added."""

STYLES: Final = {
    "completed": "green",
    "ok": "green",
    "running": "cyan",
    "in_progress": "cyan",
    "merging": "cyan",
    "warn": "yellow",
    "timeout": "red",
    "failed": "red",
    "fail": "red",
    "cancelled": "yellow",
    "skipped": "dim",
    "pending": "dim",
}


def console(*, stderr: bool = False) -> Console:
    """Where people are spoken to. Colours go to terminals only, and not where NO_COLOR is set."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """A remark for the person, on stderr: stdout is for what was asked for."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Mapping[str, Any], *, one_line: bool = False) -> None:
    """One document on stdout, `format` first; with `one_line` as JSON lines want it, written at once."""
    body = {"format": JSON_FORMAT, **document}
    print(json.dumps(body, indent=None if one_line else 2, ensure_ascii=False), flush=one_line)


def instant(at: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, as JSON carries it."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_time(at: datetime) -> str:
    """Date and time of day where the reader is."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short_time(at: datetime) -> str:
    """The same for a narrow terminal: without the year and the seconds."""
    return at.astimezone().strftime("%m-%d %H:%M")


def seconds(value: float | None) -> float | None:
    """A duration as JSON carries it: seconds, to the millisecond."""
    return None if value is None else round(value, 3)


def counted(by_status: Mapping[str, int]) -> str:
    """`12 of 20, 1 failed, 7 running`: how far the subtasks are."""
    total = sum(by_status.values())
    parts = [f"{by_status.get('completed', 0)} of {total}"]
    words = {"failed": "failed", "timeout": "timed out", "cancelled": "cancelled", "skipped": "skipped"}
    parts += [f"{by_status[status]} {word}" for status, word in words.items() if by_status.get(status)]
    if by_status.get("in_progress"):
        parts.append(f"{by_status['in_progress']} running")
    return ", ".join(parts)


def print_table(
    to: Console,
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    styles: Mapping[str, str] = STYLES,
    longest: Mapping[str, int] | None = None,
) -> None:
    """Columns, two spaces apart. A cell that is a key of `styles` is shown in that style.

    On a terminal columns named in `longest` are cut to so many cells, and each line to the width; elsewhere all is
    written out, so that nothing is lost to a pipe.
    """
    caps = (longest or {}) if to.is_terminal else {}
    lines = [list(headers), *([_cell(value) for value in row] for row in rows)]
    for index, header in enumerate(headers):
        if header in caps:
            for line in lines:
                line[index] = shortened(line[index], caps[header])
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(headers))]
    for number, line in enumerate(lines):
        text = Text(style="bold" if number == 0 else "")
        for index, cell in enumerate(line):
            last = all(not later for later in line[index + 1 :])
            text.append(cell if last else set_cell_size(cell, widths[index] + 2), style=styles.get(cell, ""))
            if last:
                break
        print_line(to, text)


def print_line(to: Console, text: Text | str) -> None:
    """One line: cut at the terminal's edge, whole elsewhere."""
    if to.is_terminal:
        to.print(text, no_wrap=True, overflow="ellipsis", crop=True)
    else:
        to.print(text, soft_wrap=True)


def shortened(text: str, cells: int) -> str:
    """The text within so many cells of a terminal, its end marked where it was cut."""
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def _cell(value: Any) -> str:
    return "" if value is None else in_one_line(str(value))
