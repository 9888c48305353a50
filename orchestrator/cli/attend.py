"""Stay with a job until it is final: show its progress; then its summary, and what the exit code is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from orchestrator.access.follow import follow
from orchestrator.cli import documents
from orchestrator.cli.interrupts import Interrupts
from orchestrator.cli.plain import JsonView, PlainView, ProgressView
from orchestrator.cli.render import console, print_json, say
from orchestrator.cli.summary import print_summary
from orchestrator.errors import LocalStackError, OrchestratorException, ServiceUnavailable
from orchestrator.state.views import JobView

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.access.connect import Joined
    from orchestrator.plan.model import ValidatedPlan
    from orchestrator.submitted_repository import RepositoryAtSubmission

EXIT_CODES: Final = {"completed": 0, "failed": 1, "cancelled": 130}


def attend_own_job(
    joined: Joined,
    plan: ValidatedPlan,
    repository: RepositoryAtSubmission | None,
    interrupts: Interrupts,
    *,
    as_json: bool,
    no_progress: bool,
    on_stderr: bool = False,
) -> JobView:
    """Submit a plan and stay with its job, which an interruption cancels. Options and the rest: see `attend`."""
    from orchestrator.dispatch.steering import cancel_job
    from orchestrator.dispatch.submission import submit

    fleet = joined.fleet
    submitted = submit(fleet, plan, repository=repository)
    for note in submitted.notes:
        say(note)
    if as_json:
        print_json({"type": "submitted", "job_id": submitted.job_id, "created": True}, one_line=True)
    return attend(
        fleet.engine,
        submitted.job_id,
        as_json=as_json,
        no_progress=no_progress,
        grace_seconds=fleet.settings.unreachable_grace_seconds,
        interrupts=interrupts,
        cancel=lambda: cancel_job(fleet, submitted.job_id),
        check=joined.check,
        on_stderr=on_stderr,
    )


def attend(
    engine: Engine,
    job_id: str,
    *,
    as_json: bool,
    no_progress: bool,
    grace_seconds: float,
    after_event: int = 0,
    interrupts: Interrupts | None = None,
    cancel: Callable[[], object] | None = None,
    check: Callable[[], None] = lambda: None,
    on_stderr: bool = False,
) -> JobView:
    """Show a job's progress until it is final, and return it as it is then.

    With `cancel` the first interruption calls it and waits on, and the second leaves. Without it the first one leaves,
    and the job goes on. To leave is a `KeyboardInterrupt`, as anywhere. `after_event` leaves out what happened before.
    `check` is called at each update and may raise: what the job needs has broken down. `on_stderr`: stdout is for
    something else.
    """
    view = _view(as_json=as_json, no_progress=no_progress, on_stderr=on_stderr)
    job: JobView | None = None
    try:
        with view:
            updates = follow(
                engine,
                job_id,
                after_event=after_event,
                with_lines=not isinstance(view, PlainView | JsonView),
                grace_seconds=grace_seconds,
                hurry=interrupts.is_waiting if interrupts else lambda: False,
            )
            for update in updates:
                job = update.job or job
                view.show(update)
                check()
                if interrupts is not None and cancel is not None and interrupts.take():
                    _cancel(view, cancel)
    except KeyboardInterrupt:
        say(_farewell(job_id, cancelled=cancel is not None))
        raise
    except LocalStackError:
        say(_stored(job_id))
        raise
    except BrokenPipeError:
        # As with any program whose reader has gone (`| head`) this is the end of it, but not of the job.
        say(f"Nobody reads any more. {_stored(job_id)}")
        raise
    except ServiceUnavailable:
        say(f"Job {job_id} is stored and goes on when its services are back: orchestrator status {job_id}")
        raise
    assert job is not None, "following ends with a final job"
    return job


def tell_end(job: JobView, *, as_json: bool) -> int:
    """Print the summary of a job that has ended. Returns the exit code."""
    if as_json:
        print_json({"type": "summary", "job": documents.job(job)}, one_line=True)
    else:
        print_summary(console(), job)
    return EXIT_CODES[job.status]


def _view(*, as_json: bool, no_progress: bool, on_stderr: bool) -> ProgressView:
    if as_json:
        return JsonView()
    to = console(stderr=on_stderr)
    if no_progress or not to.is_terminal or to.is_dumb_terminal:
        return PlainView(to.file)
    from orchestrator.cli.live import LiveView

    return LiveView(to)


def _cancel(view: ProgressView, cancel: Callable[[], object]) -> None:
    view.note("Cancelling the job: waiting for its agents to end. Ctrl-C again leaves at once.")
    try:
        cancel()
    except OrchestratorException as error:
        view.note(f"The job could not be cancelled: {error.message} Ctrl-C again leaves it as it is.")


def _stored(job_id: str) -> str:
    return (
        f"Job {job_id} is stored. `orchestrator up` starts the local stack again and goes on with it, "
        f"`orchestrator status {job_id}` shows it, `orchestrator cancel {job_id}` ends it."
    )


def _farewell(job_id: str, *, cancelled: bool) -> str:
    if cancelled:
        return f"Left. Job {job_id} is being cancelled: orchestrator status {job_id}"
    return f"Left. Job {job_id} goes on: orchestrator watch {job_id} follows it, orchestrator cancel {job_id} ends it."
