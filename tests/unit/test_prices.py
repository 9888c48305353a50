"""The list prices, and what is laid over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.prices import Price, list_prices, price_of
from orchestrator.settings import load_settings
from tests.support.model_server.protocol import CACHED, OUTPUT, UNCACHED

OWN = Price(input=1, output=2, cache_read=0.5, cache_write=4)


def test_tokens_of_each_kind_have_their_price() -> None:
    usage = {
        "input_tokens": 1_000_000,
        "output_tokens": 500_000,
        "cache_read_tokens": 200_000,
        "cache_write_tokens": 100_000,
    }
    assert OWN.of(usage) == pytest.approx(1 + 1 + 0.1 + 0.4)
    assert OWN.of({"reasoning_tokens": 5}) == 0


def test_the_list_says_what_claude_code_itself_has_counted() -> None:
    """Recorded of claude 2.1.330: two calls, $0.01032."""
    usage = {"input_tokens": 2000, "output_tokens": 100, "cache_read_tokens": 600, "cache_write_tokens": 40}
    price = price_of("claude-opus-5-5", {})
    assert price is not None
    assert price.of(usage) == pytest.approx(0.01032)
    assert (UNCACHED, OUTPUT, CACHED) == (1000, 50, 300)  # what a call of the scripted model takes


@pytest.mark.parametrize(
    "name",
    ["gpt-5.2", "openai/gpt-5.2", "gpt-5.2-2026-01-15", "router/openai/gpt-5.2-latest"],
)
def test_a_model_is_known_by_its_providers_name_and_date_as_well(name: str) -> None:
    assert price_of(name, {}) == list_prices()["gpt-5.2"]


def test_a_model_of_another_name_has_no_price() -> None:
    assert price_of("gpt-5.2-huge", {}) is None
    assert price_of("", {}) is None
    assert price_of(None, {}) is None


def test_the_users_own_price_comes_first() -> None:
    assert price_of("gpt-5.2", {"gpt-5.2": OWN}) == OWN
    assert price_of("openai/gpt-5.2", {"openai/gpt-5.2": OWN}) == OWN
    assert price_of("openai/mine", {"mine": OWN}) == OWN


def test_own_prices_stand_in_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATOR_CONFIG", raising=False)
    (tmp_path / "orchestrator.toml").write_text(
        '[prices."my.model"]\ninput = 1\noutput = 2\ncache_read = 0.5\ncache_write = 4\n'
    )
    assert load_settings().prices == {"my.model": OWN}
    monkeypatch.setenv("ORCHESTRATOR_PRICES", '{"my.model": {"input": 9, "output": 9}}')
    assert load_settings().prices["my.model"].input == 9


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("input = 1", "prices.m.output: Field required"),
        ("input = -1\noutput = 1", "prices.m.input: Input should be greater than or equal to 0"),
        ("input = 1\noutput = 1\ncached = 1", "there is no setting prices.m.cached"),
    ],
)
def test_a_wrong_price_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATOR_CONFIG", raising=False)
    (tmp_path / "orchestrator.toml").write_text(f"[prices.m]\n{line}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert words in caught.value.message
