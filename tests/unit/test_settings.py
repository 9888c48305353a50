"""Settings that are not where the user says, or not what the user meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.cli.checks import check_settings
from orchestrator.errors import ConfigurationError
from orchestrator.settings import load_settings, misspelt_variables
from workers.lifecycle import warn_of_readable_passwords


@pytest.fixture(autouse=True)
def nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ORCHESTRATOR_")]:
        monkeypatch.delenv(name)


def test_a_named_file_that_is_missing_is_an_error_and_not_the_local_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().slots == 8, "orchestrator.toml may be missing: nobody has named it"
    for named in ("flet.toml", str(tmp_path)):
        monkeypatch.setenv("ORCHESTRATOR_CONFIG", named)
        with pytest.raises(
            ConfigurationError, match=f"no settings file {named}, which ORCHESTRATOR_CONFIG names"
        ) as caught:
            load_settings()
        assert caught.value.context == {"file": named}
        assert caught.value.recovery
    (tmp_path / "fleet.toml").write_text("slots = 3\n")
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", "fleet.toml")
    assert load_settings().slots == 3
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", "")
    assert load_settings().slots == 8, "an empty variable is as good as none"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "orchestrator.toml").write_text("slots = \n")
    with pytest.raises(ConfigurationError, match=r"orchestrator\.toml can't be read: Invalid value \(at line 1"):
        load_settings()


def test_the_doctor_names_variables_that_were_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    # What agents and containers are given is nobody's misspelling.
    for name in ("SUBTASK", "ATTEMPT_NUMBER", "PROMPT_FILE", "UID", "IMAGE", "SLOTS"):
        monkeypatch.setenv(f"ORCHESTRATOR_{name}", "4")
    assert misspelt_variables() == {}
    assert check_settings(load_settings()).state == "ok"
    monkeypatch.setenv("ORCHESTRATOR_BROKER", "redis://queue.example.org")
    monkeypatch.setenv("ORCHESTRATOR_DB_URL", "postgresql://db.example.org/x")
    check = check_settings(load_settings())
    assert check.state == "warn"
    assert check.found == (
        "no settings are ORCHESTRATOR_BROKER (did you mean ORCHESTRATOR_BROKER_URL?), "
        "ORCHESTRATOR_DB_URL (did you mean ORCHESTRATOR_DATABASE_URL?)"
    )


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, True), (0o604, True)])
def test_the_doctor_names_a_file_of_passwords_that_others_may_read(mode: int, is_told: bool, tmp_path: Path) -> None:
    file = tmp_path / "orchestrator.toml"
    file.write_text('database_url = "postgresql://me:hunter2@db/x"\n')
    file.chmod(mode)
    check = check_settings(load_settings())
    assert (check.state, f"chmod 600 {file.name}" in check.remedy) == (("warn", True) if is_told else ("ok", False))


def test_a_file_without_passwords_is_nobodys_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "orchestrator.toml").write_text('slots = 2\ndatabase_url = "postgresql:///x"\n')
    warn_of_readable_passwords()
    assert check_settings(load_settings()).state == "ok"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("account", "mode", "said"),
    [
        (1000, 0o600, "orchestrator.toml: give"),
        (1000, 0o644, "orchestrator.toml, and so can other"),
        (0, 0o600, ""),
        (0, 0o640, "so can"),
    ],
)
def test_a_worker_says_who_can_read_the_passwords_of_its_file(
    account: int,
    mode: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "orchestrator.toml"
    file.write_text('broker_url = "redis://:hunter2@queue:1/0"\n')
    file.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: account)
    warn_of_readable_passwords()
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)
    assert "hunter2" not in caplog.text
