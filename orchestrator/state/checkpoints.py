"""Checkpoints: the session and the work of an attempt that was cut off, for the next one to go on with.

A subtask has at most one, written only by whoever holds the lease; it goes in the transaction that makes the subtask
final (`state.transitions.subtasks`). The files themselves lie on the repository's remote, pushed before the row says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Engine, text

from orchestrator.outcomes import Outcome
from orchestrator.state.engine import translated
from orchestrator.state.events import record_event
from orchestrator.state.transitions.claims import Claim


@dataclass(frozen=True)
class SavedWork:
    """An attempt's files as `commit`, pushed to `ref`. `head_commit` is the last commit that its agent has made, or the
    base commit: what `commit` adds to it was not committed."""

    commit: str
    head_commit: str
    ref: str


@dataclass(frozen=True)
class Checkpoint:
    """`work` is None where the attempt had changed nothing. `session` holds the packed files. `stalls` counts how often
    in a row the session has run out of time."""

    session_id: str
    session: bytes
    work: SavedWork | None
    stalls: int


@dataclass(frozen=True)
class Earlier:
    """What an attempt finds when it begins. `outcome` is how the attempt just before it ended."""

    attempt_number: int
    base_commit: str
    outcome: Outcome
    checkpoint: Checkpoint


_SAVE = text(
    """
    WITH held AS (
        SELECT job_id, subtask_id, number, base_commit FROM attempts
        WHERE id = :attempt_id AND lease_token = :token AND status = 'running' FOR SHARE
    )
    INSERT INTO checkpoints (job_id, subtask_id, attempt_number, base_commit, commit, head_commit, ref, session_id,
                             session, stalls, stored_at)
    SELECT job_id, subtask_id, number, base_commit, :commit, :head_commit, :ref, :session_id, :session, :stalls,
           clock_timestamp()
    FROM held
    ON CONFLICT (job_id, subtask_id) DO UPDATE
    SET attempt_number = excluded.attempt_number, base_commit = excluded.base_commit, commit = excluded.commit,
        head_commit = excluded.head_commit, ref = excluded.ref, session_id = excluded.session_id,
        session = excluded.session, stalls = excluded.stalls, stored_at = excluded.stored_at
    RETURNING 1
    """
)

_FORGET = text(
    """
    DELETE FROM checkpoints c
    USING (SELECT job_id, subtask_id FROM attempts WHERE id = :attempt_id AND lease_token = :token AND status = 'running') a
    WHERE c.job_id = a.job_id AND c.subtask_id = a.subtask_id
    """
)

_FIND = text(
    """
    SELECT c.attempt_number, c.base_commit, c.commit, c.head_commit, c.ref, c.session_id, c.session, c.stalls,
           before.status AS outcome
    FROM checkpoints c
    JOIN attempts before ON before.job_id = c.job_id AND before.subtask_id = c.subtask_id
    WHERE c.job_id = :job_id AND c.subtask_id = :subtask_id AND before.number = :before
      AND c.attempt_number IN (before.number, before.resumed_from)
    """
)

_NOTE_RESUMED = text(
    """
    UPDATE attempts SET resumed_from = :number
    WHERE id = :attempt_id AND lease_token = :token AND status = 'running' RETURNING 1
    """
)


def save(engine: Engine, claim: Claim, checkpoint: Checkpoint) -> bool:
    """Keep it in place of what was there. False: the lease is not ours any more, and nothing was written."""
    work = {"commit": None, "head_commit": None, "ref": None}
    if checkpoint.work is not None:
        work = asdict(checkpoint.work)
    kept = {"session_id": checkpoint.session_id, "session": checkpoint.session, "stalls": checkpoint.stalls}
    with translated(), engine.begin() as connection:
        return connection.execute(_SAVE, {**_lease_of(claim), **work, **kept}).first() is not None


def forget(engine: Engine, claim: Claim) -> None:
    """Let the subtask's checkpoint go: the next attempt starts anew. Without effect when the lease is not ours."""
    with translated(), engine.begin() as connection:
        connection.execute(_FORGET, _lease_of(claim))


def find(engine: Engine, claim: Claim) -> Earlier | None:
    """What the attempt before this one has left, or had gone on with itself; None where there is nothing of the kind."""
    with translated(), engine.connect() as connection:
        parameters = {"job_id": claim.job_id, "subtask_id": claim.subtask_id, "before": claim.number - 1}
        row = connection.execute(_FIND, parameters).one_or_none()
    if row is None or row.outcome == "running":
        return None
    work = SavedWork(row.commit, row.head_commit, row.ref) if row.commit else None
    checkpoint = Checkpoint(row.session_id, bytes(row.session), work, row.stalls)
    return Earlier(row.attempt_number, row.base_commit, Outcome(row.outcome), checkpoint)


def note_resumed(engine: Engine, claim: Claim, attempt_number: int) -> None:
    """Record that this attempt goes on with that one's session. Without effect when the lease is not ours."""
    with translated(), engine.begin() as connection:
        landed = connection.execute(_NOTE_RESUMED, {**_lease_of(claim), "number": attempt_number}).first()
        if landed is not None:
            record_event(
                connection,
                "attempt.resumed",
                claim.job_id,
                group_number=claim.group_number,
                subtask_id=claim.subtask_id,
                attempt=claim.number,
                resumed_from=attempt_number,
            )


def _lease_of(claim: Claim) -> dict[str, object]:
    return {"attempt_id": claim.attempt_id, "token": claim.lease_token}
