"""The check of a group: run on the merged branch, in a work tree of its own."""

from __future__ import annotations

from pathlib import Path

from orchestrator.accounts import Account
from orchestrator.check import CheckResult, run_check
from orchestrator.environment import agent_environment
from orchestrator.supervisor import StopSignal


def run_group_check(
    command: str,
    *,
    checkout: Path,
    timeout_seconds: float,
    stop: StopSignal,
    cookie: str,
    account: Account | None = None,
) -> CheckResult:
    """Run the group's check in `checkout`, the merged commit's files, in the environment that agents see and under their
    account: it runs what they have written."""
    return run_check(
        command,
        cwd=checkout,
        env=agent_environment(allow=(), extra={}, cookie=cookie, account=account),
        timeout_seconds=timeout_seconds,
        stop=stop,
        cookie=cookie,
        account=account,
    )
