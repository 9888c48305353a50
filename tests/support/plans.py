"""Plans for tests: the format's own example, and small ones that are sound but for what a test changes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import Fault, PlanError
from orchestrator.plan.model import Plan, ValidatedPlan
from orchestrator.plan.validate import validate_plan

AGENTS = frozenset({"claude-code", "shell", "scripted"})

BOOKSTORE = """\
title: Bookstore models
repo: .                          # a path or any git URL
base: main
goal: |
  Add the persistence layer.
max_parallel_agents: 5
parallelization_strategy: parallel_groups
on_failure: stop
on_conflict: fail
deadline: 4h
max_cost_usd: 20
defaults: {agent: claude-code, timeout: 10m, idle_timeout: 5m, max_retries: 2, check: null, expect_changes: null,
           requires: [], limits: {memory: 4GiB, cpu_seconds: null, processes: 512}}
group_checks: {1: "pytest -q"}
subtasks:
  - subtask_id: 1
    title: Implement User model
    description: Create User model with SQLAlchemy
    parallel_group: 1
    estimated_complexity: 30
    estimated_duration_minutes: 45
    files: [src/models/user.py]
    agent: claude-code
  - subtask_id: 2
    title: Implement Product model
    description: Create Product model with SQLAlchemy
    parallel_group: 1
    files: [src/models/product.py]
    agent: {name: shell, command: "python make_product.py"}
  - {subtask_id: 3, title: Run tests, description: Run them all, kind: testing, depends_on: [1, 2], parallel_group: 2}
"""


def subtask(subtask_id: int, /, **words: Any) -> dict[str, Any]:
    return {"subtask_id": subtask_id, "title": f"Part {subtask_id}", "description": "Do it."} | words


def plan(*subtasks: dict[str, Any], **words: Any) -> dict[str, Any]:
    return {"title": "A job", "defaults": {"agent": "shell"}, "subtasks": list(subtasks)} | words


def valid(written: Plan | dict[str, Any] | str | bytes) -> ValidatedPlan:
    return validate_plan(written, known_agents=AGENTS)


def faults_of(written: Plan | dict[str, Any] | str | bytes) -> tuple[Fault, ...]:
    with pytest.raises(PlanError) as raised:
        validate_plan(written, known_agents=AGENTS)
    return raised.value.faults


def the_fault_of(written: Plan | dict[str, Any] | str | bytes) -> Fault:
    faults = faults_of(written)
    assert len(faults) == 1, faults
    return faults[0]


def group_ids(validated: ValidatedPlan) -> dict[int, list[int]]:
    return {group.number: [subtask.subtask_id for subtask in group.subtasks] for group in validated.groups}
