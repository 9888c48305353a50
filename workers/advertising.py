"""What a worker says of its agents' programs, so that a job that needs one which is not here hears of it at its submission.

It answers Celery's remote control (`orchestrator.access.programs` asks), in the thread that also receives tasks. So it waits
no longer than `PATIENCE_SECONDS` for a program to say its version, and says then that it still looks: whoever asks again
is told. Each file is asked once (`workers.agents.versions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

from celery.worker.control import inspect_command

from orchestrator.accounts import agent_account
from orchestrator.agent_names import known_agents
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings
from orchestrator.task_names import AGENT_PROGRAMS
from workers.agents.registry import agent_class
from workers.agents.versions import AgentVersion, program_version

PATIENCE_SECONDS: Final = 0.5

Wanted = tuple[str, str | None]
"""An agent's name, and the path of its program where a plan names one."""


def advertise(settings: Settings) -> None:
    """Let this process answer the command `AGENT_PROGRAMS`."""
    advertising = Advertising(settings)

    @inspect_command(name=AGENT_PROGRAMS)
    def agent_programs(_state: Any, wanted: Sequence[Sequence[Any]] | None = None, **_: Any) -> list[dict[str, Any]]:
        return advertising.answer(None if wanted is None else [(str(name), path) for name, path in wanted])


class Advertising:
    """Looks for programs beside the thread that answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="advertising")
        self._under_way: dict[Wanted, Future[AgentVersion]] = {}

    def answer(self, wanted: Sequence[Wanted] | None) -> list[dict[str, Any]]:
        """One document for each that is wanted, of all agents known here without a choice."""
        if wanted is None:
            wanted = [(name, None) for name in known_agents(self._settings)]
        begun, self._under_way = self._under_way, {}
        looks = {one: begun.get(one) or self._pool.submit(look_for, *one, self._settings) for one in wanted}
        wait(looks.values(), timeout=PATIENCE_SECONDS)
        # What was told is looked for anew the next time: it may have been installed by then.
        self._under_way = {one: look for one, look in {**begun, **looks}.items() if not look.done()}
        return [_document(one, look) for one, look in looks.items()]


def look_for(name: str, path: str | None, settings: Settings) -> AgentVersion:
    """The program of an agent as an attempt would find it here, or why there would be none. One at a `path` is looked for,
    and not run: whoever reaches the broker may ask, and the broker decides nothing of what runs here."""
    try:
        agent = agent_class(name, settings)
    except ConfigurationError as error:
        return AgentVersion(found=False, note=error.message.removesuffix("."))
    program = path or agent.program
    if agent.program is None or program is None:
        return AgentVersion(found=True, supported=True)
    asked = bool(agent.oldest_version) and path is None
    return program_version(program, agent.oldest_version, ask=asked, account=agent_account(settings.agent_user))


def _document(wanted: Wanted, look: Future[AgentVersion]) -> dict[str, Any]:
    name, path = wanted
    document: dict[str, Any] = {"agent": name, "path": path}
    if not look.done():
        return {**document, "looking": True}
    found = look.result()
    return document | {
        "looking": False,
        "found": found.found,
        "version": found.version,
        "supported": found.supported,
        "note": found.note,
    }
