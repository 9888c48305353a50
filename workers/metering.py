"""What an attempt has used: the figures of its program, less those of its session before it, and a price if it told none."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.ledger import Before, Counted, Figures, spent
from orchestrator.prices import Prices, price_of
from orchestrator.state.engine import translated
from orchestrator.state.spending import reported_before
from orchestrator.state.transitions.ends import AttemptEnd
from workers.agents.protocol import AgentRequest, Capabilities
from workers.attempt import Attempt


def spent_before(attempt: Attempt, request: AgentRequest) -> Before:
    """What the session that the agent is to go on with has used. Asked before it begins: once it has, an outage of the
    database must not cost its figures. Raises `DatabaseUnavailable`."""
    capabilities = attempt.agent.capabilities
    if request.session_id is None or Counted.PER_SESSION not in (capabilities.tokens, capabilities.cost):
        return Before()
    claim = attempt.claim
    with translated(), attempt.runner.fleet.engine.connect() as connection:
        return reported_before(connection, claim.job_id, claim.subtask_id, request.session_id)


def metered(attempt: Attempt, end: AttemptEnd, before: Before) -> AttemptEnd:
    """`end` with the figures of this attempt alone. Its log says so where their price is not known."""
    planned = attempt.subtask.agent.config.get("model")
    end = of_this_attempt(
        end,
        attempt.agent.capabilities,
        before=before,
        planned_model=planned if isinstance(planned, str) else None,
        own_prices=attempt.runner.settings.prices,
    )
    if end.cost_unknown and end.usage:
        attempt.log_line("note", _without_price(end.model))
    return end


def of_this_attempt(
    end: AttemptEnd, capabilities: Capabilities, *, before: Before, planned_model: str | None, own_prices: Prices
) -> AttemptEnd:
    """`end`, whose figures are still those that the program reported, with those of this attempt alone: pure.

    `planned_model` is what the plan names, for a program that does not say which model it used.
    """
    reported = Figures(end.usage or None, end.cost_usd)
    used = spent(reported, before, tokens=capabilities.tokens, cost=capabilities.cost)
    model = end.model or planned_model
    price = price_of(model, own_prices) if used.cost_usd is None and used.usage else None
    cost_usd = price.of(used.usage) if price and used.usage else used.cost_usd
    tells = capabilities.tokens is not None or capabilities.cost is not None or used.usage is not None
    has_run = end.agent_started_at is not None
    return replace(
        end,
        model=model if tells else None,
        usage=used.usage or {},
        cost_usd=cost_usd,
        cost_estimated=price is not None and bool(cost_usd),
        cost_unknown=tells and has_run and cost_usd is None,
        reported_usage=reported.usage,
        reported_cost_usd=reported.cost_usd,
    )


def _without_price(model: str | None) -> str:
    if model is None:
        return "Neither the program nor the plan names the model, so what its tokens cost is not known."
    return (
        f"The model {model} has no known price, so what its tokens cost is not known: "
        f'[prices."{model}"] in orchestrator.toml gives it one.'
    )
