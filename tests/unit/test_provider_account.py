"""Whose limits an agent's calls count against, from nothing but its configuration and the worker's variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.provider_account import Account, account_of, hash_of_key
from workers.agents.registry import agent_class


def plainly(key: str) -> str:
    return f"<{key}>"


def name_of(agent: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    found = account_of(agent_class(agent).providers_of(config), config.get("model"), environment, plainly)
    return found and found.name


@pytest.mark.parametrize(
    ("agent", "config", "environment", "name"),
    [
        ("claude-code", {}, {"ANTHROPIC_API_KEY": "k"}, "anthropic#<k>/default"),
        ("claude-code", {"model": "opus"}, {"CLAUDE_CODE_OAUTH_TOKEN": "t"}, "anthropic#<t>/opus"),
        ("claude-code", {}, {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_AUTH_TOKEN": "t"}, "anthropic#<t>/default"),
        ("claude-code", {}, {"ANTHROPIC_BASE_URL": "http://u:p@127.0.0.1:80/v1"}, "127.0.0.1:80#-/default"),
        ("claude-code", {}, {"ANTHROPIC_BASE_URL": "http://b\udcffx/"}, "b?x#-/default"),
        ("codex", {"model": "m" * 999}, {}, f"openai#-/{'m' * 200}"),
        ("claude-code", {}, {"ANTHROPIC_BASE_URL": "https://[oops"}, "anthropic#-/default"),
        ("codex", {"model": "gpt-x"}, {"OPENAI_API_KEY": "k"}, "openai#<k>/gpt-x"),
        (
            "codex",
            {},
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://llm.example.org/v1"},
            "llm.example.org#<k>/default",
        ),
        ("gemini", {}, {"GEMINI_API_KEY": "k"}, "gemini#<k>/default"),
        ("mini-swe-agent", {"model": "openai/gpt-x"}, {"OPENAI_API_KEY": "k"}, "openai#<k>/gpt-x"),
        ("mini-swe-agent", {"model": "openai/gpt-x"}, {"OPENAI_API_BASE": "http://[::1]:8080"}, "[::1]:8080#-/gpt-x"),
        ("opencode", {"model": "openai-compatible/m"}, {"OPENAI_BASE_URL": "http://box:1/"}, "box:1#-/m"),
        ("opencode", {"model": "mistral/large"}, {"ANTHROPIC_API_KEY": "k"}, "mistral#-/large"),
        ("aider", {"model": "sonnet"}, {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}, "anthropic#<a>/sonnet"),
        ("aider", {}, {"OPENAI_API_KEY": "o"}, "openai#<o>/default"),
        ("aider", {}, {}, "anthropic#-/default"),
        ("scripted", {"provider": "mine"}, {"SCRIPTED_API_KEY": "k"}, "mine#<k>/default"),
        ("scripted", {}, {"SCRIPTED_API_KEY": "k"}, None),
        ("shell", {"command": "true"}, {"ANTHROPIC_API_KEY": "k"}, None),
        ("no-op", {}, {}, None),
    ],
)
def test_the_account_of_an_agent(
    agent: str, config: Mapping[str, Any], environment: Mapping[str, str], name: str | None
) -> None:
    assert name_of(agent, config, environment) == name


def test_programs_that_share_a_key_and_a_model_share_an_account() -> None:
    environment = {"OPENAI_API_KEY": "k"}
    assert name_of("codex", {"model": "gpt-x"}, environment) == name_of("aider", {"model": "openai/gpt-x"}, environment)


def test_every_variable_of_a_key_is_one_that_its_agent_is_given() -> None:
    for agent in ("claude-code", "codex", "gemini", "opencode", "aider", "mini-swe-agent"):
        found = agent_class(agent)
        named = {name for one in found.providers for name in (*one.keys, *([one.address] if one.address else []))}
        assert named <= set(found.environment), agent


def test_a_hash_tells_two_keys_apart_and_two_fleets_do_not_share_it() -> None:
    one = hash_of_key("sk-one", "salt")
    assert one == hash_of_key("sk-one", "salt")
    assert len({one, hash_of_key("sk-two", "salt"), hash_of_key("sk-one", "other salt")}) == 3
    assert len(one) == 12


def test_an_account_is_read_back_from_its_name() -> None:
    account = Account("127.0.0.1:80", "0123456789ab", "meta/llama#3")
    assert Account.of_name(account.name) == account
    assert (account.words, Account("anthropic", "-", "default").words) == ("127.0.0.1:80 (meta/llama#3)", "anthropic")
