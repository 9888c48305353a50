"""Each row of the table with each program: submit → worker → the real program → the scripted model → merge."""

from __future__ import annotations

import os
import re
import signal
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import text

from orchestrator.prices import price_of
from orchestrator.process_list import COOKIE_VARIABLE
from tests.integration.agents.programs import CLAUDE, CODEX, KEY, PROGRAMS, Program, worker_environment
from tests.integration.agents.rows import NOWHERE, ROWS, Row
from tests.integration.agents.table import COUNTED, Table
from tests.support.fleet import TestFleet, open_fleet
from tests.support.model_server.script import Script, say, shell
from tests.support.model_server.server import ModelServer
from tests.support.repositories import git, new_repository
from tests.support.services import Services
from tests.support.waiting import wait_until
from workers.agents.registry import agent_class

pytestmark = [pytest.mark.stack, pytest.mark.agents, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def fleet(servers: Services, model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestFleet]:
    """One worker whose provider is the model, and one whose provider is not there; the plan's `requires` chooses."""
    folder = tmp_path_factory.mktemp("agents")
    one = open_fleet(servers.postgres.new_database(), servers.redis.url, folder, lease_seconds=10.0, sandboxed=True)
    one.base_environment = worker_environment(model.url, folder / "home")
    one.start_dispatcher()
    one.start_worker(capabilities=["model"])
    refused = {**worker_environment(NOWHERE, folder / "home"), "ORCHESTRATOR_CAPABILITIES": "refused"}
    one.start_worker("refused", capabilities=["refused"], **refused)
    yield one
    one.close()


@pytest.fixture(autouse=True)
def no_limits_yet(fleet: TestFleet) -> None:
    """What the provider had enough of in one row is nothing to the next."""
    with fleet.client.engine.begin() as connection:
        connection.execute(text("DELETE FROM provider_limits"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.program)
def test_row(program: Program, row: Row, fleet: TestFleet, model: ModelServer, table: Table, tmp_path: Path) -> None:
    if program.name not in row.expected:
        table.note(row.title, program, "–")
        pytest.skip(f"{program.name} has nothing of the kind")
    program.require()
    script = Script(row.steps, row.faults)
    repository = new_repository(tmp_path / "repository")
    job_id = fleet.submit(_plan(program, row, script, repository))
    if row.signal:
        _send(row.signal, program, job_id, fleet)
    job = fleet.wait_for_end(job_id, timeout_seconds=200)
    attempt = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)[0]
    outcome, requests = row.expected[program.name]
    found = (attempt["status"], model.requests(script))
    table.note_attempts(row.title, program, [attempt], found[1], expected=[outcome])
    assert found == (outcome, found[1] if requests is None else requests), f"{attempt['error']}\n{_log(fleet)}"
    assert model.faults(script) > 0 or not row.faults
    assert (attempt["error"] is None) == (outcome == "completed")
    _check_effects(job, attempt, repository)
    if program.name not in row.tokens_unknown_to:
        _check_tokens(program, attempt, model.tokens(script))
    assert _alive(fleet, attempt["id"]) == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.program)
def test_eight_at_once(program: Program, fleet: TestFleet, model: ModelServer, table: Table, tmp_path: Path) -> None:
    program.require()
    repository = new_repository(tmp_path / "repository")
    scripts = [Script([shell(f"echo {number} > {number}.txt"), say("Done.")]) for number in range(8)]
    subtasks = [
        {"subtask_id": number + 1, "title": f"Part {number}", "parallel_group": 1, "description": script.prompt}
        for number, script in enumerate(scripts)
    ]
    job_id = fleet.submit(
        {
            "title": "Eight",
            "repo": str(repository),
            "max_parallel_agents": 8,
            "defaults": {"agent": program.agent(), "permissions": program.permissions, "requires": ["model"]},
            "subtasks": subtasks,
        }
    )
    job = fleet.wait_for_end(job_id, timeout_seconds=200)
    seen = [model.requests(script) for script in scripts]
    attempts = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY subtask_id", id=job_id)
    table.note_attempts("8 at once", program, attempts, sum(seen), expected=["completed"])
    assert (job["status"], seen) == ("completed", [2] * 8), fleet.describe(job_id)
    for attempt, script in zip(attempts, scripts, strict=True):
        _check_tokens(program, attempt, model.tokens(script))
    files = git(repository, "ls-tree", "--name-only", f"orchestrator/{job_id}").split()
    assert set(files) >= {f"{number}.txt" for number in range(8)}


def test_no_key_is_anywhere_though_the_agent_has_printed_it(
    fleet: TestFleet, servers: Services, model: ModelServer, tmp_path: Path
) -> None:
    """The database as a whole and the logs of every process, as they are stored, and all that was said to Redis."""
    CLAUDE.require()
    script = Script([shell("env; echo hi > a.txt"), say(f"The key is {KEY}.")])
    repository = new_repository(tmp_path / "repository")
    with redis.Redis.from_url(servers.redis.client_url) as client, client.monitor() as monitor:
        job_id = fleet.submit(_plan(CLAUDE, ROWS[0], script, repository))
        assert fleet.wait_for_end(job_id)["status"] == "completed"
        client.set("the last word", "")
        said = []
        for command in monitor.listen():
            said += [command["command"], *_decoded(command["command"])]
            if "the last word" in command["command"]:
                break
    assert any(job_id in command for command in said)
    assert [command for command in said if KEY in command] == []
    assert KEY in model.authorizations  # the agent did have it
    result = fleet.subtasks(job_id)[1]["result"]
    assert result == "The key is ***."
    tables = [row["name"] for row in fleet.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")]
    assert "attempts" in tables
    for name in tables:
        assert fleet.rows(f"SELECT 1 FROM {name} t WHERE strpos(t::text, :key) > 0", key=KEY) == []
    texts = _lines_of(fleet, job_id)
    assert "***" in texts
    assert KEY not in texts
    assert KEY not in _log(fleet)


def _plan(program: Program, row: Row, script: Script, repository: Path) -> dict[str, Any]:
    known = agent_class(program.name).config_model.model_fields
    more = {key: value for key, value in row.agent.items() if key in known}
    subtask = {"permissions": program.permissions, **row.subtask, **row.by_program.get(program.name, {})}
    description = f"{subtask.pop('description', '')}\n{script.prompt}"
    return {
        "title": row.title,
        "repo": str(repository),
        "retry_failed_agents": False,
        "defaults": {"agent": program.agent(**more), "requires": ["refused" if row.refused else "model"]},
        "subtasks": [
            {"subtask_id": 1, "title": "The part", "parallel_group": 1, "description": description, **subtask}
        ],
    }


def _send(name: str, program: Program, job_id: str, fleet: TestFleet) -> None:
    """To the program itself, once the tool has made its file: from then on it would sleep."""
    folder = fleet.settings.workspaces_dir
    wait_until(lambda: list(folder.glob(f"{job_id}-*/checkout/started.txt")), "the tool is at work", timeout_seconds=60)
    if program in (CLAUDE, CODEX):  # what they had not written down yet could be told by nobody
        wait_until(
            lambda: any("started.txt" in file.read_text() for file in folder.glob(f"{job_id}-*/**/*.jsonl")),
            "the program has noted the call in its session",
        )
    attempt = fleet.rows("SELECT id FROM attempts WHERE job_id = :id", id=job_id)[0]
    # The program is the one that no other of the attempt has started.
    pids = set(_alive(fleet, attempt["id"]))
    [first] = [pid for pid in pids if psutil.Process(pid).ppid() not in pids]
    os.kill(first, getattr(signal, f"SIG{name}"))


def _alive(fleet: TestFleet, attempt_id: int) -> list[int]:
    """The processes of the attempt, whichever of the fleet's workers runs it."""
    workers = {str(process.pid) for process in fleet.processes.values()}
    found = []
    for process in psutil.process_iter():
        try:
            owner, _, attempt = process.environ().get(COOKIE_VARIABLE, "").partition(".")
        except (psutil.Error, OSError):
            continue
        if attempt == str(attempt_id) and workers & set(owner.split("-")):
            found.append(process.pid)
    return found


def _check_effects(job: dict[str, Any], attempt: dict[str, Any], repository: Path) -> None:
    if attempt["status"] == "completed":
        assert git(repository, "show", f"orchestrator/{job['id']}:a.txt") == "hi\n"
    else:
        assert job["status"] == "failed"


def _check_tokens(program: Program, attempt: dict[str, Any], counted: Mapping[str, int]) -> None:
    told = {kind: attempt["usage"].get(kind, 0) for kind in COUNTED}
    assert told == {kind: counted.get(kind, 0) for kind in COUNTED}
    _check_cost(program, attempt, told)


def _check_cost(program: Program, attempt: dict[str, Any], told: dict[str, int]) -> None:
    """To the token: what the model has counted, at the price of the model that was asked. Claude Code counts by itself,
    but for a run that was killed, and so does mini-swe-agent; Codex does not."""
    if not attempt["usage"]:
        assert (attempt["cost_usd"], attempt["cost_unknown"]) == (None, True), "a call was under way, or may have been"
        return
    if program is CLAUDE and not any(told.values()):
        return  # it does not name its model where no call was answered
    price = price_of(attempt["model"], {})
    assert price is not None
    assert attempt["cost_usd"] == pytest.approx(price.of(told), abs=1e-9)
    assert attempt["cost_estimated"] == (any(told.values()) and attempt["reported_cost_usd"] is None)
    assert program is not CODEX or attempt["reported_cost_usd"] is None


def _lines_of(fleet: TestFleet, job_id: str) -> str:
    from orchestrator.state.log_chunks import decode_chunk

    chunks = fleet.rows("SELECT content FROM log_chunks WHERE job_id = :id ORDER BY sequence", id=job_id)
    return "\n".join(line.text for chunk in chunks for line in decode_chunk(chunk["content"]))


def _decoded(command: str) -> list[str]:
    """What lies in base64 in it, as the bodies of messages do."""
    return [
        b64decode(body).decode("utf-8", "replace")
        for body in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", command)
        if len(body) % 4 == 0
    ]


def _log(fleet: TestFleet) -> str:
    return "\n".join(path.read_text()[-4000:] for path in sorted(fleet.folder.glob("*.log")))
