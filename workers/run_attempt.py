"""The story of one attempt: claim → workspace → supervise → check → commit → push → record."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from orchestrator.accounts import acting_as
from orchestrator.check import run_check
from orchestrator.errors import ConfigurationError, DatabaseUnavailable, GitError, OrchestratorException
from orchestrator.fault_points import fault_point
from orchestrator.git import attempt_ref, until_stopped
from orchestrator.outcomes import COUNTED_AGAINST_RETRIES, RESUMED_AFTER, Outcome
from orchestrator.plan.model import Permissions, ResolvedSubtask
from orchestrator.push import Refusal
from orchestrator.state import outbox
from orchestrator.state.checkpoints import SavedWork
from orchestrator.state.engine import translated
from orchestrator.state.transitions import subtasks
from orchestrator.state.transitions.claims import Claim
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import StopSignal
from workers.agent_runner import AgentRunner
from workers.agents.in_process import InProcessAgent, Patience, run_in_process
from workers.agents.protocol import AgentConfig
from workers.attempt import Attempt
from workers.briefing import brief
from workers.checkpointing import PUSH_SECONDS, keep_for_the_next
from workers.judgement import DEADLINE, judge, stopped, words_of_red
from workers.recording import LEAVING_PATIENCE_SECONDS, record
from workers.resuming import resumption, taken_up
from workers.run_program import run_program, seconds_left
from workers.workspace import Workspace

log = logging.getLogger(__name__)

REMOTE_RETRY_SECONDS: Final = 2.0
LONGEST_PUSH_SECONDS: Final = 120.0
"""Of work that is nice to have: a retry waits for it."""
_WORK_IS_KEPT: Final = {
    *(Outcome.COMPLETED, Outcome.TURN_LIMIT, Outcome.BUDGET_EXCEEDED),
    *(COUNTED_AGAINST_RETRIES | RESUMED_AFTER) - {Outcome.WORKER_LOST},
}

_WIDER: Final[Mapping[Permissions, str]] = {
    "read-only": "Give the subtask `permissions: edit`, or `full`.",
    "edit": "Give the subtask `permissions: full`.",
}


def run_agent(runner: AgentRunner, job_id: str, subtask_id: int, *, chord_id: str | None, worker: str) -> bool:
    """Run an agent at the subtask if it may run now. True when the subtask is final, whoever made it so.

    False means that this message has done its work and the subtask has not: it waits for a place or for its back-off,
    or another worker holds it. Never raises for an agent, a repository or a database that fails.
    """
    asked_at = time.monotonic()
    try:
        if runner.keeper.interrupted:
            return _hand_back(runner, job_id, subtask_id)
        claim = runner.claim(worker, job_id, subtask_id, chord_id)
        if claim is None:
            return _is_final(runner, job_id, subtask_id)
    except DatabaseUnavailable as error:
        # If a claim was stored and only its answer was lost, the lease expires; else the message comes again.
        log.warning("Subtask %d could not be claimed: %s", subtask_id, error, extra={"event": "claim.database_away"})
        return False
    log.info(
        "Agent starting execution of subtask %d",
        subtask_id,
        extra={"event": "attempt.started", "job_id": job_id, "subtask_id": subtask_id, "attempt": claim.number},
    )
    with runner.keeper.holding(claim.lease_token, asked_at=asked_at) as stop:
        fault_point("after_claim_before_workspace")
        runner.logs.open(claim.attempt_id, job_id, subtask_id)
        end = _work(runner, claim, stop)
        runner.logs.close(claim.attempt_id)
        end = runner.governor.heard(claim, end)
        fault_point("after_push_before_record")
        with runner.slots.left() as slot:
            is_final = record(runner.recorder, claim, end, stop, before_waiting=slot.take_back)
        fault_point("after_record_before_return")
        return is_final


def _hand_back(runner: AgentRunner, job_id: str, subtask_id: int) -> bool:
    """Between the signal to stop and the last turn of Celery's loop a message may still come in: it goes elsewhere."""
    with translated(), runner.fleet.engine.begin() as connection:
        outbox.hand_back(connection, job_id, subtask_id)
    return False


def _is_final(runner: AgentRunner, job_id: str, subtask_id: int) -> bool:
    with translated(), runner.fleet.engine.connect() as connection:
        return subtasks.is_final(connection, job_id, subtask_id)


def _work(runner: AgentRunner, claim: Claim, stop: StopSignal) -> AttemptEnd:
    """Everything between the claim and the record. Whatever goes wrong becomes an outcome."""
    try:
        subtask = ResolvedSubtask.model_validate(claim.spec)
        agent = runner.agent_class(claim.agent)()
        if isinstance(agent, InProcessAgent) and subtask.check is None and not subtask.expect_changes:
            return _run_here(runner, claim, subtask, agent, stop)
        found = resumption(runner, claim, agent)
        with ExitStack() as resources:
            workspace = _prepare(runner, claim, stop, resources, found.work if found else None)
            resumed = taken_up(runner, claim, found, workspace)
            watch = resources.enter_context(
                runner.oversight.watch(claim.attempt_id, subtask.limits, workspace.folder, stop)
            )
            return _run_in(Attempt(runner, claim, subtask, agent, workspace, stop, watch, resumed))
    except ConfigurationError as error:
        return AttemptEnd(Outcome.AGENT_MISSING, error=str(error))
    except DatabaseUnavailable as error:
        # Before the agent had begun: nothing is paid for yet, and another worker may do better.
        return AttemptEnd(Outcome.INTERRUPTED, error=str(error))
    except OrchestratorException as error:
        return _stopped_or(AttemptEnd(Outcome.FAILED, error=str(error)), claim, stop)
    except Exception as error:
        log.exception("An attempt met a surprise.", extra={"event": "attempt.surprise", "subtask_id": claim.subtask_id})
        return AttemptEnd(Outcome.FAILED, error=f"The worker met a surprise: {type(error).__name__}: {error}")


def _prepare(
    runner: AgentRunner, claim: Claim, stop: StopSignal, resources: ExitStack, earlier: SavedWork | None
) -> Workspace:
    """The attempt's workspace. A remote that is away is waited for, as finished work waits for it: no agent has begun, and
    its absence is nobody's failure."""
    deadline = time.monotonic() + runner.settings.unreachable_grace_seconds
    while True:
        try:
            with until_stopped(stop):
                return resources.enter_context(
                    runner.workspaces.prepare(
                        job_id=claim.job_id,
                        subtask_id=claim.subtask_id,
                        attempt_number=claim.number,
                        repo=claim.repo,
                        base_commit=claim.base_commit,
                        earlier=earlier,
                    )
                )
        except GitError as error:
            if time.monotonic() >= deadline or stop.reason or claim.deadline_passed:
                raise
            log.warning("The remote is away, the attempt waits: %s", error, extra={"event": "workspace.remote_away"})
            runner.logs.add(claim.attempt_id, claim.job_id, claim.subtask_id, "note", f"{error} Trying again.")
            time.sleep(REMOTE_RETRY_SECONDS)


def _run_here(
    runner: AgentRunner, claim: Claim, subtask: ResolvedSubtask, agent: InProcessAgent[AgentConfig], stop: StopSignal
) -> AttemptEnd:
    """An agent in this process: no folder, no prompt, nothing to commit."""
    runner.keeper.confirm(claim.lease_token)
    config = agent.config_model.model_validate(dict(subtask.agent.config))
    ending, said = run_in_process(agent, config, Patience(stop, seconds_left(claim, subtask)))
    return judge(ending, said, idle_timeout_seconds=None, deadline_passed=claim.deadline_passed)


def _run_in(attempt: Attempt) -> AttemptEnd:
    claim = attempt.claim
    if isinstance(attempt.agent, InProcessAgent):
        end = _run_here(attempt.runner, claim, attempt.subtask, attempt.agent, attempt.stop)
    else:
        prompt = brief(attempt.runner.fleet, claim, attempt.subtask, attempt.resumed)
        with acting_as(attempt.account):
            attempt.prompt_file.write_text(prompt)
        if closed := attempt.runner.governor.closed_before_start(claim):
            return closed  # no agent was there: what an earlier one has left is the next one's as it is
        end = run_program(attempt, prompt)
    try:
        if end.outcome is Outcome.COMPLETED:
            end = _check(attempt, end)
        end = _keep_work(attempt, end)
    except (OrchestratorException, OSError) as error:
        # What the agent has used stands, whatever becomes of its work, and whatever it has made of our record of it.
        end = _stopped_or(replace(end, outcome=Outcome.FAILED, error=str(error)), claim, attempt.stop)
    keep_for_the_next(attempt, end)
    return end


def _check(attempt: Attempt, end: AttemptEnd) -> AttemptEnd:
    """Run the subtask's check on what the agent left, its uncommitted changes included."""
    if attempt.subtask.check is None:
        return end
    attempt.log_line("note", f"check: {attempt.subtask.check}")
    check = run_check(
        attempt.subtask.check,
        cwd=attempt.workspace.path,
        env=attempt.environment({}),
        timeout_seconds=_seconds_for_check(attempt),
        stop=attempt.stop,
        cookie=attempt.watch.cookie,
        on_line=attempt.log_line,
        group=attempt.watch.group,
        oversee=attempt.watch.running,
        redact=attempt.redaction.hide,
        account=attempt.account,
    )
    if check.passed:
        return end
    red = replace(end, outcome=Outcome.CHECK_FAILED, error=words_of_red(check), check_output=check.output.text)
    return _stopped_or(red, attempt.claim, attempt.stop)


def _seconds_for_check(attempt: Attempt) -> float:
    """The job's deadline bounds it too, also while the database is away and nobody could tell us of the job's end."""
    allowed, left = attempt.runner.settings.check_timeout_seconds, attempt.claim.seconds_to_deadline()
    return allowed if left is None else max(min(allowed, left), 0.0)


def _stopped_or(end: AttemptEnd, claim: Claim, stop: StopSignal) -> AttemptEnd:
    """An unhappy end, or what it is where somebody had asked for the attempt's end, or the job's deadline has passed."""
    reason = stop.reason or (DEADLINE if claim.deadline_passed else None)
    return stopped(end, reason) if reason else end


def _keep_work(attempt: Attempt, end: AttemptEnd) -> AttemptEnd:
    """Commit and push what the agent did, before any record says so. Work of an unhappy end is kept as well, where
    there is the time: nothing that was paid for is thrown away."""
    claim, workspace = attempt.claim, attempt.workspace
    fault_point("after_agent_before_push")
    if claim.repo is None or end.outcome not in _WORK_IS_KEPT:
        return end
    commit = workspace.commit_all(title=attempt.subtask.title, subtask_id=claim.subtask_id, job_id=claim.job_id)
    changed = workspace.changed_files(commit)
    if changed and attempt.subtask.permissions == "read-only":
        words = f"it may only read, and changed {len(changed)} files, {changed[0]} among them"
        return replace(end, outcome=Outcome.PERMISSION_DENIED, error=words)
    if not changed and end.outcome is Outcome.COMPLETED and _must_change(attempt):
        return _without_changes(attempt, end)
    if commit == claim.base_commit:
        return replace(end, commit=commit)
    ref = attempt_ref(claim.job_id, claim.subtask_id, claim.number)
    if end.outcome is not Outcome.COMPLETED:
        return _with_what_could_be_pushed(attempt, replace(end, files_changed=changed), commit, ref)
    refusal = _push(attempt, commit, ref)
    if refusal is None:
        return replace(end, commit=commit, ref=ref, files_changed=changed)
    # The next attempt would be refused as well, and cost as much: no retry.
    why = f"The repository refuses the push, {str(refusal).rstrip('.')}."
    kept = f"The work is kept on this worker, as {ref} in {workspace.keep(commit, ref)}."
    return replace(end, outcome=Outcome.BAD_CONFIG, error=f"{why} {kept}", files_changed=changed)


def _must_change(attempt: Attempt) -> bool:
    subtask = attempt.subtask
    if subtask.expect_changes is not None:
        return subtask.expect_changes
    return attempt.agent.expects_changes and subtask.kind != "testing" and subtask.permissions != "read-only"


def _without_changes(attempt: Attempt, end: AttemptEnd) -> AttemptEnd:
    """A refusal by its own permissions is the reason, and would be the next attempt's: only the plan can change that."""
    if attempt.permissions_refused is None:
        return replace(end, outcome=Outcome.NO_CHANGES, error="it ended well but changed nothing")
    permissions = attempt.subtask.permissions
    words = f"it changed nothing, for `permissions: {permissions}` refused {attempt.permissions_refused}"
    return replace(end, outcome=Outcome.PERMISSION_DENIED, error=f"{words}. {_WIDER.get(permissions, '')}".rstrip())


def _push(attempt: Attempt, commit: str, ref: str) -> Refusal | None:
    """Push the attempt's commit; the refusal of a remote that answers. While it is away this waits, until nobody wants
    the work any more. A refusal counts when it comes twice in a row: a remote that goes away in the midst of a push
    refuses as well."""
    deadline = time.monotonic() + attempt.runner.settings.unreachable_grace_seconds
    refused = False
    while True:
        problem: Refusal | GitError | None
        try:
            with until_stopped(attempt.stop, patience_seconds=LEAVING_PATIENCE_SECONDS):
                problem = attempt.runner.pushes.push(attempt.workspace, commit, ref)
        except GitError as error:
            if time.monotonic() >= deadline or attempt.stop.reason:
                raise
            problem = error
        if problem is None or (refused and isinstance(problem, Refusal)):
            return problem
        refused = isinstance(problem, Refusal)
        log.warning("Finished work waits for its remote: %s", problem, extra={"event": "push.waits"})
        attempt.log_line("note", f"{problem} Trying again.")
        time.sleep(REMOTE_RETRY_SECONDS)


def _with_what_could_be_pushed(attempt: Attempt, end: AttemptEnd, commit: str, ref: str) -> AttemptEnd:
    """The work of an unhappy end is pushed as well. It is nice to have: nobody waits for it."""
    problem: Refusal | GitError | None
    try:
        with until_stopped(attempt.stop, patience_seconds=PUSH_SECONDS):
            problem = attempt.workspace.push(commit, ref, timeout_seconds=LONGEST_PUSH_SECONDS)
    except GitError as error:
        problem = error
    if problem is None:
        return replace(end, commit=commit, ref=ref)
    log.info("Work of an unhappy end was not pushed: %s", problem, extra={"event": "push.given_up"})
    return end
