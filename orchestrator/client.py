"""The queue from asyncio: submit, wait, stream events, cancel.

    async with Client() as client:
        job_id = await client.submit("plan.yaml")
        async for event in client.stream_events(job_id):
            ...
        result = await client.wait(job_id)

A configured fleet is used as it is; without one a local stack runs for as long as the client is open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from os import PathLike
from types import TracebackType
from typing import Any, Final, TypeVar

from orchestrator.access.connect import Joined, is_configured, join, need_of_work
from orchestrator.access.follow import follow
from orchestrator.access.missing_programs import Need, missing_programs
from orchestrator.access.proposing import hear_job
from orchestrator.agent_choice import require_programs
from orchestrator.agent_names import known_agents
from orchestrator.dispatch.steering import cancel_job
from orchestrator.dispatch.submission import submit
from orchestrator.errors import DatabaseUnavailable, IllegalRequest, OrchestratorException
from orchestrator.plan.model import AgentSpec, Plan, ValidatedPlan
from orchestrator.plan.planning import TIMEOUT_SECONDS, Planning
from orchestrator.plan.proposal import Proposal, Terms
from orchestrator.plan.validate import load_plan, validate_plan
from orchestrator.settings import Settings, load_settings
from orchestrator.state.engine import translated
from orchestrator.state.queries import find_job, is_open, job_view
from orchestrator.state.results import JobResult, job_result
from orchestrator.state.views import EventView, JobView

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS: Final = 16
"""Calls at work at once; more wait their turn. Each stream of events has one for as long as it lasts."""
LOOK_SECONDS: Final = (0.1, 1.0)
"""Between two looks at a job that is waited for: at first, and at most."""


class Client:
    """An open door to the queue. Use it as an asynchronous context manager, from one event loop.

    `slots` is how many agents there is room for at least, where a worker is started here. Opening raises
    `ServiceUnavailable`, as every method does when a service is gone for longer than `unreachable_grace_seconds`.
    """

    def __init__(self, settings: Settings | None = None, *, slots: int | None = None) -> None:
        self.settings = settings or load_settings()
        self._slots = slots
        self._resources = ExitStack()
        self._joined: Joined | None = None
        self._asked_for: set[Need] = set()
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="orchestrator-client")

    async def __aenter__(self) -> Client:
        # Shielded, so that a cancellation can't lose sight of a stack that is just being started.
        opening = asyncio.ensure_future(self._call(self._open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])
            await self._call(self._resources.close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._joined = None
        await asyncio.shield(self._call(self._resources.close))
        self._threads.shutdown(wait=False)

    async def submit(
        self, plan: Plan | Mapping[str, Any] | str | PathLike[str], *, idempotency_key: str | None = None
    ) -> str:
        """Check a plan (a `Plan`, a mapping of its words, or the path of a file) and store it. Returns the job's id.

        Submitting the same plan again with the same key gives the same job. What the user should know is logged as a
        warning: of an agent whose program some worker has not, or too old, once a client, for which the fleet is asked
        for a second or more. Raises `PlanError` with every fault, `RepositoryError`, `IllegalRequest`, and where no fleet
        is configured `ConfigurationError` for such a program.
        """
        return await self._call(self._submit, plan, idempotency_key)

    async def wait(self, job_id: str) -> JobResult:
        """Wait until the job is final, and return what came of it. `asyncio.timeout` around it bounds the waiting, and
        leaves the job as it is. A job that failed is a result, no exception. Raises `UnknownJob`.
        """
        job_id = await self._call(self._find, job_id)
        pause, longest = LOOK_SECONDS
        lost_at: float | None = None
        while True:
            try:
                result = await self._call(self._result_if_final, job_id)
                lost_at = None
            except DatabaseUnavailable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self.settings.unreachable_grace_seconds:
                    raise
                result = None
            if result is not None:
                return result
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    async def propose_plan(
        self,
        goal: str,
        *,
        repo: str | None = None,
        base: str | None = None,
        agent: str | AgentSpec = "claude-code",
        max_parallel_agents: int = 5,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Proposal:
        """Ask an agent that may only read for a plan; `submit(proposal.plan.plan)` runs it. Cancelled, it cancels the agent.

        Read its checks first: they are commands from a model. `timeout_seconds` is for one of at most three questions.
        Raises `ProposalError` when there is no plan, `ConfigurationError` for an agent that can't be held to reading,
        `RepositoryError`.
        """
        spec = AgentSpec(name=agent) if isinstance(agent, str) else agent
        terms = Terms(goal, spec, repo, base, max_parallel_agents)
        planning = await self._call(
            lambda: Planning(terms, known_agents(self.settings), timeout_seconds=timeout_seconds)
        )
        while planning.proposal is None:
            # Shielded, so that a cancellation can't lose sight of a job that is just being stored.
            asking = asyncio.ensure_future(self._call(submit, self._fleet, planning.next_job()))
            try:
                result = await self.wait((await asyncio.shield(asking)).job_id)
            except BaseException:
                with suppress(OrchestratorException):
                    await self._call(self._cancel, (await asking).job_id)
                raise
            hear_job(planning, result)
        return planning.proposal

    async def stream_events(self, job_id: str, *, after_event: int = 0) -> AsyncIterator[EventView]:
        """Each event of the job once, as it happens, until the job is final. `after_event` leaves out those up to that id.

        Events come in the order in which they became visible. Raises `UnknownJob`.
        """
        job_id = await self._call(self._find, job_id)
        updates = follow(
            self._fleet.engine,
            job_id,
            after_event=after_event,
            grace_seconds=self.settings.unreachable_grace_seconds,
        )
        step: asyncio.Future[Any] | None = None
        try:
            while True:
                step = asyncio.ensure_future(self._call(next, updates, None))
                update = await asyncio.shield(step)
                if update is None:
                    return
                self._open_door.check()
                for event in update.events:
                    yield event
        finally:
            if step is not None:
                await asyncio.wait([step])  # a reading that is under way ends within about a second
            await self._call(updates.close)  # type: ignore[attr-defined]

    async def status(self, job_id: str) -> JobView:
        """The whole of a job as it is now. Raises `UnknownJob`."""
        return await self._call(self._view, job_id)

    async def cancel(self, job_id: str) -> bool:
        """End a job: what was not started never starts, running agents are ended. Returns at once; `wait` for the end.

        False: it is final already, or ends already. Merged work stays. Raises `UnknownJob`.
        """
        return await self._call(self._cancel, job_id)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _open(self) -> None:
        need = need_of_work(self.settings)
        self._joined = self._resources.enter_context(join(self.settings, need, slots=self._slots))

    @property
    def _open_door(self) -> Joined:
        if self._joined is None:
            raise IllegalRequest("The client is not open.", recovery="Use it inside `async with Client() as client:`.")
        return self._joined

    @property
    def _fleet(self) -> Any:
        return self._open_door.fleet

    def _submit(self, plan: Plan | Mapping[str, Any] | str | PathLike[str], idempotency_key: str | None) -> str:
        validated = self._validated(plan)
        has_fleet = is_configured(self.settings)
        if not has_fleet:
            require_programs(validated.subtasks, self.settings)
        submitted = submit(self._fleet, validated, idempotency_key=idempotency_key)
        asked_for = self._asked_for
        missing = missing_programs(self._fleet, validated.subtasks, said_before=asked_for) if has_fleet else []
        for note in (*submitted.notes, *missing):
            log.warning("%s", note, extra={"event": "submission.note", "job_id": submitted.job_id})
        return submitted.job_id

    def _validated(self, plan: Plan | Mapping[str, Any] | str | PathLike[str]) -> ValidatedPlan:
        known = known_agents(self.settings)
        if isinstance(plan, str | PathLike):
            return load_plan(plan, known_agents=known, prices=self.settings.prices)
        return validate_plan(plan, known_agents=known, prices=self.settings.prices)

    def _find(self, job_id: str) -> str:
        with translated(), self._fleet.engine.connect() as connection:
            return find_job(connection, job_id)

    def _result_if_final(self, job_id: str) -> JobResult | None:
        self._open_door.check()
        with translated(), self._fleet.engine.connect() as connection:
            return None if is_open(connection, job_id) else job_result(connection, job_id)

    def _view(self, job_id: str) -> JobView:
        with translated():
            return job_view(self._fleet.engine, self._find(job_id))

    def _cancel(self, job_id: str) -> bool:
        return cancel_job(self._fleet, self._find(job_id))
