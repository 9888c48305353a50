"""The diary of a job: one row for each thing that happened, written in the transaction that made it happen."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Connection, text

from orchestrator.state.storable import storable

CHANNEL: Final = "orchestrator_events"
"""NOTIFY channel; the payload is the job's id."""

_INSERT = text(
    """
    INSERT INTO events (job_id, group_number, subtask_id, attempt, name, data)
    VALUES (:job_id, :group_number, :subtask_id, :attempt, :name, CAST(:data AS jsonb))
    RETURNING pg_notify('orchestrator_events', job_id)
    """
)


def record_event(
    connection: Connection,
    name: str,
    job_id: str,
    *,
    group_number: int | None = None,
    subtask_id: int | None = None,
    attempt: int | None = None,
    **data: Any,
) -> None:
    """Write one event and wake whoever follows the job. `name` is stable: `job.started`, `attempt.finished`, …"""
    connection.execute(
        _INSERT,
        {
            "job_id": job_id,
            "group_number": group_number,
            "subtask_id": subtask_id,
            "attempt": attempt,
            "name": name,
            "data": json.dumps(storable(data)),
        },
    )
