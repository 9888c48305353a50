"""From what a program reported to what its attempt has used and cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.ledger import Before, Counted, Figures
from orchestrator.outcomes import Outcome
from orchestrator.prices import Price
from orchestrator.state.transitions.ends import AttemptEnd
from workers.agents.protocol import Capabilities
from workers.metering import of_this_attempt

CLAUDE = Capabilities(tokens=Counted.PER_RUN, cost=Counted.PER_SESSION)
CODEX = Capabilities(tokens=Counted.PER_SESSION)
HAS_RUN = AttemptEnd(Outcome.COMPLETED, agent_started_at=datetime.now(UTC))
USAGE = {"input_tokens": 1000, "output_tokens": 100}
OWN = {"mine": Price(input=1, output=10)}


def metered(end: AttemptEnd, capabilities: Capabilities, before: Before = Before(), **more: Any) -> AttemptEnd:  # noqa: B008
    return of_this_attempt(end, capabilities, **{"before": before, "planned_model": None, "own_prices": OWN, **more})


def test_what_a_program_tells_of_its_only_run_stands() -> None:
    end = metered(replace(HAS_RUN, usage=USAGE, cost_usd=0.5, model="any"), CLAUDE)
    assert (end.usage, end.cost_usd, end.cost_estimated, end.cost_unknown) == (USAGE, 0.5, False, False)
    assert (end.reported_usage, end.reported_cost_usd, end.model) == (USAGE, 0.5, "any")


def test_of_a_resumed_session_only_the_rest_is_this_attempts() -> None:
    before = Before(Figures({"input_tokens": 400, "output_tokens": 40}, 0.2))
    of_claude = metered(replace(HAS_RUN, usage=USAGE, cost_usd=0.5), CLAUDE, before)
    assert (of_claude.usage, of_claude.cost_usd, of_claude.reported_cost_usd) == (USAGE, 0.3, 0.5)
    of_codex = metered(replace(HAS_RUN, usage=USAGE, model="mine"), CODEX, before)
    assert (of_codex.usage, of_codex.reported_usage) == ({"input_tokens": 600, "output_tokens": 60}, USAGE)
    assert (of_codex.cost_usd, of_codex.cost_estimated) == (0.0012, True), "the price of its own tokens"


def test_tokens_without_a_cost_have_their_price() -> None:
    named_by_plan = metered(replace(HAS_RUN, usage=USAGE), CODEX, planned_model="mine")
    assert (named_by_plan.cost_usd, named_by_plan.cost_estimated, named_by_plan.model) == (0.002, True, "mine")
    killed = metered(replace(HAS_RUN, usage=USAGE, model="mine"), CLAUDE)
    assert (killed.cost_usd, killed.cost_estimated, killed.reported_cost_usd) == (0.002, True, None)


def test_a_model_without_a_price_is_not_guessed() -> None:
    end = metered(replace(HAS_RUN, usage=USAGE, model="nobody-knows"), CODEX)
    assert (end.cost_usd, end.cost_estimated, end.cost_unknown, end.usage) == (None, False, True, USAGE)


def test_no_tokens_cost_nothing_and_are_no_estimate() -> None:
    end = metered(replace(HAS_RUN, usage={"input_tokens": 0}, model="mine"), CODEX)
    assert (end.cost_usd, end.cost_estimated, end.cost_unknown) == (0.0, False, False)


def test_an_agent_that_has_run_in_silence_may_have_cost_something() -> None:
    assert metered(HAS_RUN, CODEX).cost_unknown
    assert not metered(replace(HAS_RUN, agent_started_at=None), CODEX).cost_unknown, "it never began"
    assert not metered(HAS_RUN, Capabilities()).cost_unknown, "a shell command has no cost to tell"
    assert metered(replace(HAS_RUN, model="m"), Capabilities()).model is None
