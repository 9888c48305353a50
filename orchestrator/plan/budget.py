"""Whether a plan's budget can be kept: warnings about agents whose cost nobody will know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.agent_names import AgentEntry
from orchestrator.errors import ConfigurationError
from orchestrator.plan.model import AgentSpec, Plan, PlannedGroup
from orchestrator.prices import Prices, price_of


def warnings_of_budget(
    plan: Plan, groups: Sequence[PlannedGroup], known: Mapping[str, AgentEntry | None], prices: Prices
) -> Iterator[str]:
    """One for each agent and model that counts tokens and has no price, and one if no agent of the plan ever costs
    anything that can be told. Nothing for a plan without a budget."""
    if plan.max_cost_usd is None:
        return
    agents = [subtask.agent for group in groups for subtask in group.subtasks]
    costs = [_tells_its_cost(agent, known.get(agent.name), prices) for agent in agents]
    without_price = {(agent.name, _model(agent)) for agent, tells in zip(agents, costs, strict=True) if tells is False}
    for name, model in sorted(without_price, key=str):
        if model is None:
            yield f"`max_cost_usd` counts {name} only if its model has a price, and the plan names no `model`."
        else:
            yield f"`max_cost_usd` can't count {name} with the model {model}, which has no price: see the setting `prices`."
    if all(tells is None for tells in costs):
        yield "`max_cost_usd` has no effect: none of the plan's agents tells what it costs."


def _tells_its_cost(agent: AgentSpec, entry: AgentEntry | None, prices: Prices) -> bool | None:
    """True: it does, or its tokens have a price. False: it tells tokens without a price. None: it tells nothing."""
    try:
        found: Any = entry.load() if entry else None
    except ConfigurationError:
        return True  # said elsewhere
    capabilities = getattr(found, "capabilities", None)
    if capabilities is None:
        return True  # not known here; plugins may tell it
    if capabilities.cost is not None:
        return True
    if capabilities.tokens is None:
        return None
    return price_of(_model(agent), prices) is not None


def _model(agent: AgentSpec) -> str | None:
    model = agent.config.get("model")
    return model if isinstance(model, str) else None
