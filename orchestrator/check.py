"""Running a check: the command that says whether a subtask's or a group's work is good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account
from orchestrator.errors import ConfigurationError
from orchestrator.program_output import BoundedOutput
from orchestrator.supervisor import StopSignal, supervise

STRICT_BASH: Final = ("bash", "-euo", "pipefail", "-c")
"""How every command of a plan is run: it stops at the first failure, also inside a pipe."""

_KILL_GRACE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class CheckResult:
    """`passed` means that it ran to its end and returned 0. `stopped` is as in `supervisor.Ending`."""

    passed: bool
    exit_code: int | None
    output: BoundedOutput
    stopped: str | None


def run_check(
    command: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_seconds: float | None,
    stop: StopSignal,
    cookie: str,
    on_line: Callable[[str, str], None] | None = None,
    group: str | None = None,
    oversee: Callable[[int], AbstractContextManager[None]] | None = None,
    redact: Callable[[str], str] | None = None,
    account: Account | None = None,
) -> CheckResult:
    """Run `command` with strict bash in `cwd`, to the end of its whole process tree. `group`, `oversee`, `redact` and
    `account` are as in `supervisor.supervise`.

    Raises `ConfigurationError` when this machine has no bash.
    """
    try:
        ending = supervise(
            [*STRICT_BASH, command],
            cwd=cwd,
            env=env,
            timeout_seconds=timeout_seconds,
            idle_timeout_seconds=None,
            kill_grace_seconds=_KILL_GRACE_SECONDS,
            on_line=on_line or _ignore,
            stop=stop,
            cookie=cookie,
            group=group,
            oversee=oversee,
            redact=redact,
            account=account,
        )
    except FileNotFoundError as error:
        if error.filename != STRICT_BASH[0]:
            raise
        raise ConfigurationError(
            "The program bash is not on the PATH.",
            context={"path": env.get("PATH", "")},
            recovery="Install bash, or put it on the PATH of workers and dispatchers.",
        ) from error
    return CheckResult(
        passed=ending.stopped is None and ending.exit_code == 0,
        exit_code=ending.exit_code,
        output=ending.output,
        stopped=ending.stopped,
    )


def _ignore(_stream: str, _text: str) -> None:
    pass
