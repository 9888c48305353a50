"""A task from its description to its merged results: cut into subtasks where it is large, else one agent's work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from orchestrator.agent_choice import AgentFactory, AgentRegistry, ChosenAgent
from orchestrator.agent_plugin import AgentPlugin
from orchestrator.coordinator import ParallelAgentCoordinator
from orchestrator.decomposer import AgentDecomposer
from orchestrator.plan.model import SubTask
from orchestrator.state_manager import StateManager
from orchestrator.task_words import of_task, task_words

DECOMPOSE_FROM_COMPLEXITY: Final = 50.0
"""From this `estimated_complexity` (0 to 100) on a task is cut. A task without an estimate is always cut."""

Decomposer = Callable[[Any], Sequence[SubTask]]
"""Cuts a task into subtasks. One subtask or none: the task is not worth cutting."""


class Orchestrator:
    """Executes tasks. Safe to use from many threads, as far as the decomposer is.

    `config` has `agent`, what the agent is initialised with, `parallel_execution`, the coordinator's configuration, and
    `decompose_from_complexity` (50). `agent` is a registered name, an agent (`AgentRegistry.get(name)()`) whose class
    makes those that work, or a function that returns one. Without a `decomposer` every task is one agent's work; with
    `"agent"` the same agent is asked to cut it (`AgentDecomposer`), reading the repository that it will work in.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        state_manager: StateManager | None = None,
        agent: AgentFactory | ChosenAgent | AgentPlugin = "claude-code",
        *,
        decomposer: Decomposer | Literal["agent"] | None = None,
    ) -> None:
        self._config = dict(config or {})
        self._state_manager = state_manager or StateManager()
        self._agent = agent
        self._decomposer = self._agent_decomposer() if decomposer == "agent" else decomposer
        self._coordinator = ParallelAgentCoordinator(
            self._state_manager, self._agent_factory(), self._config.get("parallel_execution", {})
        )

    def execute_task(self, task: Any) -> dict[str, Any]:
        """Execute a task: the task itself (text, a mapping or an object), or the id of one that the state manager finds.

        Returns `task_id, status, result, error, duration_seconds, branch, commit, job_id, subtasks`: `status` is `completed`
        when every subtask completed, else that of the first one that did not; `result` and `error` are what their agents
        said and what went wrong, by subtask; `duration_seconds` the sum of the agents' times; `branch` and `commit`
        where the work was merged; `subtasks` the coordinator's results. Raises what
        `ParallelAgentCoordinator.execute_parallel` raises.
        """
        if isinstance(task, int):
            task = self._state_manager.get_task(task_id=task)
        subtasks = self._decomposer(task) if self._decomposer is not None and self._is_large(task) else ()
        if len(subtasks) < 2:
            subtasks = [_whole(task)]
        project = of_task(task, "project_id")
        context = None if project is None else {"project_id": project}
        results = self._coordinator.execute_parallel(subtasks, parent_task=task, context=context)
        return merge_results(task_words(task).id, results)

    def _is_large(self, task: Any) -> bool:
        complexity = of_task(task, "estimated_complexity")
        threshold = self._config.get("decompose_from_complexity", DECOMPOSE_FROM_COMPLEXITY)
        return complexity is None or bool(complexity >= threshold)

    def _agent_decomposer(self) -> AgentDecomposer:
        parallel = self._config.get("parallel_execution", {})
        words = {key: parallel[key] for key in ("repo", "base", "max_parallel_agents") if key in parallel}
        return AgentDecomposer(self._agent_factory(), **words, settings=self._state_manager.settings)

    def _agent_factory(self) -> AgentFactory:
        """A fresh agent of the configured kind for each execution, initialised with `config["agent"]`."""
        agent, config = self._agent, self._config.get("agent", {})
        if isinstance(agent, ChosenAgent | AgentPlugin):
            kind = type(agent)
        elif isinstance(agent, str):
            kind = AgentRegistry.get(agent, self._state_manager.settings)
        else:
            return agent

        def make() -> ChosenAgent | AgentPlugin:
            made = kind()
            made.initialize(config)
            return made

        return make


def merge_results(task_id: Any, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One result of many, as `Orchestrator.execute_task` describes it."""
    open_ones = [result for result in results if result["status"] != "completed"]
    last = results[-1] if results else {}
    return {
        "task_id": task_id,
        "status": open_ones[0]["status"] if open_ones else "completed",
        "result": _by_subtask(results, "result"),
        "error": _by_subtask(results, "error"),
        "duration_seconds": sum(result["duration_seconds"] for result in results),
        "branch": last.get("branch"),
        "commit": last.get("head_commit"),
        "job_id": last.get("job_id"),
        "subtasks": [dict(result) for result in results],
    }


def _by_subtask(results: Sequence[Mapping[str, Any]], key: str) -> str | None:
    said = [result for result in results if result[key]]
    if len(results) == 1:
        return said[0][key] if said else None
    return "\n\n".join(f"{result['subtask_id']}. {result['title']}: {result[key]}" for result in said) or None


def _whole(task: Any) -> SubTask:
    words = task_words(task)
    description = task if isinstance(task, str) else str(of_task(task, "description") or "")
    return SubTask(subtask_id=1, title=words.title, description=description, parallel_group=1)
