"""The plan's words as Python types, and what a subtask inherits."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.plan.model import AgentSpec, Defaults, Limits, Plan, Quorum, ResolvedSubtask, SubTask
from tests.support.plans import BOOKSTORE, plan, subtask, valid


def resolved(**words: Any) -> ResolvedSubtask:
    """The one subtask of a plan with these words at its top; `own` are the subtask's words."""
    own = words.pop("own", {})
    return valid(plan(subtask(1, **own), **words)).groups[0].subtasks[0]


def test_the_original_coordinators_subtask_can_be_built() -> None:
    now = datetime.now(UTC)
    built = SubTask(
        subtask_id=1,
        parent_task_id=100,
        title="Implement User model",
        description="Create User model with SQLAlchemy",
        estimated_complexity=30.0,
        estimated_duration_minutes=45,
        dependencies=[2],
        parallelizable=True,
        parallel_group=1,
        status="pending",
        assigned_agent_id=None,
        created_at=now,
    )
    assert built.depends_on == built.dependencies == [2]
    assert (built.parent_task_id, built.estimated_duration_minutes, built.created_at) == (100, 45, now)
    bare = SubTask(subtask_id=1, title="x")
    assert (bare.dependencies, bare.parallel_group, bare.status, bare.parallelizable) == ([], None, "pending", False)


def test_a_subtask_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        SubTask(subtask_id=1, title="x").title = "y"  # type: ignore[misc]


def test_a_plan_in_python_says_the_same_as_one_in_yaml() -> None:
    built = Plan(
        title="Job",
        deadline_seconds=7200,
        on_failure=Quorum(quorum=2),
        defaults=Defaults(agent=AgentSpec(name="shell"), timeout_seconds=90, limits=Limits(memory_bytes=2**29)),
        subtasks=[SubTask(subtask_id=1, title="x", description="y", idle_timeout_seconds=None, parallel_group=1)],
    )
    written = """
title: Job
deadline: 2h
on_failure: {quorum: 2}
defaults: {agent: shell, timeout: 90s, limits: {memory: 512MiB}}
subtasks: [{subtask_id: 1, title: x, description: y, idle_timeout: null, parallel_group: 1}]
"""
    assert valid(built).groups == valid(written).groups
    assert valid(built).plan.on_failure == valid(written).plan.on_failure == Quorum(quorum=2)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1.5h", 5400), ("2d", 172_800), (45, 45), (0.5, 0.5)],
)
def test_durations(written: object, seconds: float) -> None:
    assert Defaults.model_validate({"timeout": written}).timeout_seconds == seconds


@pytest.mark.parametrize("written", ["", "10", "10 m", "m", "-5s", "1:30", "٣s", True, 0, -1, "0s", 1e12, [1]])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValidationError):
        Defaults.model_validate({"timeout": written})


@pytest.mark.parametrize(
    ("written", "size"),
    [("4GiB", 4 * 2**30), ("512MiB", 2**29), ("1.5KiB", 1536), ("2GB", 2 * 10**9), ("7B", 7), (4096, 4096)],
)
def test_sizes(written: object, size: int) -> None:
    assert Limits.model_validate({"memory": written}).memory_bytes == size


@pytest.mark.parametrize("written", ["4", "4 GiB", "4gib", "0B", True, -1, 1.5, 2**70])
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate({"memory": written})


def test_an_agent_is_a_name_or_a_mapping_with_its_configuration() -> None:
    spec = AgentSpec(name="shell", config={"command": "make"})
    assert AgentSpec.model_validate("shell") == AgentSpec(name="shell")
    assert AgentSpec.model_validate({"name": "shell", "command": "make"}) == spec
    assert AgentSpec.model_validate({"name": "shell", "config": {"command": "make"}}) == spec
    assert AgentSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_defaults_are_those_of_the_format() -> None:
    first = resolved(defaults={})
    assert (first.agent.name, first.timeout_seconds, first.idle_timeout_seconds) == ("claude-code", 600, 300)
    assert (first.max_retries, first.check, first.expect_changes, first.requires) == (2, None, None, [])
    assert first.limits == Limits(memory_bytes=4 * 2**30, cpu_seconds=None, processes=512)
    whole = valid(plan(subtask(1))).plan
    assert (whole.max_parallel_agents, whole.parallelization_strategy) == (5, "parallel_groups")
    assert (whole.on_failure, whole.on_conflict, whole.retry_failed_agents) == ("stop", "fail", True)


def test_a_subtasks_own_words_come_before_the_defaults() -> None:
    defaults = {
        "agent": "shell",
        "timeout": "10m",
        "max_retries": 4,
        "check": "make",
        "requires": ["gpu"],
        "expect_changes": True,
    }
    inherited = resolved(defaults=defaults)
    assert (inherited.timeout_seconds, inherited.max_retries, inherited.check) == (600, 4, "make")
    assert (inherited.requires, inherited.expect_changes) == (["gpu"], True)
    own = resolved(defaults=defaults, own={"timeout": "1m", "max_retries": 0, "requires": [], "agent": "scripted"})
    assert (own.timeout_seconds, own.max_retries, own.requires, own.agent.name) == (60, 0, [], "scripted")


def test_null_on_a_subtask_takes_a_limit_or_check_away_and_leaves_the_rest_to_the_defaults() -> None:
    nothing = dict.fromkeys(["timeout", "idle_timeout", "check", "expect_changes", "agent", "max_retries", "requires"])
    defaults = {"agent": "shell", "check": "make", "max_retries": 7, "requires": ["gpu"], "expect_changes": False}
    one = resolved(defaults=defaults, own=nothing)
    assert (one.timeout_seconds, one.idle_timeout_seconds, one.check, one.expect_changes) == (None, None, None, None)
    assert (one.agent.name, one.max_retries, one.requires) == ("shell", 7, ["gpu"])


def test_limits_are_inherited_one_by_one() -> None:
    one = resolved(defaults={"agent": "shell", "limits": {"processes": 9}}, own={"limits": {"memory": None}})
    assert (one.limits.memory_bytes, one.limits.processes, one.limits.cpu_seconds) == (None, 9, None)


def test_the_original_configuration_keys_mean_what_they_meant() -> None:
    one = resolved(agent_timeout_seconds=900, max_retries=3)
    assert (one.timeout_seconds, one.max_retries) == (900, 3)
    assert resolved(agent_timeout_seconds=900, own={"timeout": "1m"}).timeout_seconds == 60


def test_a_resolved_subtask_survives_json() -> None:
    for group in valid(BOOKSTORE).groups:
        for one in group.subtasks:
            stored = json.loads(json.dumps(one.model_dump(mode="json")))
            assert ResolvedSubtask.model_validate(stored) == one
            assert stored["limits"] == {"memory": 4 * 2**30, "cpu_seconds": None, "processes": 512}


def test_a_plan_survives_json_and_means_the_same() -> None:
    written = plan(
        subtask(1, timeout=None, limits={"memory": "1GiB"}),
        subtask(2, dependencies=[1]),
        agent_timeout_seconds=42,
        defaults={"agent": "shell", "limits": {"processes": 3}},
    )
    before = valid(written)
    after = valid(Plan.model_validate(json.loads(json.dumps(before.plan.model_dump(mode="json")))))
    assert after.groups == before.groups
    assert before.plan.model_dump(mode="json")["on_failure"] == "stop"


def test_the_digest_is_of_what_the_plan_says_not_of_how_it_is_laid_out() -> None:
    first = valid("title: x\ndefaults: {agent: shell}\nsubtasks: [{subtask_id: 1, title: a, timeout: 60s}]")
    same = valid(
        '{"subtasks": [{"timeout": "1m", "title": "a", "subtask_id": 1}], "defaults": {"agent": "shell"}, "title": "x"}'
    )
    other = valid("title: x\ndefaults: {agent: shell}\nsubtasks: [{subtask_id: 1, title: b, timeout: 60s}]")
    assert first.digest == same.digest != other.digest


def test_the_digest_is_of_the_canonical_json_of_what_is_written_and_of_no_default() -> None:
    written = (
        '{"defaults":{"agent":{"config":{},"name":"shell"}},"subtasks":[{"subtask_id":1,"title":"é"}],"title":"x"}'
    )
    assert valid(written).digest == hashlib.sha256(written.encode()).hexdigest()
