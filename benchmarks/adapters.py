"""(i) What it adds to run an agent's program through its adapter and the supervisor, against running it by hand.

Pairs, in turns the one and the other first: the worker's own `run_program`, and the same command line with the same
environment by `subprocess`. The model is a scripted one that answers at once, so what is left is the program's own start.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.stage import Result, Stage, median, stage
from orchestrator.dispatch.dispatcher import start_job
from orchestrator.outcomes import Outcome
from orchestrator.plan.model import ResolvedSubtask
from orchestrator.process_list import COOKIE_VARIABLE
from tests.integration.agents.programs import BIN, CLAUDE, CODEX, Program, worker_environment
from tests.support.model_server.script import Script, say
from tests.support.model_server.server import ModelServer
from workers.agent_runner import AgentRunner
from workers.agents.protocol import AgentRequest
from workers.agents.registry import agent_class
from workers.attempt import Attempt
from workers.briefing import brief
from workers.run_program import run_program
from workers.slots import Slots

PAIRS = 25


def overhead() -> list[Result]:
    """One result a program that `make test-agents` has installed; one without is said in words."""
    results = []
    for program in (CLAUDE, CODEX):
        if (BIN / program.program).exists():
            results.append(_of(program))
        else:
            print(
                f"(i) {program.program} is not installed, and not measured: `make test-agents` installs it", flush=True
            )
    return results


def _of(program: Program) -> Result:
    model = ModelServer()
    try:
        with stage() as here, _variables(worker_environment(model.url, here.folder / "home")):
            pairs = list(_pairs(here, program))[1:]  # the first one fills the caches
    finally:
        model.close()
    by_hand = 1000 * median([hand for hand, _ in pairs])
    differences = [1000 * (through - hand) for hand, through in pairs]
    note = f"{by_hand:.0f} ms by hand; the differences of {len(pairs)} pairs: {min(differences):.0f} to {max(differences):.0f} ms"
    what = f"{program.program} through its adapter, longer than by hand (median)"
    return Result("i", what, median(differences), "ms", 50, note=note)


def _pairs(here: Stage, program: Program) -> Iterator[tuple[float, float]]:
    """Seconds by hand and through the worker's path, pair by pair. This process is the worker."""
    fleet = here.fleet.client
    part = {"title": "Nothing", "parallel_group": 1, "description": Script([say("Done.")]).prompt}
    job_id = here.fleet.submit(
        {
            "title": "Overhead",
            "max_parallel_agents": PAIRS + 1,
            "defaults": {"agent": program.agent(), "expect_changes": False},
            "subtasks": [{"subtask_id": number, **part} for number in range(1, PAIRS + 2)],
        }
    )
    start_job(fleet, job_id)
    runner = AgentRunner(fleet, Slots())
    runner.begin()
    try:
        for number in range(1, PAIRS + 2):
            yield _pair(runner, job_id, number)
    finally:
        runner.end()


def _pair(runner: AgentRunner, job_id: str, number: int) -> tuple[float, float]:
    asked_at = time.monotonic()
    claim = runner.claim("bench", job_id, number, None)
    assert claim is not None, "nobody else is there to claim it"
    with ExitStack() as resources:
        stop = resources.enter_context(runner.keeper.holding(claim.lease_token, asked_at=asked_at))
        workspace = resources.enter_context(
            runner.workspaces.prepare(
                job_id=job_id, subtask_id=number, attempt_number=claim.number, repo=None, base_commit=None
            )
        )
        subtask = ResolvedSubtask.model_validate(claim.spec)
        watch = resources.enter_context(
            runner.oversight.watch(claim.attempt_id, subtask.limits, workspace.folder, stop)
        )
        agent = agent_class(claim.agent, runner.settings)()
        attempt = Attempt(runner, claim, subtask, agent, workspace, stop, watch)
        prompt = brief(runner.fleet, claim, subtask, None)
        attempt.prompt_file.write_text(prompt)
        if number % 2:
            return _by_hand(attempt, prompt), _through(attempt, prompt)
        through = _through(attempt, prompt)
        return _by_hand(attempt, prompt), through


def _through(attempt: Attempt, prompt: str) -> float:
    began = time.monotonic()
    end = run_program(attempt, prompt)
    seconds = time.monotonic() - began
    if end.outcome is not Outcome.COMPLETED:
        raise AssertionError(f"the program did not do its work: {end.outcome}, {end.error}")
    return seconds


def _by_hand(attempt: Attempt, prompt: str) -> float:
    """As a person would run it: the same words and variables, its own state folder, nobody who watches."""
    state_dir = attempt.workspace.private_dir / "by-hand"
    state_dir.mkdir()
    launch = attempt.agent.launch(replace(_request(attempt, prompt), state_dir=state_dir))
    env = attempt.environment(launch.env)
    del env[COOKIE_VARIABLE]
    began = time.monotonic()
    with (launch.stdin_file or Path(os.devnull)).open("rb") as stdin:
        done = subprocess.run(
            launch.argv, cwd=attempt.workspace.path, env=env, stdin=stdin, capture_output=True, check=False
        )
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise AssertionError(f"the program ended with {done.returncode}: {done.stderr[-500:]!r}")
    return seconds


def _request(attempt: Attempt, prompt: str) -> AgentRequest:
    return AgentRequest(
        prompt=prompt,
        prompt_file=attempt.prompt_file,
        workspace=attempt.workspace.path,
        state_dir=attempt.workspace.private_dir,
        config=attempt.subtask.agent.config,
        title=attempt.subtask.title,
        subtask_id=attempt.claim.subtask_id,
        attempt_number=attempt.claim.number,
        permissions=attempt.subtask.permissions,
    )


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """The worker's environment, which is this process's: nothing of whoever measures reaches the programs."""
    before = dict(os.environ)
    kept = {name: before[name] for name in before if name.startswith("TMP")}
    try:
        os.environ.clear()
        os.environ.update({**kept, **wanted})
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
