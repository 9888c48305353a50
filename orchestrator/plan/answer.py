"""What an agent said → the one JSON object in it. Agents put JSON into Markdown fences and words around it."""

from __future__ import annotations

import json
from typing import Any, Final

from orchestrator.errors import Fault
from orchestrator.plan.faults import one_line

LONGEST_ANSWER: Final = 512 * 1024
"""Characters. A plan of a thousand subtasks is shorter."""
MOST_BRACES: Final = 1_000
"""Opening braces that are tried in vain: each of them may be the beginning of as much as the whole answer."""

_ALONE: Final = "Answer with one JSON object and nothing else."


def find_object(answer: str) -> dict[str, Any] | Fault:
    """The object that has `subtasks`; the only object there is, if none has; else what is wrong, in words."""
    if len(answer) > LONGEST_ANSWER:
        return Fault(f"The answer is longer than {LONGEST_ANSWER:,} characters.", hint="Propose fewer subtasks.")
    found, furthest = _objects(answer)
    plans = {text: value for text, value in found.items() if "subtasks" in value}
    if len(plans) > 1:
        return Fault(f"The answer holds {len(plans)} plans.", hint=_ALONE)
    if plans:
        return next(iter(plans.values()))
    if furthest is not None:
        return Fault(_broken(answer, furthest), hint=_ALONE)
    if len(found) == 1:
        return next(iter(found.values()))
    return Fault("The answer holds no JSON object with `subtasks`.", hint=_ALONE)


def _broken(answer: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(answer.rstrip()) or error.msg.startswith("Unterminated"):
        return "The answer's JSON breaks off before its end."
    return one_line(f"The answer's JSON is broken in line {error.lineno}, column {error.colno}: {error.msg}.")


def _objects(answer: str) -> tuple[dict[str, dict[str, Any]], json.JSONDecodeError | None]:
    """The objects by their text, none inside of another; and the latest error of what began as one."""
    decoder = json.JSONDecoder(strict=False)  # models write line breaks into strings
    found: dict[str, dict[str, Any]] = {}
    furthest: json.JSONDecodeError | None = None
    in_vain = 0
    at = answer.find("{")
    while at >= 0 and in_vain < MOST_BRACES:
        try:
            value, end = decoder.raw_decode(answer, at)
        except json.JSONDecodeError as error:
            is_object = answer[at + 1 : error.pos].strip() != ""  # not `{user}` in a sentence, or a block of code
            if is_object and (furthest is None or error.pos > furthest.pos):
                furthest = error
        except (ValueError, RecursionError):  # a number of five thousand digits, a thousand brackets
            pass
        else:
            found[answer[at:end]] = value
            at = answer.find("{", end)
            continue
        in_vain += 1
        at = answer.find("{", at + 1)
    return found, furthest
