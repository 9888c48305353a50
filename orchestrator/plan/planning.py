"""Asking an agent for a plan, without a queue: which job is submitted next, and what its answer means.

    planning = Planning(terms, known_agents)
    while planning.proposal is None:
        job_id = …submit planning.next_job() and wait for its end…
        planning.hear(…what its subtask's agent said…, job_id=job_id)

Each question is a job of one subtask that may only read: it has a workspace, a deadline, logs and costs like any other, and
can be cancelled. An answer with faults is followed by a question that names them all, at most `MOST_QUESTIONS` in the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.agent_names import AgentEntry, check_agent, check_permissions, require_agent
from orchestrator.errors import ConfigurationError, ProposalError
from orchestrator.ledger import NOTHING_TOLD, Spending, total
from orchestrator.plan.model import AgentSpec, ValidatedPlan
from orchestrator.plan.proposal import Proposal, Rejected, Terms, check_terms, read_proposal
from orchestrator.plan.proposal_prompt import proposal_prompt
from orchestrator.plan.validate import validate_plan
from orchestrator.task_words import LONGEST_TITLE, task_words

MOST_QUESTIONS: Final = 3
TIMEOUT_SECONDS: Final = 900.0
MAX_RETRIES: Final = 1
"""After an attempt that failed. An answer with faults is no failure."""


class Planning:
    """One plan being asked for. `proposal` is set once there is one, `rejected` is the newest answer that was none.

    Raises `ConfigurationError` for an agent that is unknown, wrongly configured, or can't be kept from changing files, and
    `PlanError` for other terms that no plan could have.
    """

    def __init__(
        self, terms: Terms, known_agents: Mapping[str, AgentEntry], *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        require_planner(terms.agent, known_agents)
        check_terms(terms, known_agents)
        self.terms = terms
        self.proposal: Proposal | None = None
        self.rejected: Rejected | None = None
        self.questions = 0
        self.job_ids: list[str] = []
        self._spent = NOTHING_TOLD
        self._known_agents = known_agents
        self._timeout_seconds = timeout_seconds

    def next_job(self) -> ValidatedPlan:
        """The job to be submitted now."""
        self.questions += 1
        plan: dict[str, Any] = {
            "title": f"Plan: {task_words(self.terms.goal).title}"[:LONGEST_TITLE],
            "max_parallel_agents": 1,
            "defaults": {
                "agent": self.terms.agent.model_dump(mode="json"),
                "timeout": self._timeout_seconds,
                "max_retries": MAX_RETRIES,
                "permissions": "read-only",
                "expect_changes": False,
            },
            "subtasks": [
                {
                    "subtask_id": 1,
                    "title": "Propose a plan",
                    "kind": "work",
                    "parallel_group": 1,
                    "description": proposal_prompt(self.terms, self.rejected),
                }
            ],
        }
        if self.terms.repo is not None:
            plan |= {"repo": self.terms.repo} | ({"base": self.terms.base} if self.terms.base else {})
        return validate_plan(plan, known_agents=self._known_agents, source="the planning job")

    def hear(self, answer: str | None, *, job_id: str, spent: Spending = NOTHING_TOLD) -> None:
        """Read what the agent of that job said at its end. Raises `ProposalError` when it was asked often enough."""
        self.job_ids.append(job_id)
        self._spent = total([self._spent, spent])
        heard = read_proposal(answer or "", self.terms, self._known_agents)
        if isinstance(heard, Proposal):
            self.proposal = replace(heard, job_ids=tuple(self.job_ids), spent=self._spent)
            return
        self.rejected = heard
        if self.questions >= MOST_QUESTIONS:
            raise ProposalError(
                f"{self.terms.agent.name} was asked {self.questions} times, and proposed no plan that keeps every rule.",
                faults=heard.faults,
                context={"job_id": job_id, "agent": self.terms.agent.name},
                recovery=f"Its last answer is kept: `orchestrator export {job_id}`, `result` of the subtask. Ask again, say more "
                "in the goal, or take another agent or model.",
            )


def require_planner(agent: AgentSpec, known_agents: Mapping[str, AgentEntry]) -> None:
    """Raise `ConfigurationError` unless that agent can be asked for a plan."""
    entry = require_agent(agent.name, known_agents)
    faults = check_agent(agent.name, agent.config, {agent.name: entry})
    unheld = check_permissions("read-only", entry)
    if unheld is not None:
        faults.append(f"{unheld}, and whoever proposes a plan may only read")
    if faults:
        raise ConfigurationError(
            f"{faults[0][0].upper()}{faults[0][1:]}.",
            context={"agent": agent.name, "faults": faults},
            recovery="Take another agent; `orchestrator agents` shows what there is.",
        )
