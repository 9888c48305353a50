"""The tasks of the control queue: each is one call."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from orchestrator.dispatch import dispatcher, merging
from orchestrator.dispatch.fleet import Fleet
from orchestrator.task_names import MERGE_GROUP, START_JOB


def register_control_tasks(app: Celery, fleet: Callable[[], Fleet]) -> None:
    """Give the application the dispatcher's tasks. `fleet` gives this process's connections when a task runs."""

    @app.task(name=START_JOB)
    def start_job(job_id: str) -> None:
        dispatcher.start_job(fleet(), job_id)

    @app.task(name=MERGE_GROUP)
    def merge_group(job_id: str, group_number: int) -> None:
        merging.merge_group(fleet(), job_id, group_number, woken_by="callback")
