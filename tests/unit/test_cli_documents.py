"""docs/json.md names every field that is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.cli import documents
from orchestrator.state.group_checks import GroupCheck
from orchestrator.state.views import EventView, GroupRunView, JobLine
from tests.support.job_views import NOW, a_group, a_history, a_job, a_record, a_subtask

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def test_every_field_is_documented() -> None:
    run = GroupRunView(1, True, None, None, 1.0, 1.0, 1, "callback", NOW, NOW)
    job = documents.job(a_job(a_group(1, "completed", a_subtask(1, "completed"), runs=(run,))))
    (group,) = job["groups"]
    line = documents.job_line(JobLine("a", "t", "running", None, None, None, NOW, NOW, None, 1.0, {}))
    event = documents.event(EventView(1, NOW, "job.started", None, None, None))
    check = GroupCheck(1, 1, 1, NOW, "make test", passed=True, exit_code=0, output="")
    report = documents.report(replace(a_history(a_job(), a_record()), checks=(check,)))
    of_report = (report, report["totals"], report["attempts"][0], report["checks"][0])
    for document in (job, group, group["runs"][0], group["subtasks"][0], line, event, *of_report):
        undocumented = [name for name in document if name not in PAGE]
        assert undocumented == []


def test_a_repositorys_password_is_not_printed() -> None:
    assert documents.job(a_job(repo="https://user:secret@example.org/a.git"))["repo"] == (
        "https://user:***@example.org/a.git"
    )
