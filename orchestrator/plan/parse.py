"""Text → plain data, and the line that each part of it stands in.

YAML and JSON are read in the same way, from the YAML parser's events: JSON is YAML, and events come one after the
other, so that a hostile document is refused before it is built. Scalars are those of YAML 1.2's core schema (`yes`
and `1:30` are text). Limits: `MAX_BYTES` of text, `MAX_VALUES` values, `MAX_DEPTH` levels, `MAX_ALIASED_VALUES`
values that aliases add.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from orchestrator.errors import Fault, PlanError
from orchestrator.plan.faults import FaultList, Path, one_line

MAX_BYTES: Final = 16 * 2**20
MAX_VALUES: Final = 1_000_000
MAX_ALIASED_VALUES: Final = 10_000
MAX_DEPTH: Final = 32

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAGS: Final = (None, "!", "tag:yaml.org,2002:str")
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS: Final = 1_000

_JSON_ESCAPE: Final = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)


@dataclass
class Document:
    """What a text says. `data` is made of dict (keys are text), list, str, int, float, bool and None.

    `duplicates` are the paths of keys that stand twice in one mapping; `data` holds their first value.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    duplicates: list[tuple[Path, int]] = field(default_factory=list)


def parse_document(text: str | bytes, *, source: str = "the plan") -> Document:
    """Read one YAML or JSON document. Raises `PlanError` for what is none, or is too large, too deep or hostile."""
    try:
        return _Reader(_decode(text)).read()
    except _Refused as refused:
        raise PlanError([refused.fault], source=source) from None


def report_duplicates(document: Document, faults: FaultList) -> None:
    """Add one fault for each key that stands twice."""
    for path, line in document.duplicates:
        first = document.lines.get(path)
        faults.add(
            path,
            f"The key `{str(path[-1])[:80]}` stands twice, in line {first} and in line {line}.",
            "Remove one of them.",
        )


class _Refused(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, message: str, line: int | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(one_line(message), line=line, hint=hint)


def _too_deep(line: int | None) -> _Refused:
    return _Refused(f"The plan is nested deeper than {MAX_DEPTH} levels.", line)


def _decode(text: str | bytes) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _Refused("The plan is larger than 16 MiB.", hint="Name files for the agents to read, don't paste them.")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise _Refused("The plan is not UTF-8 text.", line, "Save it as UTF-8.") from None
    return _join_surrogates(text) if text.lstrip().startswith("{") else text


def _join_surrogates(json_text: str) -> str:
    """JSON writes a character beyond U+FFFF as two escapes, which YAML has not; put the character itself instead."""

    def joined(escape: re.Match[str]) -> str:
        high, low = escape.groups()
        return chr(0x10000 + (int(high, 16) - 0xD800) * 0x400 + int(low, 16) - 0xDC00) if high else escape[0]

    return _JSON_ESCAPE.sub(joined, json_text)


class _Reader:
    """One passage over the events of a document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._document = Document()
        self._values = 0
        self._aliased_values = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open_anchors: set[str] = set()

    def read(self) -> Document:
        try:
            events = yaml.parse(self._text, Loader=_LOADER)
            started = False
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if started:
                        raise _Refused(
                            "The plan's file holds more than one document.", _line(event), "Remove what follows `---`."
                        )
                    started = True
                    self._document.data = self._value(next(events), events, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else None
            problem = error.problem or error.context or "it is neither YAML nor JSON"
            if "nesting depth" in problem:  # libyaml reads ahead, and has a bound of its own
                raise _too_deep(line) from None
            raise _Refused(f"The plan can't be read: {_sentence(problem)}", line) from None
        except (yaml.YAMLError, UnicodeError):
            raise _Refused(
                "The plan holds characters that YAML does not allow.", hint="Remove control characters."
            ) from None
        return self._document

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Refused(f"The plan holds more than {MAX_VALUES:,} values.", _line(event))
        if len(path) > MAX_DEPTH:
            raise _too_deep(_line(event))
        self._document.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event)
        first = self._values
        anchor = getattr(event, "anchor", None)
        if anchor:
            self._open_anchors.add(anchor)
        if isinstance(event, yaml.ScalarEvent):
            value: Any = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, events, path)
        else:
            value = self._mapping(event, events, path)
        if anchor:
            self._open_anchors.discard(anchor)
            self._anchors[anchor] = (value, self._values - first + 1)
        return value

    def _sequence(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> list[Any]:
        _require_tag(event, (None,))
        items: list[Any] = []
        for item in events:
            if isinstance(item, yaml.SequenceEndEvent):
                break
            items.append(self._value(item, events, (*path, len(items))))
        return items

    def _mapping(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        _require_tag(event, (None,))
        mapping: dict[str, Any] = {}
        for key_event in events:
            if isinstance(key_event, yaml.MappingEndEvent):
                break
            key = _key(key_event)
            if key in mapping:
                self._document.duplicates.append(((*path, key), _line(key_event)))
                self._value(next(events), events, (*path, key))
                continue
            self._document.lines.setdefault((*path, key), _line(key_event))
            mapping[key] = self._value(next(events), events, (*path, key))
        return mapping

    def _aliased(self, event: yaml.AliasEvent) -> Any:
        name = event.anchor or ""
        if name in self._open_anchors:
            raise _Refused(f"The alias `*{name[:80]}` stands inside of what it repeats.", _line(event))
        if name not in self._anchors:
            raise _Refused(f"The alias `*{name[:80]}` has no anchor before it.", _line(event))
        value, size = self._anchors[name]
        self._values += size
        self._aliased_values += size
        if self._aliased_values > MAX_ALIASED_VALUES:
            raise _Refused(
                f"The plan's aliases repeat more than {MAX_ALIASED_VALUES:,} values.",
                _line(event),
                "Write what subtasks share under `defaults`.",
            )
        return value


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    plain, _ = event.implicit
    if not plain:
        _require_tag(event, _TEXT_TAGS)
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > _MAX_DIGITS:
        return text
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def _key(event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise _Refused(
            "A key of the plan is neither text nor a number.",
            _line(event),
            "Quote a key that begins with `{`, `[` or `*`.",
        )
    if event.value == "<<" and event.implicit[0]:
        raise _Refused(
            "The merge key `<<` is not a plan's word.", _line(event), "Write what subtasks share under `defaults`."
        )
    text: str = event.value
    return text


def _require_tag(event: Any, allowed: tuple[str | None, ...]) -> None:
    if event.tag not in allowed:
        raise _Refused(f"The tag `{event.tag[:80]}` is not allowed in a plan.", _line(event), "Remove it.")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _sentence(words: str) -> str:
    return " ".join(words.split()).rstrip(".") + "."
