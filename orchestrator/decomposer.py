"""An agent as the decomposer of a task: it reads the repository and proposes the subtasks."""

from __future__ import annotations

from typing import Any

from orchestrator.access.connect import is_configured, join, need_of_work
from orchestrator.access.proposing import ask_for_plan
from orchestrator.agent_choice import AgentFactory, choose_agent, require_program
from orchestrator.agent_names import known_agents
from orchestrator.plan.model import SubTask
from orchestrator.plan.planning import TIMEOUT_SECONDS, Planning
from orchestrator.plan.proposal import Terms
from orchestrator.settings import Settings, load_settings
from orchestrator.task_words import task_words


class AgentDecomposer:
    """Cuts a task into subtasks by asking an agent, which may only read. Safe to use from many threads.

    `agent` is what `ParallelAgentCoordinator` takes as `agent_factory`. The repository is `repo`, else the agent's
    `workspace_path`; `base` its branch, tag or commit. `timeout_seconds` is for one question, of which there are at most
    three. Commands (`check`) are taken from the agent only with `with_checks`: nobody reads them before they run.
    """

    def __init__(
        self,
        agent: AgentFactory = "claude-code",
        *,
        repo: str | None = None,
        base: str | None = None,
        max_parallel_agents: int = 5,
        timeout_seconds: float = TIMEOUT_SECONDS,
        with_checks: bool = False,
        settings: Settings | None = None,
    ) -> None:
        self._agent = agent
        self._repo = repo
        self._base = base
        self._max_parallel_agents = max_parallel_agents
        self._timeout_seconds = timeout_seconds
        self._with_checks = with_checks
        self._settings = settings or load_settings()

    def __call__(self, task: Any) -> list[SubTask]:
        """The subtasks of a task (text, a mapping or an object), each with its group, testing ones alone in theirs.

        One subtask: the agent would not cut it. Raises `ProposalError` when no answer keeps the rules of plans,
        `ConfigurationError` for an agent that can't be held to reading, `RepositoryError`, `ServiceUnavailable`.
        """
        chosen = choose_agent(self._agent, self._settings)
        words = task_words(task)
        terms = Terms(
            goal=task if isinstance(task, str) else f"{words.title}\n\n{words.goal}".strip(),
            agent=chosen.spec,
            repo=self._repo or chosen.repo,
            base=self._base,
            max_parallel_agents=self._max_parallel_agents,
            with_checks=self._with_checks,
        )
        planning = Planning(terms, known_agents(self._settings), timeout_seconds=self._timeout_seconds)
        if not is_configured(self._settings):
            require_program(chosen.spec, self._settings)
        with join(self._settings, need_of_work(self._settings)) as joined:
            return list(ask_for_plan(joined, planning).plan.plan.subtasks)
