"""What one attempt holds while it is under way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from orchestrator.accounts import Account
from orchestrator.environment import agent_environment, names_allowed
from orchestrator.plan.model import ResolvedSubtask
from orchestrator.redaction import Redaction, passwords_of, secrets_of
from orchestrator.state.transitions.claims import Claim
from orchestrator.supervisor import StopSignal
from workers.agent_runner import AgentRunner
from workers.agents.protocol import Agent, AgentConfig, AgentEvent, EventKind
from workers.judgement import GAVE_UP
from workers.oversight import Watch
from workers.resuming import Resumption
from workers.workspace import Workspace


@dataclass
class Attempt:
    runner: AgentRunner
    claim: Claim
    subtask: ResolvedSubtask
    agent: Agent[AgentConfig]
    workspace: Workspace
    stop: StopSignal
    watch: Watch
    resumed: Resumption | None = None
    """The session that it goes on with."""
    session_refused: bool = False
    """The program did not know that session."""
    permissions_refused: str | None = None
    """What its permissions kept it from at last, in words."""
    events: list[AgentEvent] = field(default_factory=list)

    @property
    def account(self) -> Account | None:
        """The agent's, if it is not ours."""
        return self.workspace.account

    @property
    def state_dir(self) -> Path:
        """The program's own files: its session among them, and whatever it keeps of its provider."""
        return self.workspace.private_dir / "agent"

    @property
    def prompt_file(self) -> Path:
        return self.workspace.private_dir / "prompt.md"

    @cached_property
    def allowed(self) -> Sequence[str]:
        """The worker's variables that this agent may see besides the usual ones: its own list, and the user's."""
        own = f"{self.claim.agent}:"
        said = self.runner.settings.pass_to_agents
        return [
            *self.agent.environment,
            *(name.removeprefix(own) for name in said if ":" not in name or name.startswith(own)),
        ]

    @cached_property
    def redaction(self) -> Redaction:
        """What no line, error or result of this attempt may show: the keys that its agent was given, and the passwords
        of the fleet, if it should come upon them."""
        settings = self.runner.settings
        urls = (settings.broker_url, settings.database_url, self.claim.repo)
        return Redaction(
            [
                *secrets_of(os.environ, names_allowed(os.environ, self.allowed)),
                *(password for url in urls for password in passwords_of(url)),
            ]
        )

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What the agent and its check see: of the fleet only their own place in the job, and where the prompt lies."""
        claim = self.claim
        own = {
            "ORCHESTRATOR_JOB": claim.job_id,
            "ORCHESTRATOR_SUBTASK": str(claim.subtask_id),
            "ORCHESTRATOR_ATTEMPT_NUMBER": str(claim.number),
            "ORCHESTRATOR_PROMPT_FILE": str(self.prompt_file),
        }
        words = {**extra, **own}
        return agent_environment(allow=self.allowed, extra=words, cookie=self.watch.cookie, account=self.account)

    def read_line(self, stream: str, line: str) -> None:
        """A line of the agent: into the log as it reads best, and to the adapter's judgement."""
        event = self.agent.read_line(stream, line)
        if event is not None:
            self.events.append(event)
            if event.kind is EventKind.GIVE_UP:
                self.stop.set(GAVE_UP)
            elif event.kind is EventKind.THROTTLED:
                self.runner.governor.hear_soon(self.claim, event.data.get("retry_after_seconds"))
        self.log_line(stream, line)

    def log_line(self, stream: str, line: str) -> None:
        claim = self.claim
        if stream != "note":
            self.watch.meter.count_output(len(line.encode()) + 1)
        self.runner.logs.add(claim.attempt_id, claim.job_id, claim.subtask_id, stream, line)
