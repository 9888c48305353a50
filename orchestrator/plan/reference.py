"""The reference of the plan's format, written from its JSON Schema, so that it can't say anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from orchestrator.plan.planning import MOST_QUESTIONS
from orchestrator.plan.proposal import ESTIMATES_ARE_EXCEEDED, OF_A_SUBTASK, OF_THE_PLAN, SHORTEST_TIMEOUT_SECONDS
from orchestrator.plan.schema import plan_schema
from orchestrator.plan.values import MAX_DURATION_SECONDS, MAX_SIZE_BYTES, duration_in_words, size_in_words

_INTRODUCTION: Final = """\
# The plan

A plan is one YAML or JSON document in UTF-8, or a `Plan` in Python. `orchestrator validate PLAN` checks one and names every
fault with its line; `orchestrator validate --schema` prints the JSON Schema that this page is written from.

- A **duration** is written `90s`, `10m`, `2h`, `1.5h` or `2d`, or as a number of seconds; it is more than 0 and at most {duration}.
- A **size** is written `512MiB`, `4GiB` or `4GB`, or as a whole number of bytes; it is more than 0 and at most {size}.
- Scalars are read as YAML 1.2 reads them: `yes`, `on` and `1:30` are text.
- A document has at most 16 MiB, 32 levels and 1,000,000 values, of which aliases may add 10,000. It has no tags, no merge keys
  (`<<`) and no key twice.
- In Python the attributes carry their units: `timeout_seconds` for `timeout`, `memory_bytes` for `memory`.
"""

_HEADINGS: Final[Mapping[str, str]] = {
    "Plan": "The plan's keys",
    "Defaults": "Keys of `defaults`",
    "SubTask": "Keys of a subtask",
    "AgentSpec": "Keys of `agent`",
    "Limits": "Keys of `limits`",
    "Quorum": "Keys of `on_failure`",
}
_NAMES: Final[Mapping[str, str]] = {
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "string": "text",
    "null": "`null`",
}
_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "more than {:,}",
    "maximum": "at most {:,}",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entry",
    "maxItems": "at most {:,} entries",
    "pattern": "matches `{}`",
}
_PROPOSED: Final = """
## A plan that an agent proposes

`orchestrator plan GOAL` lets an agent read the repository and propose a plan, with `permissions: read-only`; a file that it has
changed all the same makes it fail. Its answer comes from outside and is held to less than a plan may say:

- Its words are {words}, and of a subtask {subtask_words}. Every other one, `agent`, `defaults` and `permissions` above all, is a
  fault: who works where, with what permissions and limits, is said by whoever runs the plan.
- `group_checks` and `check` are **commands from a model, and are run as the worker's account** once the plan runs. They are shown
  with the plan; `--run` asks before it goes on, or wants `--yes` where there is nobody to ask.
- A testing subtask that is not alone, and subtasks of a group that mean to touch the same `files`, get groups of their own.
- Faults are told to the agent, all at once, at most {repairs} times; each question is a job, with logs, costs and `cancel` like any.
- The time limit of an attempt is {times} times the longest estimate, and at least {least}.
"""

_RULES: Final = """\
## Rules

All are checked before anything is stored, and every fault is reported at once.

- Ids are unique, every dependency exists, no subtask depends on itself, directly or through others.
- With written groups a dependency is in an earlier group, never in the same or a later one.
- A subtask without `parallel_group` runs alone: just before the first written group that needs it, else after the last one.
- A testing subtask is alone in its group. Under `dependencies` it gets a group of its own; elsewhere anything else is a fault.
- Under `dependencies` no subtask has a `parallel_group`; groups are the levels of `depends_on`, numbered from 1.
- Groups keep their written numbers, unless one had to be added or split: then they are numbered from 1.
- `group_checks` names groups that have subtasks, by the number in the plan; the check of a split group runs after its last part.
- Every agent is a registered one, and can be held to the subtask's `permissions`.
- `agent_timeout_seconds` and `max_retries` at the top mean what they mean under `defaults`; the two never contradict each other.
"""


def plan_reference() -> str:
    """Markdown: every key of a plan with its type, default, meaning and limits, and the rules between them."""
    schema = plan_schema()
    models = {"Plan": schema, **schema["$defs"]}
    introduction = _INTRODUCTION.format(
        duration=duration_in_words(MAX_DURATION_SECONDS), size=size_in_words(MAX_SIZE_BYTES)
    )
    sections = [_section(heading, name, models) for name, heading in _HEADINGS.items()]
    return "\n".join([introduction, *sections, _RULES]) + _proposed()


def _proposed() -> str:
    def listed(keys: Sequence[str]) -> str:
        return ", ".join(f"`{key}`" for key in keys)

    return _PROPOSED.format(
        words=listed(OF_THE_PLAN),
        subtask_words=listed(OF_A_SUBTASK),
        repairs=MOST_QUESTIONS - 1,
        times=ESTIMATES_ARE_EXCEEDED,
        least=duration_in_words(SHORTEST_TIMEOUT_SECONDS),
    )


def _section(heading: str, name: str, models: Mapping[str, Any]) -> str:
    model = models[name]
    shape = next((branch for branch in model.get("anyOf", ()) if "properties" in branch), model)
    inherited = models["Defaults"]["properties"] if name == "SubTask" else {}
    rows = [
        f"| `{key}` | {_cell(_type(field))} | {_default(key, field, shape, inherited)} | {_cell(field['description'])} "
        f"| {_cell(', '.join(_limits(field)))} |"
        for key, field in shape["properties"].items()
    ]
    table = ["| key | type | default | meaning | limits |", "|---|---|---|---|---|", *rows]
    return "\n".join([f"## {heading}", "", model["description"], "", *table, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(field: Mapping[str, Any]) -> str:
    match field:
        case {"title": str(title)}:
            return title
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            heading = _HEADINGS.get(name, "")
            anchor = "".join(char for char in heading.lower().replace(" ", "-") if char.isalnum() or char in "-_")
            kind = "mapping, or a name" if name == "AgentSpec" else "mapping"
            return f"[{kind}](#{anchor})" if anchor else "anything that JSON can hold"
        case {"enum": list(words)}:
            return ", ".join(f"`{word}`" for word in words)
        case {"const": word}:
            return f"`{word}`"
        case {"anyOf": list(branches)} | {"oneOf": list(branches)}:
            return " or ".join(_type(branch) for branch in branches)
        case {"type": "array", "items": items}:
            return f"list of {_type(items).replace('whole number', 'whole numbers')}"
        case {"type": "object", "additionalProperties": values}:
            return f"mapping to {_type(values)}"
        case {"format": "date-time"}:
            return "date and time"
    return _NAMES.get(field["type"], field["type"])


def _default(key: str, field: Mapping[str, Any], shape: Mapping[str, Any], inherited: Mapping[str, Any]) -> str:
    if key in shape.get("required", ()):
        return "required"
    if key in inherited:
        return f"that of `defaults.{key}`"
    if "default" not in field:
        return "now" if field.get("format") == "date-time" else "empty"
    return f"`{_value(field)}`"


def _value(field: Mapping[str, Any]) -> str:
    default = field["default"]
    kinds = {branch.get("title") for branch in field.get("anyOf", ())}
    if default is None:
        return "null"
    if "duration" in kinds:
        return duration_in_words(default)
    if "size" in kinds:
        return size_in_words(default)
    if isinstance(default, Mapping):
        return str(default["name"])
    return json.dumps(default) if not isinstance(default, str) or not default else default


def _limits(field: Mapping[str, Any]) -> Iterator[str]:
    """The bounds of a value and of the entries of a list; a duration's and a size's stand in the introduction."""
    if field.get("title") in {"duration", "size"}:
        return
    for bound, words in _BOUNDS.items():
        if bound in field:
            yield words.format(field[bound])
    for branch in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _limits(branch)
    if "items" in field:
        yield from (f"each {limit}" for limit in _limits(field["items"]))
