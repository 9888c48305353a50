"""The tasks of the control queue: each is one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from orchestrator.dispatch import dispatcher, merging
from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import DatabaseUnavailable
from orchestrator.task_names import MERGE_GROUP, START_JOB

log = logging.getLogger(__name__)


def register_control_tasks(app: Celery, fleet: Callable[[], Fleet]) -> None:
    """Give the application the dispatcher's tasks. `fleet` gives this process's connections when a task runs."""

    @app.task(name=START_JOB)
    def start_job(job_id: str) -> None:
        with _left_to_the_reconciler(f"The start of job {job_id}"):
            dispatcher.start_job(fleet(), job_id)

    @app.task(name=MERGE_GROUP)
    def merge_group(job_id: str, group_number: int) -> None:
        with _left_to_the_reconciler(f"The merge of group {group_number} of job {job_id}"):
            merging.merge_group(fleet(), job_id, group_number, woken_by="callback")


@contextmanager
def _left_to_the_reconciler(what: str) -> Iterator[None]:
    """While the database or the broker is away nothing is changed and nothing is lost: the reconciler comes back to it."""
    try:
        yield
    except (DatabaseUnavailable, RedisError, OperationalError) as error:
        log.warning("%s waits: %s", what, error, extra={"event": "dispatch.service_away"})
