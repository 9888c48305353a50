"""A subtask with the plan's defaults filled in: what a worker reads, whole in itself."""

from __future__ import annotations

from typing import Any, Final

from orchestrator.plan.grouping import ArrangedGroup, kind_of
from orchestrator.plan.model import Defaults, Limits, Plan, PlannedGroup, ResolvedSubtask, SubTask

_NULL_IS_A_VALUE: Final = frozenset({"timeout_seconds", "idle_timeout_seconds", "check", "expect_changes"})
"""Written as `null` these mean no limit, no check, or the usual rule; elsewhere `null` is the same as nothing written."""


def plan_group(plan: Plan, arranged: ArrangedGroup) -> PlannedGroup:
    """The group as it will be stored, with its check if it has one."""
    defaults = _effective_defaults(plan)
    return PlannedGroup(
        number=arranged.number,
        check=_check_of(plan, arranged),
        subtasks=tuple(_resolve(subtask, defaults, arranged.number) for subtask in arranged.subtasks),
    )


def _check_of(plan: Plan, arranged: ArrangedGroup) -> str | None:
    """A check by number runs when the whole written group is merged, hence after the last part of a split one."""
    if not isinstance(plan.group_checks, dict):
        return plan.group_checks
    number = arranged.number if plan.parallelization_strategy == "dependencies" else arranged.written
    return plan.group_checks.get(number) if number is not None and arranged.last_part else None


def _effective_defaults(plan: Plan) -> Defaults:
    """The defaults with the original coordinator's words folded in; that the two do not contradict is checked
    before."""
    said: dict[str, Any] = {"timeout_seconds": plan.agent_timeout_seconds, "max_retries": plan.max_retries}
    return plan.defaults.model_copy(update={key: value for key, value in said.items() if value is not None})


def _resolve(subtask: SubTask, defaults: Defaults, group_number: int) -> ResolvedSubtask:
    def own(key: str) -> bool:
        return key in subtask.model_fields_set and (key in _NULL_IS_A_VALUE or getattr(subtask, key) is not None)

    inherited = {
        key: getattr(subtask if own(key) else defaults, key) for key in Defaults.model_fields if key != "limits"
    }
    return ResolvedSubtask(
        subtask_id=subtask.subtask_id,
        group_number=group_number,
        title=subtask.title,
        description=subtask.description,
        kind=kind_of(subtask),
        depends_on=sorted(set(subtask.depends_on)),
        files=subtask.files,
        estimated_complexity=subtask.estimated_complexity,
        estimated_duration_minutes=subtask.estimated_duration_minutes,
        limits=_limits(subtask, defaults),
        **inherited,
    )


def _limits(subtask: SubTask, defaults: Defaults) -> Limits:
    """Every limit written out, so that what is stored does not change with a later version's defaults."""
    own = subtask.limits
    return Limits(
        **{
            key: getattr(own if own is not None and key in own.model_fields_set else defaults.limits, key)
            for key in Limits.model_fields
        }
    )
