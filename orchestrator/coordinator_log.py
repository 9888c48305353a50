"""A job's events as the sentences that the original coordinator logged, on the coordinator's own logger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from orchestrator.access.follow import Update
from orchestrator.state.views import EventView, GroupView, JobView, SubtaskView

log = logging.getLogger("orchestrator.coordinator")


class ProgressLog:
    """Logs one job's way. Give it every update, in order."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._waiting: list[EventView] = []

    def show(self, update: Update) -> Iterator[EventView]:
        """Log what there is to say; each event comes out once it was logged, before the next one is.

        An update reads the job's state before its events, so an event's figures are sure to stand in the next state
        only, or in the final one: until then it waits.
        """
        if update.job is None:
            log.warning("%s", update.problem, extra=self._ids("execution.database_away"))
            return
        told, self._waiting = self._waiting, list(update.events)
        if update.job.is_final:
            told, self._waiting = told + self._waiting, []
        for event in told:
            self._event(event, update.job)
            yield event

    def _event(self, event: EventView, job: JobView) -> None:
        match event.name:
            case "group.started":
                count = len(event.data["subtask_ids"])
                self._info(event, "Executing parallel group %s with %d subtasks", event.group_number, count)
                self._info(event, "Starting %d agents", min(count, job.max_parallel_agents))
            case "attempt.started":
                self._info(event, "Agent starting execution of subtask %s", event.subtask_id)
            case "attempt.finished":
                self._attempt_finished(event, job)
            case "subtask.failed_at_merge":
                self._warning(event, "Subtask %s failed at its merge: %s", event.subtask_id, event.data["error"])
            case "group.sent_back":
                self._warning(event, "Group %s goes again: %s", event.group_number, event.data["error"])
            case "group.finished":
                self._group_finished(event, job)

    def _attempt_finished(self, event: EventView, job: JobView) -> None:
        outcome, subtask_id = event.data["outcome"], event.subtask_id
        if outcome == "completed":
            seconds = _seconds_of(event, job)
            self._info(event, "Agent completed subtask %s successfully%s", subtask_id, seconds)
        elif event.data["subtask_status"] == "pending":
            wait = event.data["retry_after_seconds"] or 0.0
            words = "Agent ended subtask %s as %s, trying again in %.1fs: %s"
            self._warning(event, words, subtask_id, outcome, wait, event.data["error"])
        else:
            words = "Agent ended subtask %s as %s for good: %s"
            log.error(words, subtask_id, outcome, event.data["error"], extra=self._ids("attempt.finished", event))

    def _group_finished(self, event: EventView, job: JobView) -> None:
        group = next(group for group in job.groups if group.number == event.group_number)
        self._info(
            event,
            "Agent monitoring complete: %d results in %.2fs, %d successful, %d failed, %d timed out",
            len(group.subtasks),
            group.wall_seconds or 0.0,
            _count(group, "completed"),
            _count(group, "failed"),
            _count(group, "timeout"),
        )

    def _info(self, event: EventView, words: str, *values: Any) -> None:
        log.info(words, *values, extra=self._ids(event.name, event))

    def _warning(self, event: EventView, words: str, *values: Any) -> None:
        log.warning(words, *values, extra=self._ids(event.name, event))

    def _ids(self, name: str, event: EventView | None = None) -> dict[str, Any]:
        ids = {"event": name, "job_id": self._job_id}
        return ids if event is None else {**ids, "group_number": event.group_number, "subtask_id": event.subtask_id}


def _count(group: GroupView, status: str) -> int:
    return sum(subtask.status == status for subtask in group.subtasks)


def _seconds_of(event: EventView, job: JobView) -> str:
    """How long the agent took; nothing where a later attempt has taken its place in the view."""
    subtask: SubtaskView = next(one for one in job.subtasks if one.subtask_id == event.subtask_id)
    attempt = subtask.attempt
    if attempt is None or attempt.number != event.attempt:
        return ""
    lasted = attempt.duration_seconds if attempt.agent_duration_seconds is None else attempt.agent_duration_seconds
    return f" in {lasted:.2f}s"
