"""Agents by name: entry points, the decorator, and a loud word for everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import agent_names
from orchestrator.agent_names import check_agent, known_agents
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings, load_settings
from workers.agents.claude_code import ClaudeCodeAgent
from workers.agents.registry import agent_class, register_agent
from workers.agents.shell import ShellAgent

THIRD_PARTY = """
from workers.agents.protocol import Agent, AgentConfig, AgentEnd, Launch
from workers.agents.registry import register_agent
from orchestrator.outcomes import Outcome

class Config(AgentConfig):
    greeting: str = "hello"

@register_agent("greeter")
class Greeter(Agent[Config]):
    name = "greeter"
    config_model = Config

    def launch(self, request):
        return Launch(["echo", self.config(request).greeting])

    def classify(self, ending, events):
        return AgentEnd(Outcome.COMPLETED if ending.exit_code == 0 else Outcome.FAILED)
"""


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_names, "_registered", {})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, as an installed package would have one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def with_modules(*modules: str) -> Settings:
    return load_settings(agent_modules=list(modules))


def install(site: Path, entry_points: str) -> None:
    metadata = site / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[orchestrator.agents]\n{entry_points}\n")


def test_the_built_in_agents_come_in_by_entry_points() -> None:
    assert {"shell", "scripted", "claude-code", "claude_code_local"} <= set(known_agents(load_settings()))
    assert agent_class("shell") is ShellAgent
    assert agent_class("claude_code_local") is ClaudeCodeAgent


def test_an_unknown_name_is_a_loud_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r'unknown agent "shel" \(did you mean "shell"\?\).*scripted, shell'):
        agent_class("shel")


def test_a_decorated_class_of_a_named_module_is_known(site: Path) -> None:
    (site / "greeters.py").write_text(THIRD_PARTY)
    assert "greeter" not in known_agents(with_modules())
    assert agent_class("greeter", with_modules("greeters")).name == "greeter"


def test_an_entry_point_of_any_package_is_known_and_loaded_only_when_asked(site: Path) -> None:
    install(site, "greeter2 = lazy_greeters:Greeter")
    entry = known_agents(with_modules())["greeter2"]
    assert "lazy_greeters" not in sys.modules
    (site / "lazy_greeters.py").write_text(THIRD_PARTY)
    assert entry.load().name == "greeter"


@pytest.mark.parametrize(
    ("entry_point", "words"),
    [("broken = no_such_module:Agent", "can't be loaded"), ("broken = json:JSONDecoder", "is no class with")],
)
def test_an_entry_point_that_leads_nowhere_is_named(site: Path, entry_point: str, words: str) -> None:
    install(site, entry_point)
    with pytest.raises(ConfigurationError, match=words):
        agent_class("broken")
    assert words in check_agent("broken", {})[0]


def test_a_module_that_can_not_be_imported_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no_such_module can't be imported"):
        known_agents(with_modules("no_such_module"))


def test_a_name_means_one_class(site: Path) -> None:
    register_agent("mine")(ShellAgent)
    register_agent("mine")(ShellAgent)
    with pytest.raises(ConfigurationError, match="claimed by"):
        register_agent("mine")(ClaudeCodeAgent)
    install(site, "mine = workers.agents.claude_code:ClaudeCodeAgent")
    with pytest.raises(ConfigurationError, match="claimed by"):
        known_agents(with_modules())


@pytest.mark.parametrize(
    ("name", "config", "faults"),
    [
        ("shell", {"command": "true"}, []),
        ("scripted", {}, []),
        ("shell", {}, ['agent shell: the key "command" is missing']),
        (
            "claude-code",
            {"modle": "x", "max_turns": 0},
            [
                "agent claude-code: max_turns: Input should be greater than or equal to 1",
                'agent claude-code: unknown key "modle" (did you mean "model"?); known keys: '
                "model, path, max_turns, max_budget_usd, allowed_tools",
            ],
        ),
        ("scripted", {"script": [{"prnt": "x"}]}, ["agent scripted: script: {'prnt': 'x'} is no step"]),
    ],
)
def test_a_configuration_is_checked_in_words(name: str, config: dict[str, object], faults: list[str]) -> None:
    found = check_agent(name, config)
    assert len(found) == len(faults)
    assert all(fault.startswith(words) for fault, words in zip(found, faults, strict=True))


def test_an_unknown_agent_is_a_fault() -> None:
    assert check_agent("shel", {})[0].startswith('unknown agent "shel" (did you mean "shell"?); known agents: ')
