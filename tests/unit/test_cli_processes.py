"""What the processes of a fleet are started with."""

from __future__ import annotations

from celery.bin.worker import worker as celery_worker

from orchestrator.cli import processes


def _value(arguments: tuple[str, ...], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_a_worker_listens_to_every_queue_that_it_can_serve() -> None:
    process = processes.worker(slots=4, capabilities=["large", "gpu"])
    assert process.arguments[:5] == ("-m", "celery", "-A", "workers.app", "worker")
    assert _value(process.arguments, "--queues") == "agents,agents.gpu,agents.large,agents.gpu+large"
    assert _value(process.arguments, "--concurrency") == "4"
    assert _value(process.arguments, "--pool") == "threads"
    assert process.environment == {"ORCHESTRATOR_SLOTS": "4", "ORCHESTRATOR_CAPABILITIES": "large,gpu"}


def test_a_dispatcher_takes_no_agents() -> None:
    process = processes.dispatcher(tag="abc")
    assert _value(process.arguments, "--queues") == "control"
    assert _value(process.arguments, "--hostname") == "dispatcher-abc@%h"


def test_node_names_differ_unless_named() -> None:
    names = {_value(processes.worker(slots=1, capabilities=[]).arguments, "--hostname") for _ in range(20)}
    assert len(names) == 20
    assert _value(processes.worker(slots=1, capabilities=[], name="w7").arguments, "--hostname") == "w7@%h"


def test_celery_knows_every_option() -> None:
    known = {option for parameter in celery_worker.params for option in parameter.opts}
    used = {word for word in processes.worker(slots=1, capabilities=[]).arguments if word.startswith("--")}
    assert used <= known


def test_flowers_password_is_in_no_argument() -> None:
    login = processes.new_login()
    process = processes.flower(address="127.0.0.1", port=5555, basic_auth=login)
    assert process.environment == {"FLOWER_BASIC_AUTH": login}
    assert not any(login in word for word in process.arguments)
    assert processes.new_login() != login
