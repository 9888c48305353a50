"""A distributed task queue for coding agents: the control plane, and the names that callers import.

Names are found when they are first used: importing the package imports nothing else and has no effects.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from orchestrator.agent_choice import AgentRegistry as AgentRegistry
    from orchestrator.agent_names import register_agent as register_agent
    from orchestrator.agent_plugin import AgentPlugin as AgentPlugin
    from orchestrator.client import Client as Client
    from orchestrator.coordinator import ParallelAgentCoordinator as ParallelAgentCoordinator
    from orchestrator.decomposer import AgentDecomposer as AgentDecomposer
    from orchestrator.errors import AgentException as AgentException
    from orchestrator.errors import OrchestratorException as OrchestratorException
    from orchestrator.errors import PlanError as PlanError
    from orchestrator.errors import ProposalError as ProposalError
    from orchestrator.plan.model import AgentSpec as AgentSpec
    from orchestrator.plan.model import Defaults as Defaults
    from orchestrator.plan.model import Plan as Plan
    from orchestrator.plan.model import SubTask as SubTask
    from orchestrator.settings import Settings as Settings
    from orchestrator.settings import load_settings as load_settings
    from orchestrator.state.results import JobResult as JobResult
    from orchestrator.state.results import ParallelAttempt as ParallelAttempt
    from orchestrator.state.results import SubtaskResult as SubtaskResult
    from orchestrator.state_manager import StateManager as StateManager
    from orchestrator.state_manager import Task as Task
    from orchestrator.task_execution import Orchestrator as Orchestrator

_HOME: Final = {
    "AgentDecomposer": "decomposer",
    "AgentException": "errors",
    "AgentPlugin": "agent_plugin",
    "AgentRegistry": "agent_choice",
    "AgentSpec": "plan.model",
    "Client": "client",
    "Defaults": "plan.model",
    "JobResult": "state.results",
    "Orchestrator": "task_execution",
    "OrchestratorException": "errors",
    "ParallelAgentCoordinator": "coordinator",
    "ParallelAttempt": "state.results",
    "Plan": "plan.model",
    "PlanError": "errors",
    "ProposalError": "errors",
    "Settings": "settings",
    "StateManager": "state_manager",
    "SubTask": "plan.model",
    "SubtaskResult": "state.results",
    "Task": "state_manager",
    "load_settings": "settings",
    "register_agent": "agent_names",
}
"""Each public name and the module that has it."""

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
