"""The story of a merge: claim → branches → check → record, and the next group in the same transaction."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import Connection

from orchestrator.check import CheckResult
from orchestrator.dispatch.dispatcher import begin_next_group, end_job_if_idle, send_back, stop_job
from orchestrator.dispatch.fleet import Fleet
from orchestrator.dispatch.group_record import max_concurrent_agents, sequential_estimate_seconds, total_tokens
from orchestrator.dispatch.group_work import GroupWork, claim_group_work
from orchestrator.dispatch.next_step import MergedGroup, Proceed, SendBack, next_step
from orchestrator.errors import BadInput, DatabaseUnavailable, LeaseLost, OrchestratorException
from orchestrator.fault_points import fault_point
from orchestrator.git import until_stopped
from orchestrator.ledger import BUDGET_EXCEEDED
from orchestrator.merge.branches import MergeWorkspace, begin_branch, merge_attempts, push_branch
from orchestrator.merge.conflicts import Conflict
from orchestrator.merge.group_check import run_group_check
from orchestrator.outcomes import Outcome, SubtaskOutcome
from orchestrator.process_tree import owner_of_this_process
from orchestrator.state.engine import translated
from orchestrator.state.outbox import Message
from orchestrator.state.transitions import budget, groups, jobs, subtasks
from orchestrator.state.transitions.groups import GroupRunRecord, MergeClaim
from orchestrator.supervisor import StopSignal

log = logging.getLogger(__name__)

STOPPED_GIT_SECONDS: Final = 30.0
"""What a push gets to its end when nobody wants the merge any more, or this process is to stop: one that is cut off may
have arrived, or not."""


@dataclass(frozen=True)
class MergeDone:
    """What git and the check said; the branch is pushed, nothing is recorded yet."""

    head: str | None
    merged: tuple[int, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    check: CheckResult | None = None


def merge_group(fleet: Fleet, job_id: str, group_number: int, *, woken_by: str) -> None:
    """Merge a group whose subtasks are all final, record its run, and dispatch the next group or finish the job.

    Woken by the chord's callback or by the reconciler; the merge lease lets one through. A remote or a broker that is
    away gives the lease back, and the reconciler calls again. Never raises for what happens once the lease is ours.
    """
    claimed = claim_group_work(
        fleet.engine, job_id, group_number, lease_seconds=fleet.settings.lease_seconds, woken_by=woken_by
    )
    if claimed is None:
        return
    claim, work = claimed
    fault_point("after_merge_claim_before_merge")
    try:
        done = _merge(fleet, claim, work)
        with translated(), fleet.engine.begin() as connection:
            messages = _record(fleet, connection, claim, work, done)
            fault_point("after_merge_record_before_commit")
    except LeaseLost:
        log.warning("The merge of group %d was taken over.", group_number, extra={"event": "merge.lease_lost"})
    except Exception as error:
        # Whatever it is: a lease that nobody gives back would let the group be tried again and again, and never say why.
        _put_off(fleet, claim, error)
    else:
        fault_point("after_merge_commit_before_next_group")
        fleet.publish(messages)
        if done.head not in {None, work.head} and work.repo is not None:
            fleet.repositories.look_again(work.repo)


@contextmanager
def _lease_kept(fleet: Fleet, claim: MergeClaim) -> Iterator[StopSignal]:
    """Renew the merge lease beside what may take long; its token fences the record. The signal stops git and the group's
    check when the lease is lost or the job is to end."""
    settings = fleet.settings
    done = threading.Event()

    def keep(stop: StopSignal) -> None:
        while not done.wait(settings.renew_seconds):
            try:
                with translated(), fleet.engine.begin() as connection:
                    held, ending = groups.renew_merge(connection, claim.token, settings.lease_seconds)
            except DatabaseUnavailable:
                continue  # the token fences whatever is recorded later
            if not held or ending:
                stop.set("lease_lost" if not held else "cancelled")

    with StopSignal() as stop:
        keeper = threading.Thread(target=keep, args=(stop,), name="merge-lease", daemon=True)
        keeper.start()
        try:
            yield stop
        finally:
            done.set()
            keeper.join()


def _merge(fleet: Fleet, claim: MergeClaim, work: GroupWork) -> MergeDone:
    """Merge what is new onto the integration branch, push it, run the group's check on it.

    Nothing new and no check: nothing is touched. Merging twice gives the same commits, so a crash after the push
    repeats it without harm.
    """
    if work.repo is None or work.head is None or work.branch is None:
        return MergeDone(head=None, merged=tuple(attempt.subtask_id for attempt in work.to_merge))
    is_new = any(attempt.commit != work.head for attempt in work.to_merge)
    if not is_new and not (claim.check_command and (work.to_merge or work.merged_before)):
        return MergeDone(head=work.head, merged=tuple(attempt.subtask_id for attempt in work.to_merge))
    with (
        _lease_kept(fleet, claim) as stop,
        until_stopped(stop, patience_seconds=STOPPED_GIT_SECONDS),
        until_stopped(fleet.leaving, patience_seconds=STOPPED_GIT_SECONDS),
        MergeWorkspace.open(
            fleet.settings.workspaces_dir,
            fleet.repositories,
            repo=work.repo,
            job_id=claim.job_id,
            head=work.head,
            attempts=work.to_merge,
        ) as workspace,
    ):
        result = merge_attempts(workspace, attempts=work.to_merge, head=work.head)
        with workspace.lending(result.head):
            if work.head == work.base_commit:
                begin_branch(workspace, work.repo, work.branch, new=result.head, base_commit=work.head)
            else:
                push_branch(workspace, work.repo, work.branch, new=result.head, expected=work.head)
        fault_point("after_branch_push_before_record")
        merged = tuple(attempt.subtask_id for attempt in result.merged)
        check = None
        if claim.check_command and (merged or work.merged_before):
            check = run_group_check(
                claim.check_command,
                checkout=workspace.checkout(result.head, fleet.agent_account),
                timeout_seconds=fleet.settings.check_timeout_seconds,
                stop=stop,
                # The lease's token stays out of the check's sight.
                cookie=f"{owner_of_this_process()}.merge-{secrets.token_hex(8)}",
                account=fleet.agent_account,
            )
        return MergeDone(result.head, merged, result.conflicts, check)


def _record(fleet: Fleet, connection: Connection, claim: MergeClaim, work: GroupWork, done: MergeDone) -> list[Message]:
    """One transaction: subtasks, head, group run, group, and what comes next. Raises `LeaseLost` to undo it all."""
    job = jobs.lock_job(connection, claim.job_id)
    if job is None:
        raise LeaseLost("The job is gone.")
    for conflict in done.conflicts:
        subtasks.fail_merged(
            connection, claim.job_id, conflict.subtask_id, SubtaskOutcome.CONFLICT, conflict.describe()
        )
    if done.merged:
        subtasks.mark_merged(connection, claim.job_id, done.merged)
    if done.head is not None:
        jobs.advance_head(connection, claim.job_id, done.head)
    conflicts = [conflict.subtask_id for conflict in done.conflicts]
    group = MergedGroup(
        statuses={**work.statuses, **dict.fromkeys(conflicts, "failed")},
        conflicts=conflicts,
        check_passed=done.check.passed if done.check else None,
        repairable=[n for n in sorted({*done.merged, *work.merged_before}) if work.failures_left[n] > 0],
    )
    step = next_step(group, work.on_failure, ending=job.steered_to_its_end)
    unaffordable = job.budget_is_spent and isinstance(step, SendBack)
    if unaffordable:
        step = next_step(group, work.on_failure, ending=True)
    groups.record_group_run(connection, claim, _group_run(work, done, group, step))
    if isinstance(step, SendBack):
        return _send_back(fleet, connection, claim, step, done)
    if done.check is not None and not done.check.passed:
        _blame(connection, claim, work, done, done.check)
    if not groups.finish_group(connection, claim, step.group_status, step.error):
        raise LeaseLost("Another dispatcher has merged the group.")
    if job.steered_to_its_end and end_job_if_idle(connection, claim.job_id):
        return []
    if job.budget_is_spent and (budget.refuse_what_is_left(connection, job) or unaffordable):
        stop_job(connection, claim.job_id, BUDGET_EXCEEDED, budget.spent_in_words(connection, job))
        return []
    if not step.go_on:
        stop_job(connection, claim.job_id, step.reason or "", step.error or "")
        return []
    return begin_next_group(fleet, connection, claim.job_id)


def _send_back(
    fleet: Fleet, connection: Connection, claim: MergeClaim, step: SendBack, done: MergeDone
) -> list[Message]:
    """The check is red: one subtask goes again on top of the merged branch, and is told the check's output."""
    assert done.check is not None, "only a red check sends a subtask back"
    if not groups.send_back(connection, claim, "the group's check is red"):
        raise LeaseLost("Another dispatcher has merged the group.")
    feedback = f"After the merge of group {claim.group_number} its check was red:\n{done.check.output.text}"
    subtasks.reopen(
        connection,
        claim.job_id,
        [step.subtask_id],
        feedback=feedback,
        outcome=Outcome.CHECK_FAILED,
        counts_as_failure=True,
    )
    return send_back(fleet, connection, claim.job_id, claim.group_number)


def _blame(connection: Connection, claim: MergeClaim, work: GroupWork, done: MergeDone, check: CheckResult) -> None:
    """A check that stayed red fails the subtask that was merged last; `retry` starts there."""
    merged = sorted({*done.merged, *work.merged_before})
    if merged:
        last_lines = check.output.last_lines(1) or "it printed nothing"
        error = f"the check of group {claim.group_number} is red: {last_lines}"
        subtasks.fail_merged(connection, claim.job_id, merged[-1], Outcome.CHECK_FAILED, error)


def _group_run(work: GroupWork, done: MergeDone, group: MergedGroup, step: SendBack | Proceed) -> GroupRunRecord:
    error = "the group's check is red" if isinstance(step, SendBack) else step.error
    return GroupRunRecord(
        success=error is None,
        failure_reason=error,
        failed_agent_count=len(group.failed),
        conflict_detected=bool(done.conflicts),
        conflict_details=[asdict(conflict) for conflict in done.conflicts] or None,
        agent_ids=[figures.id for figures in work.figures],
        sequential_estimate_seconds=sequential_estimate_seconds(work.figures),
        max_concurrent_agents=max_concurrent_agents(work.figures),
        total_token_usage=total_tokens(work.figures),
        head_commit=done.head,
        execution_metadata=_check_metadata(done.check),
    )


def _check_metadata(check: CheckResult | None) -> dict[str, Any]:
    if check is None:
        return {}
    return {"check": {"passed": check.passed, "exit_code": check.exit_code, "output": check.output.text}}


def _put_off(fleet: Fleet, claim: MergeClaim, error: Exception) -> None:
    """What went wrong is the user's to mend (`BadInput`): the group fails. Else (a service that is away, a disk that is
    full) the lease is given back and the reconciler calls again, for as long as an outage may last."""
    is_surprise = not isinstance(error, OrchestratorException | RedisError | OSError)
    why = f"{type(error).__name__}: {error}" if is_surprise else str(error)
    log.warning(
        "Group %d could not be merged: %s",
        claim.group_number,
        why,
        exc_info=error if is_surprise else None,
        extra={"event": "merge.failed", "job_id": claim.job_id},
    )
    try:
        with translated(), fleet.engine.begin() as connection:
            if jobs.lock_job(connection, claim.job_id) is None:
                return
            patience = 0.0 if isinstance(error, BadInput) else fleet.settings.unreachable_grace_seconds
            if groups.put_off(connection, claim, why, patience_seconds=patience):
                end_job_if_idle(connection, claim.job_id)
            elif groups.finish_group(connection, claim, "failed", why) and not end_job_if_idle(
                connection, claim.job_id
            ):
                stop_job(connection, claim.job_id, "merge_failed", why)
    except DatabaseUnavailable:
        pass  # the lease expires, and the reconciler calls again
