"""The processes of a fleet: which arguments and variables they get. Pure, but for `become` and `start_bound`."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from orchestrator.settings import Settings

TASK_COLUMNS: Final = "args,state,received,runtime,worker,name,uuid"
"""Of Flower's page of tasks. `args` is the line that says which subtask it is; Flower alone would leave it out."""


@dataclass(frozen=True)
class Process:
    """A program to become: `arguments` after the interpreter, and what to add to the environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def worker(*, slots: int, capabilities: Sequence[str], name: str | None = None, log_level: str = "info") -> Process:
    """A worker that runs `slots` agents at once and offers `capabilities`."""
    words = ("--slots", str(slots), "--capabilities", ",".join(capabilities))
    return Process((*_node("worker", name, log_level), *words))


def dispatcher(*, name: str | None = None, log_level: str = "info") -> Process:
    """A dispatcher: it starts jobs, merges groups and reconciles."""
    return Process(_node("dispatcher", name, log_level))


def flower(*, address: str, port: int, basic_auth: str | None) -> Process:
    """Flower on `address:port`. The password travels in a variable: arguments show in every process listing."""
    columns = os.environ.get("FLOWER_TASKS_COLUMNS", TASK_COLUMNS)
    return Process(
        ("-P", "-m", "workers.flower", f"--address={address}", f"--port={port}"),
        {"FLOWER_TASKS_COLUMNS": columns, **({"FLOWER_BASIC_AUTH": basic_auth} if basic_auth else {})},
    )


def new_login() -> str:
    """A user and a password that nobody can guess, as Flower's basic authentication takes them."""
    return f"orchestrator:{secrets.token_urlsafe(12)}"


def addresses(settings: Settings) -> dict[str, str]:
    """The variables that lead a process to the services of these settings."""
    urls = {"ORCHESTRATOR_BROKER_URL": settings.broker_url, "ORCHESTRATOR_DATABASE_URL": settings.database_url}
    return {name: url for name, url in urls.items() if url is not None}


def become(process: Process) -> NoReturn:
    """Replace this program by that one: signals, exit code and open descriptors are the new program's."""
    sys.stdout.flush()
    if os.getpid() == 1:
        _leave_an_init_behind()
    os.execve(sys.executable, [sys.executable, *process.arguments], {**os.environ, **process.environment})  # noqa: S606 - no shell is wanted


def _leave_an_init_behind() -> None:
    """Go on in a child; what this process becomes stays process 1 of its container, as `init_program` says."""
    from orchestrator.cli import init_program

    signal.pthread_sigmask(signal.SIG_BLOCK, init_program.AWAITED)
    child = os.fork()
    if child != 0:
        os.execve(sys.executable, [sys.executable, "-I", "-S", init_program.__file__, str(child)], {})  # noqa: S606
    os.setsid()  # Ctrl-C in a terminal is for process 1 to pass on, once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, init_program.AWAITED)


def start_bound(process: Process, variables: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start that program beside this one, to end with it, also by kill -9. Call it from the main thread.

    It has a session of its own: Ctrl-C in this terminal is ours to pass on.
    """
    from orchestrator.local import exec_server

    bound = ("-I", "-S", exec_server.__file__, os.geteuid(), os.getegid(), os.getpid(), int(signal.SIGTERM))
    return subprocess.Popen(
        [sys.executable, *map(str, bound), sys.executable, *process.arguments],
        env={**os.environ, **process.environment, **variables},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _node(role: str, name: str | None, log_level: str) -> tuple[str, ...]:
    named = ("--name", name) if name else ()
    # Without -P a folder `workers` or `orchestrator` where the user stands would be taken for ours.
    return ("-P", "-m", "workers.node", role, *named, "--log-level", log_level)
