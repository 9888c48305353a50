"""From what a user wrote to a plan that keeps every rule, or to all of its faults at once.

Order: text → data (`parse`) → types (`model`) → meaning (`rules`) → groups (`grouping`) → defaults filled in
(`resolve`). Nothing is stored, started or looked up here; only `load_plan` touches the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.agent_names import AgentEntry
from orchestrator.errors import BadInput, PlanError
from orchestrator.plan.advice import warnings_of
from orchestrator.plan.budget import warnings_of_budget
from orchestrator.plan.faults import FaultList
from orchestrator.plan.grouping import arrange
from orchestrator.plan.model import Plan, ValidatedPlan
from orchestrator.plan.parse import MAX_BYTES, Document, parse_document, report_duplicates
from orchestrator.plan.resolve import plan_group
from orchestrator.plan.rules import Draft, checks_of_missing_groups, findings
from orchestrator.plan.schema import plan_schema
from orchestrator.plan.wording import report_shape_faults
from orchestrator.prices import Prices

__all__ = ["load_plan", "plan_schema", "validate_plan"]

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/]+:")
"""A URL, or git's short form `host:path`: a colon before the first slash."""


def load_plan(
    path: str | os.PathLike[str],
    *,
    known_agents: Collection[str],
    base_dir: str | os.PathLike[str] | None = None,
    prices: Prices | None = None,
) -> ValidatedPlan:
    """Read and check a plan's file, YAML or JSON.

    A `repo` that is a path is relative to `base_dir`, by default the file's folder. Raises `BadInput` if the file
    can't be read, and `PlanError` with every fault of the plan.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    return validate_plan(
        text, known_agents=known_agents, source=str(path), base_dir=base_dir or file.parent, prices=prices
    )


def validate_plan(
    plan: Plan | Mapping[str, Any] | str | bytes,
    *,
    known_agents: Collection[str],
    source: str = "the plan",
    base_dir: str | os.PathLike[str] | None = None,
    prices: Prices | None = None,
) -> ValidatedPlan:
    """Check a plan: a `Plan`, a mapping of its words, or YAML or JSON text.

    `known_agents` are the names that an agent may have; given as `agent_names.known_agents` gives them, each agent's
    configuration is checked as well. `prices` are the user's own, over the list that comes with this version; they matter
    to a budget. A `repo` that is a path is relative to `base_dir`, by default
    the current folder, and absolute in the answer. Raises `PlanError` with every fault, in the order of the text.
    """
    document = parse_document(plan, source=source) if isinstance(plan, str | bytes) else Document(plan)
    faults = FaultList(document.lines)
    report_duplicates(document, faults)
    draft = _read_shape(document.data, _by_name(known_agents), faults)
    if draft is not None:
        for finding in findings(draft):
            faults.add(*finding)
        repo = _absolute_repo(draft.plan.repo, Path(base_dir or "."), faults)
    if faults or draft is None:
        raise PlanError(faults.in_order(), source=source)

    sound = draft.plan if repo is None else draft.plan.model_copy(update={"repo": repo})
    arranged = arrange(sound.subtasks, sound.parallelization_strategy)
    if sound.parallelization_strategy == "dependencies":
        for finding in checks_of_missing_groups(sound, [group.number for group in arranged]):
            faults.add(*finding)
    if faults:
        raise PlanError(faults.in_order(), source=source)
    groups = tuple(plan_group(sound, group) for group in arranged)
    warnings = (*warnings_of(sound, groups), *warnings_of_budget(sound, groups, draft.known_agents, prices or {}))
    return ValidatedPlan(sound, groups, warnings, source, _digest(sound))


def _by_name(known_agents: Collection[str]) -> Mapping[str, AgentEntry | None]:
    return known_agents if isinstance(known_agents, Mapping) else dict.fromkeys(known_agents)


def _unreadable(file: Path, error: OSError | ValueError) -> BadInput:
    shown = repr(str(file))[1:-1]
    if isinstance(error, FileNotFoundError):
        message, recovery = f"There is no plan at {shown}.", "Check the path."
    elif isinstance(error, IsADirectoryError):
        message, recovery = f"{shown} is a folder, not a plan.", "Name the plan's file inside it."
    else:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        message, recovery = f"The plan {shown} can't be read: {why}.", "Check the path and its permissions."
    return BadInput(message, context={"path": str(file)}, recovery=recovery)


def _read_shape(data: Any, known_agents: Mapping[str, AgentEntry | None], faults: FaultList) -> Draft | None:
    """The plan, or what can be read of it; None if nothing can. Adds the faults of shape."""
    if isinstance(data, Plan):
        return Draft(data, tuple(range(len(data.subtasks))), known_agents)
    if not isinstance(data, Mapping):
        problem = "is empty" if data is None else "is not a mapping of keys to values"
        faults.add((), f"The plan {problem}.", "It needs at least `title:` and `subtasks:`.")
        return None
    try:
        plan = _plan_from(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        report_shape_faults(errors, data, faults)
        return _salvage(data, errors, known_agents)
    return Draft(plan, tuple(range(len(plan.subtasks))), known_agents)


def _plan_from(data: Mapping[str, Any]) -> Plan:
    """A document speaks the words of the schema only; the attributes' names are for Python."""
    return Plan.model_validate(dict(data), by_alias=True, by_name=False)


def _salvage(
    data: Mapping[str, Any], errors: Sequence[ErrorDetails], known_agents: Mapping[str, AgentEntry | None]
) -> Draft | None:
    """What is left of a plan without its broken keys and subtasks, so that one answer names the other faults too."""
    subtasks = data.get("subtasks")
    if not isinstance(subtasks, list | tuple):
        return None
    broken_keys = frozenset(str(error["loc"][0]) for error in errors if error["loc"]) - {"subtasks"}
    broken = {error["loc"][1] for error in errors if error["loc"][0] == "subtasks" and len(error["loc"]) > 1}
    positions = tuple(position for position in range(len(subtasks)) if position not in broken)
    rest = {key: value for key, value in data.items() if key not in broken_keys}
    defaults = data.get("defaults")
    if isinstance(defaults, Mapping) and not _is_broken(errors, "defaults", "permissions"):
        # What the agent may do is judged by both words: without the one, the other says too little.
        rest["defaults"] = {key: value for key, value in defaults.items() if not _is_broken(errors, "defaults", key)}
    rest = {"title": "?"} | rest | {"subtasks": [subtasks[position] for position in positions]}
    try:
        plan = _plan_from(rest)
    except ValidationError:
        return None
    ids = {_id_of(subtasks[position]) for position in range(len(subtasks)) if position in broken}
    return Draft(
        plan,
        positions,
        known_agents,
        unreadable_keys=broken_keys,
        unreadable_ids=None if None in ids else frozenset(i for i in ids if i is not None),
    )


def _is_broken(errors: Sequence[ErrorDetails], *words: str) -> bool:
    return any(error["loc"][: len(words)] == words for error in errors)


def _id_of(subtask: Any) -> int | None:
    written = subtask.get("subtask_id") if isinstance(subtask, Mapping) else None
    return written if isinstance(written, int) else None


def _absolute_repo(repo: str | None, base_dir: Path, faults: FaultList) -> str | None:
    """Workers and dispatchers run in other folders than the one that the user wrote the path in."""
    if repo is None or _URL.match(repo):
        return repo
    try:
        return str((base_dir / Path(repo).expanduser()).resolve())
    except (OSError, RuntimeError) as error:  # a home that nobody has, symbolic links in a circle
        faults.add(
            ("repo",), f"`repo` is no usable path: {str(error).rstrip('.')}.", "Write an absolute path or a URL."
        )
        return None


def _digest(plan: Plan) -> str:
    """Over what is written, not over this version's defaults: the same plan keeps its digest when a key is added."""
    written = plan.model_dump(mode="json", exclude_unset=True)
    canonical = json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
