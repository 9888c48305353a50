"""A report as Markdown, for a pull request or a chat; whatever a job holds is shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.cli.describe import (
    check_words,
    event_words,
    speed_up_words,
    spent_words,
    status_words,
    with_full_permissions,
)
from orchestrator.cli.render import counted, shortened
from orchestrator.cli.report_figures import last_lines, red_checks, totals
from orchestrator.cli.summary import conflict_words
from orchestrator.ledger import in_words
from orchestrator.redaction import redact_url
from orchestrator.state.history import JobHistory
from orchestrator.text import duration, in_one_line, plural

_MEANS_SOMETHING = re.compile(r"([\\`*_{}\[\]<>&#|~!@])")
"""What Markdown or HTML would take as markup; `@` so that nobody is notified."""
ERROR_SHOWN = 300


def markdown_report(history: JobHistory) -> str:
    """The whole report, each part under a heading of its own."""
    return "\n".join([*_head(history), *_groups(history), *_subtasks(history), *_failures(history), *_events(history)])


def _head(history: JobHistory) -> Iterator[str]:
    job, sums = history.job, totals(history)
    yield f"# {_text(job.title)}"
    yield ""
    yield f"- Job `{job.id}`: **{_text(status_words(job))}**"
    if job.error:
        yield f"- {_text(job.error)}"
    yield f"- Subtasks completed: {counted(sums.subtasks)}; {plural(sums.attempts, 'attempt')}, {plural(sums.workers, 'worker')}"
    speed_up = speed_up_words(sums.speedup_factor)
    times = f"{duration(sums.wall_seconds)} wall time, {duration(sums.agent_seconds)} of agents' time"
    yield f"- {times}{f', speed-up {speed_up}' if speed_up else ''}"
    if spent := spent_words(job):
        yield f"- Spent: {_text(spent)}"
    if job.repo:
        head = f" at `{job.head_commit[:10]}`" if job.head_commit else ""
        yield f"- Branch `{job.branch}`{head} of {_text(redact_url(job.repo))}"
    if unbounded := with_full_permissions(job):
        yield f"- `permissions: full`: {unbounded}"
    yield ""


def _groups(history: JobHistory) -> Iterator[str]:
    yield "## Groups"
    yield ""
    rows = [
        (
            str(group.number),
            group.status,
            str(len(group.runs)),
            str(len(group.subtasks)),
            duration(group.wall_seconds),
            speed_up_words(group.speedup_factor) or "–",
            _text(in_words(group.spent)) or "–",
            _text(group.error),
        )
        for group in history.job.groups
    ]
    yield from _table(("group", "status", "runs", "subtasks", "wall time", "speed-up", "spent", ""), rows)


def _subtasks(history: JobHistory) -> Iterator[str]:
    yield "## Subtasks"
    yield ""
    rows = [
        (
            str(subtask.group_number),
            str(subtask.subtask_id),
            _text(subtask.title),
            _text(subtask.agent),
            subtask.status + (f" ({subtask.outcome})" if subtask.outcome not in (None, subtask.status) else ""),
            str(subtask.attempts),
            duration(subtask.attempt.duration_seconds) if subtask.attempt else "–",
            str(len(subtask.attempt.files_changed)) if subtask.attempt else "–",
            _text(in_words(subtask.spent)) or "–",
            f"`{subtask.commit[:10]}`" if subtask.commit else "–",
        )
        for group in history.job.groups
        for subtask in group.subtasks
    ]
    yield from _table(("group", "id", "title", "agent", "status", "tries", "time", "files", "spent", "commit"), rows)


def _failures(history: JobHistory) -> Iterator[str]:
    """Conflicts and errors: what a reader has to do something about."""
    conflicts = [
        conflict_words(conflict)
        for group in history.job.groups
        for run in group.runs
        for conflict in run.conflicts or ()
    ]
    errors = [
        f"#{subtask.subtask_id} {subtask.outcome or subtask.status}: {shortened(in_one_line(subtask.error), ERROR_SHOWN)}"
        for subtask in history.job.subtasks
        if subtask.status in ("failed", "timeout")
    ]
    if conflicts or errors:
        yield "## Conflicts and failures"
        yield ""
        yield from (f"- {_text(words)}" for words in [*conflicts, *errors])
        yield ""
    for check in red_checks(history):
        yield f"Group {check.group_number}, {check_words(check)}; the end of what it wrote:"
        yield ""
        yield from (f"    {line}" for line in last_lines(check))
        yield ""


def _events(history: JobHistory) -> Iterator[str]:
    yield "## Events"
    yield ""
    for event in history.events:
        words = event_words(history.job, event)
        if words:
            yield f"- +{duration((event.at - history.origin).total_seconds())} {_text(words)}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"|{'---|' * len(headers)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _text(value: str | None) -> str:
    return _MEANS_SOMETHING.sub(r"\\\1", in_one_line(value))
