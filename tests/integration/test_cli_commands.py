"""The commands that look, as programs, on a real database."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from orchestrator.state.engine import create_engine
from tests.support import job_rows
from tests.support.waiting import wait_until

JOB = "aaaaaaaaaaaa"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(database: str, tmp_path: Path) -> Start:
    def begin(*words: str, **variables: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
        own = {"ORCHESTRATOR_STATE_DIR": str(tmp_path), "ORCHESTRATOR_DATABASE_URL": database, **variables}
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            env={**inherited, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def engine(database: str) -> Engine:
    engine = create_engine(database)
    with engine.begin() as connection:
        job_rows.insert_job(connection, JOB, title="The job", repo="https://user:secret@example.org/a.git")
        job_rows.insert_group(connection, JOB, 1, {1: "completed", 2: "in_progress", 3: "pending"})
        job_rows.insert_attempt(connection, JOB, 1, status="completed", finished_at="now", files_changed=["a.py"])
        attempt = job_rows.insert_attempt(connection, JOB, 2)
        job_rows.write_lines(connection, JOB, 2, attempt, 1, "one", "two")
        job_rows.write_lines(connection, JOB, 2, attempt, 3, "five")
    return engine


def _said(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out


def _json(process: subprocess.Popen[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_said(process))
    assert document["format"] == 1
    return document


@pytest.mark.usefixtures("engine")
def test_a_running_job_is_shown(start: Start) -> None:
    out = _said(start("status", "aaa"))
    assert "waits for a free place (1 of 3 taken)" in out
    assert "secret" not in out
    document = _json(start("status", "--json"))["job"]
    assert document["repo"] == "https://user:***@example.org/a.git"
    assert [subtask["files_changed"] for subtask in document["groups"][0]["subtasks"]] == [["a.py"], [], []]
    assert "aaaaaaaaaaaa  running" in _said(start("list"))
    assert [job["subtasks"] for job in _json(start("list", "--json"))["jobs"]] == [
        {"completed": 1, "in_progress": 1, "pending": 1}
    ]


@pytest.mark.usefixtures("engine")
def test_logs_mark_what_was_cut(start: Start) -> None:
    assert _said(start("logs", JOB)).splitlines() == [
        "#2 | one",
        "#2 | two",
        "#2 | … lines were cut here …",
        "#2 | five",
    ]
    assert _said(start("logs", JOB, "2", "--tail", "1")) == "five\n"
    assert _said(start("logs", JOB, "2", "--attempt", "1", "--tail", "1")) == "five\n"
    lines = [json.loads(line) for line in _said(start("logs", JOB, "2", "--json")).splitlines()]
    assert [line["type"] for line in lines] == ["line", "line", "cut", "line"]
    assert _said(start("logs", JOB, "9"), code=2) == ""


@pytest.mark.usefixtures("engine")
def test_logs_of_an_attempt_that_never_was_are_an_error(start: Start) -> None:
    for words, says in (((JOB, "2"), "no attempt 2 of subtask 2"), ((JOB,), "no attempt 2.")):
        process = start("logs", *words, "--attempt", "2")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, "")
        assert says in err
        assert "The newest one is 1." in err


def test_logs_end_with_what_the_checks_of_groups_wrote(start: Start, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE groups SET check_command = 'make\n test'"))
        red = job_rows.a_checked_run(passed=False, exit_code=2, output="first\n\x1b[31msecond\n")
        job_rows.insert_group_run(connection, JOB, 1, 1, **red)
        job_rows.insert_group_run(connection, JOB, 1, 2)  # under way: nothing to tell yet
    assert _said(start("logs")).splitlines()[-5:] == [
        "#2 | five",
        "group 1 | check: make test",
        "group 1 | first",
        "group 1 | second",
        "group 1 | the check is red: exit code 2",
    ]
    assert _said(start("logs", "--tail", "1")).splitlines() == [
        "#2 | five",
        "group 1 | check: make test",
        "group 1 | second",
        "group 1 | the check is red: exit code 2",
    ]
    assert _said(start("logs", "--tail", "0")) == ""
    assert "group" not in _said(start("logs", JOB, "2"))
    last = json.loads(_said(start("logs", "--json")).splitlines()[-1])
    assert (last["type"], last["group"], last["run"], last["passed"]) == ("check", 1, 1, False)
    assert last["output"] == "first\n\x1b[31msecond\n"


def test_a_check_that_ends_the_job_is_followed_too(start: Start, engine: Engine) -> None:
    process = start("logs", "-f", "--tail", "0")
    _wait_until_listening(engine)
    with engine.begin() as connection:
        job_rows.insert_group_run(connection, JOB, 1, **job_rows.a_checked_run(passed=True, output="fine\n"))
        job_rows.finish_job(connection, JOB, "completed")
    assert _said(process).splitlines() == ["group 1 | check: ", "group 1 | fine", "group 1 | the check is green"]


def test_logs_are_followed_to_the_end(start: Start, engine: Engine) -> None:
    process = start("logs", JOB, "2", "-f", "--tail", "0")
    _wait_until_listening(engine)
    with engine.begin() as connection:
        attempt = connection.scalar(text("SELECT id FROM attempts WHERE subtask_id = 2"))
        assert attempt is not None
        job_rows.write_lines(connection, JOB, 2, attempt, 4, "six")
    assert process.stdout is not None
    assert process.stdout.readline() == "six\n"
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE subtasks SET status = 'completed', finished_at = now() WHERE subtask_id = 2"),
        )
        connection.execute(text("SELECT pg_notify('orchestrator_events', :job)"), {"job": JOB})
    assert _said(process) == ""


def test_watching_ends_with_the_jobs_exit_code(start: Start, engine: Engine) -> None:
    process = start("watch", JOB, "--json")
    _wait_until_listening(engine)
    with engine.begin() as connection:
        job_rows.finish_job(connection, JOB, "failed")
    last = json.loads(_said(process, code=1).splitlines()[-1])
    assert (last["type"], last["job"]["status"]) == ("summary", "failed")


def test_leaving_a_watched_job_lets_it_run(start: Start, engine: Engine) -> None:
    process = start("watch", JOB)
    _wait_until_listening(engine)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Job {JOB} goes on" in err
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT status FROM jobs")) == "running"


def test_a_database_that_can_not_be_reached_is_one_line(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        refused = f"postgresql://user:secret@127.0.0.1:{port}/db"
        process = start("list", ORCHESTRATOR_DATABASE_URL=refused)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err.startswith("error: The database can't be used")
    assert "secret" not in err


def test_a_broker_that_is_away_is_told_once_and_the_job_is_stored(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(
        "title: One\nsubtasks: [{subtask_id: 1, title: A, description: a, agent: scripted}]\n"
    )
    away = f"redis+socket://{tmp_path}/nobody.sock"
    process = start("submit", str(tmp_path / "plan.yaml"), ORCHESTRATOR_BROKER_URL=away)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line.split(" at ")[0] for line in err.splitlines()] == ["warning: The broker"]
    assert _json(start("list", "--json"))["jobs"][0]["id"] == out.strip()


def test_the_tables_are_set_up_once(start: Start, postgres: Any) -> None:
    url = postgres.new_empty_database()
    assert "error: " not in _said(start("db", "current", ORCHESTRATOR_DATABASE_URL=url))
    missing = start("list", ORCHESTRATOR_DATABASE_URL=url)
    _, err = missing.communicate(timeout=60)
    assert missing.returncode == 2
    assert "orchestrator db upgrade" in err
    for _ in range(2):
        _said(start("db", "upgrade", ORCHESTRATOR_DATABASE_URL=url))
    assert _json(start("db", "current", "--json", ORCHESTRATOR_DATABASE_URL=url))["up_to_date"] is True


def _wait_until_listening(engine: Engine) -> None:
    def listens() -> bool:
        with engine.connect() as connection:
            found = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
            )
        return bool(found)

    wait_until(listens, "the program listens", timeout_seconds=60)
