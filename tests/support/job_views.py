"""Jobs as `orchestrator.state.queries` would read them, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.state.history import AttemptRecord, JobHistory
from orchestrator.state.views import AttemptView, EventView, GroupRunView, GroupView, JobView, SubtaskView

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def an_attempt(**values: Any) -> AttemptView:
    plain: dict[str, Any] = {
        "id": 1,
        "number": 1,
        "status": "running",
        "resumed_from": None,
        "worker": "worker-1@host",
        "started_at": ago(3),
        "finished_at": None,
        "duration_seconds": 3.0,
        "agent_duration_seconds": None,
        "files_changed": (),
        "exit_code": None,
        "error": None,
    }
    return AttemptView(**plain | values)


def a_subtask(subtask_id: int = 1, status: str = "pending", **values: Any) -> SubtaskView:
    is_final = status not in ("pending", "in_progress")
    plain: dict[str, Any] = {
        "subtask_id": subtask_id,
        "group_number": 1,
        "title": f"Part {subtask_id}",
        "agent": "shell",
        "requires": (),
        "permissions": "edit",
        "status": status,
        "outcome": status if is_final else None,
        "error": None,
        "attempts": 0 if status == "pending" else 1,
        "released_at": ago(4) if status == "in_progress" else None,
        "not_before": None,
        "merged_at": None,
        "started_at": None,
        "finished_at": ago(1) if is_final else None,
        "commit": None,
        "attempt": None if status == "pending" else an_attempt(),
    }
    return SubtaskView(**plain | values)


def a_group(number: int, status: str, *subtasks: SubtaskView, **values: Any) -> GroupView:
    is_final = status not in ("pending", "running", "merging")
    plain: dict[str, Any] = {
        "number": number,
        "status": status,
        "error": None,
        "started_at": None if status == "pending" else ago(5),
        "finished_at": ago(1) if is_final else None,
        "subtasks": subtasks,
    }
    return GroupView(**plain | values)


def a_job(*groups: GroupView, **values: Any) -> JobView:
    plain: dict[str, Any] = {
        "id": "3f2a9c1b04d7",
        "title": "Bookstore models",
        "status": "running",
        "reason": None,
        "error": None,
        "repo": None,
        "base": None,
        "base_commit": None,
        "branch": None,
        "head_commit": None,
        "max_parallel_agents": 5,
        "deadline_at": None,
        "max_cost_usd": None,
        "paused_at": None,
        "cancel_requested_at": None,
        "created_at": ago(10),
        "started_at": ago(8),
        "finished_at": None,
        "now": NOW,
        "groups": groups,
    }
    return JobView(**plain | values)


def a_record(
    subtask_id: int = 1, number: int = 1, *, start: float = 8, end: float | None = 2, **values: Any
) -> AttemptRecord:
    """An attempt from `start` to `end` seconds ago; its agent worked for all but the first and the last tenth of it."""
    lasted = start - (end or 0)
    plain: dict[str, Any] = {
        "id": subtask_id * 100 + number,
        "subtask_id": subtask_id,
        "number": number,
        "resumed_from": None,
        "worker": "worker-1@host",
        "agent": "shell",
        "status": "running" if end is None else "completed",
        "error": None,
        "started_at": ago(start),
        "finished_at": None if end is None else ago(end),
        "agent_started_at": ago(start - lasted / 10),
        "agent_duration_seconds": None if end is None else lasted * 0.8,
        "files_changed": ("a.py",),
        "exit_code": None if end is None else 0,
        "commit": None,
        "ref": None,
        "model": None,
        "usage": None,
        "cost_usd": None,
        "cost_estimated": False,
        "cost_unknown": False,
        "reported_usage": None,
        "reported_cost_usd": None,
    }
    return AttemptRecord(**plain | values)


def a_run(number: int = 1, *, start: float = 8, end: float | None = 1, **values: Any) -> GroupRunView:
    plain: dict[str, Any] = {
        "number": number,
        "success": None if end is None else True,
        "failure_reason": None,
        "conflicts": None,
        "total_duration_seconds": None if end is None else start - end,
        "speedup_factor": None if end is None else 1.0,
        "max_concurrent_agents": None if end is None else 1,
        "woken_by": None if end is None else "callback",
        "started_at": ago(start),
        "completed_at": None if end is None else ago(end),
    }
    return GroupRunView(**plain | values)


def a_history(job: JobView, *attempts: AttemptRecord, events: tuple[EventView, ...] = ()) -> JobHistory:
    return JobHistory(job, attempts, events)
