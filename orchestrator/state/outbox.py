"""Messages that are owed: stored in the transaction that makes them true, published after it.

A row lives until what it asks for has happened. `due_at` says when it is to be published (again): now for a row that
was just released, later and later for one that nobody answered, never (NULL) for one that waits for a place or whose
subtask is being worked at. A copy of a message is harmless, a missing one is only late.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, signature
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]  # newer than its types
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, text

from orchestrator.errors import DatabaseUnavailable
from orchestrator.fault_points import fault_point
from orchestrator.state.one_trip import WITHOUT_DISK, in_one_trip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """A Celery signature with its frozen ids, as its outbox row holds it."""

    outbox_id: int
    body: dict[str, Any]


def owe(connection: Connection, job_id: str, body: dict[str, Any]) -> Message:
    """Store a control message that is due at once."""
    row = connection.execute(
        text(
            "INSERT INTO outbox (job_id, message, due_at) VALUES (:job_id, CAST(:body AS jsonb), clock_timestamp())"
            " RETURNING id"
        ),
        {"job_id": job_id, "body": json.dumps(body)},
    )
    return Message(row.scalar_one(), body)


def owe_header(connection: Connection, job_id: str, bodies: dict[int, dict[str, Any]]) -> None:
    """Store a chord's header messages by subtask, in place of those of an earlier group run; none is released yet."""
    connection.execute(
        text(
            """
            INSERT INTO outbox (job_id, subtask_id, message)
            SELECT :job_id, item.subtask_id, item.message
            FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS item(subtask_id integer, message jsonb)
            ON CONFLICT (job_id, subtask_id) WHERE subtask_id IS NOT NULL
            DO UPDATE SET message = excluded.message, due_at = NULL, published_at = NULL, publish_count = 0
            """
        ),
        {
            "job_id": job_id,
            "items": json.dumps([{"subtask_id": key, "message": body} for key, body in bodies.items()]),
        },
    )


def settle_control(connection: Connection, job_id: str, task: str) -> None:
    """Forget the job's control messages for this task: what they asked for has happened."""
    connection.execute(
        text("DELETE FROM outbox WHERE job_id = :job_id AND subtask_id IS NULL AND message->>'task' = :task"),
        {"job_id": job_id, "task": task},
    )


def settle_job(connection: Connection, job_id: str) -> None:
    """Forget everything that is owed for a job that is final."""
    connection.execute(text("DELETE FROM outbox WHERE job_id = :job_id"), {"job_id": job_id})


def hand_back(connection: Connection, job_id: str, subtask_id: int) -> None:
    """A worker that is leaving took this message and will not answer it: it is due again now."""
    connection.execute(
        text(
            "UPDATE outbox SET due_at = clock_timestamp()"
            " WHERE job_id = :job_id AND subtask_id = :subtask_id AND due_at IS NOT NULL"
        ),
        {"job_id": job_id, "subtask_id": subtask_id},
    )


PUBLISHER_SECONDS: Final = 1.0
"""What whoever released a message gets to publish it before the net does: a copy costs as much as the message."""


def due(connection: Connection, limit: int = 500) -> list[Message]:
    """What the net is to publish, oldest first: it has been due for longer than its publisher takes."""
    rows = connection.execute(
        text(
            "SELECT id, message FROM outbox WHERE due_at <= clock_timestamp() - make_interval(secs => :grace)"
            " ORDER BY id LIMIT :limit"
        ),
        {"grace": PUBLISHER_SECONDS, "limit": limit},
    )
    return [Message(row.id, row.message) for row in rows]


BATCH: Final = 10
"""Messages that go out together: workers are at the first ones while the next ones are written."""


def publish(engine: Engine, app: Celery, messages: Sequence[Message], *, republish_seconds: float) -> int:
    """Send messages whose rows are committed, then mark them. Returns how many were sent.

    Never raises for a broker or a database that is away: the rows stay due and the reconciler sends them. A crash before
    the mark, or a broker that goes away in their midst, sends them twice. A worker that claimed a subtask before the mark
    has set `due_at` to NULL; the mark leaves it so. A queue is a list in Redis: to declare it with every message would
    do nothing, and cost a tenth of sending it.
    """
    fault_point("before_publish")
    sent: list[int] = []
    try:
        with app.producer_or_acquire() as producer:
            for start in range(0, len(messages), BATCH):
                batch = messages[start : start + BATCH]
                with producer.batch():
                    for message in batch:
                        signature(message.body, app=app).apply_async(producer=producer, ignore_result=True, declare=())
                sent += [message.outbox_id for message in batch]
    except (BatchPublishError, OperationalError, RedisError, OSError) as error:
        log.warning(
            "The broker is away: %d messages wait in the outbox.",
            len(messages) - len(sent),
            extra={"event": "outbox.broker_away", "error": str(error)},
        )
    fault_point("after_publish_before_mark")
    try:
        _mark(engine, sent, republish_seconds)
    except DatabaseUnavailable as error:
        log.warning("Messages were sent and not marked: %s", error, extra={"event": "outbox.not_marked"})
    return len(sent)


_MARK = text(
    """
    UPDATE outbox
    SET published_at = clock_timestamp(), publish_count = publish_count + 1,
        due_at = clock_timestamp() + make_interval(secs => :wait * power(2, least(publish_count, 10)))
    WHERE id IN (SELECT id FROM outbox WHERE id = ANY(:ids) AND due_at IS NOT NULL ORDER BY id FOR UPDATE SKIP LOCKED)
    """
)


def _mark(engine: Engine, sent: Sequence[int], republish_seconds: float) -> None:
    """Losing this mark in a crash only sends a copy. A row that is locked is being answered: nobody waits for another,
    so a mark of many rows can't be part of a deadlock."""
    if sent:
        in_one_trip(engine, WITHOUT_DISK, (_MARK, {"ids": list(sent), "wait": republish_seconds}))
