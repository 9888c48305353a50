"""Agents that are a function in the worker's own process: for measuring a fleet, and for trying one out.

They cost no process, no prompt and no workspace, so what is left of an attempt is what the queue itself costs.
"""

from __future__ import annotations

import select
import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.program_output import BoundedOutput
from orchestrator.supervisor import TIMEOUT, Ending, StopSignal
from workers.agents.protocol import Agent, AgentEnd, AgentEvent, AgentRequest, Config, Launch


class Patience:
    """How long an in-process agent may go on: until the attempt's stop signal is set or its time is over."""

    def __init__(self, stop: StopSignal, timeout_seconds: float | None) -> None:
        self._stop = stop
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    @property
    def over(self) -> str | None:
        """Why to end now: "timeout" or the stop signal's reason. None: go on."""
        if self._stop.reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            return TIMEOUT
        return self._stop.reason

    def wait(self, seconds: float) -> str | None:
        """Sleep so long, less when the agent is to end meanwhile. Returns what `over` says then."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        while self.over is None:
            now = time.monotonic()
            left = min(until, until if self._deadline is None else self._deadline) - now
            if left <= 0:
                break
            poll.poll(min(left, 3600.0) * 1000)
        return self.over


class InProcessAgent(Agent[Config]):
    """Base of agents without a program. They touch no files, so nothing is committed for them.

    Nothing can end one from outside: `run_here` has to return soon after `patience.over` says so.
    """

    expects_changes = False

    @abstractmethod
    def run_here(self, config: Config, patience: Patience) -> AgentEnd:
        """Do the work in the calling thread. What it raises fails the attempt."""

    def launch(self, request: AgentRequest) -> Launch:
        raise NotImplementedError("an in-process agent starts no program")

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        raise NotImplementedError("an in-process agent says itself how it ended")


def run_in_process(agent: InProcessAgent[Config], config: Config, patience: Patience) -> tuple[Ending, AgentEnd]:
    """Run the agent, with the clock that a program would have run under."""
    started_at, start = datetime.now(UTC), time.monotonic()
    said = agent.run_here(config, patience)
    # An agent that had ended well before it was told to stop has ended well.
    ending = Ending(
        exit_code=None,
        signal=None,
        stopped=None if said.outcome == "completed" else patience.over,
        started_at=started_at,
        duration_seconds=time.monotonic() - start,
        output=BoundedOutput("", 0),
    )
    return ending, said
