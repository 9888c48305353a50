"""What a report counts and draws, as pure functions of a job's history: totals, and who worked when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from orchestrator.ledger import Spending, spending
from orchestrator.state.group_checks import GroupCheck
from orchestrator.state.history import AttemptRecord, JobHistory
from orchestrator.text import plural, printable

LONGEST_IDLE_SHARE = 0.1
"""A pause in which nobody worked, before a retry on the next day, is drawn no longer than this share of the work."""

LINES_OF_A_RED_CHECK = 20


@dataclass(frozen=True)
class Totals:
    """Figures of the whole job. Durations are seconds."""

    subtasks: Mapping[str, int]
    """By status; a status that none has is left out."""
    attempts: int
    repeated_attempts: int
    """Attempts that were not the first of their subtask."""
    workers: int
    conflicts: int
    files_changed: int
    """Distinct paths, over the attempts that completed."""
    agent_seconds: float
    """The agents' own time, over all attempts that have ended."""
    completed_agent_seconds: float
    """The same, over the attempts that completed."""
    wall_seconds: float
    """From the first to the last moment at which a group was under way, without pauses between them."""
    speedup_factor: float | None
    """completed_agent_seconds / wall_seconds"""
    spent: Spending


def totals(history: JobHistory) -> Totals:
    completed = [attempt for attempt in history.attempts if attempt.status == "completed"]
    first = {attempt.subtask_id for attempt in history.attempts}
    useful = _agent_seconds(completed)
    wall = sum(end - start for start, end in busy_spans(history))
    return Totals(
        subtasks=dict(Counter(subtask.status for subtask in history.job.subtasks)),
        attempts=len(history.attempts),
        repeated_attempts=len(history.attempts) - len(first),
        workers=len({attempt.worker for attempt in history.attempts}),
        conflicts=sum(len(run.conflicts or ()) for group in history.job.groups for run in group.runs),
        files_changed=len({path for attempt in completed for path in attempt.files_changed}),
        agent_seconds=_agent_seconds(history.attempts),
        completed_agent_seconds=useful,
        wall_seconds=wall,
        speedup_factor=useful / wall if wall else None,
        spent=spending(history.attempts),
    )


def without_figures(history: JobHistory) -> list[str]:
    """Why a sum is incomplete: how many attempts have no cost, and which models would need a price."""
    unknown = [attempt for attempt in history.attempts if attempt.cost_unknown]
    if not unknown or not history.job.spent:
        return []
    models = sorted({attempt.model or "a model that nobody names" for attempt in unknown if attempt.usage})
    silent = sum(not attempt.usage for attempt in unknown)
    lines = [f"no price is known for {', '.join(models)}: its tokens are counted without their cost"] if models else []
    lines += [f"{plural(silent, 'attempt')} ended without telling what it had used"] if silent else []
    return lines


def red_checks(history: JobHistory) -> list[GroupCheck]:
    """The newest check of each group, where it was red."""
    newest = {check.group_number: check for check in history.checks}
    return [check for check in newest.values() if not check.passed]


def last_lines(check: GroupCheck) -> list[str]:
    """The end of what a check wrote, where the failure mostly stands."""
    return printable(check.output).expandtabs(4).rstrip().splitlines()[-LINES_OF_A_RED_CHECK:]


def _agent_seconds(attempts: Iterable[AttemptRecord]) -> float:
    return sum(attempt.agent_duration_seconds or 0.0 for attempt in attempts)


def seconds_since(history: JobHistory, at: datetime | None) -> float:
    """Seconds from the history's origin to `at`; None means now."""
    return ((at or history.job.now) - history.origin).total_seconds()


def busy_spans(history: JobHistory) -> list[tuple[float, float]]:
    """When any group was under way, as (start, end) in seconds since the origin, merged and in order."""
    runs = [(run.started_at, run.completed_at) for group in history.job.groups for run in group.runs]
    work = [(attempt.started_at, attempt.finished_at) for attempt in history.attempts]
    # A run that was never merged, because the job ended, ended with the job.
    last = history.job.finished_at
    spans = sorted(
        (seconds_since(history, start), seconds_since(history, end or last)) for start, end in [*runs, *work]
    )
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, max(start, end)))
    return merged


@dataclass(frozen=True)
class TimeScale:
    """Maps seconds since the origin to a position of 0 to 1; long pauses are shortened.

    `knots` are (seconds, position), both ascending; between two of them the map is linear.
    """

    knots: tuple[tuple[float, float], ...]

    def __call__(self, seconds: float) -> float:
        before = self.knots[0]
        for after in self.knots[1:]:
            if seconds <= after[0]:
                span = after[0] - before[0]
                share = (seconds - before[0]) / span if span > 0 else 0.0
                return before[1] + max(share, 0.0) * (after[1] - before[1])
            before = after
        return 1.0


def time_scale(spans: Sequence[tuple[float, float]]) -> TimeScale:
    """The scale on which these spans are drawn true to each other, and the pauses between them not too long."""
    work = sum(end - start for start, end in spans) or 1.0
    drawn, knots, before = 0.0, [(0.0, 0.0)], 0.0
    for start, end in spans:
        drawn += min(start - before, work * LONGEST_IDLE_SHARE)
        knots.append((start, drawn))
        drawn += end - start
        knots.append((end, drawn))
        before = end
    whole = drawn or 1.0
    return TimeScale(tuple((seconds, position / whole) for seconds, position in knots))


def shortened_pauses(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pauses that `time_scale` does not draw in full."""
    work = sum(end - start for start, end in spans) or 1.0
    pauses = [(before[1], after[0]) for before, after in pairwise(spans)]
    return [(start, end) for start, end in pauses if end - start > work * LONGEST_IDLE_SHARE]


def lanes_by_worker(attempts: Sequence[AttemptRecord]) -> dict[str, list[list[AttemptRecord]]]:
    """Each worker's attempts in as few lanes as never let two overlap, workers in the order of their first attempt."""
    workers: dict[str, list[list[AttemptRecord]]] = {}
    for attempt in sorted(attempts, key=lambda one: (one.started_at, one.id)):
        lanes = workers.setdefault(attempt.worker, [])
        for lane in lanes:
            end = lane[-1].finished_at
            if end is not None and end <= attempt.started_at:
                lane.append(attempt)
                break
        else:
            lanes.append([attempt])
    return workers
