"""How this project's own programs (`scripted`, plugins) report their end: one line of JSON on stdout, their last.

{"event": "end", "outcome": …, "error": …, "result": …, "usage": …, "cost_usd": …, "model": …, "session_id": …,
 "retry_after_seconds": …}
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
)


def read_end_line(stream: str, line: str) -> AgentEvent | None:
    """The terminal event, if the line is one."""
    if stream != "stdout" or not line.startswith("{"):
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if data.get("event") != "end" or data.get("outcome") not in set(Outcome):
        return None
    return AgentEvent(EventKind.TERMINAL, text=data["outcome"], data=data)


def end_by_line(ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
    """What the last terminal event says. A program that ended without one, or said `completed` and ended wrongly, has
    failed."""
    end = next((event.data for event in reversed(events) if event.kind is EventKind.TERMINAL), None)
    if end is None:
        return AgentEnd(Outcome.FAILED, error=failure_in_words(ending, "without reporting its end"))
    outcome, error = Outcome(end["outcome"]), end.get("error")
    if outcome is Outcome.COMPLETED and ending.exit_code != 0:
        how = ending_in_words(ending)
        outcome, error = Outcome.FAILED, f"The agent said that it had completed, but ended with {how}."
    if outcome is not Outcome.COMPLETED and not error:
        error = f"The agent ended with {outcome}."
    return AgentEnd(
        outcome,
        error=error,
        result=end.get("result"),
        usage=end.get("usage"),
        cost_usd=end.get("cost_usd"),
        model=end.get("model"),
        session_id=end.get("session_id"),
        retry_after_seconds=end.get("retry_after_seconds"),
    )
