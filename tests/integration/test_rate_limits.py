"""A provider that has enough is heard by the whole fleet: real workers, agents that are turned away, the database's times."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.dispatch.steering import cancel_job
from tests.support.fleet import TestFleet
from tests.support.repositories import new_repository
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


def scripted(subtask_id: int, provider: str, *steps: dict[str, Any], **words: Any) -> dict[str, Any]:
    agent = {"name": "scripted", "provider": provider, "script": list(steps)}
    return {"subtask_id": subtask_id, "title": f"Part {subtask_id}", "parallel_group": 1, "agent": agent, **words}


def turned_away_once(diary: Path, retry_after_seconds: float, *otherwise: dict[str, Any]) -> list[dict[str, Any]]:
    once = [{"sleep": 0.3}, {"end": "rate_limited", "retry_after_seconds": retry_after_seconds}]
    return [{"log_interval": str(diary)}, {"on_attempt": {"1": once, "else": list(otherwise)}}]


def starts_in(diary: Path) -> list[float]:
    lines = [json.loads(line) for line in diary.read_text().splitlines()]
    return sorted(line["at"] for line in lines if line["what"] == "start")


def attempts_of(fleet: TestFleet, job_id: str, account: str) -> list[dict[str, Any]]:
    statement = (
        "SELECT *, extract(epoch FROM started_at)::float AS began, extract(epoch FROM finished_at)::float AS ended"
        " FROM attempts WHERE job_id = :id AND account LIKE :account ORDER BY started_at"
    )
    return fleet.rows(statement, id=job_id, account=f"{account}#%")


def events_of(fleet: TestFleet, job_id: str, name: str) -> list[dict[str, Any]]:
    statement = (
        "SELECT data, subtask_id, extract(epoch FROM at)::float AS at FROM events"
        " WHERE job_id = :id AND name = :name ORDER BY id"
    )
    return fleet.rows(statement, id=job_id, name=name)


def test_one_word_of_a_provider_holds_up_every_worker_and_nobody_else(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker("first", slots=8)
    fleet.start_worker("second", slots=8)
    busy, other = tmp_path / "busy", tmp_path / "other"
    work = {"sleep": 1.5}
    job_id = fleet.submit(
        {
            "title": "Too much",
            "max_parallel_agents": 6,
            "max_retries": 0,
            "subtasks": [
                scripted(1, "busy", *turned_away_once(busy, 3), estimated_duration_minutes=9),
                *(
                    scripted(n, "busy", {"log_interval": str(busy)}, work, estimated_duration_minutes=9)
                    for n in range(2, 17)
                ),
                *(scripted(n, "other", {"log_interval": str(other)}, work) for n in range(17, 29)),
            ],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    (throttled,) = events_of(fleet, job_id, "provider.throttled")
    assert throttled["subtask_id"] == 1
    closed, opened = throttled["at"], throttled["at"] + throttled["data"]["closed_seconds"]
    assert 2.9 < opened - closed <= 3.0
    of_busy, of_other = attempts_of(fleet, job_id, "busy"), attempts_of(fleet, job_id, "other")

    # Nothing of the account starts while it is closed, by the database's times and by the agents' own.
    assert [one["began"] for one in of_busy if closed < one["began"] < opened] == []
    assert [at for at in starts_in(busy) if closed < at < opened] == []
    assert {one["worker"] for one in of_busy if one["began"] > opened} == {"first@test", "second@test"}
    # The others take the places that have become free meanwhile.
    assert [one for one in of_other if closed < one["began"] < opened]

    # Few at once, then more.
    allowed = throttled["data"]["allowed"]
    assert allowed == 3, "half of those that were at work"
    later = [one for one in of_busy if one["began"] > opened]
    at_once = [sum(1 for b in later if b["began"] <= a["began"] < b["ended"]) for a in later]
    assert at_once[0] == 1
    assert max(at_once[:allowed]) <= allowed
    assert max(at_once) > allowed

    # It cost one attempt that counts as nobody's failure, and no claim that was refused is one.
    assert {row["failures"] for row in fleet.subtasks(job_id).values()} == {0}
    assert sorted(one["status"] for one in of_busy) == ["completed"] * 16 + ["rate_limited"]
    assert [row["woken_by"] for row in fleet.rows("SELECT woken_by FROM group_runs")] == ["callback"]


def test_a_restart_of_the_workers_and_a_broker_that_has_lost_everything_forget_nothing(
    fleet: TestFleet, tmp_path: Path
) -> None:
    fleet.start_dispatcher()
    fleet.start_worker("before")
    diary = tmp_path / "diary"
    job_id = fleet.submit(
        {
            "title": "Forgetful",
            "max_parallel_agents": 3,
            "subtasks": [
                scripted(1, "busy", *turned_away_once(diary, 4)),
                *(scripted(n, "busy", {"log_interval": str(diary)}, {"sleep": 0.5}) for n in range(2, 7)),
            ],
        }
    )
    (throttled,) = wait_until(lambda: events_of(fleet, job_id, "provider.throttled"), "the provider has enough")
    fleet.stop("before")
    with fleet.client.app.connection_for_write() as connection:
        connection.default_channel.client.flushall()
    fleet.start_worker("after")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    closed, opened = throttled["at"], throttled["at"] + throttled["data"]["closed_seconds"]
    assert [one["began"] for one in attempts_of(fleet, job_id, "busy") if closed < one["began"] < opened] == []
    assert [at for at in starts_in(diary) if closed < at < opened] == []
    assert [row["failures"] for row in fleet.subtasks(job_id).values()] == [0] * 6


def test_the_word_of_an_agent_that_goes_on_by_itself_is_heard_while_it_does(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    both, heard, gate, diary = (tmp_path / name for name in ("both", "heard", "gate", "diary"))
    impatient: list[dict[str, Any]] = [{"throttled": 3}, {"throttled": 3.5}, {"wait_for": str(gate)}]
    job_id = fleet.submit(
        {
            "title": "Patient",
            "max_parallel_agents": 2,
            "subtasks": [
                scripted(1, "busy", {"wait_for": str(both)}, *impatient),
                scripted(2, "busy", {"log_interval": str(both)}, {"wait_for": str(heard)}),
                scripted(3, "busy", {"log_interval": str(diary)}),
            ],
        }
    )
    wait_until(lambda: len(events_of(fleet, job_id, "provider.throttled")) == 2, "both words are heard")
    heard.touch()
    words = events_of(fleet, job_id, "provider.throttled")
    assert [word["data"]["allowed"] for word in words] == [1, 1]
    wait_until(lambda: fleet.subtasks(job_id)[3]["waits_for"], "the third is held")
    opened = max(word["at"] + word["data"]["closed_seconds"] for word in words)
    wait_until(lambda: time.time() > opened + 1, "it is open again, and the first one still has the only place")
    assert fleet.subtasks(job_id)[3]["status"] == "pending"
    gate.touch()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert min(starts_in(diary)) > opened
    assert [row["attempts"] for row in fleet.subtasks(job_id).values()] == [1, 1, 1]
    assert len(events_of(fleet, job_id, "subtasks.held")) == 1, "it is not asked again and again"


def test_who_looks_is_told_what_waits_for_whom(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker("one", capabilities=["one"], SCRIPTED_API_KEY="the first key")
    fleet.start_worker("two", capabilities=["two"], SCRIPTED_API_KEY="the second key")
    steps = turned_away_once(tmp_path / "diary", 3600)
    job_id = fleet.submit(
        {
            "title": "Two keys",
            "max_parallel_agents": 2,
            "retry_failed_agents": True,
            "subtasks": [
                scripted(1, "busy", *steps, requires=["one"], estimated_duration_minutes=9),
                scripted(2, "busy", {"sleep": 1.5}, requires=["one"], estimated_duration_minutes=8),
                *(scripted(n, "busy", requires=["one"], estimated_duration_minutes=5) for n in (3, 5)),
                scripted(4, "busy", {"wait_for": str(tmp_path / "gate")}, requires=["two"]),
            ],
        }
    )
    wait_until(
        lambda: fleet.subtasks(job_id)[5]["waits_for"], "it is held with the others, though nobody has asked for it"
    )
    wait_until(lambda: fleet.subtasks(job_id)[2]["finished_at"], "what was at work has ended")
    wait_until(lambda: fleet.subtasks(job_id)[4]["status"] == "in_progress", "the other key's goes on")
    shown = json.loads(fleet.program("workers", "--json").stdout)["accounts"]
    assert sorted((one["provider"], one["model"], one["running"]) for one in shown) == [
        ("busy", "default", 0),
        ("busy", "default", 1),
    ]
    closed = next(one for one in shown if one["allowed"])
    assert (closed["allowed"], closed["waiting"]) == (1, 3)
    assert 3500 < closed["closed_seconds"] <= 3600
    assert "closed for" in fleet.program("workers").stdout

    subtasks = json.loads(fleet.program("status", job_id, "--json").stdout)["job"]["groups"][0]["subtasks"]
    waits = [subtask["waits_for"] or "" for subtask in subtasks]
    assert [words.startswith("waits for busy: closed for ") for words in waits] == [True, False, True, False, True]
    assert all(words.endswith(" more, then 1 at once") for words in waits if words)

    checks = json.loads(fleet.program("doctor", "--json").stdout)["checks"]
    (check,) = [check for check in checks if check["name"].startswith("provider ")]
    assert (check["name"], check["state"]) == ("provider busy", "warn")
    assert check["found"].endswith("3 subtasks waiting")

    told = fleet.program("report", job_id, "--json").stdout
    assert "first key" not in told
    assert cancel_job(fleet.client, job_id)
    assert fleet.wait_for_end(job_id)["status"] == "cancelled"
    assert [row["waits_for"] for row in fleet.subtasks(job_id).values()] == [None] * 5


def test_who_is_closed_out_between_claim_and_start_starts_no_agent_and_loses_no_session(
    fleet: TestFleet, tmp_path: Path
) -> None:
    points, gate, armed, first, late = (tmp_path / name for name in ("points", "gate", "armed", "first", "late"))
    points.mkdir()
    fleet.start_dispatcher()
    fleet.start_worker(ORCHESTRATOR_FAULT_POINTS_DIR=str(points))
    turned_away = {"1": [{"wait_for": str(gate)}, {"end": "rate_limited", "retry_after_seconds": 3}], "else": []}
    closing = scripted(1, "busy", {"log_interval": str(first)}, {"on_attempt": turned_away})
    closing_job = fleet.submit({"title": "Closing", "subtasks": [closing]})
    cut_off = {"1": [{"write": "half"}, {"wait_for": str(armed)}, {"end": "provider_unavailable"}], "else": []}
    steps = [{"session": "s-1"}, {"log_interval": str(late)}, {"on_attempt": cut_off}]
    repository = str(new_repository(tmp_path / "repository"))
    slow_job = fleet.submit({"title": "Slow", "repo": repository, "subtasks": [scripted(1, "busy", *steps)]})
    wait_until(lambda: first.exists() and late.exists(), "both are at work")
    (points / "after_claim_before_workspace").write_text("delay 2")
    armed.touch()
    wait_until((points / "fired").exists, "the second attempt is claimed and has not begun")
    gate.touch()
    assert fleet.wait_for_end(slow_job)["status"] == "completed"
    assert fleet.wait_for_end(closing_job)["status"] == "completed"
    (throttled,) = events_of(fleet, closing_job, "provider.throttled")
    cut_off_one, turned_back, done = attempts_of(fleet, slow_job, "busy")
    assert cut_off_one["status"] == "provider_unavailable"
    assert (turned_back["status"], turned_back["agent_started_at"]) == ("rate_limited", None)
    assert turned_back["error"] == "busy was closed before the agent had started"
    assert (done["status"], done["resumed_from"]) == ("completed", 1)
    assert starts_in(late)[1] > throttled["at"] + throttled["data"]["closed_seconds"]
    assert fleet.subtasks(slow_job)[1]["failures"] == 0
