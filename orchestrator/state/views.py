"""What people and programs are shown of jobs: plain values, as `orchestrator.state.queries` reads them.

Times are aware datetimes of the database's clock, durations are seconds; `None` means not yet, or no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from orchestrator.ledger import NOTHING_TOLD, Spending, total
from orchestrator.provider_account import Account
from orchestrator.rate_limit import Limit
from orchestrator.state.tables import JOB_FINAL


@dataclass(frozen=True)
class JobLine:
    """One job in a list. `subtasks` counts them by status; a status that none has is left out."""

    id: str
    title: str
    status: str
    reason: str | None
    paused_at: datetime | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    subtasks: Mapping[str, int]


@dataclass(frozen=True)
class AttemptView:
    """The newest attempt of a subtask. `duration_seconds` runs from the claim to the end, or to now."""

    id: int
    number: int
    status: str
    resumed_from: int | None
    """The number of the attempt whose session and work it goes on with."""
    worker: str
    started_at: datetime
    finished_at: datetime | None
    duration_seconds: float
    agent_duration_seconds: float | None
    files_changed: tuple[str, ...]
    exit_code: int | None
    error: str | None


@dataclass(frozen=True)
class AttemptHead:
    """Which attempt a log belongs to."""

    id: int
    subtask_id: int
    number: int
    started_at: datetime


@dataclass(frozen=True)
class SubtaskView:
    subtask_id: int
    group_number: int
    title: str
    agent: str
    requires: tuple[str, ...]
    permissions: str
    status: str
    outcome: str | None
    error: str | None
    attempts: int
    released_at: datetime | None
    not_before: datetime | None
    merged_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    commit: str | None
    attempt: AttemptView | None
    spent: Spending = NOTHING_TOLD
    """By all its attempts."""
    waits_for: str | None = None
    """The provider account that lets it start; it holds no place meanwhile."""

    @property
    def is_final(self) -> bool:
        return self.finished_at is not None


@dataclass(frozen=True)
class GroupRunView:
    """One passage of a group. `conflicts` is what the merge recorded, as it recorded it."""

    number: int
    success: bool | None
    failure_reason: str | None
    conflicts: Any
    total_duration_seconds: float | None
    speedup_factor: float | None
    max_concurrent_agents: int | None
    woken_by: str | None
    started_at: datetime
    completed_at: datetime | None
    head_commit: str | None = None
    """The integration branch after this run's merge."""
    check_passed: bool | None = None
    """What the group's check said of it; `None` without one. `state.group_checks` has its output."""


@dataclass(frozen=True)
class GroupView:
    number: int
    status: str
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None
    runs: tuple[GroupRunView, ...] = ()
    subtasks: tuple[SubtaskView, ...] = ()

    @cached_property
    def spent(self) -> Spending:
        return total(subtask.spent for subtask in self.subtasks)

    @property
    def wall_seconds(self) -> float | None:
        """The wall time of its merged runs together; `None` before the first merge."""
        merged = [run.total_duration_seconds for run in self.runs if run.total_duration_seconds is not None]
        return sum(merged) if merged else None

    @property
    def speedup_factor(self) -> float | None:
        """Sum of the completed agents' durations / wall time, over its merged runs together."""
        if not self.wall_seconds:
            return None
        worked = sum((run.speedup_factor or 0.0) * (run.total_duration_seconds or 0.0) for run in self.runs)
        return worked / self.wall_seconds


@dataclass(frozen=True)
class AccountView:
    """A provider's account that agents are at work with, wait for, or have met the limits of. `limit` is None without one."""

    account: Account
    limit: Limit | None
    now: datetime
    running: int
    waiting: int
    """Subtasks that hold no place and start once the account lets them."""
    on_their_way: int
    """Subtasks that it has let go, and that no worker has claimed yet."""

    @property
    def closed_seconds(self) -> float:
        """For how long nothing of it may start; 0 when it is open."""
        return max((self.limit.closed_until - self.now).total_seconds(), 0.0) if self.limit else 0.0


@dataclass(frozen=True)
class JobView:
    """A job with its groups in their order. `now` is the database's clock at the reading."""

    id: str
    title: str
    status: str
    reason: str | None
    error: str | None
    repo: str | None
    base: str | None
    base_commit: str | None
    branch: str | None
    head_commit: str | None
    max_parallel_agents: int
    deadline_at: datetime | None
    max_cost_usd: float | None
    paused_at: datetime | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    now: datetime
    groups: tuple[GroupView, ...] = ()
    accounts: Mapping[str, AccountView] = field(default_factory=dict)
    """Those that its subtasks wait for, by their names."""

    @property
    def is_final(self) -> bool:
        return self.status in JOB_FINAL

    @property
    def subtasks(self) -> tuple[SubtaskView, ...]:
        return tuple(subtask for group in self.groups for subtask in group.subtasks)

    @cached_property
    def spent(self) -> Spending:
        return total(group.spent for group in self.groups)

    @cached_property
    def titles(self) -> Mapping[int, str]:
        """The subtasks' titles by their ids."""
        return {subtask.subtask_id: subtask.title for subtask in self.subtasks}

    @property
    def duration_seconds(self) -> float | None:
        """From its start to its end, or to now."""
        if self.started_at is None:
            return None
        return ((self.finished_at or self.now) - self.started_at).total_seconds()


@dataclass(frozen=True)
class EventView:
    id: int
    at: datetime
    name: str
    group_number: int | None
    subtask_id: int | None
    attempt: int | None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LatestChunk:
    """The newest log chunk of a running attempt; `content` as `state.log_chunks.decode_chunk` reads it."""

    attempt_id: int
    subtask_id: int
    sequence: int
    content: bytes
