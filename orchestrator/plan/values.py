"""The kinds of value that a plan is written in: durations, sizes, text, and their limits.

Each is an annotated type: pydantic reads it, the JSON Schema and the reference describe it.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_SUBTASKS: Final = 10_000
MAX_ID: Final = 2**31 - 1
"""The largest number that the database's `integer` columns hold."""
MAX_DURATION_SECONDS: Final = 366 * 86_400.0
MAX_SIZE_BYTES: Final = 2**50

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{prefix}iB": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)
}
_DURATION_PATTERN: Final = r"^\d{1,12}(\.\d{1,6})?(s|m|h|d)$"
_SIZE_PATTERN: Final = r"^\d{1,12}(\.\d{1,6})?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
_HALF_A_PAIR: Final = re.compile("[\ud800-\udfff]")
_QUANTITY: Final = re.compile(r"([\d.]+)([A-Za-z]+)")


def _quantity(pattern: str, units: dict[str, int], written: str) -> float | None:
    if not re.fullmatch(pattern, written, re.ASCII):
        return None
    parts = _QUANTITY.fullmatch(written)
    return float(parts[1]) * units[parts[2]] if parts else None


def seconds_in(written: str) -> float | None:
    """`90s`, `10m`, `2h`, `30d` in seconds, also none of them; None for what is no duration."""
    return _quantity(_DURATION_PATTERN, _SECONDS, written)


def _seconds(written: Any) -> Any:
    if isinstance(written, str):
        seconds = seconds_in(written)
        if seconds is not None:
            return seconds
    elif isinstance(written, int | float):
        return written
    raise PydanticCustomError("duration", "must be a duration such as 90s, 10m or 2h, or a number of seconds")


def _bytes(written: Any) -> Any:
    if isinstance(written, str):
        size = _quantity(_SIZE_PATTERN, _BYTES, written)
        if size is not None:
            return int(size)
    elif isinstance(written, int):
        return written
    raise PydanticCustomError("size", "must be a size such as 512MiB or 4GiB, or a whole number of bytes")


def _storable(text: str) -> str:
    """PostgreSQL holds neither the character NUL in text nor half of a surrogate pair."""
    if "\0" in text or (not text.isascii() and _HALF_A_PAIR.search(text)):
        raise PydanticCustomError(
            "storable", "holds a character that can't be stored (NUL or half of a surrogate pair)"
        )
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("one_line", "must be one line without control characters")
    return text


def _storable_config(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        encoded = json.dumps(config, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        raise PydanticCustomError("json_value", "holds a number that JSON can't hold, or is nested too deep") from None
    if "\\u0000" in encoded.replace("\\\\", ""):
        _storable("\0")
    _storable(encoded)
    return config


def _path_in_repository(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise PydanticCustomError("path_in_repository", "must be a path inside the repository, relative to its root")
    return posixpath.normpath(path)


Whole = Annotated[int, Field(strict=True)]
"""A whole number; neither `true` nor `1.0` nor `"1"` is one."""
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Id = Annotated[Whole, Field(ge=1, le=MAX_ID)]
GroupNumber = Annotated[int, Field(ge=1, le=MAX_ID)]
"""A group as a key of a mapping; JSON writes it as text."""
Text = Annotated[str, AfterValidator(_storable)]
Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=500),
    AfterValidator(_one_line),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
NonEmptyText = Annotated[str, StringConstraints(min_length=1), AfterValidator(_storable)]
Capability = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
"""Part of a queue's name, hence no `.` and no `+`."""
FilePath = Annotated[Text, StringConstraints(min_length=1), AfterValidator(_path_in_repository)]
AgentConfig = Annotated[dict[str, JsonValue], AfterValidator(_storable_config)]

Duration = Annotated[
    Number,
    Field(gt=0, le=MAX_DURATION_SECONDS),
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "title": "duration",
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DURATION_SECONDS},
                {"type": "string", "pattern": _DURATION_PATTERN},
            ],
        }
    ),
]
"""Seconds; written `90s`, `10m`, `2h`, `1.5h`, `2d`, or as a number of seconds."""

Size = Annotated[
    Whole,
    Field(gt=0, le=MAX_SIZE_BYTES),
    BeforeValidator(_bytes),
    WithJsonSchema(
        {
            "title": "size",
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0, "maximum": MAX_SIZE_BYTES},
                {"type": "string", "pattern": _SIZE_PATTERN},
            ],
        }
    ),
]
"""Bytes; written `512MiB`, `4GiB`, `4GB`, or as a number of bytes."""


def duration_in_words(seconds: float) -> str:
    """`600` → `10m`: the largest unit that divides it evenly, as a plan would write it."""
    for unit, length in reversed(_SECONDS.items()):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def size_in_words(size_bytes: int) -> str:
    """`4294967296` → `4GiB`: the largest binary unit that divides it evenly."""
    for power, prefix in reversed(list(enumerate("KMGT", start=1))):
        if size_bytes % 2 ** (10 * power) == 0:
            return f"{size_bytes // 2 ** (10 * power)}{prefix}iB"
    return f"{size_bytes}B"
