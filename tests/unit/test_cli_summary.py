"""The end of a job in words."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.summary import conflict_words, merge_command, next_lines, print_subtasks, print_summary
from orchestrator.state.views import GroupRunView, JobView, SubtaskView
from tests.support.job_views import a_group, a_job, a_run, a_subtask, ago, an_attempt

BRANCH = "orchestrator/3f2a9c1b04d7"


def test_a_conflict_names_files_and_both_subtasks() -> None:
    conflict = {"subtask_id": 3, "other_subtask_ids": [2], "files": [{"path": "src/a.py", "kind": "content"}]}
    assert conflict_words(conflict) == "conflict: #3 against #2 in src/a.py (content)"
    assert "against what was on the branch" in conflict_words(conflict | {"other_subtask_ids": []})


def test_the_merge_command_works_where_the_reader_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = tmp_path / "my repo"
    for arguments in (["init", "-q", str(repo)], ["-C", str(repo), "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments], check=True, capture_output=True
        )
    subprocess.run(["git", "-C", str(repo), "branch", BRANCH], check=True)
    job = a_job(repo=str(repo), branch=BRANCH)
    for folder in (tmp_path, repo):
        monkeypatch.chdir(folder)
        subprocess.run(["bash", "-c", merge_command(job)], check=True, capture_output=True)
    assert merge_command(job) == f"git merge {BRANCH}"


def test_a_bare_repository_is_fetched_from(tmp_path: Path) -> None:
    repo = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(repo)], check=True, capture_output=True)
    assert merge_command(a_job(repo=str(repo), branch=BRANCH)) == f"git fetch {repo} {BRANCH} && git merge FETCH_HEAD"


def test_who_waits_for_a_process_that_is_not_there_hears_what_to_do() -> None:
    def says(job: JobView) -> bool:
        return any("orchestrator up" in line for line in next_lines(job))

    def waiting(seconds: float) -> JobView:
        return a_job(a_group(1, "running", a_subtask(1, released_at=ago(seconds)), a_subtask(2)))

    assert says(waiting(30))
    assert not says(waiting(1))
    assert not says(a_job(a_group(1, "running", a_subtask(1, "in_progress", released_at=ago(30)))))
    assert says(a_job(status="pending", started_at=None, created_at=ago(30)))
    assert not says(a_job(status="pending", started_at=None, created_at=ago(1)))


def test_a_remote_repository_is_fetched_and_its_password_not_shown() -> None:
    job = a_job(repo="https://user:secret@example.org/a.git", branch=BRANCH)
    assert merge_command(job) == f"git fetch 'https://user:***@example.org/a.git' {BRANCH} && git merge FETCH_HEAD"


def test_what_comes_next_depends_on_what_was_merged() -> None:
    merged = {"repo": "https://example.org/a.git", "branch": BRANCH, "base_commit": "a" * 40, "head_commit": "b" * 40}
    ended = {"finished_at": ago(0), "status": "failed"}
    assert next_lines(a_job(**{**merged, "finished_at": ago(0), "status": "completed"})) == [
        f"Branch {BRANCH} at bbbbbbbbbb; merge it with: git fetch https://example.org/a.git {BRANCH} && git merge FETCH_HEAD"
    ]
    assert next_lines(a_job(**merged, **ended))[0].startswith("What was merged so far is on the branch.")
    nothing = {**merged, "head_commit": "a" * 40}
    assert next_lines(a_job(**nothing, **ended))[0] == f"Nothing was merged: no change is on {BRANCH}."
    assert next_lines(a_job(**ended))[-1] == "Try again what did not complete: orchestrator retry 3f2a9c1b04d7"


def test_a_red_branch_is_not_offered_like_a_green_one() -> None:
    def lines(*passed: bool | None) -> list[str]:
        groups = [
            a_group(number, "failed", a_subtask(number, "failed"), runs=(a_run(check_passed=one),))
            for number, one in enumerate(passed, start=1)
        ]
        merged = {"repo": "https://example.org/a.git", "branch": BRANCH, "base_commit": "a" * 40}
        return next_lines(a_job(*groups, status="failed", finished_at=ago(0), head_commit="b" * 40, **merged))

    assert lines(True, False, None)[0].startswith("The check of group 2 is red on what was merged. Branch ")
    assert "; merge it all the same with: git fetch" in lines(False)[0]
    assert lines(False, True)[0].startswith("What was merged so far is on the branch. Branch ")
    assert "; merge it with: " in lines(None)[0]


def test_work_that_was_completed_and_not_merged_is_not_called_lost() -> None:
    done = {"commit": "c" * 40}
    subtasks = [
        a_subtask(1, "completed", **done),
        a_subtask(2, "completed", **done, merged_at=ago(1)),
        a_subtask(3, "completed"),
        a_subtask(4, "cancelled"),
        a_subtask(5, "completed", **done),
    ]
    group = a_group(1, "cancelled", *subtasks)
    merged = {"repo": "https://example.org/a.git", "branch": BRANCH, "base_commit": "a" * 40, "head_commit": "a" * 40}
    said = "The work of #1, #5 is kept, and not on the branch: a retry merges it."
    assert said in next_lines(a_job(group, status="cancelled", finished_at=ago(0), **merged))
    assert said not in next_lines(a_job(group, **merged)), "a job that runs will merge it"


def test_the_summary_tells_what_happened() -> None:
    run = GroupRunView(1, False, "no", None, 4.0, 2.5, 2, "callback", ago(5), ago(1))
    done = a_subtask(
        1,
        "completed",
        attempt=an_attempt(status="completed", finished_at=ago(1), files_changed=("a.py", "b.py")),
    )
    broken = a_subtask(2, "failed", outcome="check_failed", error="pytest was red:\n1 failed", attempts=3)
    job = a_job(a_group(1, "failed", done, broken, runs=(run,)), status="failed", finished_at=ago(0))
    output = io.StringIO()
    print_summary(Console(file=output, width=100), job)
    text = output.getvalue()
    assert "1      1  Part 1  shell  completed  1      3.0 s  2" in text
    assert "#2 check_failed: pytest was red: 1 failed" in text
    assert "group 1  failed · 2 subtasks · 4.0 s · speed-up 2.5 ×" in text
    assert "job 3f2a9c1b04d7: failed · 1 of 2, 1 failed · 8.0 s" in text


def _printed(job: JobView, width: int = 80) -> str:
    output = io.StringIO()
    print_summary(Console(file=output, width=width, force_terminal=True, color_system=None), job)
    return output.getvalue()


def test_a_narrow_terminal_loses_no_count_and_no_outcome() -> None:
    red = a_subtask(1, "failed", title="A title that is far too long for this", outcome="check_failed", error="red")
    others = [a_subtask(number, status) for number, status in enumerate(("timeout", "skipped", "cancelled"), start=2)]
    group = a_group(1, "failed", red, *others, error="subtasks #1, #2, #3 and #4 did not complete" + " at all" * 9)
    text = _printed(a_job(group, status="failed", reason="subtasks_failed", finished_at=ago(0)))
    assert "check_failed\n" in text
    assert "1 failed, 1 timed out, 1 cancelled, 1 skipped · 8.0 s" in text
    assert "at all\n" in text
    assert text.count("…") == 1, "only the long title is cut"


def test_what_the_job_says_is_not_said_again_by_its_parts() -> None:
    said = "the job was cancelled"
    parts = [a_subtask(number, "cancelled", error=said) for number in (1, 2)]
    job = a_job(a_group(1, "cancelled", *parts, error=said), status="cancelled", error=said, finished_at=ago(0))
    assert _printed(job, width=120).count(said) == 1


def test_one_subtask_alone_has_no_speed_up() -> None:
    run = GroupRunView(1, True, None, None, 4.0, 0.7, 1, "callback", ago(5), ago(1))
    job = a_job(a_group(1, "completed", a_subtask(1, "completed"), runs=(run,)), status="completed", finished_at=ago(0))
    assert "speed-up" not in _printed(job)


def test_logs_are_not_named_where_no_agent_has_started() -> None:
    def lines(*subtasks: SubtaskView) -> list[str]:
        return next_lines(a_job(a_group(1, "failed", *subtasks), status="failed", finished_at=ago(0)))

    missing = a_subtask(1, "failed", outcome="agent_missing")
    assert "See which agents are there: orchestrator agents" in lines(missing)
    assert not any("orchestrator logs" in line for line in lines(missing))
    assert "See why: orchestrator logs 3f2a9c1b04d7" in lines(missing, a_subtask(2, "failed", outcome="failed"))


def test_a_subtask_that_goes_on_names_the_attempt_that_was_cut_off() -> None:
    subtasks = (
        a_subtask(1, "in_progress", attempt=an_attempt(number=2, resumed_from=1)),
        a_subtask(2, "timeout", outcome="idle_timeout", attempt=an_attempt(number=3, resumed_from=2)),
        a_subtask(3, "in_progress"),
    )
    out = io.StringIO()
    print_subtasks(Console(file=out, width=200), a_job(a_group(1, "running", *subtasks)))
    rows = [line.rstrip() for line in out.getvalue().splitlines() if "Part" in line]
    assert rows[0].endswith("resumed #1")
    assert rows[1].endswith("idle_timeout, resumed #2")
    assert "resumed" not in rows[2]
