"""Fault points: each of the closed list stands somewhere in the code, and does what it was armed for, once."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import orchestrator
import workers
from orchestrator import fault_points
from orchestrator.fault_points import FAULT_POINTS, FOLDER_VARIABLE, fault_point
from tests.support.waiting import wait_until

PASSES_TWICE = 'from orchestrator.fault_points import fault_point as f; f("before_publish"); f("before_publish")'


def _names_in_the_code() -> Iterator[str]:
    for package in (orchestrator, workers):
        for file in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault_point":
                    (name,) = node.args
                    assert isinstance(name, ast.Constant), f"{file}:{node.lineno} names no fault point"
                    yield name.value


def _start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PASSES_TWICE], env={**os.environ, FOLDER_VARIABLE: str(folder)})


def test_the_list_is_what_stands_in_the_code() -> None:
    assert sorted(_names_in_the_code()) == sorted(FAULT_POINTS), "each once"


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="no fault point after_lunch"):
        fault_point("after_lunch")


def test_nothing_happens_where_no_test_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "before_publish").write_text("kill")
    fault_point("before_publish")
    monkeypatch.setattr(fault_points, "_folder", str(tmp_path))
    fault_point("after_publish_before_mark")
    assert [path.name for path in tmp_path.iterdir()] == ["before_publish"]


def test_kill(tmp_path: Path) -> None:
    (tmp_path / "before_publish").write_text("kill")
    process = _start(tmp_path)
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert (tmp_path / "fired").read_text() == f"before_publish kill {process.pid}\n"


def test_stop(tmp_path: Path) -> None:
    (tmp_path / "before_publish").write_text("stop")
    process = _start(tmp_path)
    seen = psutil.Process(process.pid)
    wait_until(lambda: seen.status() == psutil.STATUS_STOPPED, "it stands still")
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=30) == 0, "the second passage goes on"


def test_delay_is_for_the_first_that_gets_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fault_points, "_folder", str(tmp_path))
    monkeypatch.setattr(fault_points.time, "sleep", slept.append)
    (tmp_path / "before_publish").write_text("delay 1.5")
    fault_point("before_publish")
    fault_point("before_publish")
    assert slept == [1.5]
    assert [path.name for path in tmp_path.iterdir()] == ["fired"]


def test_a_word_that_is_no_action_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_points, "_folder", str(tmp_path))
    (tmp_path / "before_publish").write_text("explode")
    with pytest.raises(ValueError, match="explode"):
        fault_point("before_publish")
