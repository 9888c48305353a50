"""Jobs as rows, for tests of what only looks: written straight into the tables, no dispatcher needed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, text

from orchestrator.state import tables
from orchestrator.state.log_chunks import LogChunk, LogLine, encode_chunk, encode_line, write_log_chunks

FINAL = {"completed", "failed", "timeout", "cancelled", "skipped"}


def insert_job(
    connection: Connection, job_id: str, *, status: str = "running", title: str = "A job", **values: Any
) -> None:
    """A job that began now; a final status ends it now."""
    connection.execute(
        insert(tables.jobs).values(
            id=job_id,
            title=title,
            plan={},
            plan_digest="0" * 64,
            max_parallel_agents=3,
            parallelization_strategy="parallel_groups",
            status=status,
            started_at=None if status == "pending" else text("clock_timestamp()"),
            finished_at=text("clock_timestamp()") if status in FINAL else None,
            **{"created_at": text("clock_timestamp()"), **values},
        )
    )


def insert_group(connection: Connection, job_id: str, number: int, statuses: dict[int, str]) -> None:
    """A running group, its subtasks by id; those at work have a running attempt with the id that comes."""
    connection.execute(insert(tables.groups).values(job_id=job_id, number=number, status="running"))
    for subtask_id, status in statuses.items():
        connection.execute(
            insert(tables.subtasks).values(
                job_id=job_id,
                subtask_id=subtask_id,
                group_number=number,
                title=f"Part {subtask_id}",
                agent="shell",
                spec={"requires": []},
                status=status,
                attempts=0 if status == "pending" else 1,
                released_at=text("clock_timestamp()") if status == "in_progress" else None,
                finished_at=text("clock_timestamp()") if status in FINAL else None,
            )
        )


def insert_attempt(connection: Connection, job_id: str, subtask_id: int, number: int = 1, **values: Any) -> int:
    """A running attempt, or whatever `values` make of it. Returns its id."""
    row = connection.execute(
        insert(tables.attempts)
        .values(
            job_id=job_id,
            subtask_id=subtask_id,
            number=number,
            worker="worker-1@host",
            agent="shell",
            lease_token=f"{job_id}-{subtask_id}-{number}",
            lease_expires_at=text("clock_timestamp() + interval '1 minute'"),
            **values,
        )
        .returning(tables.attempts.c.id)
    )
    return int(row.scalar_one())


def insert_group_run(connection: Connection, job_id: str, group_number: int, number: int = 1, **values: Any) -> None:
    """A passage of the group that is under way, or whatever `values` make of it."""
    connection.execute(
        insert(tables.group_runs).values(
            **{
                "job_id": job_id,
                "group_number": group_number,
                "number": number,
                "chord_id": f"chord-{group_number}-{number}",
                "subtask_ids": [],
                "num_agents": 1,
                "parallelization_strategy": "parallel_groups",
                **values,
            }
        )
    )


def a_checked_run(*, passed: bool, output: str, exit_code: int | None = None) -> dict[str, Any]:
    """What a merge records of a run whose group's check has ended, as values of `insert_group_run`."""
    check = {"passed": passed, "exit_code": exit_code, "output": output}
    return {
        "success": passed,
        "completed_at": text("clock_timestamp()"),
        "execution_metadata": {"check": check},
    }


def write_lines(
    connection: Connection, job_id: str, subtask_id: int, attempt_id: int, sequence: int, *said: str
) -> None:
    lines = [encode_line(LogLine(float(number), "stdout", words)) for number, words in enumerate(said)]
    write_log_chunks(connection, [LogChunk(attempt_id, sequence, job_id, subtask_id, len(lines), encode_chunk(lines))])


def finish_job(connection: Connection, job_id: str, status: str) -> None:
    """End the job and wake who follows it."""
    connection.execute(
        text("UPDATE jobs SET status = :status, finished_at = clock_timestamp() WHERE id = :job_id"),
        {"status": status, "job_id": job_id},
    )
    connection.execute(text("SELECT pg_notify('orchestrator_events', :job_id)"), {"job_id": job_id})
