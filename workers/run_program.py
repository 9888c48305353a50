"""An agent's program, from its command line to what its end means: start only what can run, supervise, classify, judge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from orchestrator.accounts import acting_as
from orchestrator.outcomes import Outcome
from orchestrator.plan.model import ResolvedSubtask
from orchestrator.state.transitions.claims import Claim
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import Ending, supervise
from workers.agents.protocol import AgentRequest, Launch
from workers.agents.versions import missing_in_words, program_version
from workers.attempt import Attempt
from workers.checkpointing import checkpoints_of
from workers.judgement import DEADLINE, ended_from_outside, judge, stopped
from workers.metering import metered, spent_before
from workers.session_files import put_back


def run_program(attempt: Attempt, prompt: str) -> AttemptEnd:
    """Everything but the check and the work itself. Raises OSError where the kernel refuses to start anything."""
    request = _request(attempt, prompt)
    before = spent_before(attempt, request)
    with acting_as(attempt.account):
        launch = attempt.agent.launch(request)
    env = attempt.environment(launch.env)
    refused = _refused_here(attempt) or _missing_here(attempt, launch, env)
    if refused is not None:
        return refused
    if attempt.claim.deadline_passed:  # an agent that is ended at once has cost its first request all the same
        return stopped(AttemptEnd(Outcome.CANCELLED), DEADLINE)
    attempt.runner.keeper.confirm(attempt.claim.lease_token)
    try:
        ending = _supervise(attempt, launch, env)
    except (FileNotFoundError, PermissionError) as error:
        return _missing(f"{launch.argv[0]} can't be started: {error.strerror}.")
    with acting_as(attempt.account):
        left = attempt.agent.read_files(request)
    said = attempt.agent.classify(ending, [*attempt.events, *left])
    attempt.session_refused = request.session_id is not None and said.session_unknown
    hide = attempt.redaction.hide
    attempt.permissions_refused = said.refused and hide(said.refused)
    said = replace(said, error=said.error and hide(said.error), result=said.result and hide(said.result))
    end = judge(
        ending,
        said,
        idle_timeout_seconds=attempt.subtask.idle_timeout_seconds,
        deadline_passed=attempt.claim.deadline_passed,
        session_refused=attempt.session_refused,
    )
    return metered(attempt, end, before)


def seconds_left(claim: Claim, subtask: ResolvedSubtask) -> float | None:
    """What the agent may take: its own limit, and what is left until the job's deadline. None: as long as it likes."""
    limits = [seconds for seconds in (subtask.timeout_seconds, claim.seconds_to_deadline()) if seconds is not None]
    return max(min(limits), 0.0) if limits else None


def _request(attempt: Attempt, prompt: str) -> AgentRequest:
    with acting_as(attempt.account):
        attempt.state_dir.mkdir()
        if attempt.resumed is not None:
            put_back(attempt.resumed.files, attempt.state_dir)
    return AgentRequest(
        prompt=prompt,
        prompt_file=attempt.prompt_file,
        workspace=attempt.workspace.path,
        state_dir=attempt.state_dir,
        config=attempt.subtask.agent.config,
        title=attempt.subtask.title,
        subtask_id=attempt.claim.subtask_id,
        attempt_number=attempt.claim.number,
        permissions=attempt.subtask.permissions,
        session_id=attempt.resumed.session_id if attempt.resumed else None,
    )


def _refused_here(attempt: Attempt) -> AttemptEnd | None:
    """A model that may run any command as root owns the machine: only whoever runs the worker can allow that."""
    is_full = attempt.agent.permissions is not None and attempt.subtask.permissions == "full"
    is_root = os.geteuid() == 0 and attempt.account is None
    if not is_full or not is_root or attempt.runner.settings.sandboxed:
        return None
    words = (
        "Agents of this worker run as root, where `permissions: full` is refused: name another account in "
        "ORCHESTRATOR_AGENT_USER, or set ORCHESTRATOR_SANDBOXED=true where the whole machine is a sandbox."
    )
    return AttemptEnd(Outcome.BAD_CONFIG, error=words)


def _missing_here(attempt: Attempt, launch: Launch, env: Mapping[str, str]) -> AttemptEnd | None:
    """The program is looked for where it will be started, and asked for its version if that matters: once a worker."""
    agent, name = attempt.agent, launch.argv[0]
    if agent.program is None:
        return None
    found = program_version(
        name, agent.oldest_version, search=env["PATH"], ask=bool(agent.oldest_version), account=attempt.account
    )
    if not found.found:
        return _missing(missing_in_words(name, where="this worker's PATH"))
    if found.is_too_old:
        return _missing(f"{found.path} on this worker has version {found.version}, {found.note}")
    return None


def _missing(words: str) -> AttemptEnd:
    return AttemptEnd(Outcome.AGENT_MISSING, error=words)


def _supervise(attempt: Attempt, launch: Launch, env: Mapping[str, str]) -> Ending:
    with checkpoints_of(attempt):
        ending = supervise(
            launch.argv,
            cwd=attempt.workspace.path,
            env=env,
            timeout_seconds=seconds_left(attempt.claim, attempt.subtask),
            idle_timeout_seconds=attempt.subtask.idle_timeout_seconds,
            kill_grace_seconds=attempt.runner.settings.kill_grace_seconds,
            on_line=attempt.read_line,
            stop=attempt.stop,
            cookie=attempt.watch.cookie,
            stdin_file=launch.stdin_file,
            group=attempt.watch.group,
            oversee=attempt.watch.running,
            redact=attempt.redaction.hide,
            account=attempt.account,
        )
    return ended_from_outside(ending, attempt.stop.reason)
