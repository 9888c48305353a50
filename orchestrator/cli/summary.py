"""The end of a job for a person: what each subtask did, how the groups went, and what to do with the branch."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from orchestrator.cli.describe import nobody_takes, speed_up_words, spent_words, status_words, waits_for
from orchestrator.cli.render import STYLES, counted, print_table, shortened
from orchestrator.ledger import BUDGET_EXCEEDED, in_words
from orchestrator.outcomes import Outcome
from orchestrator.redaction import redact_url
from orchestrator.state.views import AttemptView, GroupView, JobView, SubtaskView
from orchestrator.text import duration, in_one_line, plural

FAILURES_SHOWN: Final = 10
NOTHING_WAS_WRITTEN: Final = {Outcome.AGENT_MISSING, Outcome.BAD_CONFIG}
"""Outcomes of attempts whose agent never started."""


def print_summary(to: Console, job: JobView) -> None:
    """Subtasks, groups, conflicts, the result, and the command that comes next."""
    print_subtasks(to, job)
    print_groups(to, job)
    counts = Counter(subtask.status for subtask in job.subtasks)
    head = Text.assemble(f"job {job.id}: ", (status_words(job), STYLES.get(job.status, "")))
    spent = spent_words(job)
    head.append(f" · {counted(counts)} · {duration(job.duration_seconds)}{f' · {spent}' if spent else ''}")
    to.print(head, soft_wrap=True)
    if job.error and job.error not in (job.status, job.reason):
        to.print(Text(in_one_line(job.error), style="red"), soft_wrap=True)
    for line in next_lines(job):
        to.print(line, soft_wrap=True)


def print_groups(to: Console, job: JobView) -> None:
    """A line a group, and under it each conflict that its merge met."""
    to.print()
    for group in job.groups:
        to.print(group_line(group, job), soft_wrap=True)
        for line in conflict_lines(group):
            to.print(Text(f"  {line}", style="red"), soft_wrap=True)
    to.print()


def print_subtasks(to: Console, job: JobView) -> None:
    """The table of a job's subtasks, the last column saying how each ended or what it waits for; then the failures."""
    rows = [_row(job, group, subtask) for group in job.groups for subtask in group.subtasks]
    headers = (
        "group",
        "#",
        "title",
        "agent",
        "status",
        "tries",
        "time",
        "files",
        *(["spent"] if job.spent else []),
        "",
    )
    print_table(to, headers, rows, longest={"title": max(to.width // 3 - 10, 16), "agent": 14})
    failed = [subtask for subtask in job.subtasks if subtask.status in ("failed", "timeout")]
    if failed:
        to.print()
    for subtask in failed[:FAILURES_SHOWN]:
        words = shortened(in_one_line(subtask.error) or "no reason was given", 500)
        to.print(
            Text(f"#{subtask.subtask_id} {subtask.outcome or subtask.status}: {words}", style="red"), soft_wrap=True
        )
    if len(failed) > FAILURES_SHOWN:
        to.print(f"… and {plural(len(failed) - FAILURES_SHOWN, 'more failure')}")


def group_line(group: GroupView, job: JobView) -> Text:
    """`group 2  completed · 5 subtasks · 31 s · speed-up 2.4 ×`; what its job says of itself is not said again."""
    line = Text.assemble(f"group {group.number}  ", (group.status, STYLES.get(group.status, "")))
    line.append(f" · {plural(len(group.subtasks), 'subtask')}")
    if group.wall_seconds is not None:
        line.append(f" · {duration(group.wall_seconds)}")
    if (speed_up := speed_up_words(group.speedup_factor)) and len(group.subtasks) > 1:
        line.append(f" · speed-up {speed_up}")
    if group.spent:
        line.append(f" · {in_words(group.spent)}")
    if group.error and group.error not in (group.status, job.error):
        line.append(f" · {in_one_line(group.error)}", style="red")
    return line


def conflict_lines(group: GroupView) -> list[str]:
    """Each conflict that the last passage of the group met: the files, and whose changes contradict each other."""
    if not group.runs or not group.runs[-1].conflicts:
        return []
    return [conflict_words(conflict) for conflict in group.runs[-1].conflicts]


def conflict_words(conflict: dict[str, Any]) -> str:
    """`conflict: #3 against #2 in src/models.py (content)`; the fields are those of `merge.conflicts.Conflict`."""
    files = ", ".join(f"{file.get('path')} ({file.get('kind')})" for file in conflict.get("files", ()))
    others = " and ".join(f"#{subtask_id}" for subtask_id in conflict.get("other_subtask_ids", ()))
    against = others or "what was on the branch"
    return in_one_line(f"conflict: #{conflict.get('subtask_id')} against {against} in {files}")


def next_lines(job: JobView) -> list[str]:
    """What the reader can do now: merge the branch, look at a failure, try it again."""
    lines = []
    if job.repo is None:
        lines.append("The plan names no repository: nothing was merged.")
    elif job.head_commit is None or job.head_commit == job.base_commit:
        lines.append(f"Nothing was merged: no change is on {job.branch}." if job.is_final else "")
    else:
        red = _red_on_the_branch(job)
        told = (
            f"The check of group {red} is red on what was merged. "
            if red
            else "What was merged so far is on the branch. "
        )
        partly = "" if job.status == "completed" and not red else told
        all_the_same = " all the same" if red else ""
        lines.append(
            f"{partly}Branch {job.branch} at {job.head_commit[:10]}; merge it{all_the_same} with: {merge_command(job)}"
        )
    if kept := _completed_and_not_merged(job):
        lines.append(f"The work of {kept} is kept, and not on the branch: a retry merges it.")
    if not job.is_final and nobody_takes(job):
        lines.append("See who works: orchestrator workers. On this machine `orchestrator up` starts what is missing.")
    if job.is_final and job.status != "completed":
        outcomes = {subtask.outcome for subtask in job.subtasks if subtask.status in ("failed", "timeout")}
        if Outcome.AGENT_MISSING in outcomes:
            lines.append("See which agents are there: orchestrator agents")
        if outcomes - NOTHING_WAS_WRITTEN:
            lines.append(f"See why: orchestrator logs {job.id}")
        more = " --max-cost-usd N" if job.reason == BUDGET_EXCEEDED else ""
        lines.append(f"Try again what did not complete: orchestrator retry {job.id}{more}")
    return [line for line in lines if line]


def _red_on_the_branch(job: JobView) -> int | None:
    """The group whose check was the last one to look at the branch, where it was red."""
    checked = [(group.number, run.check_passed) for group in job.groups for run in group.runs[-1:]]
    told = [(number, passed) for number, passed in checked if passed is not None]
    return told[-1][0] if told and not told[-1][1] else None


def _completed_and_not_merged(job: JobView) -> str:
    """Whose work waits for a merge that the job's end has left out, such as `#1, #2`."""
    if not job.is_final or job.repo is None:
        return ""
    kept = [
        f"#{subtask.subtask_id}"
        for subtask in job.subtasks
        if subtask.status == "completed" and subtask.commit and subtask.merged_at is None
    ]
    return ", ".join(kept) if len(kept) <= FAILURES_SHOWN else plural(len(kept), "subtask")


def merge_command(job: JobView) -> str:
    """The git command that takes the integration branch into what is checked out: here, or where the repository is."""
    repo, branch = job.repo or "", job.branch or ""
    is_bare = (Path(repo) / "HEAD").is_file() and not (Path(repo) / ".git").exists()
    if is_bare or not Path(repo).is_dir():
        return f"git fetch {shlex.quote(redact_url(repo))} {branch} && git merge FETCH_HEAD"
    here = Path.cwd()
    inside = Path(repo).resolve() in (here.resolve(), *here.resolve().parents)
    return f"git merge {branch}" if inside else f"git -C {shlex.quote(repo)} merge {branch}"


def _ending(job: JobView, subtask: SubtaskView) -> str:
    """What neither its status nor its job says: the outcome, or why it never ran."""
    if subtask.status in ("skipped", "cancelled"):
        return in_one_line(subtask.error) if subtask.error != job.error else ""
    return subtask.outcome if subtask.outcome and subtask.outcome not in (subtask.status, "completed") else ""


def _row(job: JobView, group: GroupView, subtask: SubtaskView) -> tuple[Any, ...]:
    attempt = subtask.attempt
    finished = attempt is not None and attempt.finished_at is not None
    return (
        group.number,
        subtask.subtask_id,
        subtask.title,
        subtask.agent,
        subtask.status,
        subtask.attempts,
        duration(attempt.duration_seconds) if attempt else "–",
        len(attempt.files_changed) if attempt and finished else "",
        *([in_words(subtask.spent)] if job.spent else []),
        ", ".join(filter(None, (waits_for(job, group, subtask) or _ending(job, subtask), _resumed(attempt)))),
    )


def _resumed(attempt: AttemptView | None) -> str:
    """Whose session its newest attempt goes on with."""
    return f"resumed #{attempt.resumed_from}" if attempt is not None and attempt.resumed_from is not None else ""
