"""Keeping an agent's session and work for the next attempt: at the end of one that was cut off, and while it runs.

The session is read before the work: an agent that finds more done than it remembers can see that; one that remembers what
is not there can't. The work is pushed before the row says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from orchestrator.accounts import acting_as
from orchestrator.errors import DatabaseUnavailable, GitError
from orchestrator.fault_points import fault_point
from orchestrator.git import checkpoint_ref
from orchestrator.outcomes import RESUMED_AFTER
from orchestrator.state import checkpoints
from orchestrator.state.checkpoints import Checkpoint, SavedWork
from orchestrator.state.transitions.ends import AttemptEnd
from workers.agents.protocol import EventKind, last_data
from workers.attempt import Attempt
from workers.resuming import STALLS
from workers.session_files import SessionLost, Signature, pack, signature

log = logging.getLogger(__name__)

PUSH_SECONDS: Final = 10.0
"""How long the push of work that is nice to have may take. A worker that was asked to stop waits for it."""


def keep_for_the_next(attempt: Attempt, end: AttemptEnd) -> None:
    """At the end of an attempt, before it is recorded: what the next one can go on with, or nothing. Best effort."""
    if not attempt.agent.session_files or end.outcome not in RESUMED_AFTER:
        return  # another end is judged by its outcome: `workers.resuming`
    try:
        checkpoint = None if attempt.session_refused else _at_end(attempt, end)
        if checkpoint is not None:
            checkpoints.save(attempt.runner.fleet.engine, attempt.claim, checkpoint)
        elif attempt.resumed is not None or attempt.session_refused or end.session_id is not None:
            checkpoints.forget(attempt.runner.fleet.engine, attempt.claim)
    except (DatabaseUnavailable, OSError) as error:
        log.info("A session is not kept: %s", error, extra={"event": "session.not_kept"})


def _at_end(attempt: Attempt, end: AttemptEnd) -> Checkpoint | None:
    if end.session_id is None or end.commit is None:
        return None
    work = attempt.workspace.saved(end.commit, end.ref or "")
    if work is not None and end.ref is None:
        return None  # it could not be pushed
    before = attempt.resumed.stalls if attempt.resumed and attempt.resumed.session_id == end.session_id else 0
    stalls = before + 1 if end.outcome in STALLS else 0
    try:
        return Checkpoint(end.session_id, _packed(attempt, end.session_id), work, stalls)
    except SessionLost as error:
        attempt.log_line("note", f"The session {end.session_id} is not kept: {error}.")
        return None


def _packed(attempt: Attempt, session_id: str) -> bytes:
    with acting_as(attempt.account):
        return pack(
            attempt.state_dir,
            attempt.agent.session_files,
            session_id,
            redaction=attempt.redaction,
            most_bytes=attempt.runner.settings.max_session_bytes,
        )


@contextmanager
def checkpoints_of(attempt: Attempt) -> Iterator[None]:
    """Take checkpoints while the agent's program runs, where the agent and the job allow it."""
    if not (attempt.agent.session_files and attempt.claim.repo):
        yield
        return
    running = RunningCheckpoints(attempt)
    try:
        with attempt.runner.checkpoints.calling(attempt.claim.attempt_id, running.take):
            yield
    finally:
        running.close()


class RunningCheckpoints:
    """Keeps sessions and work of an attempt that runs. `take` is called from one thread at a time, `close` from the
    attempt's own: what is under way then is not recorded any more, for the end is to be."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._closed = False
        self._seen: Signature = ()
        self._turn = 0

    def take(self) -> None:
        """One checkpoint, where something has changed. Whatever stands against it: the next one may succeed."""
        attempt = self._attempt
        session_id = last_data(attempt.events, EventKind.SESSION).get("session_id")
        if session_id is None:
            return
        try:
            with acting_as(attempt.account):
                seen = signature(attempt.state_dir, attempt.agent.session_files, session_id)
            if not seen or seen == self._seen:
                return
            checkpoint = self._committed_and_pushed(session_id)
            with self._lock:
                if not self._closed and checkpoint is not None:
                    checkpoints.save(attempt.runner.fleet.engine, attempt.claim, checkpoint)
                    self._seen, self._turn = seen, 1 - self._turn
        except (SessionLost, GitError, DatabaseUnavailable, OSError) as error:
            ids = {"job_id": attempt.claim.job_id, "subtask_id": attempt.claim.subtask_id}
            log.info("No checkpoint was taken: %s", error, extra={"event": "checkpoint.not_taken", **ids})

    def _committed_and_pushed(self, session_id: str) -> Checkpoint | None:
        """Only the push is outside of the lock: it may take long, and it disturbs nobody."""
        attempt, claim = self._attempt, self._attempt.claim
        ref = checkpoint_ref(claim.job_id, claim.subtask_id, claim.number, self._turn)
        with self._lock:
            if self._closed:
                return None
            session = _packed(attempt, session_id)
            workspace = attempt.workspace.beside("checkpoint-index")
            commit = workspace.commit_all(title=attempt.subtask.title, subtask_id=claim.subtask_id, job_id=claim.job_id)
            work: SavedWork | None = workspace.saved(commit, ref)
        if work is not None:
            refusal = workspace.push(commit, ref, overwrite=True, timeout_seconds=PUSH_SECONDS)
            if refusal is not None:
                raise GitError(f"The repository refuses the push, {refusal}.")
        fault_point("after_checkpoint_push_before_record")
        return Checkpoint(session_id, session, work, attempt.resumed.stalls if attempt.resumed else 0)

    def close(self) -> None:
        with self._lock:
            self._closed = True
