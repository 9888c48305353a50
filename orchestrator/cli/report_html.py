"""A report as one HTML file: nothing is fetched, nothing runs, and whatever a job holds is shown as text."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from string import Template
from typing import Any, Final

from orchestrator.cli.describe import (
    check_words,
    event_words,
    speed_up_words,
    status_words,
    waits_for,
    with_full_permissions,
)
from orchestrator.cli.render import counted, shortened
from orchestrator.cli.report_figures import Totals, totals
from orchestrator.cli.report_timeline import timeline, tone
from orchestrator.cli.summary import conflict_words
from orchestrator.ledger import Spending, cost_in_words, spending
from orchestrator.redaction import redact_url
from orchestrator.state.history import AttemptRecord, JobHistory
from orchestrator.state.views import GroupView, JobView, SubtaskView
from orchestrator.text import duration, in_one_line, plural, printable

LONG_TABLE: Final = 40
"""A table with more rows is folded up, except that of the subtasks."""
ERROR_SHOWN: Final = 240
FILES_SHOWN: Final = 300

LEGEND: Final = (
    ("good", "completed"),
    ("live", "running"),
    ("bad", "failed"),
    ("late", "timed out"),
    ("wait", "provider"),
    ("lost", "worker lost"),
    ("none", "cancelled"),
)


def html_report(history: JobHistory) -> str:
    """The whole page, as text to be written in UTF-8."""
    template = importlib.resources.files("orchestrator.cli").joinpath("report_template.html").read_text("utf-8")
    body = "\n".join(
        [
            *_head(history.job),
            *_figures(totals(history)),
            *_timeline(history),
            *_conflicts(history.job),
            *_groups(history.job),
            *_checks(history),
            *_subtasks(history),
            *_attempts(history),
            *_events(history),
            f"<footer>Job {_text(history.job.id)}, as it was {_utc(history.job.now)}. Written by orchestrator.</footer>",
        ]
    )
    return Template(template).substitute(title=_text(f"{history.job.title} · {history.job.id}"), body=body)


def _head(job: JobView) -> Iterator[str]:
    yield f"<h1>{_text(job.title)}</h1>"
    yield f'<p class="quiet">job <code>{_text(job.id)}</code> · {_status(job.status, status_words(job))}</p>'
    if job.error:
        yield f'<div class="error">{_block(job.error)}</div>'
    facts = [("Submitted", _utc(job.created_at))]
    if job.started_at:
        end = f"ended {_utc(job.finished_at)}, after" if job.finished_at else "not ended, running for"
        facts.append(("Started", f"{_utc(job.started_at)}, {end} {duration(job.duration_seconds)}"))
    if job.deadline_at:
        facts.append(("Deadline", _utc(job.deadline_at)))
    if job.repo:
        facts.append(("Repository", f"<code>{_text(redact_url(job.repo))}</code>"))
        facts.append(("Base", f"<code>{_text(job.base)}</code> at {_commit(job.base_commit)}"))
        facts.append(("Branch", f"<code>{_text(job.branch)}</code> at {_commit(job.head_commit)}"))
    if unbounded := with_full_permissions(job):
        facts.append(("Full permissions", unbounded))
    facts.append(("At once", f"at most {plural(job.max_parallel_agents, 'agent')}"))
    yield '<dl class="facts">' + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts) + "</dl>"


def _figures(sums: Totals) -> Iterator[str]:
    shown = [
        (counted(sums.subtasks), "subtasks completed"),
        (str(sums.attempts), _attempts_counted(sums)),
        (str(sums.workers), "worker" if sums.workers == 1 else "workers"),
        (duration(sums.wall_seconds), "wall time of the groups"),
        (duration(sums.agent_seconds), "agents' own time"),
        (speed_up_words(sums.speedup_factor) or "–", "speed-up"),
        (str(sums.files_changed), "files changed"),
        (str(sums.conflicts), "conflict" if sums.conflicts == 1 else "conflicts"),
    ]
    if sums.spent.tokens is not None:
        shown.append((_tokens(sums.spent), "tokens"))
    if sums.spent.cost_usd is not None:
        shown.append((cost_in_words(sums.spent), "cost, partly estimated" if sums.spent.estimated else "cost"))
    yield '<section class="figures">'
    yield from (f"<div><b>{_text(value)}</b><span>{_text(name)}</span></div>" for value, name in shown)
    yield "</section>"


def _tokens(spent: Spending) -> str:
    if spent.tokens is None:
        return "–"
    return f"{'at least ' if spent.tokens_incomplete else ''}{spent.tokens:,}"


def _attempts_counted(sums: Totals) -> str:
    words = "attempt" if sums.attempts == 1 else "attempts"
    return f"{words}, {sums.repeated_attempts} of them repeated" if sums.repeated_attempts else words


def _timeline(history: JobHistory) -> Iterator[str]:
    seen = {tone(attempt.status) for attempt in history.attempts}
    yield f'<h2>Timeline</h2><div class="wide">{timeline(history)}</div>'
    if seen:
        keys = "".join(f'<span class="status {kind}">{words}</span>' for kind, words in LEGEND if kind in seen)
        yield f'<div class="legend">{keys}<span>pale: workspace, check, push; a group beyond its last agent: merge</span></div>'


def _conflicts(job: JobView) -> Iterator[str]:
    found = [(group, run, conflict) for group in job.groups for run in group.runs for conflict in run.conflicts or ()]
    if found:
        yield "<h2>Conflicts</h2><ul>"
        for group, run, conflict in found:
            yield f"<li>group {group.number}, run {run.number}: {_text(conflict_words(conflict))}</li>"
        yield "</ul>"


def _groups(job: JobView) -> Iterator[str]:
    yield "<h2>Groups and merges</h2>"
    headers = ("#group", "status", "#run", "#subtasks", "#wall time", "#speed-up", "#most at once", "merged head", "")
    yield from _table(headers, [row for group in job.groups for row in _group_rows(group)])


def _group_rows(group: GroupView) -> Iterator[list[str]]:
    status = _status(group.status)
    if not group.runs:
        yield [str(group.number), status, "–", str(len(group.subtasks)), "–", "–", "–", "–", _error(group.error)]
    for run in group.runs:
        woken = " · woken by the reconciler" if run.woken_by == "reconciler" else ""
        last = run is group.runs[-1]
        why = run.failure_reason or (group.error if last and group.status != "completed" else None)
        yield [
            str(group.number),
            status if last else '<span class="quiet">ran again</span>',
            str(run.number),
            str(len(group.subtasks)),
            duration(run.total_duration_seconds),
            speed_up_words(run.speedup_factor) or "–",
            str(run.max_concurrent_agents or "–"),
            _commit(run.head_commit) + woken,
            _error(why),
        ]


def _checks(history: JobHistory) -> Iterator[str]:
    """What each group's check wrote: that of a red one stands open, unless a later run of the group was green."""
    newest = {check.group_number: check for check in history.checks}
    if newest:
        yield "<h2>Checks of groups</h2>"
    for check in history.checks:
        is_open = not check.passed and newest[check.group_number] is check
        told = f"group {check.group_number}, run {check.run}: {check_words(check)}"
        yield f"<details{' open' if is_open else ''}><summary>{_text(told)}</summary>"
        yield f'<div class="output mono">$ {_block(check.command)}\n{_block(check.output)}</div></details>'


def _subtasks(history: JobHistory) -> Iterator[str]:
    by_subtask: dict[int, list[AttemptRecord]] = {}
    for attempt in history.attempts:
        by_subtask.setdefault(attempt.subtask_id, []).append(attempt)
    rows = [
        (f"subtask-{subtask.subtask_id}", _subtask_row(history.job, group, subtask, by_subtask))
        for group in history.job.groups
        for subtask in group.subtasks
    ]
    headers = ("#group", "#id", "subtask", "agent", "status", "#tries", "#time", "#tokens", "#cost", "files", "commit")
    yield f"<h2>{plural(len(rows), 'subtask').capitalize()}</h2>"
    yield from _table(headers, [row for _, row in rows], anchors=[anchor for anchor, _ in rows])


def _subtask_row(
    job: JobView, group: GroupView, subtask: SubtaskView, by_subtask: dict[int, list[AttemptRecord]]
) -> list[str]:
    attempts = by_subtask.get(subtask.subtask_id, [])
    spent = spending(attempts)
    newest = subtask.attempt
    told = subtask.error or waits_for(job, group, subtask)
    outcome = f" ({subtask.outcome})" if subtask.outcome not in (None, subtask.status) else ""
    return [
        str(subtask.group_number),
        str(subtask.subtask_id),
        f"{_text(subtask.title)}{_error(told) if told and subtask.status != 'completed' else ''}",
        _text(subtask.agent),
        _status(subtask.status, f"{subtask.status}{outcome}"),
        str(subtask.attempts),
        duration(newest.duration_seconds) if newest else "–",
        _tokens(spent),
        _text(cost_in_words(spent)),
        _files(newest.files_changed if newest else ()),
        _commit(subtask.commit),
    ]


def _attempts(history: JobHistory) -> Iterator[str]:
    yield "<h2>Attempts</h2>"
    headers = (
        "#subtask",
        "#attempt",
        "worker",
        "agent",
        "started",
        "#time",
        "#agent",
        "#tokens",
        "#cost",
        "outcome",
        "#exit",
        "",
    )
    rows = [
        [
            f'<a href="#subtask-{attempt.subtask_id}">{attempt.subtask_id}</a>',
            str(attempt.number) + (f" ← {attempt.resumed_from}" if attempt.resumed_from else ""),
            _text(attempt.worker),
            _text(attempt.agent),
            _utc(attempt.started_at),
            duration(((attempt.finished_at or history.job.now) - attempt.started_at).total_seconds()),
            duration(attempt.agent_duration_seconds),
            _tokens(spending([attempt])),
            _text(cost_in_words(spending([attempt]))),
            _status(attempt.status),
            "–" if attempt.exit_code is None else str(attempt.exit_code),
            _error(attempt.error) if attempt.status != "completed" else "",
        ]
        for attempt in history.attempts
    ]
    yield from _folded(plural(len(rows), "attempt"), headers, rows)


def _events(history: JobHistory) -> Iterator[str]:
    yield "<h2>Events</h2>"
    told = [(event, words) for event in history.events if (words := event_words(history.job, event))]
    rows = [[_utc(event.at), _text(event.name), _text(words)] for event, words in told]
    yield from _folded(plural(len(rows), "event"), ("at", "event", "what happened"), rows)


def _folded(name: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"<details{'' if len(rows) > LONG_TABLE else ' open'}><summary>{name}</summary>"
    yield from _table(headers, rows)
    yield "</details>"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, anchors: Sequence[str] = ()) -> Iterator[str]:
    """A table of cells that are HTML already. A header that begins with # makes a column of numbers."""
    kinds = [' class="number"' if header.startswith("#") else "" for header in headers]
    names = (f"<th{kind}>{header.removeprefix('#')}</th>" for kind, header in zip(kinds, headers, strict=True))
    yield f'<div class="wide"><table><thead><tr>{"".join(names)}</tr></thead><tbody>'
    for number, row in enumerate(rows):
        anchor = f' id="{anchors[number]}"' if anchors else ""
        cells = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        yield f"<tr{anchor}>{cells}</tr>"
    yield "</tbody></table></div>"


def _status(status: str, words: str | None = None) -> str:
    return f'<span class="status {tone(status)}">{_text((words or status).replace("_", " "))}</span>'


def _error(error: str | None) -> str:
    """An error in one line; a long one can be unfolded."""
    words = in_one_line(error)
    if len(words) <= ERROR_SHOWN:
        return f"<p>{_text(words)}</p>" if words else ""
    return (
        f'<details class="failure"><summary>{_text(shortened(words, ERROR_SHOWN))}</summary>'
        f'<div class="error mono">{_block(error or "")}</div></details>'
    )


def _files(paths: Sequence[str]) -> str:
    if not paths:
        return "–"
    items = "".join(f"<li><code>{_text(path)}</code></li>" for path in paths[:FILES_SHOWN])
    more = f"<li>and {len(paths) - FILES_SHOWN} more</li>" if len(paths) > FILES_SHOWN else ""
    return f"<details><summary>{len(paths)}</summary><ul>{items}{more}</ul></details>"


def _commit(commit: str | None) -> str:
    return f'<code class="commit">{_text(commit[:10])}</code>' if commit else "–"


def _utc(at: datetime | None) -> str:
    return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(value: Any) -> str:
    """A value as text in one line: no markup of the job's, no character that turns a line around."""
    return escape(in_one_line("" if value is None else str(value)))


def _block(value: str) -> str:
    return escape(printable(value))
