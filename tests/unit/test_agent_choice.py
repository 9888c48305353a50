"""What a caller in Python says of an agent, and what of that travels to the workers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import AgentPlugin, AgentRegistry, AgentSpec, Client, agent_names, register_agent
from orchestrator.agent_choice import choose_agent, program_of, require_program
from orchestrator.agent_names import known_agents
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings, load_settings
from tests.support.repositories import new_repository


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_names, "_registered", {})


@pytest.fixture
def settings() -> Settings:
    """Workers know this test's classes: their module is named."""
    return load_settings(agent_modules=["tests.unit_of_agent_choice"])


@pytest.fixture
def known_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tests.unit_of_agent_choice", sys.modules[__name__])


class House(AgentPlugin):
    cleaned: list[str] = []  # noqa: RUF012 - what the tests look at

    def send_prompt(self, prompt: str, context: Any = None) -> str:
        return prompt

    def cleanup(self) -> None:
        self.cleaned.append("cleaned")


class Forgetful(House):
    def initialize(self, config: Any) -> None:
        self.url = config["url"]


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, orchestrator; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {name for name in said.split() if name.startswith(("orchestrator", "workers"))} == {"orchestrator"}
    assert {"pydantic", "celery", "sqlalchemy"}.isdisjoint(said.split())


def test_every_public_name_is_there() -> None:
    for name in orchestrator.__all__:
        assert getattr(orchestrator, name).__name__ == name or name == "AgentRegistry"
    assert set(orchestrator.__all__) <= set(dir(orchestrator))
    with pytest.raises(AttributeError, match="Cordinator"):
        orchestrator.Cordinator  # noqa: B018


def test_the_original_coordinators_words_become_ours(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    agent = AgentRegistry.get("claude_code_local")()
    agent.initialize(
        {"workspace_path": str(repository), "timeout": 300, "headless": True, "dangerous": True, "model": "sonnet"}
    )
    assert (agent.name, agent.repo, agent.timeout_seconds) == ("claude_code_local", str(repository), 300.0)
    assert (agent.config, agent.permissions) == ({"model": "sonnet"}, "full")


def test_what_is_not_dangerous_stays_so() -> None:
    agent = AgentRegistry.get("claude_code_local")()
    agent.initialize({"dangerous": False})
    assert agent.config == {}


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("claude-code", {"workspace_path": "/nowhere/at/all"}, "is no git repository"),
        ("claude-code", {"headless": False}, "terminal"),
        ("claude-code", {"timeout": -1}, "no number of seconds"),
        ("claude-code", {"timeout": "soon"}, "no number of seconds"),
        ("claude-code", {"modell": "sonnet"}, "modell"),
        ("shell", {"command": "true", "dangerous": True}, "dangerous"),
        ("shell", {}, "command"),
    ],
)
def test_what_can_not_be_meant_is_refused_at_once(name: str, config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        AgentRegistry.get(name)().initialize(config)


def test_an_unknown_agent_is_loud_and_there_is_no_stand_in() -> None:
    with pytest.raises(ConfigurationError, match=r"claude-cod.*did you mean") as caught:
        AgentRegistry.get("claude-cod")
    assert "claude-code" in caught.value.context["known"]
    assert caught.value.recovery


def test_a_missing_program_is_loud(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="needs the program claude"):
        require_program(AgentSpec(name="claude-code"), load_settings())
    with pytest.raises(ConfigurationError, match="/opt/claude"):
        require_program(AgentSpec(name="claude-code", config={"path": "/opt/claude"}), load_settings())
    require_program(AgentSpec(name="scripted"), load_settings())


@pytest.mark.usefixtures("known_module")
def test_a_plugins_own_key_path_is_no_program(settings: Settings) -> None:
    register_agent("house")(House)
    spec = AgentSpec(name="house", config={"path": "/nowhere"})
    assert program_of(spec, known_agents(settings)["house"]) is None


def test_a_factory_is_called_once() -> None:
    made = []

    def factory() -> Any:
        made.append(AgentRegistry.get("shell")())
        made[-1].initialize({"command": "true"})
        return made[-1]

    assert choose_agent(factory, load_settings()) is made[0]
    assert len(made) == 1


def test_a_name_is_a_factory_too() -> None:
    assert choose_agent("claude-code", load_settings()).name == "claude-code"
    spec = AgentSpec(name="shell", config={"command": "make"})
    assert choose_agent(spec, load_settings()).config == {"command": "make"}


def test_a_factory_that_returns_no_agent_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="returned dict"):
        choose_agent(lambda: {}, load_settings())  # type: ignore[arg-type,return-value]


@pytest.mark.usefixtures("known_module")
def test_a_plugin_made_here_travels_as_its_name_and_configuration_and_is_cleaned_up(settings: Settings) -> None:
    register_agent("house")(House)
    House.cleaned.clear()

    def factory() -> House:
        made = House()
        made.initialize({"url": "http://model", "timeout": 5, "headless": True})
        return made

    agent = choose_agent(factory, settings)
    assert (agent.name, agent.timeout_seconds, agent.is_plugin) == ("house", 5.0, True)
    assert agent.config == {"url": "http://model", "timeout": 5, "headless": True}
    assert House.cleaned == ["cleaned"]
    assert choose_agent(House, settings).config == {}


@pytest.mark.usefixtures("known_module")
def test_a_plugin_that_forgets_its_configuration_never_runs_with_an_empty_one(settings: Settings) -> None:
    register_agent("forgetful")(Forgetful)
    House.cleaned.clear()

    def factory() -> Forgetful:
        made = Forgetful()
        made.initialize({"url": "http://model"})
        return made

    with pytest.raises(ConfigurationError, match="does not remember"):
        choose_agent(factory, settings)
    assert House.cleaned == ["cleaned"]


def test_a_plugin_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="registered under no name"):
        choose_agent(House, load_settings())


def test_a_class_that_workers_can_not_import_is_refused() -> None:
    register_agent("house")(House)
    with pytest.raises(ConfigurationError, match="ORCHESTRATOR_AGENT_MODULES"):
        choose_agent("house", load_settings())


@pytest.mark.usefixtures("known_module")
def test_a_local_class_is_refused_whatever_modules_are_named(settings: Settings) -> None:
    class Local(House):
        pass

    register_agent("local")(Local)
    with pytest.raises(ConfigurationError, match="in this process only"):
        choose_agent("local", settings)


def test_a_configuration_that_is_not_json_can_not_travel() -> None:
    register_agent("house")(House)
    with pytest.raises(ConfigurationError, match="JSON"):
        AgentRegistry.get("house")().initialize({"client": object()})


@pytest.mark.parametrize("version", ["1.9.4", "2.1.0"])
def test_a_program_that_is_too_old_is_loud(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "claude"
    stand_in.write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    says = (
        nullcontext()
        if version == "2.1.0"
        else pytest.raises(ConfigurationError, match=r"1\.9\.4: version 2\.1 or newer")
    )
    with says:
        require_program(AgentSpec(name="claude-code"), load_settings())


def test_a_client_without_a_fleet_starts_nothing_for_a_program_that_is_missing() -> None:
    plan = {
        "title": "x",
        "subtasks": [{"subtask_id": 1, "title": "x", "agent": {"name": "codex", "path": "/no/codex"}}],
    }
    with pytest.raises(ConfigurationError, match="needs the program /no/codex"):
        asyncio.run(Client(load_settings()).submit(plan))
