"""A plan that an agent proposes: what it may say, and how its answer becomes a plan that keeps every rule, or faults.

The answer comes from outside. What decides about power or money is not the proposal's to say: which repository, which agent
with what permissions and limits, how often and for how long. Checks it may propose: they are commands, and whoever takes the
plan reads them first.

Mended without asking: a testing subtask that is not alone, and subtasks of a group that mean to touch the same files, get
groups of their own; groups are numbered from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.agent_names import AgentEntry
from orchestrator.errors import Fault, PlanError
from orchestrator.ledger import NOTHING_TOLD, Spending
from orchestrator.plan.advice import overlaps_of
from orchestrator.plan.answer import find_object
from orchestrator.plan.faults import Path, field_in_words, one_line
from orchestrator.plan.grouping import arrange
from orchestrator.plan.model import AgentSpec, Plan, ValidatedPlan
from orchestrator.plan.resolve import plan_group
from orchestrator.plan.schema import plan_schema
from orchestrator.plan.testing_apart import with_testing_apart
from orchestrator.plan.validate import validate_plan
from orchestrator.plan.values import MAX_DURATION_SECONDS

SOURCE: Final = "the proposal"
OF_THE_PLAN: Final = ("title", "group_checks", "subtasks")
OF_A_SUBTASK: Final = (
    "subtask_id",
    "title",
    "description",
    "kind",
    "parallel_group",
    "depends_on",
    "files",
    "estimated_complexity",
    "estimated_duration_minutes",
    "check",
)
CHECKS: Final = frozenset({"group_checks", "check"})
SHORTEST_TIMEOUT_SECONDS: Final = 600.0
ESTIMATES_ARE_EXCEEDED: Final = 3
"""An attempt may take so many times as long as the longest estimate."""


@dataclass(frozen=True)
class Terms:
    """What whoever asks for a plan decides: the goal, and who works at it, where and how many at once. `with_checks`: may the
    proposal name commands?"""

    goal: str
    agent: AgentSpec
    repo: str | None = None
    base: str | None = None
    max_parallel_agents: int = 5
    with_checks: bool = True

    @property
    def words_of_plan(self) -> tuple[str, ...]:
        """The keys that the proposal may use."""
        return OF_THE_PLAN if self.with_checks else tuple(key for key in OF_THE_PLAN if key not in CHECKS)

    @property
    def words_of_subtask(self) -> tuple[str, ...]:
        return OF_A_SUBTASK if self.with_checks else tuple(key for key in OF_A_SUBTASK if key not in CHECKS)


@dataclass(frozen=True)
class Proposal:
    """A plan that keeps every rule, and in sentences what was mended in the answer. `spent` is the sum over `job_ids`, the
    jobs in which the agent was asked."""

    plan: ValidatedPlan
    notes: tuple[str, ...] = ()
    job_ids: tuple[str, ...] = ()
    spent: Spending = NOTHING_TOLD


@dataclass(frozen=True)
class Rejected:
    """An answer that is no plan. `faults` are all that were found."""

    answer: str
    faults: tuple[Fault, ...]


def proposal_schema(terms: Terms) -> dict[str, Any]:
    """Of the plan's JSON Schema the part that a proposal may use."""
    schema = plan_schema()
    properties = _described(schema["properties"], terms.words_of_plan)
    properties["subtasks"]["items"] = {
        "type": "object",
        "properties": _described(schema["$defs"]["SubTask"]["properties"], terms.words_of_subtask),
        "required": ["subtask_id", "title", "description", "parallel_group"],
        "additionalProperties": False,
    }
    required = ["title", "subtasks"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _described(properties: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: {word: value for word, value in properties[key].items() if word != "default"} for key in keys}


def check_terms(terms: Terms, known_agents: Mapping[str, AgentEntry]) -> None:
    """Raise `PlanError` for terms that no plan could have: else the agent would be told of faults that are not its own."""
    any_subtask = {"subtask_id": 1, "title": "any"}
    _validated(
        {"title": "any", "subtasks": [any_subtask]}, terms, known_agents, source="what the plan is asked for with"
    )


def read_proposal(answer: str, terms: Terms, known_agents: Mapping[str, AgentEntry]) -> Proposal | Rejected:
    """The plan that an agent's last words propose. Never raises for what they are."""
    found = find_object(answer)
    if isinstance(found, Fault):
        return Rejected(answer, (found,))
    words, faults = _allowed(found, terms)
    notes: list[str] = []
    try:
        validated = _validated(words, terms, known_agents)
    except PlanError as error:
        # What is said of the groups is said of those that the agent wrote: it would not know the mended ones again.
        apart, notes = with_testing_apart(words)
        try:
            validated = _validated(apart, terms, known_agents)
        except PlanError:
            return Rejected(answer, (*faults, *error.faults))
    if faults:
        return Rejected(answer, tuple(faults))
    overlaps = [overlap for group in validated.groups for overlap in overlaps_of(group)]
    notes += [f"{overlap[0].upper()}{overlap[1:]}: they have groups of their own." for overlap in overlaps]
    return Proposal(_settled(validated, known_agents), tuple(notes))


def _allowed(proposed: Mapping[str, Any], terms: Terms) -> tuple[dict[str, Any], list[Fault]]:
    """What the proposal says in words that are its own, and a fault for each other one."""
    kept, faults = _only(terms.words_of_plan, proposed, ())
    if isinstance(kept.get("subtasks"), list):
        subtasks = []
        for position, subtask in enumerate(kept["subtasks"]):
            if isinstance(subtask, dict):
                own, more = _only((*terms.words_of_subtask, "dependencies"), subtask, ("subtasks", position))
                faults += more
            subtasks.append(own if isinstance(subtask, dict) else subtask)
        kept["subtasks"] = subtasks
    return kept, faults


def _only(keys: Sequence[str], words: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], list[Fault]]:
    hint = f"Leave it out: the keys here are {', '.join(keys)}."
    faults = [
        Fault(
            one_line(f"`{key[:80]}` is not the proposal's to say."), one_line(field_in_words((*path, key))), hint=hint
        )
        for key in words
        if key not in keys
    ]
    return {key: value for key, value in words.items() if key in keys}, faults


def _validated(
    proposed: Mapping[str, Any], terms: Terms, known_agents: Mapping[str, AgentEntry], *, source: str = SOURCE
) -> ValidatedPlan:
    decided = {
        "repo": terms.repo,
        "base": terms.base,
        "goal": terms.goal,
        "max_parallel_agents": terms.max_parallel_agents,
        "defaults": {"agent": terms.agent.model_dump(mode="json", exclude_defaults=True)},
    }
    words = {**proposed, **{key: value for key, value in decided.items() if value is not None}}
    return validate_plan(words, known_agents=known_agents, source=source)


def _settled(validated: ValidatedPlan, known_agents: Mapping[str, AgentEntry]) -> ValidatedPlan:
    """The same plan with every group written down, in which no two subtasks of a group mean to touch the same files."""
    plan = validated.plan
    arranged = list(enumerate(arrange(plan.subtasks, "file_based"), start=1))
    checks = {number: check for number, group in arranged if (check := plan_group(plan, group).check) is not None}
    settled = {
        "subtasks": [
            subtask.model_copy(update={"parallel_group": number})
            for number, group in arranged
            for subtask in group.subtasks
        ],
        "defaults": plan.defaults.model_copy(update={"timeout_seconds": _timeout_seconds(plan)}),
    }
    if isinstance(plan.group_checks, dict):
        settled["group_checks"] = checks or None
    return validate_plan(plan.model_copy(update=settled), known_agents=known_agents, source=SOURCE)


def _timeout_seconds(plan: Plan) -> float:
    longest = 60 * max(subtask.estimated_duration_minutes for subtask in plan.subtasks)
    return min(max(float(round(longest)) * ESTIMATES_ARE_EXCEEDED, SHORTEST_TIMEOUT_SECONDS), MAX_DURATION_SECONDS)
