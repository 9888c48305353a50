"""A group becomes a chord: ids are frozen now, messages are published later, one by one, from any process.

Celery counts the header's returns in Redis and sends the body after the last. So the size is set before anything is
published, once a group run, and each stored message keeps its ids however often it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.utils import uuid

from orchestrator.task_names import CONTROL_QUEUE, MERGE_GROUP, RUN_AGENT, agents_queue


@dataclass(frozen=True)
class HeaderTask:
    """One agent task of the header, with what Flower shows of it."""

    subtask_id: int
    title: str
    agent: str
    requires: Sequence[str]


@dataclass(frozen=True)
class FrozenChord:
    """`messages` holds one Celery signature in JSON form a subtask id."""

    chord_id: str
    messages: dict[int, dict[str, Any]]


def freeze_chord(app: Celery, job_id: str, group_number: int, subtasks: Sequence[HeaderTask]) -> FrozenChord:
    """Freeze the chord of a group run and tell the backend its size. Raises the broker's errors when it is away."""
    body = merge_message(app, job_id, group_number)
    body.freeze()
    tasks = [
        app.signature(
            RUN_AGENT,
            args=(job_id, task.subtask_id),
            queue=agents_queue(task.requires),
            argsrepr=task_line(job_id, group_number, task),
            kwargsrepr="",
        )
        for task in subtasks
    ]
    chord_id = uuid()
    for index, task in enumerate(tasks):
        # What `group.freeze` does, but for the group's result: that one would subscribe to each task's result, and
        # nobody here waits for results.
        task.freeze(group_id=chord_id, chord=body, group_index=index)
    app.backend.set_chord_size(chord_id, len(tasks))
    return FrozenChord(
        chord_id, {task.subtask_id: dict(message) for task, message in zip(subtasks, tasks, strict=True)}
    )


def merge_message(app: Celery, job_id: str, group_number: int) -> Any:
    """The signature that wakes a group's merge: a chord's body."""
    return app.signature(
        MERGE_GROUP,
        args=(job_id, group_number),
        immutable=True,
        queue=CONTROL_QUEUE,
        argsrepr=f"{job_id[:6]} · group {group_number} · merge",
        ignore_result=True,
    )


def task_line(job_id: str, group_number: int, task: HeaderTask) -> str:
    """What a person reads in Flower: `3f2a9c · group 1 · #2 Implement Product model · shell`. Never a prompt."""
    return f"{job_id[:6]} · group {group_number} · #{task.subtask_id} {task.title} · {task.agent}"
