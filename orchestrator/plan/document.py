"""A plan → YAML with comments, for people to read and edit. Read again, it is the same plan."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any, Final

import yaml

from orchestrator.plan.model import SubTask, ValidatedPlan
from orchestrator.plan.values import duration_in_words, size_in_words
from orchestrator.text import in_one_line, plural

_DURATIONS: Final = ("deadline", "agent_timeout_seconds", "timeout", "idle_timeout")
_COMMENTS: Final[Mapping[str, str]] = {
    "goal": "given to every agent as context",
    "defaults": "what holds for every subtask",
    "group_checks": "commands, run on the merged work of a group",
}
_WIDTH: Final = 110
_PLAIN: Final = re.compile(
    r"[A-Za-z]|\.\.?(/[A-Za-z0-9_./-]*)?|[A-Za-z/][A-Za-z0-9 _./(),'-]*[A-Za-z0-9_/).]|[1-9][0-9.]*([smhd]|[KMGT]?i?B)"
)
_NOT_TEXT: Final = re.compile(r"null|true|false|yes|no|on|off|y|n", re.IGNORECASE)


class _Text(str):
    """Text whose style is chosen here: what YAML's versions read differently stands in quotes."""

    __slots__ = ()


class _Row(list[Any]):
    """A list in one line."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: _Text) -> yaml.ScalarNode:
    style = '"'
    if text.strip() != text.removesuffix("\n") or not text.strip() or not text.replace("\n", "").isprintable():
        pass  # in a block it would need signs that nobody can read, or be lost
    elif "\n" in text:
        style = "|"
    elif len(text) > _WIDTH - 30 and " " in text:
        style = ">"
    elif _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text):
        style = ""
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


def _represent_row(dumper: yaml.SafeDumper, row: _Row) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)


_Dumper.add_representer(_Text, _represent_text)
_Dumper.add_representer(_Row, _represent_row)


def plan_as_yaml(validated: ValidatedPlan, *, head: Sequence[str] = (), repo: str | None = None) -> str:
    """`head` are lines of the comment at its top. `repo` is written in place of the plan's, for instance relative to the
    file's folder."""
    plan = validated.plan
    words = plan.model_dump(mode="json", exclude_unset=True)
    if repo is not None:
        words["repo"] = repo
    del words["subtasks"]
    by_id = {subtask.subtask_id: subtask for subtask in plan.subtasks}
    lines = [f"# {in_one_line(line)}".rstrip() for line in head]
    for key, value in words.items():
        if value is not None:
            lines += [f"# {_COMMENTS[key]}"] if key in _COMMENTS else []
            lines.append(_dumped({key: value}))
    lines.append("subtasks:")
    for group in validated.groups:
        members = [by_id[subtask.subtask_id] for subtask in group.subtasks]
        lines += ["", f"  # {_group_in_words(group.number, members)}"]
        lines += [indent(_dumped([_in_order(subtask)]), "  ") for subtask in members]
    return "\n".join(lines) + "\n"


def _group_in_words(number: int, members: Sequence[SubTask]) -> str:
    longest = max(subtask.estimated_duration_minutes for subtask in members)
    count = plural(len(members), "subtask") + (" at the same time" if len(members) > 1 else "")
    return f"Group {number}: {count}" + (f", about {longest:g} min" if longest else "")


def _in_order(subtask: SubTask) -> dict[str, Any]:
    words = subtask.model_dump(mode="json", exclude_unset=True)
    order: dict[str, int] = defaultdict(lambda: len(SubTask.model_fields))
    order |= {field.alias or name: place for place, (name, field) in enumerate(SubTask.model_fields.items())}
    return {key: words[key] for key in sorted(words, key=lambda key: order[key])}


def _dumped(value: Any) -> str:
    """Without its last line feed. Lists of ids and paths stand in one line."""
    return yaml.dump(_styled(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH).rstrip("\n")


def _styled(value: Any, key: str = "") -> Any:
    match value:
        case dict() if key == "agent":
            return _agent(value["name"], value.get("config"))
        case dict() if key == "group_checks":
            return {int(number): _Text(check) for number, check in value.items()}
        case dict():
            return {_Text(name): _styled(one, name) for name, one in value.items()}
        case list():
            return (_Row if key else list)(_styled(one) for one in value)
        case int() | float() if key in _DURATIONS:
            return _Text(duration_in_words(value))
        case int() if key == "memory":
            return _Text(size_in_words(value))
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return _Text(value) if isinstance(value, str) else value


def _agent(name: str, config: Mapping[str, Any] | None) -> Any:
    """As short as it can be written: the name alone, or the configuration's keys beside it."""
    if not config:
        return _Text(name) if config is None else {"name": _Text(name), "config": {}}
    beside = config.keys().isdisjoint(("name", "config"))
    return _texts({"name": name, **(config if beside else {"config": config})})


def _texts(value: Any) -> Any:
    match value:
        case dict():
            return {_Text(key): _texts(one) for key, one in value.items()}
        case list():
            return [_texts(one) for one in value]
    return _Text(value) if isinstance(value, str) else value
