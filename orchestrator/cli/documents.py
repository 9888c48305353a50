"""The JSON form of every view; `docs/json.md` promises these fields.

Times are ISO 8601 in UTC, durations are seconds. Prompts and the plan's text are never part of it.
"""

from __future__ import annotations

from typing import Any

from orchestrator.cli.describe import waits_for
from orchestrator.cli.render import instant, seconds
from orchestrator.cli.report_figures import Totals, totals
from orchestrator.ledger import Spending
from orchestrator.redaction import redact_url
from orchestrator.state.group_checks import GroupCheck
from orchestrator.state.history import AttemptRecord, JobHistory
from orchestrator.state.views import AccountView, EventView, GroupRunView, GroupView, JobLine, JobView, SubtaskView


def job_line(job: JobLine) -> dict[str, Any]:
    return {
        "id": job.id,
        "title": job.title,
        "status": job.status,
        "reason": job.reason,
        "paused_at": instant(job.paused_at),
        "created_at": instant(job.created_at),
        "started_at": instant(job.started_at),
        "finished_at": instant(job.finished_at),
        "duration_seconds": seconds(job.duration_seconds),
        "subtasks": dict(job.subtasks),
    }


def job(view: JobView) -> dict[str, Any]:
    return {
        "id": view.id,
        "title": view.title,
        "status": view.status,
        "reason": view.reason,
        "error": view.error,
        "repo": redact_url(view.repo) if view.repo else None,
        "base": view.base,
        "base_commit": view.base_commit,
        "branch": view.branch,
        "head_commit": view.head_commit,
        "max_parallel_agents": view.max_parallel_agents,
        "deadline_at": instant(view.deadline_at),
        "max_cost_usd": view.max_cost_usd,
        "spent": spending(view.spent),
        "paused_at": instant(view.paused_at),
        "cancel_requested_at": instant(view.cancel_requested_at),
        "created_at": instant(view.created_at),
        "started_at": instant(view.started_at),
        "finished_at": instant(view.finished_at),
        "duration_seconds": seconds(view.duration_seconds),
        "groups": [_group(view, group) for group in view.groups],
    }


def account(view: AccountView) -> dict[str, Any]:
    limit = view.limit
    return {
        "account": view.account.name,
        "provider": view.account.provider,
        "model": view.account.model,
        "running": view.running,
        "waiting": view.waiting,
        "allowed": limit.allowed if limit else None,
        "closed_until": instant(limit.closed_until) if limit and view.closed_seconds else None,
        "closed_seconds": seconds(view.closed_seconds),
        "throttled_at": instant(limit.throttled_at) if limit else None,
    }


def event(view: EventView) -> dict[str, Any]:
    return {
        "type": "event",
        "id": view.id,
        "at": instant(view.at),
        "name": view.name,
        "group": view.group_number,
        "subtask_id": view.subtask_id,
        "attempt": view.attempt,
        "data": dict(view.data),
    }


def _group(view: JobView, group: GroupView) -> dict[str, Any]:
    return {
        "number": group.number,
        "status": group.status,
        "error": group.error,
        "started_at": instant(group.started_at),
        "finished_at": instant(group.finished_at),
        "wall_seconds": seconds(group.wall_seconds),
        "speedup_factor": seconds(group.speedup_factor),
        "spent": spending(group.spent),
        "runs": [_group_run(run) for run in group.runs],
        "subtasks": [_subtask(view, group, subtask) for subtask in group.subtasks],
    }


def _group_run(run: GroupRunView) -> dict[str, Any]:
    return {
        "number": run.number,
        "success": run.success,
        "failure_reason": run.failure_reason,
        "conflicts": run.conflicts or [],
        "total_duration_seconds": seconds(run.total_duration_seconds),
        "speedup_factor": seconds(run.speedup_factor),
        "max_concurrent_agents": run.max_concurrent_agents,
        "woken_by": run.woken_by,
        "started_at": instant(run.started_at),
        "completed_at": instant(run.completed_at),
        "head_commit": run.head_commit,
        "check_passed": run.check_passed,
    }


def _subtask(view: JobView, group: GroupView, subtask: SubtaskView) -> dict[str, Any]:
    attempt = subtask.attempt
    return {
        "subtask_id": subtask.subtask_id,
        "title": subtask.title,
        "agent": subtask.agent,
        "requires": list(subtask.requires),
        "permissions": subtask.permissions,
        "status": subtask.status,
        "outcome": subtask.outcome,
        "error": subtask.error,
        "waits_for": waits_for(view, group, subtask) or None,
        "attempts": subtask.attempts,
        "resumed_from": attempt.resumed_from if attempt else None,
        "worker": attempt.worker if attempt else None,
        "duration_seconds": seconds(attempt.duration_seconds) if attempt else None,
        "agent_duration_seconds": seconds(attempt.agent_duration_seconds) if attempt else None,
        "exit_code": attempt.exit_code if attempt else None,
        "files_changed": list(attempt.files_changed) if attempt else [],
        "spent": spending(subtask.spent),
        "commit": subtask.commit,
        "merged_at": instant(subtask.merged_at),
        "not_before": instant(subtask.not_before),
        "started_at": instant(subtask.started_at),
        "finished_at": instant(subtask.finished_at),
    }


def report(history: JobHistory) -> dict[str, Any]:
    """A job with its totals, every attempt and every event."""
    return {
        "job": job(history.job),
        "totals": _totals(totals(history)),
        "attempts": [_attempt(attempt) for attempt in history.attempts],
        "checks": [group_check(check) for check in history.checks],
        "events": [event(one) for one in history.events],
    }


def group_check(check: GroupCheck) -> dict[str, Any]:
    return {
        "group": check.group_number,
        "run": check.run,
        "at": instant(check.ended_at),
        "command": check.command,
        "passed": check.passed,
        "exit_code": check.exit_code,
        "output": check.output,
    }


def _totals(sums: Totals) -> dict[str, Any]:
    return {
        "subtasks": dict(sums.subtasks),
        "attempts": sums.attempts,
        "repeated_attempts": sums.repeated_attempts,
        "workers": sums.workers,
        "conflicts": sums.conflicts,
        "files_changed": sums.files_changed,
        "wall_seconds": seconds(sums.wall_seconds),
        "agent_seconds": seconds(sums.agent_seconds),
        "completed_agent_seconds": seconds(sums.completed_agent_seconds),
        "speedup_factor": seconds(sums.speedup_factor),
        **spending(sums.spent),
    }


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "subtask_id": attempt.subtask_id,
        "number": attempt.number,
        "resumed_from": attempt.resumed_from,
        "worker": attempt.worker,
        "agent": attempt.agent,
        "status": attempt.status,
        "error": attempt.error,
        "started_at": instant(attempt.started_at),
        "finished_at": instant(attempt.finished_at),
        "agent_started_at": instant(attempt.agent_started_at),
        "agent_duration_seconds": seconds(attempt.agent_duration_seconds),
        "exit_code": attempt.exit_code,
        "files_changed": list(attempt.files_changed),
        "commit": attempt.commit,
        "ref": attempt.ref,
        "model": attempt.model,
        "usage": dict(attempt.usage) if attempt.usage is not None else None,
        "cost_usd": attempt.cost_usd,
        "cost_estimated": attempt.cost_estimated,
        "cost_unknown": attempt.cost_unknown,
        "reported_usage": dict(attempt.reported_usage) if attempt.reported_usage is not None else None,
        "reported_cost_usd": attempt.reported_cost_usd,
    }


def spending(spent: Spending) -> dict[str, Any]:
    return {
        "usage": dict(spent.usage),
        "tokens": spent.tokens,
        "tokens_incomplete": spent.tokens_incomplete,
        "cost_usd": spent.cost_usd,
        "cost_estimated": spent.estimated,
        "cost_incomplete": spent.cost_incomplete,
    }
