"""A plan that nobody has submitted yet: its groups, and the commands that would be run beside its agents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.cli.render import console, print_table
from orchestrator.plan.model import ValidatedPlan
from orchestrator.text import plural, printable


def plan_document(validated: ValidatedPlan) -> dict[str, Any]:
    """Its JSON form; `docs/json.md` promises these fields."""
    groups = [
        {
            "number": group.number,
            "check": group.check,
            "subtasks": [
                {
                    "subtask_id": subtask.subtask_id,
                    "title": subtask.title,
                    "agent": subtask.agent.name,
                    "kind": subtask.kind,
                    "depends_on": list(subtask.depends_on),
                    "requires": list(subtask.requires),
                    "check": subtask.check,
                }
                for subtask in group.subtasks
            ],
        }
        for group in validated.groups
    ]
    return {
        "title": validated.plan.title,
        "max_parallel_agents": validated.plan.max_parallel_agents,
        "digest": validated.digest,
        "warnings": list(validated.warnings),
        "groups": groups,
    }


def print_plan(validated: ValidatedPlan) -> None:
    """What would run, group by group, then its checks and what the plan may regret."""
    plan = validated.plan
    total = sum(len(group.subtasks) for group in validated.groups)
    print(f"{plan.title}: {plural(total, 'subtask')} in {plural(len(validated.groups), 'group')}, valid.")
    print(f"At most {plural(plan.max_parallel_agents, 'agent')} at once.\n")
    rows = [
        (
            group.number,
            subtask.subtask_id,
            subtask.title,
            subtask.agent.name,
            "testing" if subtask.kind == "testing" else "",
            ", ".join(f"#{other}" for other in subtask.depends_on),
        )
        for group in validated.groups
        for subtask in group.subtasks
    ]
    print_table(console(), ("group", "#", "title", "agent", "kind", "depends on"), rows)
    for line in _checks(validated):
        print(line)
    for warning in validated.warnings:
        print(f"warning: {warning}")


def _checks(validated: ValidatedPlan) -> Iterator[str]:
    """Whole: whoever lets a plan run has read them."""
    for group in validated.groups:
        for subtask in group.subtasks:
            if subtask.check is not None:
                yield f"check of #{subtask.subtask_id}: {_command(subtask.check)}"
        if group.check is not None:
            yield f"check of group {group.number}: {_command(group.check)}"


def _command(command: str) -> str:
    return printable(command).strip().replace("\n", "\n    ")
