"""What the checks of a job's groups have said, one for each group run whose merge ended in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from orchestrator.redaction import redact_url


@dataclass(frozen=True)
class GroupCheck:
    """`run` counts the group's passages from 1; `output` is head and tail where it was long; `exit_code` is None where
    the check was stopped. Passwords in URLs are left out."""

    id: int
    group_number: int
    run: int
    ended_at: datetime
    command: str
    passed: bool
    exit_code: int | None
    output: str


_ENDED: Final = text(
    """
    SELECT run.id, run.group_number, run.number AS run, run.completed_at AS ended_at,
           coalesce(groups.check_command, '') AS command,
           CAST(run.execution_metadata #>> '{check,passed}' AS boolean) AS passed,
           CAST(run.execution_metadata #>> '{check,exit_code}' AS integer) AS exit_code,
           run.execution_metadata #>> '{check,output}' AS output
    FROM group_runs AS run JOIN groups ON groups.job_id = run.job_id AND groups.number = run.group_number
    WHERE run.job_id = :job AND run.id > :after AND run.execution_metadata -> 'check' IS NOT NULL
      AND run.completed_at IS NOT NULL
    ORDER BY run.id
    """
)


def group_checks(connection: Connection, job_id: str, *, after_id: int = 0) -> list[GroupCheck]:
    """The job's checks that have ended, in that order. A job's groups run one after the other, so who follows them
    misses none with `after_id`, the id of the last one seen."""
    rows = connection.execute(_ENDED, {"job": job_id, "after": after_id})
    return [
        GroupCheck(**{**row._mapping, "command": redact_url(row.command), "output": redact_url(row.output)})
        for row in rows
    ]
