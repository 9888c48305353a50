"""The names under which Celery knows the tasks, and the queues that carry them.

The dispatcher sends by name and never imports the worker's code.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Final

START_JOB: Final = "orchestrator.start_job"
MERGE_GROUP: Final = "orchestrator.merge_group"
RUN_AGENT: Final = "orchestrator.run_agent"

AGENT_PROGRAMS: Final = "agent_programs"
"""No task, but a command of Celery's remote control that workers answer (`workers.advertising`)."""

CONTROL_QUEUE: Final = "control"
AGENTS_QUEUE: Final = "agents"


def agents_queue(requires: Iterable[str]) -> str:
    """The queue of the subtasks that need these capabilities: `agents`, `agents.gpu`, `agents.gpu+large`."""
    capabilities = sorted(set(requires))
    return f"{AGENTS_QUEUE}.{'+'.join(capabilities)}" if capabilities else AGENTS_QUEUE


def queues_of_worker(capabilities: Iterable[str]) -> list[str]:
    """Every queue whose subtasks a worker with these capabilities can run, the plain one first."""
    offered = sorted(set(capabilities))
    return [agents_queue(needed) for size in range(len(offered) + 1) for needed in combinations(offered, size)]
