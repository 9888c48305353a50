"""What the processes of a fleet are started with, and what Celery's worker is told then."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from flower.views.tasks import visible_task_columns

from orchestrator.cli import processes
from orchestrator.settings import load_settings
from workers import node


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[processes.Process], dict[str, Any]]:
    def told(process: processes.Process) -> dict[str, Any]:
        assert process.arguments[:3] == ("-P", "-m", "workers.node")
        words = node.parser().parse_args(process.arguments[3:])
        for name, value in node.variables(words).items():
            monkeypatch.setenv(name, value)
        return node.celery_options(words, load_settings())

    return told


def test_a_worker_listens_to_every_queue_that_it_can_serve(told: Callable[..., dict[str, Any]]) -> None:
    options = told(processes.worker(slots=4, capabilities=["large", "gpu"], log_level="debug"))
    assert options["queues"] == ["agents", "agents.gpu", "agents.large", "agents.gpu+large"]
    assert (options["concurrency"], options["pool_cls"], options["loglevel"]) == (4, "threads", "debug")


def test_an_option_goes_before_the_variable(
    told: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CAPABILITIES", "gpu")
    assert told(processes.worker(slots=1, capabilities=[]))["queues"] == ["agents"]


def test_a_dispatcher_takes_no_agents(told: Callable[..., dict[str, Any]]) -> None:
    options = told(processes.dispatcher(name="abc"))
    assert options["queues"] == ["control"]
    assert options["hostname"] == f"abc@{socket.gethostname()}"


def test_node_names_differ_unless_named(told: Callable[..., dict[str, Any]]) -> None:
    names = {told(processes.worker(slots=1, capabilities=[]))["hostname"] for _ in range(20)}
    assert len(names) == 20
    assert all(re.match(r"worker-[0-9a-f]{6}@", name) for name in names)


def test_flowers_password_is_in_no_argument() -> None:
    login = processes.new_login()
    process = processes.flower(address="127.0.0.1", port=5555, basic_auth=login)
    assert process.environment["FLOWER_BASIC_AUTH"] == login
    assert not any(login in word for word in process.arguments)
    assert processes.new_login() != login


def test_flowers_page_of_tasks_says_which_subtask_each_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def columns() -> str:
        return processes.flower(address="127.0.0.1", port=5555, basic_auth=None).environment["FLOWER_TASKS_COLUMNS"]

    monkeypatch.delenv("FLOWER_TASKS_COLUMNS", raising=False)
    every = [column.strip() for column in columns().split(",")]
    # Flower leaves out what it doesn't know, without a word.
    assert [column for column, _ in visible_task_columns(columns())] == every
    assert every[0] == "args"
    monkeypatch.setenv("FLOWER_TASKS_COLUMNS", "name")
    assert columns() == "name"
