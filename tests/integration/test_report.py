"""`report` and `export` as programs, on a real database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text, update

from orchestrator.cli.completion import agents_that_begin, jobs_that_begin
from orchestrator.local.client import Need, local_stack
from orchestrator.settings import load_settings
from orchestrator.state import tables
from orchestrator.state.engine import create_engine
from orchestrator.state.events import record_event
from orchestrator.state.history import job_history
from tests.support import job_rows
from tests.support.command_line import InProcess, command_line_in_process
from tests.support.services import open_temporary_folder

JOB = "aaaaaaaaaaaa"


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    with engine.begin() as connection:
        plan = {"title": "The job", "repo": "https://user:secret@example.org/a.git"}
        job_rows.insert_job(connection, JOB, title="The job <b>", repo=plan["repo"])
        connection.execute(update(tables.jobs).values(plan=plan))
        job_rows.insert_group(connection, JOB, 1, {1: "completed", 2: "in_progress", 3: "pending"})
        job_rows.insert_group_run(connection, JOB, 1, subtask_ids=[1, 2, 3], num_agents=3)
        ended = {"finished_at": "now", "agent_duration_seconds": 2.0, "usage": {"input": 40, "output": 2}}
        first = job_rows.insert_attempt(connection, JOB, 1, 1, status="timeout", error="no end within 2 s", **ended)
        second = job_rows.insert_attempt(connection, JOB, 1, 2, status="completed", files_changed=["a.py"], **ended)
        job_rows.insert_attempt(connection, JOB, 2)
        job_rows.write_lines(connection, JOB, 1, first, 1, "one", "see https://user:secret@example.org/")
        job_rows.write_lines(connection, JOB, 1, first, 3, "five")
        job_rows.write_lines(connection, JOB, 1, second, 1, "again")
        record_event(connection, "job.started", JOB)
        record_event(
            connection, "attempt.started", JOB, group_number=1, subtask_id=1, attempt=1, worker="worker-1@host"
        )
    yield engine
    engine.dispose()


@pytest.fixture
def run(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> InProcess:
    monkeypatch.chdir(tmp_path)
    return command_line_in_process(monkeypatch, capsys, database_url=database, state_dir=tmp_path / "state")


def test_a_report_names_whose_agents_might_do_anything(run: InProcess, engine: Engine, tmp_path: Path) -> None:
    assert "full" not in run("report").out
    with engine.begin() as connection:
        whole = tables.subtasks.c.subtask_id.in_([2, 3])
        connection.execute(update(tables.subtasks).where(whole).values(spec={"permissions": "full"}))
    assert "permissions: full for #2, #3\n" in run("report").out
    assert "- `permissions: full`: #2, #3\n" in run("report", "--markdown").out
    subtasks = json.loads(run("report", "--json").out)["job"]["groups"][0]["subtasks"]
    assert [subtask["permissions"] for subtask in subtasks] == ["edit", "full", "full"]
    run("report", "--html", "page.html")
    assert "<dt>Full permissions</dt><dd>#2, #3</dd>" in (tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("engine")
def test_a_report_is_text_json_markdown_or_a_page(run: InProcess, tmp_path: Path) -> None:
    said = run("report").out
    assert "secret" not in said
    assert "3 attempts, 1 of them repeated, on 1 worker" in said
    assert "no end within 2 s" in said
    document = json.loads(run("report", "aaa", "--json").out)
    assert (document["format"], document["job"]["id"]) == (1, JOB)
    assert (document["totals"]["attempts"], document["totals"]["tokens"]) == (3, 84)
    assert [(one["subtask_id"], one["number"], one["status"]) for one in document["attempts"]] == [
        (1, 1, "timeout"),
        (1, 2, "completed"),
        (2, 1, "running"),
    ]
    assert [one["name"] for one in document["events"]] == ["job.started", "attempt.started"]
    assert run("report", JOB, "--markdown").out.startswith("# The job \\<b\\>\n")
    wrote = run("report", JOB, "--html", "page.html")
    assert (wrote.out, wrote.err) == ("", f"Wrote page.html: the report of job {JOB}.\n")
    page = (tmp_path / "page.html").read_text()
    assert page.count('id="subtask-') == 3
    assert "secret" not in page


def test_what_a_groups_check_said_is_part_of_every_report(run: InProcess, engine: Engine, tmp_path: Path) -> None:
    said = "".join(f"line {number} <i>\n" for number in range(1, 31)) + "see https://user:secret@example.org/\n"
    with engine.begin() as connection:
        job_rows.insert_group(connection, JOB, 2, {4: "completed"})
        connection.execute(update(tables.groups).where(tables.groups.c.number == 2).values(check_command="make test"))
        green = job_rows.a_checked_run(passed=True, exit_code=0, output="all is well\n")
        for number in (2, 3):
            job_rows.insert_group(connection, JOB, number + 1, {})
            job_rows.insert_group_run(connection, JOB, number + 1, **green)
        job_rows.insert_group_run(connection, JOB, 2, **job_rows.a_checked_run(passed=False, exit_code=2, output=said))
    checks = json.loads(run("report", "--json").out)["checks"]
    assert [(check["group"], check["run"], check["passed"], check["exit_code"]) for check in checks] == [
        (3, 1, True, 0),
        (4, 1, True, 0),
        (2, 1, False, 2),
    ]
    assert (checks[2]["command"], checks[2]["output"]) == ("make test", said.replace("secret", "***"))
    groups = json.loads(run("status", "--json").out)["job"]["groups"]
    assert [[one["check_passed"] for one in group["runs"]] for group in groups] == [[None], [False], [True], [True]]
    for shown in (run("report").out, run("report", "--markdown").out):
        end = shown.partition("roup 2, the check is red: exit code 2; the end of what it wrote:\n")[2].splitlines()
        lines = [line.strip() for line in end if line.strip()][:20]
        assert lines == [*(f"line {number} <i>" for number in range(12, 31)), "see https://user:***@example.org/"]
        assert "all is well" not in shown
    run("report", "--html", "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<details open><summary>group 2, run 1: the check is red: exit code 2</summary>") == 1
    assert "<details><summary>group 3, run 1: the check is green</summary>" in page
    assert "$ make test\nline 1 &lt;i&gt;\n" in page


@pytest.mark.usefixtures("engine")
def test_what_can_not_be_written_is_one_line(run: InProcess, tmp_path: Path) -> None:
    assert "one form at a time" in run("report", JOB, "--html", "page.html", "--json", code=2).err
    assert not (tmp_path / "page.html").exists()
    assert "is a folder" in run("report", JOB, "--html", ".", code=2).err
    assert "There is no folder nowhere" in run("export", JOB, "-o", "nowhere/job.json", code=2).err


def test_a_history_is_read_in_the_same_number_of_statements_whatever_its_size(engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "after_cursor_execute", lambda *args: statements.append(args[2]))
    with engine.begin() as connection:
        job_rows.insert_job(connection, "bbbbbbbbbbbb")
        job_rows.insert_group(connection, "bbbbbbbbbbbb", 1, dict.fromkeys(range(1, 51), "in_progress"))
        for subtask_id in range(1, 51):
            job_rows.insert_attempt(connection, "bbbbbbbbbbbb", subtask_id)
    counts = []
    for job_id in (JOB, "bbbbbbbbbbbb"):
        statements.clear()
        job_history(engine, job_id)
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_an_export_has_everything_but_tokens_and_passwords(run: InProcess, engine: Engine, tmp_path: Path) -> None:
    document = json.loads(run("export", JOB).out)
    assert list(document) == [
        *("format", "exported_job", "job", "groups", "group_runs", "subtasks", "attempts", "events"),
    ]
    with engine.connect() as connection:
        for name in ("groups", "group_runs", "subtasks", "attempts", "events"):
            assert len(document[name]) == connection.scalar(text(f"SELECT count(*) FROM {name}")), name
    for name in ("groups", "group_runs", "subtasks", "attempts", "events"):
        written = {column.name for column in tables.metadata.tables[name].c} - {"job_id"}
        left_out = written - set(document[name][0])
        assert left_out <= {"lease_token", "lease_expires_at", "merge_token", "merge_lease_expires_at"}, name
    assert document["job"]["plan"]["repo"] == "https://user:***@example.org/a.git"
    run("export", JOB, "--logs", "-o", "job.json")
    with_logs = json.loads((tmp_path / "job.json").read_text())
    logs = with_logs.pop("logs")
    assert with_logs == document
    assert logs == [
        {
            "subtask_id": 1,
            "attempt": 1,
            "is_cut": True,
            "text": "one\nsee https://user:***@example.org/\n… lines were cut here …\nfive\n",
        },
        {"subtask_id": 1, "attempt": 2, "is_cut": False, "text": "again\n"},
    ]


@pytest.mark.usefixtures("engine")
def test_a_shell_is_offered_jobs_and_never_an_error(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", database)
    assert jobs_that_begin("AA") == [(JOB, "running · The job <b>")]
    assert jobs_that_begin("b") == []
    assert jobs_that_begin("%") == []
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://nobody@/none?host=/nowhere")
    assert jobs_that_begin("a") == []
    monkeypatch.delenv("ORCHESTRATOR_DATABASE_URL")
    assert jobs_that_begin("a") == [], "there is no stack, and none is started"
    assert not (tmp_path / "state").exists()


def test_a_shell_is_offered_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agents_that_begin("cla") == ["claude-code", "claude_code_local"]
    assert "shell" in agents_that_begin("")
    monkeypatch.setenv("ORCHESTRATOR_SLOTS", "none")
    assert agents_that_begin("cla") == [], "the settings can't be read"
    words = {"_ORCHESTRATOR_COMPLETE": "complete_bash", "COMP_WORDS": "orchestrator run --agent sh", "COMP_CWORD": "3"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    program = Path(sys.executable).with_name("orchestrator")
    done = subprocess.run([program], env=inherited | words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["shell"]


def test_a_shell_is_offered_the_jobs_of_a_local_stack_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_temporary_folder()
    for name in ("ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(folder / "state"))
    try:
        with local_stack(load_settings(), need=Need.DATABASE) as stack:
            assert stack.settings.database_url is not None
            engine = create_engine(stack.settings.database_url)
            with engine.begin() as connection:
                job_rows.insert_job(connection, JOB)
            engine.dispose()
            assert jobs_that_begin("a") == [(JOB, "running · A job")]
        assert jobs_that_begin("a") == [], "the stack has stopped, and is not started for this"
    finally:
        shutil.rmtree(folder)
