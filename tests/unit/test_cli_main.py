"""The boundary: errors become words and exit codes, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.main import PANELS, fault_lines, main
from orchestrator.cli.reference import command_reference
from orchestrator.errors import DatabaseUnavailable, Fault, PlanError

BROKEN_PLAN = """\
title: Broken
nonsense: 1
subtasks:
  - {subtask_id: 1, title: A}
  - {subtask_id: 1, title: B}
"""


def _run(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=cwd,
        env={**inherited, "ORCHESTRATOR_STATE_DIR": str(cwd / "state"), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _raising(error: BaseException, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    def app(**_: object) -> None:
        raise error

    monkeypatch.setattr("orchestrator.cli.main.app", app)
    monkeypatch.setattr(sys, "argv", ["orchestrator", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_an_error_is_a_sentence_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = DatabaseUnavailable("It is away.", recovery="Start it.", context={"port": 5432})
    assert _raising(error, monkeypatch, "list") == 3
    assert capsys.readouterr() == ("", "error: It is away.\n  Start it.\n")


def test_with_json_an_error_is_one_object_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = DatabaseUnavailable("It is away.", recovery="Start it.", context={"port": 5432})
    assert _raising(error, monkeypatch, "list", "--json") == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "format": 1,
        "error": {"message": "It is away.", "recovery": "Start it.", "context": {"port": 5432}},
    }


def test_a_bug_is_one_line_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_DEBUG", raising=False)
    assert _raising(ZeroDivisionError("by zero"), monkeypatch) == 1
    err = capsys.readouterr().err
    assert "fault of orchestrator itself: ZeroDivisionError: by zero" in err
    assert "Traceback" not in err
    monkeypatch.setenv("ORCHESTRATOR_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        _raising(ZeroDivisionError("by zero"), monkeypatch)


def test_every_fault_of_a_plan_has_a_line_of_its_own() -> None:
    faults = [Fault("is twice.", field="subtasks.1.id", line=5, hint="Renumber it."), Fault("It is empty.")]
    assert fault_lines(PlanError(faults, source="plan.yaml")) == [
        "plan.yaml:5: subtasks.1.id: is twice. (Renumber it.)",
        "plan.yaml: It is empty.",
    ]


@pytest.mark.parametrize("command", ["run", "submit", "validate"])
def test_a_broken_plan_starts_nothing(command: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(BROKEN_PLAN)
    done = _run(command, "plan.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len([line for line in done.stderr.splitlines() if line.startswith("plan.yaml:")]) == 2
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("words", [["run", "plan.yaml"], ["submit", "plan.yaml", "--wait"]])
def test_a_program_that_is_not_here_is_told_before_a_stack_is_started(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(
        BROKEN_PLAN.replace("nonsense: 1", "defaults: {agent: codex}").replace("1, title: B", "2, title: B")
    )
    done = _run(*words, cwd=tmp_path, PATH=os.defpath)
    assert done.returncode == 2
    assert "error: The agent codex needs the program codex, which is not on the PATH." in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nothing.yaml"], "error: There is no plan at nothing.yaml."),
        (["worker"], "ORCHESTRATOR_BROKER_URL and ORCHESTRATOR_DATABASE_URL is not set"),
        (["worker", "--slots", "0"], "'--slots'"),
        (["validate"], "--schema"),
        (["conquer"], "No such command"),
    ],
)
def test_bad_input_ends_with_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = _run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    done = _run("list", cwd=tmp_path, ORCHESTRATOR_SLOTS="many")
    assert done.returncode == 2
    assert "slots" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slotz = 3", "there is no setting slotz"),
        ("slots = 'x", "The settings file orchestrator.toml can't be read"),
    ],
)
def test_a_wrong_settings_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "orchestrator.toml").write_text(text)
    done = _run("list", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("url", ["amqp://me:hunter2@there/0", "there", "redis://there:port/0"])
def test_a_broker_that_is_no_redis_is_bad_input(url: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("title: One\nsubtasks: [{subtask_id: 1, title: A, agent: scripted}]\n")
    done = _run("run", "plan.yaml", cwd=tmp_path, ORCHESTRATOR_BROKER_URL=url)
    assert done.returncode == 2
    assert "is none of Redis" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_broker_that_is_away_ends_a_run_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("title: One\nsubtasks: [{subtask_id: 1, title: A, agent: scripted}]\n")
    done = _run("run", "plan.yaml", cwd=tmp_path, ORCHESTRATOR_BROKER_URL=f"redis+socket://{tmp_path}/nobody.sock")
    assert done.returncode == 3
    assert "can't be reached" in done.stderr
    assert ".." not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_plan_that_can_not_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "plan.yaml").touch(mode=0o000)
    done = _run("validate", "plan.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: The plan plan.yaml can't be read: Permission denied.")


def test_an_interruption_while_modules_are_imported_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import sys; print('importing', flush=True); sys.stdin.read()")
    process = subprocess.Popen(
        # Tests that run in the background of a shell have an ignored SIGINT handed down.
        ["env", "--default-signal=INT", sys.executable, "-m", "orchestrator", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m orchestrator validate --schema | head -c 1; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("words", [("validate", "--schema"), ("validate", "plan.yaml")])
def test_a_full_disk_is_no_fault_of_ours(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Little output fails when it is flushed at the end, much of it in the midst of the command."""
    (tmp_path / "plan.yaml").write_text("title: A\nsubtasks: [{subtask_id: 1, title: A, description: x}]\n")
    program = [sys.executable, "-m", "orchestrator", *words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            program,
            cwd=tmp_path,
            env=inherited,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n  Free some, or write what is printed somewhere else.\n"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    # What makes a program slow to start: it would cost every call, also of shell completion.
    script = (
        "import sys; from orchestrator.cli import main; "
        "print([name for name in ('sqlalchemy', 'celery', 'pydantic', 'psycopg', 'alembic', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_reference_names_every_command() -> None:
    reference = command_reference()
    named = [name for commands in PANELS.values() for name in commands]
    assert len(named) == len(set(named))
    for name in [*named, "db upgrade", "db current"]:
        assert f"\n## orchestrator {name}\n" in reference
    assert "| `-j, --workers N` |" in reference
    assert "\norchestrator logs [JOB] [SUBTASK] [OPTIONS]\n" in reference


JOINING = """
import sys, threading
from orchestrator.access.connect import join
from orchestrator.local.client import Need
from orchestrator.settings import load_settings

start = threading.Thread.start

def noted(thread):
    print(thread.name, sorted({"celery", "kombu"} & set(sys.modules)))
    start(thread)

threading.Thread.start = noted
settings = load_settings(broker_url="redis://127.0.0.1:9", database_url="postgresql://127.0.0.1:9/none")
with join(settings, Need.SERVICES):
    pass
"""


def test_what_two_threads_may_not_begin_to_import_at_once_is_there_before_the_second(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", JOINING], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "import-ahead ['celery', 'kombu']\n"
