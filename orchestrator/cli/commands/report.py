"""`orchestrator report`: all that happened in one job, for the terminal, for programs, or as a page to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonOption, NewestJobArgument

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.state.history import JobHistory


def report(
    job: NewestJobArgument = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained HTML page with a timeline.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell the whole story of one job.

    Totals, groups, every attempt with its worker, conflicts and failures. It may still run: the report is of now.
    """
    from orchestrator.access.connect import chosen_job, database
    from orchestrator.cli import documents
    from orchestrator.cli.files import require_place_for, write_text
    from orchestrator.cli.render import print_json, say
    from orchestrator.errors import IllegalRequest
    from orchestrator.state.history import job_history

    if (html is not None) + markdown + as_json > 1:
        raise IllegalRequest("A report takes one form at a time: --html, --markdown or --json.")
    if html is not None:
        require_place_for(html)
    with database() as engine:
        history = job_history(engine, chosen_job(engine, job))
    if as_json:
        print_json(documents.report(history))
    elif markdown:
        from orchestrator.cli.report_markdown import markdown_report

        print(markdown_report(history))
    elif html is not None:
        from orchestrator.cli.report_html import html_report

        write_text(html, html_report(history))
        say(f"Wrote {html}: the report of job {history.job.id}.")
    else:
        _print(history)


def _print(history: JobHistory) -> None:
    from rich.text import Text

    from orchestrator.cli.render import console, print_line
    from orchestrator.cli.summary import print_summary
    from orchestrator.text import first_line

    to = console()
    print_line(to, Text.assemble((history.job.id, "bold"), f"  {first_line(history.job.title)}"))
    to.print()
    _print_attempts(to, history)
    print_summary(to, history.job)
    _print_totals(to, history)


def _print_attempts(to: Console, history: JobHistory) -> None:
    from orchestrator.cli.render import print_table
    from orchestrator.ledger import in_words, spending
    from orchestrator.text import duration

    rows = [
        (
            f"+{duration((attempt.started_at - history.origin).total_seconds())}",
            attempt.worker,
            f"#{attempt.subtask_id}"
            + (f" attempt {attempt.number}" if attempt.number > 1 else "")
            + (f", resumed #{attempt.resumed_from}" if attempt.resumed_from else ""),
            attempt.status,
            duration(((attempt.finished_at or history.job.now) - attempt.started_at).total_seconds()),
            duration(attempt.agent_duration_seconds),
            *([in_words(spending([attempt]))] if history.job.spent else []),
            attempt.error if attempt.status != "completed" else "",
        )
        for attempt in history.attempts
    ]
    if rows:
        headers = (
            "start",
            "worker",
            "subtask",
            "outcome",
            "time",
            "agent",
            *(["spent"] if history.job.spent else []),
            "",
        )
        print_table(to, headers, rows, longest={"worker": max(to.width // 4, 16)})
        to.print()


def _print_totals(to: Console, history: JobHistory) -> None:
    from orchestrator.cli.describe import (
        check_words,
        speed_up_words,
        spent_words,
        with_full_permissions,
    )
    from orchestrator.cli.render import print_line
    from orchestrator.cli.report_figures import last_lines, red_checks, totals, without_figures
    from orchestrator.text import duration, plural

    sums = totals(history)
    for check in red_checks(history):
        to.print()
        print_line(to, f"group {check.group_number}, {check_words(check)}; the end of what it wrote:")
        for line in last_lines(check):
            print_line(to, f"  {line}")
    to.print()
    print_line(
        to,
        f"{plural(sums.attempts, 'attempt')}, {sums.repeated_attempts} of them repeated, on {plural(sums.workers, 'worker')}",
    )
    speed_up = speed_up_words(sums.speedup_factor)
    times = f"{duration(sums.agent_seconds)} of agents' time in {duration(sums.wall_seconds)}"
    print_line(to, f"{times} · speed-up {speed_up}" if speed_up else times)
    if unbounded := with_full_permissions(history.job):
        print_line(to, f"permissions: full for {unbounded}")
    if spent := spent_words(history.job):
        print_line(to, f"spent {spent}")
    for line in without_figures(history):
        print_line(to, line)
