"""`max_cost_usd`: what is reserved, when no agent starts any more, and how such a job ends."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.dispatch.merging import merge_group
from orchestrator.dispatch.steering import retry_job
from orchestrator.errors import IllegalRequest
from orchestrator.outcomes import Outcome
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.state.one_trip import in_one_trip
from orchestrator.state.queries import job_view
from orchestrator.state.transitions import claims, ends, jobs
from orchestrator.state.transitions.claims import Claim, Wanted
from orchestrator.state.transitions.ends import AttemptEnd, Ended
from orchestrator.supervisor import StopSignal
from tests.support.command_line import command_line_in_process
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import git, new_repository
from tests.support.waiting import wait_until
from workers.recording import Recorder, record

pytestmark = pytest.mark.stack


def costly(subtask_id: int, usd: float, *steps: dict[str, Any], group: int = 1, **more: Any) -> dict[str, Any]:
    """A subtask whose agent says that it has cost so much, and then does these steps."""
    script = [{"usage": {"input_tokens": 1000}, "cost_usd": usd}, *steps]
    agent = {"name": "scripted", "script": script}
    return {"subtask_id": subtask_id, "title": f"Part {subtask_id}", "parallel_group": group, "agent": agent, **more}


def spent_of(fleet: TestFleet, job_id: str) -> float:
    return float(fleet.job(job_id)["spent_usd"])


def test_no_agent_starts_once_the_budget_is_spent(
    fleet: TestFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agents of $0.30, two at once, $1: the fourth starts while 0.90 is spent or reserved, and no fifth."""
    repository = new_repository(tmp_path / "repository")
    fleet.start_dispatcher()
    fleet.start_worker()
    plan = {
        "title": "A dollar",
        "repo": str(repository),
        "max_parallel_agents": 2,
        "max_cost_usd": 1.0,
        "subtasks": [
            *(costly(n, 0.3, {"write": f"{n}.txt", "content": "done"}) for n in range(1, 9)),
            costly(9, 0.3, group=2),
        ],
    }
    job_id = fleet.submit(plan)
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"], job["error"]) == (
        "failed",
        "budget_exceeded",
        "$1.20 spent of the budget of $1.00",
    )
    assert spent_of(fleet, job_id) == 1.2
    found = fleet.subtasks(job_id)
    done = [n for n, row in found.items() if row["status"] == "completed"]
    assert len(done) == 4
    left = {(row["status"], row["outcome"], row["error"]) for n, row in found.items() if n not in done}
    assert left == {("skipped", "skipped", "not started: $1.20 spent of the budget of $1.00")}
    files = git(repository, "ls-tree", "--name-only", f"orchestrator/{job_id}").split()
    assert sorted(files) == sorted(["README", *(f"{n}.txt" for n in done)]), "what was paid for is merged"
    groups = fleet.rows("SELECT number, status FROM groups WHERE job_id = :id ORDER BY number", id=job_id)
    assert [(row["number"], row["status"]) for row in groups] == [(1, "failed"), (2, "skipped")]
    (run,) = fleet.rows("SELECT woken_by, total_token_usage FROM group_runs WHERE job_id = :id", id=job_id)
    assert (run["woken_by"], run["total_token_usage"]) == ("callback", 4000), "nobody waited for the reconciler"

    orchestrator = command_line_in_process(
        monkeypatch, capsys, database_url=str(fleet.settings.database_url), state_dir=tmp_path
    )
    told = json.loads(orchestrator("status", job_id, "--json").out)["job"]
    assert (told["max_cost_usd"], told["spent"]["cost_usd"], told["spent"]["tokens"]) == (1.0, 1.2, 4000)
    assert [group["spent"]["cost_usd"] for group in told["groups"]] == [1.2, None]
    assert {one["spent"]["cost_usd"] for one in told["groups"][0]["subtasks"]} == {0.3, None}
    assert "spent      $1.20 of $1.00 · 4k tokens" in orchestrator("status", job_id).out
    assert "spent $1.20 of $1.00 · 4k tokens" in orchestrator("report", job_id).out
    assert "Spent: $1.20 of $1.00 · 4k tokens" in orchestrator("report", job_id, "--markdown").out
    assert json.loads(orchestrator("report", job_id, "--json").out)["totals"]["cost_usd"] == 1.2
    watched = orchestrator("watch", job_id, code=1).out
    assert "no new agent starts: $" in watched
    assert f"orchestrator retry {job_id} --max-cost-usd N" in watched

    with pytest.raises(IllegalRequest, match=r"has spent \$1.20 of a budget of \$1.00"):
        retry_job(fleet.client, job_id)
    with pytest.raises(IllegalRequest, match=r"of a budget of \$1.10"):
        retry_job(fleet.client, job_id, max_cost_usd=1.1)
    assert len(retry_job(fleet.client, job_id, max_cost_usd=5.0)) == 5
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("completed", None)
    assert spent_of(fleet, job_id) == 2.7, "what was completed was not paid for twice"


def test_a_retry_in_its_back_off_is_not_started_either(database: str, broker: str, tmp_path: Path) -> None:
    fleet = open_fleet(database, broker, tmp_path, retry_initial_seconds=300.0)
    try:
        fleet.start_dispatcher()
        fleet.start_worker()
        go_on = tmp_path / "go-on"
        plan = {
            "title": "Back-off",
            "max_cost_usd": 1.0,
            "max_retries": 3,
            "subtasks": [costly(1, 0.4, {"fail": "not today"}), costly(2, 0.7, {"wait_for": str(go_on)})],
        }
        job_id = fleet.submit(plan)
        wait_until(lambda: fleet.subtasks(job_id)[1]["not_before"], "the first waits for its back-off")
        go_on.touch()
        job = fleet.wait_for_end(job_id)
        assert (job["status"], job["reason"]) == ("failed", "budget_exceeded")
        first, second = fleet.subtasks(job_id).values()
        assert (first["status"], first["outcome"], first["attempts"]) == ("failed", "failed", 1)
        assert first["error"] == "not today; no retry was started: $1.10 spent of the budget of $1.00"
        assert second["status"] == "completed", "an agent at work ends normally"
    finally:
        fleet.close()


def test_a_budget_that_the_last_agent_has_used_up_spoils_nothing(fleet: TestFleet) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    job_id = fleet.submit({"title": "Just so", "max_cost_usd": 0.5, "subtasks": [costly(1, 0.6), costly(2, 0.6)]})
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"], spent_of(fleet, job_id)) == ("completed", None, 1.2)


def test_a_red_check_sends_nobody_back_without_money(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    plan = {
        "title": "Red",
        "repo": str(new_repository(tmp_path / "repository")),
        "max_cost_usd": 0.5,
        "group_checks": "false",
        "subtasks": [costly(1, 0.6, {"write": "a.txt"})],
    }
    job_id = fleet.submit(plan)
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "budget_exceeded")
    assert fleet.subtasks(job_id)[1]["attempts"] == 1


def test_an_agents_own_limit_is_what_it_reserves(fleet: TestFleet) -> None:
    """No process of the fleet runs: the start releases what the budget allows."""
    agent = {"name": "claude-code", "max_budget_usd": 0.5}
    subtask = {"title": "Any", "parallel_group": 1, "agent": agent}
    plan = {"title": "Own limits", "max_cost_usd": 1.2, "subtasks": [{**subtask, "subtask_id": n} for n in range(1, 6)]}
    job_id = fleet.submit(plan)
    start_job(fleet.client, job_id)
    assert released(fleet, job_id) == [1, 2, 3]  # 0, 0.5 and 1.0 are reserved before each; with 1.5 no fourth


def test_many_ends_at_once_never_give_out_a_place_too_many(fleet: TestFleet) -> None:
    """Eight threads are the workers of one job: $0.10 an attempt, of $2. Twenty attempts are all that there may be."""
    plan = {
        "title": "Race",
        "max_parallel_agents": 8,
        "max_cost_usd": 2.0,
        "subtasks": [costly(n, 0.1) for n in range(1, 61)],
    }
    job_id = fleet.submit(plan)
    start_job(fleet.client, job_id)
    recorders = [Recorder(fleet.client) for _ in range(4)]  # four workers: what they record together is theirs alone
    idle = threading.Event()

    def work(number: int) -> None:
        with StopSignal() as stop:
            while not idle.is_set():
                claim = claim_any(fleet, job_id)
                if claim is None:
                    if fleet.job(job_id)["reason"] == "budget_exceeded":
                        idle.set()
                    idle.wait(0.05)
                    continue
                outcome = Outcome.COMPLETED if claim.subtask_id % 3 else Outcome.TURN_LIMIT
                record(recorders[number % 4], claim, AttemptEnd(outcome, error="why", cost_usd=0.1), stop)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert idle.is_set()
    (sums,) = fleet.rows(
        "SELECT count(*) AS attempts, sum(CAST(cost_usd AS numeric)) AS paid FROM attempts WHERE job_id = :id",
        id=job_id,
    )
    assert (sums["attempts"], float(sums["paid"]), spent_of(fleet, job_id)) == (20, 2.0, 2.0)
    merge_group(fleet.client, job_id, 1, woken_by="callback")
    assert fleet.job(job_id)["reason"] == "budget_exceeded"
    assert fleet.job(job_id)["status"] == "failed"


def test_the_net_refuses_what_a_worker_that_died_has_not_refused(fleet: TestFleet) -> None:
    """It had recorded the end that used up the budget, and nothing after it."""
    job_id = fleet.submit(
        {"title": "Net", "max_parallel_agents": 1, "max_cost_usd": 0.1, "subtasks": [costly(1, 0.2), costly(2, 0.2)]}
    )
    start_job(fleet.client, job_id)
    claim = claim_any(fleet, job_id)
    assert claim is not None
    ended = Ended(claim.subtask_id, claim.lease_token, AttemptEnd(Outcome.COMPLETED, cost_usd=0.2))
    engine = fleet.client.engine
    _, landed, _ = in_one_trip(
        engine, jobs.lock_statement(job_id), ends.end_statement(job_id, [ended]), jobs.release_statement(job_id)
    )
    assert [row["budget_is_spent"] for row in landed] == [True]
    assert claim_any(fleet, job_id) is None
    reconciler = Reconciler(fleet.client)
    try:
        assert "budget" in [finding.kind for finding in reconciler.tick()]
        assert fleet.job(job_id)["reason"] == "budget_exceeded"
        assert fleet.subtasks(job_id)[2]["status"] == "skipped"
        assert "budget" not in [finding.kind for finding in reconciler.tick()]
    finally:
        reconciler.stop()


def test_a_record_that_is_repeated_is_paid_for_once(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Twice", "max_cost_usd": 9.0, "subtasks": [costly(1, 0.2), costly(2, 0.2)]})
    start_job(fleet.client, job_id)
    claim = claim_any(fleet, job_id)
    assert claim is not None
    recorder = Recorder(fleet.client)
    with StopSignal() as stop:
        for _ in range(2):
            record(recorder, claim, AttemptEnd(Outcome.COMPLETED, cost_usd=0.2), stop)
    assert spent_of(fleet, job_id) == 0.2


def test_work_that_could_not_be_kept_has_cost_what_it_has(database: str, broker: str, tmp_path: Path) -> None:
    fleet = open_fleet(database, broker, tmp_path, unreachable_grace_seconds=0.5)
    try:
        fleet.start_dispatcher()
        fleet.start_worker()
        repository, go_on = new_repository(tmp_path / "repository"), tmp_path / "go-on"
        step = costly(1, 0.3, {"write": "a.txt"}, {"wait_for": str(go_on)}, max_retries=0)
        job_id = fleet.submit({"title": "Away", "repo": str(repository), "subtasks": [step]})
        wait_until(lambda: list(fleet.settings.workspaces_dir.glob("*/checkout/a.txt")), "the agent is at work")
        repository.rename(tmp_path / "elsewhere")
        go_on.touch()
        wait_until(lambda: fleet.subtasks(job_id)[1]["finished_at"], "the attempt has ended")
        (attempt,) = fleet.rows("SELECT status, cost_usd FROM attempts WHERE job_id = :id", id=job_id)
        assert attempt == {"status": "failed", "cost_usd": 0.3}
    finally:
        fleet.close()


def test_a_job_without_a_budget_is_given_one_for_its_retry(fleet: TestFleet) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    job_id = fleet.submit({"title": "Late", "subtasks": [costly(1, 0.4), costly(2, 0.4, {"end": "turn_limit"})]})
    assert fleet.wait_for_end(job_id)["reason"] == "subtasks_failed"
    assert spent_of(fleet, job_id) == 0, "nobody has counted"
    with pytest.raises(IllegalRequest, match=r"has spent \$0.80 of a budget of \$0.80"):
        retry_job(fleet.client, job_id, max_cost_usd=0.8)
    assert retry_job(fleet.client, job_id, max_cost_usd=0.9) == (2,)
    assert fleet.wait_for_end(job_id)["status"] == "failed"
    assert spent_of(fleet, job_id) == 1.2


def test_the_attempt_of_a_lost_worker_makes_a_sum_a_lower_bound(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Lost", "subtasks": [costly(1, 0.2), costly(2, 0.2)]})
    start_job(fleet.client, job_id)
    claims = [claim_one(fleet, job_id, n) for n in (1, 2)]
    end = AttemptEnd(Outcome.COMPLETED, cost_usd=0.2, usage={"input_tokens": 1000})
    with StopSignal() as stop:
        record(Recorder(fleet.client), claims[0], end, stop)
    with fleet.client.engine.begin() as connection:
        lost = Ended(2, claims[1].lease_token, AttemptEnd(Outcome.WORKER_LOST, error="gone", cost_unknown=True))
        ends.end_attempt(connection, job_id, lost)
    spent = job_view(fleet.client.engine, job_id).spent
    assert (spent.cost_usd, spent.cost_incomplete, spent.tokens_incomplete) == (0.2, True, True)


def released(fleet: TestFleet, job_id: str) -> list[int]:
    return [n for n, row in fleet.subtasks(job_id).items() if row["released_at"] is not None]


def claim_any(fleet: TestFleet, job_id: str) -> Claim | None:
    """As a worker would whose message was the right one."""
    rows = fleet.rows(
        "SELECT subtask_id FROM subtasks WHERE job_id = :id AND status = 'pending' AND released_at IS NOT NULL"
        " ORDER BY random() LIMIT 1",
        id=job_id,
    )
    return claim_one(fleet, job_id, rows[0]["subtask_id"]) if rows else None


def claim_one(fleet: TestFleet, job_id: str, subtask_id: int) -> Claim:
    wanted = [Wanted(subtask_id, None, secrets.token_hex(8))]
    [claim] = claims.claim(fleet.client.engine, job_id, wanted, worker="worker@test", lease_seconds=30.0)
    return claim  # type: ignore[return-value]
