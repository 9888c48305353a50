"""How this project's own programs (`scripted`, plugins) report their session, and their end in their last line: one
line of JSON each, on stdout.

{"event": "session", "session_id": …}
{"event": "end", "outcome": …, "error": …, "result": …, "usage": …, "cost_usd": …, "model": …, "session_id": …,
 "retry_after_seconds": …, "session_unknown": …}
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestrator.outcomes import Outcome
from orchestrator.supervisor import Ending
from workers.agents.protocol import (
    AgentEnd,
    AgentEvent,
    EventKind,
    ending_in_words,
    failure_in_words,
    last_data,
)


def read_own_line(stream: str, line: str) -> AgentEvent | None:
    """The event of the session or of the end, if the line is one."""
    if stream != "stdout" or not line.startswith("{"):
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if data.get("event") == "session" and isinstance(data.get("session_id"), str):
        return AgentEvent(EventKind.SESSION, data=data)
    if data.get("event") != "end" or data.get("outcome") not in list(Outcome):
        return None
    return AgentEvent(EventKind.TERMINAL, text=data["outcome"], data=data)


def end_by_line(ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
    """What the last terminal event says. A program that ended without one, or said `completed` and ended wrongly, has
    failed."""
    end = last_data(events, EventKind.TERMINAL)
    session_id = last_data(events, EventKind.SESSION).get("session_id")
    if not end:
        words = failure_in_words(ending, "without reporting its end")
        return AgentEnd(Outcome.FAILED, error=words, session_id=session_id)
    outcome, error = Outcome(end["outcome"]), end.get("error")
    if outcome is Outcome.COMPLETED and ending.exit_code != 0:
        how = ending_in_words(ending)
        outcome, error = Outcome.FAILED, f"The agent said that it had completed, but ended with {how}."
    if outcome is not Outcome.COMPLETED and not error:
        error = f"The agent ended with {outcome}."
    return AgentEnd(
        outcome,
        error=None if error is None else str(error),
        result=_text(end.get("result")),
        usage=_counts(end.get("usage")),
        cost_usd=_number(end.get("cost_usd")),
        model=_text(end.get("model")),
        session_id=_text(end.get("session_id")) or session_id,
        retry_after_seconds=_number(end.get("retry_after_seconds")),
        session_unknown=bool(end.get("session_unknown")),
    )


def _text(said: object) -> str | None:
    return said if isinstance(said, str) else None


def _number(said: object) -> float | None:
    return said if isinstance(said, int | float) and not isinstance(said, bool) else None


def _counts(said: object) -> dict[str, int] | None:
    """Tokens by kind; what is no count is left out."""
    if not isinstance(said, dict):
        return None
    return {kind: count for kind, count in said.items() if isinstance(count, int) and not isinstance(count, bool)}
