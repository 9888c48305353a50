"""`permissions` in a plan: who can be held to what, and what the seed's word for it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.agent_names import known_agents
from orchestrator.errors import PlanError
from orchestrator.plan.validate import validate_plan
from orchestrator.settings import load_settings
from tests.support.plans import plan, subtask


def permissions_of(written: dict[str, Any]) -> list[str]:
    written = (
        {**written, "defaults": {"agent": "claude-code"}} if written["defaults"] == {"agent": "shell"} else written
    )
    valid = validate_plan(written, known_agents=known_agents(load_settings()))
    return [one.permissions for group in valid.groups for one in group.subtasks]


def fault_of(written: dict[str, Any]) -> str:
    with pytest.raises(PlanError) as raised:
        permissions_of(written)
    [fault] = raised.value.faults
    return fault.message


def test_the_default_is_edit_and_a_subtask_may_say_otherwise() -> None:
    written = plan(
        subtask(1),
        subtask(2, permissions="read-only"),
        subtask(3, permissions="full"),
        defaults={"agent": "claude-code"},
    )
    assert permissions_of(written) == ["edit", "read-only", "full"]


def test_an_agent_that_has_nothing_but_a_shell_needs_full() -> None:
    assert "mini-swe-agent can't be held to `permissions: edit`" in fault_of(plan(subtask(1, agent="mini-swe-agent")))
    assert permissions_of(plan(subtask(1, agent="mini-swe-agent", permissions="full"))) == ["full"]


def test_a_command_of_the_plan_can_not_be_kept_from_writing() -> None:
    shell = {"name": "shell", "command": "true"}
    assert "shell can't be kept from changing files" in fault_of(plan(subtask(1, agent=shell, permissions="read-only")))
    assert permissions_of(plan(subtask(1, agent=shell, permissions="full"))) == ["full"]


def test_the_same_fault_of_many_subtasks_is_told_once() -> None:
    assert "mini-swe-agent" in fault_of(plan(*[subtask(i) for i in range(1, 5)], defaults={"agent": "mini-swe-agent"}))


def test_an_unknown_word_is_a_fault() -> None:
    assert "read-only" in fault_of(plan(subtask(1, agent="claude-code", permissions="everything")))
