"""Text for people: durations, counts, and what programs printed, fit to be shown."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def duration(value: float | None) -> str:
    """`0.4 s`, `31 s`, `1 m 12 s`, `2 h 03 m`, `3 d 04 h`; a dash for none."""
    if value is None:
        return "–"
    if value < 9.95:
        return f"{max(value, 0.0):.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def printable(text: str) -> str:
    """The text without control sequences and control characters (tabs and line feeds stay): it can't move a cursor."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def first_line(text: str | None) -> str:
    """The first line that says something."""
    lines = printable(text or "").splitlines()
    return next((line.strip() for line in lines if line.strip()), "").expandtabs(1)


def in_one_line(text: str | None) -> str:
    """All of it, with one space where lines ended: for errors, whose second line is often the telling one."""
    return " ".join(printable(text or "").split())


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
