"""The original coordinator's API over the queue: subtasks in, results out, and a real merge between them.

coordinator = ParallelAgentCoordinator(StateManager(), lambda: AgentRegistry.get("claude_code_local")(), {"repo": "."})
results = coordinator.execute_parallel(subtasks, parent_task="Bookstore models")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from orchestrator.access.connect import Joined, is_configured, join, need_of_work
from orchestrator.access.follow import Update, follow
from orchestrator.access.missing_programs import missing_programs
from orchestrator.agent_choice import AgentFactory, ChosenAgent, choose_agent, require_programs
from orchestrator.agent_names import known_agents
from orchestrator.coordinator_log import ProgressLog
from orchestrator.dispatch.steering import cancel_job
from orchestrator.dispatch.submission import submit
from orchestrator.errors import BadInput, ConfigurationError, OrchestratorException
from orchestrator.plan.model import Plan, SubTask, ValidatedPlan
from orchestrator.plan.validate import validate_plan
from orchestrator.state.engine import translated
from orchestrator.state.results import JobResult, SubtaskResult, job_result
from orchestrator.state_manager import StateManager
from orchestrator.task_words import task_words

log = logging.getLogger(__name__)

OF_EACH_CALL: Final = ("title", "goal", "subtasks")
"""Words of a plan that `execute_parallel` fills in; every other one may stand in the configuration."""


class ParallelAgentCoordinator:
    """Runs subtasks in parallel groups through the queue. Safe to use from many threads.

    `agent_factory` is a registered name, or a function that is called once for each call of `execute_parallel`: the
    agent that it returns travels as its registered name and its configuration (`orchestrator.agent_choice`).

    `config` takes `max_parallel_agents` (5), `agent_timeout_seconds` (600), `retry_failed_agents` (True), `max_retries` (2),
    `parallelization_strategy` ("parallel_groups"), and every other word of a plan: `repo`, `base`, `on_failure`,
    `group_checks`, `deadline`, `defaults`, … Raises `PlanError` for what a plan would not take.
    """

    def __init__(
        self,
        state_manager: StateManager | None = None,
        agent_factory: AgentFactory = "claude-code",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._state_manager = state_manager or StateManager()
        self._settings = self._state_manager.settings
        self._agent_factory = agent_factory
        self._config = dict(config or {})
        self._finished: dict[tuple[Any, int], dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._plan = plan = self._checked_config()
        log.info(
            "ParallelAgentCoordinator initialized: max_agents=%d, timeout=%gs, retry=%s (max=%d)",
            plan.max_parallel_agents,
            plan.agent_timeout_seconds or plan.defaults.timeout_seconds or float("inf"),
            plan.retry_failed_agents,
            plan.defaults.max_retries if plan.max_retries is None else plan.max_retries,
            extra={"event": "coordinator.initialized"},
        )

    def execute_parallel(
        self, subtasks: Sequence[SubTask], parent_task: Any, context: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run the subtasks and wait for their end. Groups run in ascending order, the subtasks of a group in parallel.

        `parent_task` is what the subtasks are parts of: text, a mapping, or an object with `id`, `title` and
        `description`; every agent is told of it and of `context`.

        Returns one dict a subtask, sorted by `subtask_id`, `[]` for no subtasks: `subtask_id, status, result, error,
        duration_seconds` (seconds), and `title, outcome, attempts, agent, worker, group_number, commit, merged,
        files_changed, usage, cost_usd, job_id, branch, head_commit`. A subtask whose `status` is `completed` is returned
        as it is and not run; while the others run, `status` of the objects given follows them.

        An agent that fails is a result. Raises `OrchestratorException`, before anything runs, for what breaks a rule of
        plans (`PlanError`: single-agent testing, cycles, unknown agents, …), and when a service is lost for good
        (`ServiceUnavailable`). Interrupted, it cancels the job.
        """
        if not subtasks:
            return []
        if not all(isinstance(subtask, SubTask) for subtask in subtasks):
            raise BadInput("execute_parallel takes SubTask objects.", recovery="from orchestrator import SubTask")
        task = task_words(parent_task, context)
        agent = choose_agent(self._agent_factory, self._settings)
        words = {"title": task.title, "goal": task.goal}
        # All of them, finished ones too: a rule that the whole breaks is reported before a part of it runs.
        self._validated(subtasks, agent, words)
        results = {subtask.subtask_id: self._as_it_is(subtask, task.id) for subtask in subtasks if _is_done(subtask)}
        open_ones = [subtask for subtask in subtasks if not _is_done(subtask)]
        log.info("Starting parallel execution of %d subtasks", len(open_ones), extra={"event": "execution.started"})
        if open_ones:
            plan = self._validated(_without_finished(open_ones, results), agent, words, base=_head_of(results))
            job = self._run(plan, {subtask.subtask_id: subtask for subtask in open_ones}, task.id, context)
            found = {one.subtask_id: one for one in job.subtasks}
            for subtask in open_ones:
                result = _as_dict(found[subtask.subtask_id], job)
                results[subtask.subtask_id] = self._keep(subtask, task.id, result)
        log.info(
            "Parallel execution complete: %d results, %d successful",
            len(results),
            sum(result["status"] == "completed" for result in results.values()),
            extra={"event": "execution.finished"},
        )
        return [results[subtask_id] for subtask_id in sorted(results)]

    def _checked_config(self) -> Plan:
        """The configuration as a plan reads it, with a subtask that stands for any."""
        reserved = [word for word in OF_EACH_CALL if word in self._config]
        if reserved:
            raise ConfigurationError(
                f"The coordinator's configuration can't have `{reserved[0]}`.",
                context={"keys": reserved},
                recovery="It comes from the subtasks and the parent task of each call.",
            )
        words = {key: value for key, value in self._config.items() if key != "group_checks"}
        plan = {**words, "title": "configuration", "subtasks": [{"subtask_id": 1, "title": "any"}]}
        known = known_agents(self._settings)
        return validate_plan(plan, known_agents=known, source="the coordinator's configuration").plan

    def _validated(
        self,
        subtasks: Sequence[SubTask],
        agent: ChosenAgent,
        words: Mapping[str, str],
        base: str | None = None,
    ) -> ValidatedPlan:
        """The subtasks as a plan that keeps every rule. Raises `PlanError` with all faults."""
        plan = {**self._config, **words, "subtasks": list(subtasks)}
        defaults = {**self._config.get("defaults", {}), "agent": {"name": agent.name, "config": agent.config}}
        if agent.is_plugin:
            defaults.setdefault("idle_timeout", None)  # a function that thinks prints nothing
        if agent.timeout_seconds is not None:
            limits = [agent.timeout_seconds, self._plan.agent_timeout_seconds]
            plan["agent_timeout_seconds"] = min(seconds for seconds in limits if seconds is not None)
        if agent.permissions is not None:
            defaults.setdefault("permissions", agent.permissions)
        if agent.repo is not None:
            plan["repo"] = self._one_repository(agent.repo)
        if base is not None:
            plan["base"] = base
        if isinstance(checks := plan.get("group_checks"), Mapping):
            # Groups that are finished are no part of this plan any more.
            numbers = {str(subtask.parallel_group) for subtask in subtasks}
            plan["group_checks"] = {number: check for number, check in checks.items() if str(number) in numbers}
        return validate_plan(
            {**plan, "defaults": defaults}, known_agents=known_agents(self._settings), source="the subtasks"
        )

    def _one_repository(self, of_agent: str) -> str:
        written = self._config.get("repo", of_agent)
        if written != of_agent:
            raise ConfigurationError(
                f"The agent's workspace_path is {of_agent}, and the coordinator's `repo` is {written}.",
                recovery="Name the repository once.",
            )
        return of_agent

    def _run(
        self, plan: ValidatedPlan, subtasks: Mapping[int, SubTask], task_id: Any, context: Mapping[str, Any] | None
    ) -> JobResult:
        """One job, from its submission to its end."""
        if not is_configured(self._settings):
            require_programs(plan.subtasks, self._settings)
        slots = max(self._settings.slots, plan.plan.max_parallel_agents)
        with join(self._settings, need_of_work(self._settings), slots=slots) as joined:
            submitted = submit(joined.fleet, plan)
            try:
                missing = missing_programs(joined.fleet, plan.subtasks) if is_configured(self._settings) else []
                for note in (*submitted.notes, *missing):
                    log.warning("%s", note, extra={"event": "submission.note", "job_id": submitted.job_id})
                self._follow(joined, submitted.job_id, subtasks, task_id, context)
                with translated(), joined.fleet.engine.connect() as connection:
                    return job_result(connection, submitted.job_id)
            except BaseException:
                # Whoever waits no longer wants the work no longer: no agent runs on for nobody.
                with suppress(OrchestratorException):
                    cancel_job(joined.fleet, submitted.job_id)
                raise

    def _follow(
        self,
        joined: Joined,
        job_id: str,
        subtasks: Mapping[int, SubTask],
        task_id: Any,
        context: Mapping[str, Any] | None,
    ) -> None:
        progress = ProgressLog(job_id)
        logged: set[int] = set()
        for update in follow(
            joined.fleet.engine, job_id, grace_seconds=joined.fleet.settings.unreachable_grace_seconds
        ):
            joined.check()
            _note_statuses(update, subtasks)
            for event in progress.show(update):
                if event.name in {"group.finished", "group.sent_back"}:
                    self._log_attempts(job_id, logged, task_id, context)

    def _log_attempts(self, job_id: str, logged: set[int], task_id: Any, context: Mapping[str, Any] | None) -> None:
        """Tie the group runs that have ended to the caller's task. The records stand already: a failure costs the tie."""
        try:
            for attempt in self._state_manager.get_parallel_attempts(job_id=job_id):
                if attempt.id not in logged:
                    logged.add(attempt.id)
                    self._state_manager.log_parallel_attempt(
                        attempt, parent_task_id=task_id, **({"context": dict(context)} if context else {})
                    )
        except OrchestratorException as error:
            log.warning("A parallel attempt could not be logged: %s", error, extra={"event": "group_run.not_logged"})

    def _as_it_is(self, subtask: SubTask, task_id: Any) -> dict[str, Any]:
        """The result of a finished subtask: what this coordinator has seen of it, else no more than that it is finished."""
        with self._lock:
            known = self._finished.get((task_id, subtask.subtask_id))
        if known is not None:
            return dict(known)
        unseen = SubtaskResult(
            subtask.subtask_id, subtask.title, subtask.parallel_group or 0, "", "completed", "completed", None, None
        )
        return {**asdict(unseen), "job_id": None, "branch": None, "head_commit": None}

    def _keep(self, subtask: SubTask, task_id: Any, result: dict[str, Any]) -> dict[str, Any]:
        subtask.note_status(result["status"])
        if result["status"] == "completed":
            with self._lock:
                self._finished[task_id, subtask.subtask_id] = dict(result)
        return result


def _is_done(subtask: SubTask) -> bool:
    return subtask.status == "completed"


def _head_of(finished: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Where finished work was merged last: what is left goes on from there."""
    heads = [result["head_commit"] for result in finished.values() if result["head_commit"]]
    return heads[-1] if heads else None


def _without_finished(subtasks: Sequence[SubTask], finished: Mapping[int, Mapping[str, Any]]) -> list[SubTask]:
    """The subtasks as a plan of their own: a dependency on finished work becomes words, for it is not in that plan."""
    return [
        subtask.model_copy(
            update={
                "depends_on": [one for one in subtask.depends_on if one not in finished],
                "description": "\n\n".join(
                    filter(
                        None,
                        [
                            subtask.description,
                            *(_produced(finished[one]) for one in subtask.depends_on if one in finished),
                        ],
                    )
                ),
            }
        )
        for subtask in subtasks
    ]


def _produced(result: Mapping[str, Any]) -> str:
    said = f" It said: {result['result']}" if result["result"] else ""
    return f"Subtask {result['subtask_id']}, {result['title']}, which this one builds on, is finished.{said}"


def _note_statuses(update: Update, subtasks: Mapping[int, SubTask]) -> None:
    for seen in update.job.subtasks if update.job else ():
        subtasks[seen.subtask_id].note_status(seen.status)


def _as_dict(found: SubtaskResult, job: JobResult) -> dict[str, Any]:
    return {**asdict(found), "job_id": job.job_id, "branch": job.branch, "head_commit": job.head_commit}
