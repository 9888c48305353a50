"""What a job's state means to a person: what waits for what and why, and what an event says. Pure functions."""

from __future__ import annotations

from orchestrator.cli.render import shortened
from orchestrator.ledger import BUDGET_EXCEEDED, in_words, usd_in_words
from orchestrator.provider_account import Account
from orchestrator.state.group_checks import GroupCheck
from orchestrator.state.views import AccountView, EventView, GroupView, JobView, SubtaskView
from orchestrator.text import duration, first_line, in_one_line, plural

PATIENCE_SECONDS = 5.0
"""A released subtask is taken within milliseconds where a worker has a free place; after this long it is remarkable."""
TELLING_SPEED_UP = 0.05


def status_words(job: JobView) -> str:
    """The job's status, with what changes its meaning: `running, being cancelled`, `failed: subtasks_failed`."""
    if job.is_final:
        return f"{job.status}: {job.reason}" if job.reason and job.reason != job.status else job.status
    if job.cancel_requested_at is not None:
        return f"{job.status}, ending ({job.reason or 'cancelled'})"
    if job.paused_at is not None:
        return f"{job.status}, paused"
    if job.status == "pending":
        return "pending, waits for a dispatcher"
    if job.reason == BUDGET_EXCEEDED:
        return f"{job.status}, its budget is spent"
    return job.status


def speed_up_words(factor: float | None) -> str:
    """`2.4 ×`; empty where it would read 0.0: the agents did next to nothing, or nothing that completed."""
    return f"{factor:.1f} ×" if factor is not None and factor >= TELLING_SPEED_UP else ""


def check_words(check: GroupCheck) -> str:
    """`the check is green`, `the check is red: exit code 1`."""
    if check.passed:
        return "the check is green"
    return f"the check is red: {'it was stopped' if check.exit_code is None else f'exit code {check.exit_code}'}"


def spent_words(job: JobView) -> str:
    """`$0.60 of $1.00 · 45k tokens`; empty where no agent has told anything, and there is no budget."""
    words = in_words(job.spent)
    if job.max_cost_usd is None:
        return words
    cost, _, tokens = words.partition(" · ") if job.spent.cost_usd is not None else (usd_in_words(0.0), "", words)
    return " · ".join(part for part in (f"{cost} of {usd_in_words(job.max_cost_usd)}", tokens) if part)


def places_taken(job: JobView) -> int:
    """How many of the job's `max_parallel_agents` places are held: released and not final."""
    return sum(1 for subtask in job.subtasks if subtask.released_at is not None and not subtask.is_final)


def group_words(job: JobView, group: GroupView) -> str:
    """The group's status; for a pending one, what it waits for."""
    if group.status != "pending":
        return group.status
    if job.cancel_requested_at is not None:
        return "will not start"
    before = [other.number for other in job.groups if other.number < group.number and other.finished_at is None]
    return f"waits for group {before[-1]}" if before else "waits for a dispatcher"


def waits_for(job: JobView, group: GroupView, subtask: SubtaskView) -> str:
    """Why a pending subtask does not run yet; empty for any other."""
    if subtask.status != "pending":
        return ""
    if job.cancel_requested_at is not None:
        return "is being cancelled"
    if group.status == "pending":
        return group_words(job, group)
    if subtask.released_at is not None:
        return _waits_for_worker(job, subtask)
    if subtask.waits_for is not None and job.paused_at is None:
        return _waits_for_provider(job, subtask.waits_for)
    if subtask.not_before is not None and subtask.not_before > job.now:
        return f"retry in {duration((subtask.not_before - job.now).total_seconds())}"
    if job.paused_at is not None:
        return "waits: the job is paused"
    taken = places_taken(job)
    if job.max_cost_usd is not None and taken < job.max_parallel_agents:
        return "waits: the agents at work may use up the budget"
    return f"waits for a free place ({taken} of {job.max_parallel_agents} taken)"


def nobody_takes(job: JobView) -> bool:
    """Whether the job, or a subtask of it, waits for a process longer than it would where one is there."""
    if job.status == "pending":
        return (job.now - job.created_at).total_seconds() >= PATIENCE_SECONDS
    return any(
        subtask.status == "pending" and _waited_seconds(job, subtask) >= PATIENCE_SECONDS for subtask in job.subtasks
    )


def _waited_seconds(job: JobView, subtask: SubtaskView) -> float:
    """How long it has been released; 0 where it is not."""
    return (job.now - subtask.released_at).total_seconds() if subtask.released_at else 0.0


def _waits_for_worker(job: JobView, subtask: SubtaskView) -> str:
    worker = f"a worker that offers {', '.join(subtask.requires)}" if subtask.requires else "a worker"
    waited = _waited_seconds(job, subtask)
    if waited < PATIENCE_SECONDS:
        return f"waits for {worker}"
    return f"waits for {worker}: none has taken it for {duration(waited)}"


def _waits_for_provider(job: JobView, name: str) -> str:
    view = job.accounts.get(name)
    words = f"waits for {Account.of_name(name).words}"
    return words if view is None or view.limit is None else f"{words}: {limit_words(view)}"


def limit_words(account: AccountView) -> str:
    """`closed for 42 s more, then 3 at once`; `3 at once`; of an account whose limit was not met `no limit`."""
    if account.limit is None:
        return "no limit"
    if account.closed_seconds:
        return f"closed for {duration(account.closed_seconds)} more, then {account.limit.allowed} at once"
    return f"{account.limit.allowed} at once"


def event_words(job: JobView, event: EventView) -> str | None:
    """An event in words; None for one that only programs care for."""
    subject = event.name.split(".")[0]
    error = in_one_line(event.data.get("error"))
    if subject == "job":
        return _job_event(job, event, error)
    if subject == "group":
        return _group_event(event, error)
    if subject == "provider":
        return _provider_event(job, event)
    return _subtask_event(job, event, error)


def _job_event(job: JobView, event: EventView, error: str) -> str | None:
    match event.name:
        case "job.started":
            return f"job {job.id} starts: {first_line(job.title)}"
        case "job.reopened":
            return f"job {job.id} is taken up again"
        case "job.paused":
            return "the job is paused: no new agent starts"
        case "job.resumed":
            return "the job goes on"
        case "job.end_requested":
            reason = event.data.get("reason")
            return "the job is being cancelled" if reason == "cancelled" else f"the job is being ended: {reason}"
        case "job.budget_exceeded":
            return f"no new agent starts: {error}"
        case "job.finished":
            return _with_error(f"job {event.data.get('status')}", error)
        case _:
            return None


def _group_event(event: EventView, error: str) -> str | None:
    group = f"group {event.group_number}"
    match event.name:
        case "group.started":
            return f"{group} starts with {plural(len(event.data.get('subtask_ids', ())), 'agent')}"
        case "group.merging":
            return f"{group} is being merged"
        case "group.finished":
            return _with_error(f"{group} {event.data.get('status')}", error)
        case "group.sent_back":
            return _with_error(f"{group} goes back to work", error)
        case "group.merge_put_off":
            return _with_error(f"the merge of {group} waits", error)
        case "group.resumed":
            return f"{group} waits for its merge"
        case _:
            return None


def _provider_event(job: JobView, event: EventView) -> str | None:
    if event.name != "provider.throttled":
        return None
    provider = Account.of_name(str(event.data.get("account"))).words
    closed, allowed = duration(event.data.get("closed_seconds")), event.data.get("allowed")
    return f"{provider} turned {_name(job, event.subtask_id)} away: closed for {closed}, then {allowed} at once"


def _subtask_event(job: JobView, event: EventView, error: str) -> str | None:
    match event.name:
        case "attempt.started":
            again = f", attempt {event.attempt}" if (event.attempt or 1) > 1 else ""
            return f"{_name(job, event.subtask_id)} starts on {event.data.get('worker')}{again}"
        case "attempt.resumed":
            return f"{_name(job, event.subtask_id)} goes on where attempt {event.data.get('resumed_from')} was cut off"
        case "attempt.finished":
            return _attempt_end(job, event, error)
        case "subtask.failed_at_merge":
            outcome = event.data.get("outcome")
            return _with_error(f"{_name(job, event.subtask_id)} failed at the merge, {outcome}", error)
        case "subtasks.skipped":
            return _with_error(f"skipped: {_ids(event)}", error)
        case "subtasks.failed":
            return _with_error(f"not tried again: {_ids(event)}", error)
        case "subtasks.cancelled":
            return f"cancelled: {_ids(event)}"
        case "subtasks.held":
            held = plural(len(event.data.get("subtask_ids", ())), "subtask")
            return f"{held} held for {Account.of_name(str(event.data.get('account'))).words}"
        case "subtasks.reopened":
            return f"to be done again: {_ids(event)}"
        case _:
            return None


def _attempt_end(job: JobView, event: EventView, error: str) -> str:
    name = _name(job, event.subtask_id)
    outcome = event.data.get("outcome")
    if outcome == "completed":
        return f"{name} completed"
    wait = event.data.get("retry_after_seconds")
    if wait is not None:
        error = f"{error + '; ' if error else ''}tried again {f'in {duration(wait)}' if wait >= 0.1 else 'at once'}"
    return _with_error(f"{name} {outcome}", error)


def _ids(event: EventView) -> str:
    return ", ".join(f"#{subtask_id}" for subtask_id in event.data.get("subtask_ids", ()))


def _name(job: JobView, subtask_id: int | None) -> str:
    title = job.titles.get(subtask_id or 0, "")
    return f"#{subtask_id} {shortened(first_line(title), 60)}".rstrip()


def _with_error(text: str, error: str) -> str:
    return f"{text}: {shortened(error, 200)}" if error else text


def with_full_permissions(job: JobView) -> str:
    """Whose agents might do anything, such as `#3, #4`; empty where the plan lets none."""
    return ", ".join(f"#{subtask.subtask_id}" for subtask in job.subtasks if subtask.permissions == "full")
