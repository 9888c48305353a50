"""docker-compose.yml, deploy/ and `make secrets`, as far as they can be judged without an engine."""

from __future__ import annotations

import configparser
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.settings import Settings, load_settings
from tests.support.command_line import ROOT_OF_THE_PROJECT
from tests.support.compose import COMPOSE_FILE, default_images

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
OURS = ("migrate", "dispatcher", "worker", "flower")
SETTING = re.compile(r"\$\{(\w+)(:[-?])([^}]*)\}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "deploy").mkdir()
    shutil.copy2(ROOT_OF_THE_PROJECT / "deploy" / "make-secrets", tmp_path / "deploy")
    return tmp_path


def make_secrets(project: Path, **variables: str) -> dict[str, str]:
    subprocess.run([project / "deploy" / "make-secrets"], env={"PATH": "/usr/bin:/bin", **variables}, check=True)
    return dict(line.split("=", 1) for line in (project / ".env").read_text().splitlines())


def default_of(setting: str) -> str:
    match = SETTING.fullmatch(setting)
    assert match, setting
    assert match[2] == ":-"
    return match[3]


def test_no_password_has_a_default() -> None:
    passwords = [match for match in SETTING.finditer(COMPOSE_FILE.read_text()) if match[1].endswith("_PASSWORD")]
    assert {match[1] for match in passwords} == {"REDIS_PASSWORD", "POSTGRES_PASSWORD", "FLOWER_PASSWORD"}
    assert all(match[2] == ":?" and "make secrets" in match[3] for match in passwords)


def test_every_service_that_stays_says_how_it_is() -> None:
    for name, service in SERVICES.items():
        # A service that ends has an exit code, for which the others wait.
        assert ("healthcheck" in service) == (name != "migrate"), name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
    waits = {name: condition["condition"] for name, condition in SERVICES["worker"]["depends_on"].items()}
    assert waits == {
        "redis": "service_healthy",
        "postgres": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_our_processes_have_no_privileges() -> None:
    for name in OURS:
        assert SERVICES[name]["init"] is False, "its process 1 would have our variables, open to agents"
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    last_stage = (ROOT_OF_THE_PROJECT / "deploy" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last_stage, re.MULTILINE) == ["orchestrator"]


def test_ports_are_published_on_this_machine_only() -> None:
    published = {port for service in SERVICES.values() for port in service.get("ports", ())}
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_a_worker_gets_the_time_that_its_end_takes() -> None:
    worker = SERVICES["worker"]
    drain = float(default_of(worker["environment"]["ORCHESTRATOR_DRAIN_SECONDS"]))
    stop = float(default_of(worker["stop_grace_period"]).removesuffix("s"))
    kill_grace = Settings.model_fields["kill_grace_seconds"].default
    assert stop >= drain + kill_grace + 15


def test_images_are_named_with_their_version() -> None:
    assert set(default_images()) == {"PYTHON_IMAGE", "REDIS_IMAGE", "POSTGRES_IMAGE"}
    assert all(re.fullmatch(r"[a-z]+:\d[\w.-]+", image) for image in default_images().values())
    dockerfile = (ROOT_OF_THE_PROJECT / "deploy" / "Dockerfile").read_text()
    assert f"ARG PYTHON_IMAGE={default_images()['PYTHON_IMAGE']}\n" in dockerfile


def test_only_what_is_needed_reaches_the_engine() -> None:
    lines = [
        line
        for line in (ROOT_OF_THE_PROJECT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    assert not [line for line in lines if line.startswith("!") and ("env" in line or "toml" in line.rpartition("/")[1])]


@pytest.mark.parametrize(
    "path", [".env", "deploy/fleet.toml", "deploy/wheels/a-1-py3-none-any.whl", "docker-compose.override.yml"]
)
def test_what_belongs_to_one_machine_is_not_committed(path: str) -> None:
    done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT_OF_THE_PROJECT, check=False)
    assert done.returncode == 0


def test_secrets_are_drawn_for_nobody_else_to_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = make_secrets(project, REDIS_PORT="7000")
    for file in (".env", "deploy/fleet.toml"):
        assert stat.S_IMODE((project / file).stat().st_mode) == 0o600
    passwords = [value for name, value in drawn.items() if name.endswith("_PASSWORD")]
    assert len(set(passwords)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    for name in ("ORCHESTRATOR_BROKER_URL", "ORCHESTRATOR_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", str(project / "deploy" / "fleet.toml"))
    settings = load_settings()
    assert settings.broker_url == f"redis://:{drawn['REDIS_PASSWORD']}@127.0.0.1:7000/0"
    assert settings.database_url == (
        f"postgresql://orchestrator:{drawn['POSTGRES_PASSWORD']}@127.0.0.1:5432/orchestrator"
    )


def test_secrets_that_are_there_stay(project: Path) -> None:
    make_secrets(project)
    before = {file: (project / file).read_text() for file in (".env", "deploy/fleet.toml")}
    make_secrets(project, REDIS_PORT="7000")
    assert {file: (project / file).read_text() for file in before} == before


def test_a_secret_that_is_missing_is_added(project: Path) -> None:
    (project / ".env").write_text("REDIS_PASSWORD=mine\nFLOWER_PASSWORD=\nANTHROPIC_API_KEY=key")
    drawn = make_secrets(project)
    assert (drawn["REDIS_PASSWORD"], drawn["ANTHROPIC_API_KEY"]) == ("mine", "key")
    assert drawn["FLOWER_PASSWORD"]
    assert drawn["POSTGRES_PASSWORD"]
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600


def test_the_unit_gives_a_worker_what_only_root_can_read() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT_OF_THE_PROJECT / "deploy" / "orchestrator-worker.service")
    service = unit["Service"]
    assert service["User"] not in {"", "root"}
    assert service["EnvironmentFile"].startswith("/etc/")
    said = dict(word.split("=", 1) for word in service["Environment"].split())
    assert {name.removeprefix("ORCHESTRATOR_").lower() for name in said} <= {"state_dir", "log_format"}
    fields = Settings.model_fields
    assert (
        float(service["TimeoutStopSec"]) >= fields["drain_seconds"].default + fields["kill_grace_seconds"].default + 15
    )
    assert "URL" not in str(dict(service))
