"""`orchestrator status`: one job, its groups and subtasks, and what waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.options import JsonOption, NewestJobArgument

if TYPE_CHECKING:
    from orchestrator.state.views import JobView


def status(job: NewestJobArgument = None, as_json: JsonOption = False) -> None:
    """Show one job, and what waits for what."""
    from orchestrator.access.connect import chosen_job, database
    from orchestrator.cli import documents
    from orchestrator.cli.render import print_json
    from orchestrator.state.queries import job_view

    with database() as engine:
        view = job_view(engine, chosen_job(engine, job))
    if as_json:
        print_json({"job": documents.job(view)})
    else:
        _print(view)


def _print(job: JobView) -> None:
    from rich.text import Text

    from orchestrator.cli.describe import places_taken, spent_words, status_words
    from orchestrator.cli.render import STYLES, console, local_time, print_line
    from orchestrator.cli.summary import next_lines, print_groups, print_subtasks
    from orchestrator.redaction import redact_url
    from orchestrator.text import duration, first_line, in_one_line

    to = console()
    print_line(to, Text.assemble((job.id, "bold"), f"  {first_line(job.title)}"))
    print_line(to, Text.assemble("status     ", (status_words(job), STYLES.get(job.status, ""))))
    if job.error:
        to.print(Text.assemble("error      ", (in_one_line(job.error), "red")), soft_wrap=True)
    lasted = (
        f", took {duration(job.duration_seconds)}" if job.is_final else f", runs for {duration(job.duration_seconds)}"
    )
    print_line(to, f"submitted  {local_time(job.created_at)}{lasted if job.started_at else ''}")
    if job.repo is not None:
        words = f"repo       {redact_url(job.repo)}, base {job.base or 'HEAD'}, branch {job.branch}"
        to.print(words, soft_wrap=True)
    if not job.is_final:
        print_line(to, f"places     {places_taken(job)} of {job.max_parallel_agents} taken")
    if spent := spent_words(job):
        print_line(to, f"spent      {spent}")
    if job.deadline_at is not None and not job.is_final:
        print_line(to, f"deadline   {local_time(job.deadline_at)}")
    to.print()
    print_subtasks(to, job)
    print_groups(to, job)
    for line in next_lines(job):
        to.print(line, soft_wrap=True)
