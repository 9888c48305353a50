"""The task of the agents' queues: one call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

from orchestrator.task_names import RUN_AGENT
from workers.agent_runner import AgentRunner
from workers.run_attempt import run_agent

log = logging.getLogger(__name__)


def register_agent_tasks(app: Celery, runner: Callable[[], AgentRunner]) -> None:
    """Give the application the worker's task. `runner` gives this process's part in the fleet when a task runs."""

    @app.task(name=RUN_AGENT, bind=True)
    def run(task: Any, job_id: str, subtask_id: int) -> int:
        # The return counts in the chord, so it may happen only when the subtask is final. Anything else is `Ignore`:
        # a header that raised any other error would keep the chord's body from ever running.
        if not is_final_after(task.request, job_id, subtask_id):
            raise Ignore
        return subtask_id

    def is_final_after(request: Any, job_id: str, subtask_id: int) -> bool:
        try:
            return run_agent(runner(), job_id, subtask_id, chord_id=request.group, worker=request.hostname)
        except Exception:
            # The lease expires, and the subtask goes on elsewhere.
            log.exception("A worker met a surprise.", extra={"event": "worker.surprise", "job_id": job_id})
            return False
