"""Pydantic's findings in plain words, with a hint where one helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from orchestrator.plan.faults import FaultList, Path, field_in_words
from orchestrator.plan.model import Defaults, Limits, Plan, Quorum, SubTask
from orchestrator.plan.rules import nearest

_PROBLEMS: Final[dict[str, str]] = {
    "string_type": "must be text",
    "string_unicode": "must be text that can be stored",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be made of letters, digits, `-` and `_`, and begin with a letter or digit",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:,.15g}",
    "greater_than_equal": "must be at least {ge:,.15g}",
    "less_than": "must be less than {lt:,.15g}",
    "less_than_equal": "must be at most {le:,.15g}",
    "recursion_loop": "is nested too deep",
    "invalid-json-value": "must be something that JSON can hold",
}
_SECOND_WORDS: Final[Mapping[str | int, str]] = {"depends_on": "dependencies"}
_SAID_WHOLE: Final = frozenset({"not_yet", "said_twice", "storable", "json_value"})
_SHAPES: Final = frozenset({"dict_type", "model_type", "model_attributes_type"})


def report_shape_faults(errors: Sequence[ErrorDetails], data: Mapping[str, Any], faults: FaultList) -> None:
    """Add one fault for each of pydantic's `errors` about `data`."""
    for error in errors:
        path = _path_in(data, error)
        where = _where(path, data)
        if error["type"] == "missing":
            faults.add(path, f"{where} is missing.", "")
        elif error["type"] in {"extra_forbidden", "invalid_key"}:
            faults.add(path, f"{_where(path[:-1], data)} has no key `{str(path[-1])[:80]}`.", _hint_for_key(path))
        else:
            faults.add(path, f"{where} {_problem(error)}.", _hint(error))


def _path_in(data: Any, error: ErrorDetails) -> Path:
    """Where the error is in the plan. Pydantic also names the branches of a choice, which no plan contains."""
    path: list[str | int] = []
    here = data
    for depth, word in enumerate(error["loc"], start=1):
        part = _SECOND_WORDS.get(word, word) if isinstance(here, Mapping) and word not in here else word
        if _holds(here, part):
            here = here[part]
            path.append(part)
        elif error["type"] == "missing" and depth == len(error["loc"]):
            path.append(part)
    return tuple(path)


def _holds(container: Any, part: str | int) -> bool:
    if isinstance(container, Mapping):
        return part in container
    return isinstance(container, list | tuple) and isinstance(part, int) and part < len(container)


def _where(path: Path, data: Mapping[str, Any]) -> str:
    """`estimated_complexity` of subtask 7, as a reader would say it."""
    if not path:
        return "The plan"
    if path[0] != "subtasks" or len(path) == 1:
        return f"`{field_in_words(path)}`"
    position = int(path[1])
    subtask = data["subtasks"][position]
    subtask_id = subtask.get("subtask_id") if isinstance(subtask, Mapping) else None
    known = isinstance(subtask_id, int) and not isinstance(subtask_id, bool) and abs(subtask_id) < 2**63
    name = f"subtask {subtask_id}" if known else f"`subtasks[{position}]`"
    return f"`{field_in_words(path[2:])}` of {name}" if len(path) > 2 else name[0].upper() + name[1:]


def _problem(error: ErrorDetails) -> str:
    template = _PROBLEMS.get(error["type"])
    context = error.get("ctx", {})
    if error["type"] in {"too_short", "too_long"}:
        least, most = context.get("min_length"), context.get("max_length")
        return "must have at least one entry" if least else f"must have at most {most:,} entries"
    problem = template.format(**context) if template else error["msg"].rstrip(".")
    return problem if error["type"] in _SAID_WHOLE else problem + _instead(error["input"], error["type"])


def _instead(written: Any, error_type: str) -> str:
    """What stands there instead; nothing where the problem says it already."""
    match written:
        case bool():
            return f", not {str(written).lower()}"
        case None:
            return ", not null"
        case int() | float():
            return f", not {written}" if abs(written) < 2**63 else ""
        case str():
            shown = written if len(written) <= 40 else written[:37] + "…"
            return f", not '{shown}'" if shown.isprintable() and shown else ""
        case Mapping() | BaseModel():
            return "" if error_type in _SHAPES else ", not a mapping"
        case list() | tuple():
            return ", not a list" if error_type != "recursion_loop" else ""
        case _:
            return ""


def _hint(error: ErrorDetails) -> str:
    written = error["input"]
    if error["type"] == "string_type" and isinstance(written, bool | int | float):
        return "Put it in quotes."
    if error["type"] == "list_type" and isinstance(written, str | int):
        return "Write one entry as `[entry]`."
    if error["type"] == "literal_error" and isinstance(written, str):
        meant = nearest(written, error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        return f"Did you mean `{meant}`?" if meant else ""
    return ""


def _hint_for_key(path: Path) -> str:
    key = str(path[-1])
    known = _keys_at(path[:-1])
    if len(path) == 1 and key in _keys_at(("defaults",)):
        return f"Write `{key}` under `defaults`, or on a subtask."
    # `id` for `subtask_id`, `group` for `parallel_group`: the last word alone.
    meant = next((word for word in known if word.endswith(f"_{key}")), None) or nearest(key, known)
    if meant:
        return f"Did you mean `{meant}`?"
    return f"The keys are {', '.join(known)}." if known else ""


def _keys_at(path: Path) -> list[str]:
    """The words that a plan may use at this place."""
    model: type[BaseModel]
    match path:
        case ():
            model = Plan
        case ("defaults",):
            model = Defaults
        case ("subtasks", int()):
            model = SubTask
        case (*_, "limits"):
            model = Limits
        case ("on_failure",):
            model = Quorum
        case _:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]
