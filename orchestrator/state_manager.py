"""The caller's side of what is stored: records of group runs, by the numbers that the caller has for its tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from orchestrator.errors import BadInput
from orchestrator.local.client import Need, local_stack
from orchestrator.settings import Settings, load_settings
from orchestrator.state.engine import create_engine, translated
from orchestrator.state.results import (
    ParallelAttempt,
    annotate_parallel_attempt,
    parallel_attempts_of_job,
    parallel_attempts_with,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A caller's task: the whole that is cut into subtasks. `estimated_complexity` counts from 0 to 100."""

    id: int | str
    title: str
    description: str = ""
    project_id: int | str | None = None
    estimated_complexity: float | None = None


Tasks = Mapping[Any, Any] | Callable[[Any], Any]
"""Where the caller keeps its tasks: by id, or behind a function that returns None for an unknown id."""


class StateManager:
    """Reads and annotates the records in the database that the settings name, by default the local stack's.

    `tasks` is where `get_task` looks: tasks are the caller's, the queue stores jobs. Safe to use from many threads.
    """

    def __init__(self, settings: Settings | None = None, *, tasks: Tasks | None = None) -> None:
        self.settings = settings or load_settings()
        self._tasks: Tasks = {} if tasks is None else tasks

    def get_task(self, task_id: int | str) -> Any:
        """The caller's task of that id. Raises `BadInput` where there is none."""
        found = self._tasks(task_id) if callable(self._tasks) else self._tasks.get(task_id)
        if found is None:
            raise BadInput(
                f"There is no task {task_id}.",
                context={"task_id": task_id},
                recovery="Give the task itself, or StateManager(tasks=…) a mapping or a function that finds it.",
            )
        return found

    def log_parallel_attempt(
        self, attempt: ParallelAttempt, *, parent_task_id: int | str | None = None, **metadata: Any
    ) -> ParallelAttempt:
        """Note in a group run's record whose task it belonged to. `metadata` is kept beside it, as JSON.

        The record itself was written by the merge, in the transaction that ended the group run: nothing here can make
        it say otherwise. Returns it as it stands now. Raises `BadInput` where it is gone, `DatabaseUnavailable`.
        """
        added = {**metadata, **({} if parent_task_id is None else {"parent_task_id": parent_task_id})}
        with self._engine() as engine, engine.begin() as connection:
            if not annotate_parallel_attempt(connection, attempt.id, json.dumps(added, default=str)):
                raise BadInput(
                    f"There is no record of group run {attempt.id}.",
                    context={"id": attempt.id, "job_id": attempt.job_id},
                    recovery="It was pruned, or belongs to another database.",
                )
        log.info(
            "Logged parallel attempt: task_id=%s, agents=%d, success=%s, duration=%.2fs, speedup=%.2fx",
            parent_task_id,
            attempt.num_agents,
            attempt.success,
            attempt.total_duration_seconds,
            attempt.speedup_factor or 0.0,
            extra={"event": "group_run.logged", "job_id": attempt.job_id, "group_number": attempt.group_number},
        )
        return replace(attempt, execution_metadata={**attempt.execution_metadata, **added})

    def get_parallel_attempts(
        self, parent_task_id: int | str | None = None, *, job_id: str | None = None
    ) -> list[ParallelAttempt]:
        """The group runs that were logged for a task, or those of a job, oldest first.

        Raises `BadInput` unless exactly one of the two is named, `DatabaseUnavailable`.
        """
        if (parent_task_id is None) == (job_id is None):
            raise BadInput("Name a parent_task_id or a job_id, and not both.")
        with self._engine() as engine, engine.connect() as connection:
            if job_id is not None:
                return parallel_attempts_of_job(connection, job_id)
            return parallel_attempts_with(connection, json.dumps({"parent_task_id": parent_task_id}))

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """The database, started for as long as it is used where none is configured and nobody else uses it."""
        with local_stack(self.settings, need=Need.DATABASE) as stack:
            assert stack.settings.database_url is not None, "the local stack fills in what is not configured"
            engine = create_engine(stack.settings.database_url, pool_size=1)
            try:
                with translated():
                    yield engine
            finally:
                engine.dispose()
