"""A check is strict: it passes only if every part of it did."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.check import CheckResult, run_check
from orchestrator.errors import ConfigurationError
from orchestrator.supervisor import TIMEOUT, StopSignal
from tests.support.supervision import new_cookie


def check(command: str, cwd: Path, *, timeout_seconds: float = 60, env: dict[str, str] | None = None) -> CheckResult:
    with StopSignal() as stop:
        return run_check(
            command,
            cwd=cwd,
            env=env or dict(os.environ),
            timeout_seconds=timeout_seconds,
            stop=stop,
            cookie=new_cookie(),
        )


def test_a_green_check_passes(tmp_path: Path) -> None:
    (tmp_path / "made.txt").write_text("hello\n")
    result = check("grep hello made.txt", tmp_path)
    assert (result.passed, result.exit_code, result.output.text) == (True, 0, "hello\n")


@pytest.mark.parametrize("command", ["false; true", "false | cat", "echo $unset_name; true", "exit 4"])
def test_any_failing_part_is_red(command: str, tmp_path: Path) -> None:
    assert not check(command, tmp_path).passed


def test_a_check_out_of_time_is_red(tmp_path: Path) -> None:
    result = check("trap 'exit 0' TERM; while :; do sleep 0.05; done", tmp_path, timeout_seconds=0.3)
    assert (result.passed, result.stopped) == (False, TIMEOUT)


def test_without_bash_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bash is not on the PATH"):
        check("true", tmp_path, env={"PATH": str(tmp_path)})
