"""Going on where an attempt before was cut off: whether, and with what.

A session and its files belong together: an agent that remembers what is not there does harm. So both are taken up, or
neither is, and the attempt starts anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.outcomes import RESUMED_AFTER, Outcome
from orchestrator.state import checkpoints
from orchestrator.state.checkpoints import Earlier, SavedWork
from orchestrator.state.transitions.claims import Claim
from workers.agent_runner import AgentRunner
from workers.agents.protocol import Agent, AgentConfig
from workers.session_files import SessionLost, unpack
from workers.workspace import Workspace

log = logging.getLogger(__name__)

STALLS: Final = frozenset({Outcome.TIMEOUT, Outcome.IDLE_TIMEOUT})
MAX_STALLS: Final = 2
"""A session that has run out of time more often in a row is left: it may never come to an end."""


@dataclass(frozen=True)
class Resumption:
    """A session to go on with, of the attempt `attempt_number`. `cut_off_by` is how the attempt just before this one
    ended, `stalls` how often in a row the session has run out of time."""

    attempt_number: int
    session_id: str
    files: Mapping[str, bytes]
    work: SavedWork | None
    cut_off_by: Outcome
    stalls: int


def resumption(runner: AgentRunner, claim: Claim, agent: Agent[AgentConfig]) -> Resumption | None:
    """What this attempt can go on with, looked for where there was an attempt before. Raises `DatabaseUnavailable`."""
    if claim.number == 1 or not agent.session_files:
        return None
    earlier = checkpoints.find(runner.fleet.engine, claim)
    if earlier is None:
        return None
    if why := why_not(claim, earlier):
        start_anew(runner, claim, earlier.attempt_number, why)
        return None
    checkpoint, bound = earlier.checkpoint, runner.settings.max_session_bytes
    try:
        files = unpack(checkpoint.session, agent.session_files, checkpoint.session_id, most_bytes=bound)
    except SessionLost as error:
        start_anew(runner, claim, earlier.attempt_number, str(error))
        return None
    number, session_id = earlier.attempt_number, checkpoint.session_id
    return Resumption(number, session_id, files, checkpoint.work, earlier.outcome, checkpoint.stalls)


def why_not(claim: Claim, earlier: Earlier) -> str | None:
    """Why the attempt is to start anew, a clause; None where it may go on. Pure."""
    if earlier.outcome not in RESUMED_AFTER:
        return f"the attempt ended as {earlier.outcome}"
    if earlier.base_commit != claim.base_commit:
        return "the group begins at another commit by now"
    if earlier.checkpoint.stalls > MAX_STALLS:
        return f"it has run out of time {earlier.checkpoint.stalls} times in a row"
    return None


def taken_up(runner: AgentRunner, claim: Claim, resumed: Resumption | None, workspace: Workspace) -> Resumption | None:
    """The resumption, now that the workspace is there; None if its work is not in it. Raises `DatabaseUnavailable`."""
    if resumed is None:
        return None
    if resumed.work is not None and not workspace.has_earlier_work:
        start_anew(runner, claim, resumed.attempt_number, "its work could not be fetched")
        return None
    checkpoints.note_resumed(runner.fleet.engine, claim, resumed.attempt_number)
    words = f"Going on with the session of attempt {resumed.attempt_number}, {resumed.session_id}."
    runner.logs.add(claim.attempt_id, claim.job_id, claim.subtask_id, "note", words)
    return resumed


def start_anew(runner: AgentRunner, claim: Claim, attempt_number: int, why: str) -> None:
    words = f"The session of attempt {attempt_number} is not gone on with: {why}."
    ids = {"job_id": claim.job_id, "subtask_id": claim.subtask_id, "attempt": claim.number}
    log.info("Subtask %d starts anew. %s", claim.subtask_id, words, extra={"event": "session.left", **ids})
    runner.logs.add(claim.attempt_id, claim.job_id, claim.subtask_id, "note", words)
