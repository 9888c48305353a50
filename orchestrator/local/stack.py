"""The stack itself: PostgreSQL, Valkey, a dispatcher and workers, started as they are needed.

Everything starts at once. The addresses are known before the servers are up, so the libraries of dispatcher and worker
are imported, once for both and the slowest part, while the servers start; they are told when both services answer.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

from orchestrator.errors import LocalStackError, OrchestratorException
from orchestrator.import_ahead import import_ahead
from orchestrator.local.child import Child, Program
from orchestrator.local.folders import Folders
from orchestrator.local.fork_server import ForkServer
from orchestrator.local.leftovers import Leftovers, end_process
from orchestrator.local.postgres import FAST_SHUTDOWN, Postgres, environment, prepare_postgres
from orchestrator.local.protocol import Request
from orchestrator.local.valkey import Valkey, prepare_valkey

POSTGRES_STOP: Final = ((FAST_SHUTDOWN, 30.0), (signal.SIGQUIT, 5.0))
VALKEY_STOP: Final = ((signal.SIGTERM, 10.0),)


class LocalStack:
    """What one keeper has running. Used in its event loop only; `provide` may be called for several clients at once.

    `on_hopeless` is called with an error when a process that once was asked for can't be kept running.
    `worker_stop_seconds` is what dispatcher and workers get to end their agents after a TERM.
    """

    def __init__(
        self,
        folders: Folders,
        *,
        fork_server_command: list[str],
        worker_stop_seconds: float,
        on_hopeless: Callable[[LocalStackError], None],
    ) -> None:
        self.doing = "starting the local stack"
        self._folders = folders
        self._run = folders.make_run()
        self._leftovers = Leftovers(folders.leftovers)
        self._fork_server = ForkServer(fork_server_command, folders.log("fork-server"))
        self._worker_stop = ((signal.SIGTERM, worker_stop_seconds),)
        self._on_hopeless = on_hopeless
        self._servers: list[Child] = []
        self._workers: list[Child] = []
        self._worker_urls: tuple[str, str] | None = None
        self._slots = 0
        self._services: dict[str, asyncio.Task[str]] = {}

    async def provide(self, request: Request) -> dict[str, str]:
        """Start what `request` needs and is not there yet. Returns the URLs. Raises `LocalStackError`."""
        starting: list[asyncio.Task[str]] = []
        urls = {}
        if request.database_url is None:
            postgres = prepare_postgres(self._folders, self._run)
            urls["database_url"] = postgres.url
            starting.append(self._shared("postgres", lambda: self._start_postgres(postgres)))
        if request.needs_broker and request.broker_url is None:
            valkey = prepare_valkey(self._folders, self._run)
            urls["broker_url"] = valkey.url
            starting.append(self._shared("valkey", lambda: self._start_valkey(valkey)))
        if request.slots:
            self._start_workers(
                request.slots,
                request.database_url or urls["database_url"],
                request.broker_url or urls["broker_url"],
            )
        # A client that goes away must not take a server's start from another one that waits for it too.
        await asyncio.gather(*(asyncio.shield(task) for task in starting))
        if request.slots:
            for child in self._workers:
                child.services_answer()
        return urls

    async def stop(self) -> None:
        """Stop everything: first who works, then what they work with."""
        for task in self._services.values():
            task.cancel()
        await asyncio.gather(*self._services.values(), return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._workers))
        await self._fork_server.stop()
        await asyncio.gather(*(child.stop() for child in self._servers))

    def _shared(self, name: str, start: Callable[[], Coroutine[Any, Any, str]]) -> asyncio.Task[str]:
        """The one start of this service; a start that failed is tried anew for the next client."""
        task = self._services.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._services[name] = asyncio.create_task(start(), name=f"start {name}")
        return task

    async def _start_postgres(self, postgres: Postgres) -> str:
        is_new = not postgres.data.exists()
        self.doing = "making a new PostgreSQL database" if is_new else "starting PostgreSQL"
        # initdb first: an import that runs already would hold back the start of every process here.
        data = asyncio.create_task(asyncio.to_thread(postgres.initialise))
        imports = asyncio.create_task(asyncio.to_thread(import_ahead, "orchestrator.state.migrate"))
        await data
        foreign = postgres.foreign_process()
        if foreign is not None:
            # Its keeper was killed before it could write down that it had started this one.
            await asyncio.to_thread(end_process, foreign, FAST_SHUTDOWN)
        postgres.forget_dead_server()
        child = self._server("PostgreSQL", postgres.command(), postgres.log, POSTGRES_STOP)
        try:
            await child.until(postgres.is_ready)
            self.doing = "setting up the database" if is_new else "looking at the database's tables"
            await imports
            await asyncio.to_thread(_upgrade, postgres.url)
        except BaseException:
            await self._give_up(child)
            raise
        return postgres.url

    async def _start_valkey(self, valkey: Valkey) -> str:
        child = self._server("Valkey", valkey.command(), valkey.log, VALKEY_STOP)
        try:
            await child.until(lambda _pid: valkey.is_ready())
        except BaseException:
            await self._give_up(child)
            raise
        return valkey.url

    def _server(self, name: str, command: list[str], log: Any, stop_signals: tuple[tuple[int, float], ...]) -> Child:
        program = Program(name, command, environment(), log, stop_signals, folder=self._folders.root)
        child = Child(program, self._leftovers, self._on_hopeless)
        self._servers.append(child)
        return child

    async def _give_up(self, child: Child) -> None:
        await child.stop()
        self._servers.remove(child)

    def _start_workers(self, slots: int, database_url: str, broker_url: str) -> None:
        urls = (database_url, broker_url)
        if self._worker_urls not in {None, urls}:
            raise LocalStackError(
                f"The stack of {self._folders.root} works for another database or broker now.",
                recovery="Wait until the other command has ended, or set ORCHESTRATOR_STATE_DIR to another folder.",
            )
        if self._worker_urls is None:
            self._worker_urls = urls
            self._worker("dispatcher", ["dispatcher"])
        if slots > self._slots:
            more = slots - self._slots
            number = len(self._workers)
            self._worker(f"worker-{number}", ["worker", "--slots", str(more)])
            self._slots = slots

    def _worker(self, name: str, words: list[str]) -> None:
        assert self._worker_urls is not None
        database_url, broker_url = self._worker_urls
        addresses = {
            "ORCHESTRATOR_DATABASE_URL": database_url,
            "ORCHESTRATOR_BROKER_URL": broker_url,
            "ORCHESTRATOR_STATE_DIR": str(self._folders.root),
        }
        log = self._folders.log(name)
        program = Program(name, words, addresses, log, self._worker_stop, fork_server=self._fork_server)
        self._workers.append(Child(program, self._leftovers, self._on_hopeless))


def _upgrade(database_url: str) -> None:
    from orchestrator.state import migrate  # noqa: PLC0415 - imported ahead, beside initdb

    try:
        migrate.upgrade(database_url)
    except OrchestratorException as error:
        raise LocalStackError(error.message, context=error.context, recovery=error.recovery) from error
