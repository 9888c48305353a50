"""docker-compose.yml, built and started for real: the story of one fleet in containers, from its image to its end."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, text

from orchestrator.state.engine import create_engine
from tests.support.compose import SLOTS, ComposeProject, Unavailable, base_images, compose_program, docker_engine
from tests.support.repositories import git, new_repository, shell
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

SUBTASKS = 12
SERVICES = ("redis", "postgres", "dispatcher", "worker", "flower")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    """The fleet, up and healthy, with one worker."""
    try:
        with docker_engine():
            one = ComposeProject(tmp_path_factory.mktemp("project"), compose_program(), base_images())
            one.provide_wheels()
            one.make_secrets()
            one.build()
            try:
                one.compose("up", "--detach", "--no-build")
                yield one
            finally:
                one.down()
    except Unavailable as missing:
        pytest.skip(f"docker-compose.yml is not tried: {missing}.")


@pytest.fixture(scope="module")
def database(project: ComposeProject) -> Iterator[Engine]:
    """The containers' database, by its port on this machine."""
    secrets = project.secrets
    address = f"127.0.0.1:{secrets['POSTGRES_PORT']}/orchestrator"
    engine = create_engine(f"postgresql://orchestrator:{secrets['POSTGRES_PASSWORD']}@{address}", pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def job(project: ComposeProject, database: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job submitted from outside, whose agents have worked while the fleet grew from one worker to three, and shrank."""
    repository = new_repository(project.repositories / "library")
    if os.geteuid() == 0:  # who is not root has built an image that runs as himself
        for path in (repository, *repository.rglob("*")):
            shutil.chown(path, project.uid, project.uid)
    gate = project.repositories / "gate"
    work = f"until test -e {gate}; do sleep 0.1; done; echo work > {{0}}.txt"
    plan = {
        "title": "Shelves",
        "repo": str(repository),
        "max_parallel_agents": 3 * SLOTS,
        "subtasks": [shell(number, work.format(number)) for number in range(1, SUBTASKS + 1)],
    }
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text(yaml.safe_dump(plan))
    job_id = project.orchestrator("submit", str(file)).stdout.strip()
    wait_until(lambda: busy_workers(database, job_id), "the first worker works", timeout_seconds=120)
    project.scale_workers(3)
    wait_until(lambda: len(busy_workers(database, job_id)) == 3, "three workers work", timeout_seconds=120)
    project.scale_workers(1)
    assert len(project.containers("worker")) == 1
    gate.touch()
    project.orchestrator("watch", job_id)
    return job_id


def busy_workers(database: Engine, job_id: str) -> set[str]:
    with database.connect() as connection:
        statement = "SELECT DISTINCT worker FROM attempts WHERE job_id = :job AND finished_at IS NULL"
        return set(connection.scalars(text(statement), {"job": job_id}))


def flower(project: ComposeProject, page: str, *, password: str | None = None) -> tuple[int, Any]:
    """Status and what the page says, as JSON where it is JSON."""
    request = urllib.request.Request(f"http://127.0.0.1:{project.secrets['FLOWER_PORT']}{page}")
    if password is not None:
        login = base64.b64encode(f"orchestrator:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            body = answer.read().decode()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(body) if is_json else body
    except urllib.error.HTTPError as error:
        return error.code, None


def test_without_secrets_one_line_says_what_to_do(project: ComposeProject) -> None:
    kept = (project.folder / ".env").rename(project.folder / "kept.env")
    try:
        said = project.compose("config", check=False)
    finally:
        kept.rename(project.folder / ".env")
    assert said.returncode != 0
    assert said.stdout == ""
    (line,) = said.stderr.strip().splitlines()
    assert '"make secrets"' in line


def test_the_image_runs_as_nobody_special_and_holds_no_secret(project: ComposeProject) -> None:
    assert project.docker("image", "inspect", "--format", "{{.Config.User}}", project.image) == "orchestrator"
    described = project.docker("image", "inspect", project.image)
    described += project.docker("history", "--no-trunc", project.image)
    # What find may not read, it complains of.
    look = "id -u; find / -xdev -name .env -o -xdev -name fleet.toml 2> /dev/null || true"
    inside = project.docker("run", "--rm", "--network", "none", "--entrypoint", "sh", project.image, "-c", look)
    assert inside == str(project.uid)
    for name, value in project.secrets.items():
        assert not name.endswith("_PASSWORD") or value not in described


def test_our_processes_are_not_root(project: ComposeProject) -> None:
    for service in ("dispatcher", "worker", "flower"):
        uids = set(project.docker("top", project.container(service), "-eo", "pid,uid").split()[3::2])
        assert uids == {str(project.uid)}


def test_a_fleet_that_grows_and_shrinks_loses_nothing(project: ComposeProject, database: Engine, job: str) -> None:
    with database.connect() as connection:
        attempts = connection.execute(
            text("SELECT subtask_id, worker, status FROM attempts WHERE job_id = :job"), {"job": job}
        ).all()
        statuses = connection.scalars(text("SELECT status FROM subtasks WHERE job_id = :job"), {"job": job}).all()
        callbacks = connection.scalars(text("SELECT woken_by FROM group_runs WHERE job_id = :job"), {"job": job}).all()
    assert statuses == ["completed"] * SUBTASKS
    assert callbacks == ["callback"]
    completed = [attempt for attempt in attempts if attempt.status == "completed"]
    assert sorted(attempt.subtask_id for attempt in completed) == list(range(1, SUBTASKS + 1))
    # A worker that was asked to stop has given its work back: nothing was lost, nothing failed.
    assert {attempt.status for attempt in attempts} <= {"completed", "interrupted"}
    assert len({attempt.worker for attempt in attempts}) == 3
    interrupted = [attempt for attempt in attempts if attempt.status == "interrupted"]
    assert len(interrupted) == len(attempts) - SUBTASKS > 0
    trust = ("-c", f"safe.directory={project.repositories / 'library'}")
    names = git(project.repositories / "library", *trust, "ls-tree", "--name-only", f"orchestrator/{job}").split()
    assert set(names) >= {f"{number}.txt" for number in range(1, SUBTASKS + 1)}


def test_each_service_is_healthy_and_the_tables_were_made_once(project: ComposeProject) -> None:
    state = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    for service in SERVICES:
        container = project.container(service)
        wait_until(
            lambda: project.docker("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy",  # noqa: B023
            f"{service} is healthy",
            timeout_seconds=120,
        )
        assert project.docker("inspect", "--format", "{{.RestartCount}}", container) == "0"
    (migrate,) = project.run(
        "docker", "ps", "--all", "--quiet", "--filter", f"name={project.name}.migrate"
    ).stdout.split()
    assert project.docker("inspect", "--format", state, migrate) == "exited 0 0"
    assert project.docker("logs", migrate).count("The database is at revision") == 1


@pytest.mark.parametrize("page", ["/", "/workers", "/tasks", "/api/tasks", "/api/workers"])
def test_flower_shows_nothing_without_the_password(project: ComposeProject, page: str) -> None:
    assert flower(project, page) == (401, None)
    assert flower(project, page, password="guess") == (401, None)


def test_flower_lists_workers_and_named_tasks(project: ComposeProject, job: str) -> None:
    password = project.secrets["FLOWER_PASSWORD"]
    status, workers = flower(project, "/workers?json=1", password=password)
    assert status == 200
    names = {worker["hostname"].partition("@")[0] for worker in workers["data"]}
    assert names == {"dispatcher", "worker"}
    status, tasks = flower(project, "/api/tasks?taskname=orchestrator.run_agent", password=password)
    assert status == 200
    lines = {task["args"] for task in tasks.values()}
    assert {f"{job[:6]} · group 1 · #{number} Step {number} · shell" for number in range(1, SUBTASKS + 1)} <= lines
    assert flower(project, "/workers", password=password)[0] == 200


def test_nothing_is_published_beyond_this_machine(project: ComposeProject) -> None:
    for service in ("redis", "postgres", "flower"):
        published = project.docker("port", project.container(service)).splitlines()
        assert published
        assert all(line.split(" -> ")[1].startswith("127.0.0.1:") for line in published)


def test_redis_refuses_whoever_has_no_password_and_forgets_nothing(project: ComposeProject) -> None:
    ask = ("exec", project.container("redis"), "env", "-u", "REDISCLI_AUTH", "redis-cli", "ping")
    assert "NOAUTH" in project.docker(*ask)
    config = ("exec", project.container("redis"), "redis-cli", "config", "get")
    assert project.docker(*config, "appendonly").split()[1] == "yes"
    assert project.docker(*config, "maxmemory-policy").split()[1] == "noeviction"


def test_down_leaves_nothing(project: ComposeProject) -> None:
    assert all(project.left().values())
    project.down()
    assert project.left() == {"containers": [], "volumes": [], "networks": []}
