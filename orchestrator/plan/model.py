"""The plan's words as types: what a user writes, and what is stored once the defaults are filled in.

`Plan`, `Defaults`, `SubTask`, `Limits` and `AgentSpec` are what a user writes, in Python or as YAML and JSON. In a
document a duration is called `timeout`, the attribute that holds it `timeout_seconds`; Python takes both words.
`ResolvedSubtask`, `PlannedGroup` and `ValidatedPlan` are what validation makes of it (`orchestrator.plan.validate`).

The models check each value alone and raise pydantic's `ValidationError`; what values mean together (cycles, groups,
agents that nobody knows) is checked by `orchestrator.plan.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from orchestrator.plan.values import (
    MAX_SUBTASKS,
    AgentConfig,
    Capability,
    Duration,
    FilePath,
    GroupNumber,
    Id,
    Name,
    NonEmptyText,
    Number,
    Size,
    Text,
    Title,
    Whole,
)

Kind = Literal["work", "testing"]
Permissions = Literal["read-only", "edit", "full"]
Strategy = Literal["parallel_groups", "dependencies", "file_based"]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )


class _AsWritten(_Model):
    """A part of a plan in which leaving a key out means something else than writing its default.

    Its JSON form holds what was written and no more, so that it means the same when it is read again.
    """

    @model_serializer(mode="wrap")
    def _only_what_was_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        written = {word for name in self.model_fields_set for word in (name, fields[name].alias)}
        return {key: value for key, value in handler(self).items() if key in written}


class AgentSpec(_Model):
    """Which agent works, and its configuration. A plan may write the name alone."""

    name: Name = Field(description="a registered agent's name")
    config: AgentConfig = Field(
        default_factory=dict,
        description="what the agent is told: every key beside `name`, or a mapping under `config`",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name_or_mapping(cls, written: Any) -> Any:
        if isinstance(written, str):
            return {"name": written}
        if isinstance(written, Mapping) and "config" not in written:
            config = {key: value for key, value in written.items() if key != "name"}
            return {key: written[key] for key in ("name",) if key in written} | {"config": config}
        return written


class Limits(_AsWritten):
    """What one attempt may use, its whole process tree together. `null` is no limit."""

    memory_bytes: Size | None = Field(4 * 2**30, alias="memory", description="memory of the process tree")
    cpu_seconds: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="processor seconds of the process tree"
    )
    processes: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        512, description="processes and threads alive at once"
    )


class Quorum(_Model):
    """The next group starts once that many subtasks of the group have completed, or all of a smaller group."""

    quorum: Annotated[Whole, Field(ge=1, le=MAX_SUBTASKS)] = Field(description="completed subtasks that are enough")


class Defaults(_AsWritten):
    """What holds for each subtask that does not say otherwise."""

    agent: AgentSpec = Field(AgentSpec(name="claude-code"), description="who works")
    timeout_seconds: Duration | None = Field(
        600.0, alias="timeout", description="deadline of one attempt; `null` is no limit"
    )
    idle_timeout_seconds: Duration | None = Field(
        300.0, alias="idle_timeout", description="how long an attempt may print nothing; `null` is no limit"
    )
    max_retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        2, description="attempts after the first, when an attempt fails by the agent's doing"
    )
    check: NonEmptyText | None = Field(
        None, description="shell command run in the workspace after the agent; red fails the attempt"
    )
    expect_changes: bool | None = Field(
        None,
        description="whether an attempt that changes no file has failed; `null`: yes for agent programs on a "
        "repository, no for `shell`, `scripted` and testing subtasks",
    )
    permissions: Permissions = Field(
        "edit",
        description="the most that the agent's program may do: `read-only`; `edit`: change files of the workspace; "
        "`full`: run any command",
    )
    requires: list[Capability] = Field(
        default_factory=list, description="capabilities that a worker must offer to run it"
    )
    limits: Limits = Field(default_factory=Limits, description="what one attempt may use")


class SubTask(_AsWritten):
    """One unit of agent work. Each key of `defaults` can be written here too and then holds for this subtask."""

    subtask_id: Id = Field(description="unique in the plan")
    parent_task_id: Whole | None = Field(None, description="the caller's own number for the whole; not used")
    title: Title = Field(description="one line")
    description: Text = Field("", description="what to do, for the agent")
    kind: Kind | None = Field(
        None,
        description="a `testing` subtask is alone in its group; left out: testing if the title has the whole word "
        "test, tests or testing",
    )
    parallel_group: Id | None = Field(
        None, description="groups run in ascending order; left out: alone, placed by its dependencies"
    )
    depends_on: list[Id] = Field(
        default_factory=list, description="ids of subtasks in earlier groups; also spelled `dependencies`"
    )
    files: list[FilePath] = Field(
        default_factory=list, description="paths or folders that it means to touch, relative to the repository's root"
    )
    estimated_complexity: Annotated[Number, Field(ge=0, le=100)] = Field(0.0, description="how hard, from 0 to 100")
    estimated_duration_minutes: Annotated[Number, Field(ge=0, le=1_000_000)] = Field(
        0.0, description="the longest subtask of a group starts first"
    )

    agent: AgentSpec | None = Field(None, description="who works")
    timeout_seconds: Duration | None = Field(None, alias="timeout", description="deadline of one attempt")
    idle_timeout_seconds: Duration | None = Field(
        None, alias="idle_timeout", description="how long an attempt may print nothing"
    )
    max_retries: Annotated[Whole, Field(ge=0, le=100)] | None = Field(None, description="attempts after the first")
    check: NonEmptyText | None = Field(None, description="shell command run in the workspace after the agent")
    expect_changes: bool | None = Field(None, description="whether an attempt that changes no file has failed")
    permissions: Permissions | None = Field(None, description="the most that the agent's program may do")
    requires: list[Capability] | None = Field(None, description="capabilities that a worker must offer to run it")
    limits: Limits | None = Field(None, description="what one attempt may use; a limit left out is the default's")

    parallelizable: bool = Field(False, description="accepted for callers of the coordinator; the group decides")
    status: Literal["pending", "in_progress", "completed", "failed", "timeout", "cancelled", "skipped"] = Field(
        "pending", description="accepted for callers of the coordinator"
    )
    assigned_agent_id: Whole | Text | None = Field(None, description="accepted for callers of the coordinator")
    created_at: datetime = Field(
        default_factory=lambda: datetime.now(UTC), description="accepted for callers of the coordinator"
    )

    @model_validator(mode="before")
    @classmethod
    def _dependencies_is_depends_on(cls, written: Any) -> Any:
        if not isinstance(written, Mapping) or "dependencies" not in written:
            return written
        folded = {key: value for key, value in written.items() if key != "dependencies"}
        if folded.setdefault("depends_on", written["dependencies"]) != written["dependencies"]:
            raise PydanticCustomError(
                "said_twice", "says `depends_on` and `dependencies`, which are the same, with different values"
            )
        return folded

    @property
    def dependencies(self) -> list[int]:
        """The original coordinator's word for `depends_on`."""
        return self.depends_on

    def note_status(self, status: str) -> None:
        """Say how far it has come, for whoever holds this object. It is not something that was written: a plan made of
        it stays the same plan."""
        self.__dict__["status"] = status


def _failure_policy(written: Any) -> str:
    return "quorum" if isinstance(written, Mapping | Quorum) else "word"


FailurePolicy = Annotated[
    Annotated[Literal["stop", "continue"], Tag("word")] | Annotated[Quorum, Tag("quorum")],
    Discriminator(_failure_policy),
]


def _check_scope(written: Any) -> str:
    return "by_group" if isinstance(written, Mapping) else "every_group"


GroupChecks = Annotated[
    Annotated[NonEmptyText, Tag("every_group")] | Annotated[dict[GroupNumber, NonEmptyText], Tag("by_group")],
    Discriminator(_check_scope),
]


def _known_conflict_policy(written: Any) -> Any:
    if written in ("rerun", "resolve"):
        raise PydanticCustomError("not_yet", "can only be `fail`: `{policy}` is not available yet", {"policy": written})
    return written


class Plan(_Model):
    """A job as a user writes it."""

    title: Title = Field(description="one line")
    repo: NonEmptyText | None = Field(
        None,
        description="a path or any git URL; a path is relative to the plan file's folder; left out: each attempt gets "
        "an empty folder and nothing is merged",
    )
    base: Name | None = Field(
        None, description="the branch, tag or commit that the work starts from; left out: the repository's HEAD"
    )
    goal: Text = Field("", description="what the whole is for; given to every agent as context")
    max_parallel_agents: Annotated[Whole, Field(ge=1, le=MAX_SUBTASKS)] = Field(
        5, description="agents of this job at work at the same time, never more"
    )
    parallelization_strategy: Strategy = Field(
        "parallel_groups",
        description="`parallel_groups`: the groups as written; `dependencies`: groups are the levels of `depends_on`; "
        "`file_based`: as written, and subtasks of a group whose `files` overlap run one after the other",
    )
    on_failure: FailurePolicy = Field(
        "stop", description="may the next group start when a subtask has failed? `stop`, `continue` or `{quorum: N}`"
    )
    on_conflict: Annotated[Literal["fail"], BeforeValidator(_known_conflict_policy)] = Field(
        "fail", description="what follows a merge conflict: the later subtask fails"
    )
    deadline_seconds: Duration | None = Field(
        None, alias="deadline", description="for the whole job; `null` is no limit"
    )
    max_cost_usd: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="of the whole job, retries included: no agent starts once it is spent; `null` is no limit"
    )
    retry_failed_agents: bool = Field(True, description="`false`: no failed attempt is tried again")
    agent_timeout_seconds: Duration | None = Field(None, description="another word for `defaults.timeout`")
    max_retries: Annotated[Whole, Field(ge=0, le=100)] | None = Field(
        None, description="another word for `defaults.max_retries`"
    )
    defaults: Defaults = Field(default_factory=Defaults, description="what holds for each subtask")
    group_checks: GroupChecks | None = Field(
        None,
        description="shell command run on the merged work of a group; one for every group, or by group number",
    )
    subtasks: list[SubTask] = Field(min_length=1, max_length=MAX_SUBTASKS, description="the work")


class ResolvedSubtask(_Model):
    """A subtask with the plan's defaults filled in and its final group: what is stored and what workers read."""

    subtask_id: int
    group_number: int
    title: str
    description: str
    kind: Kind
    agent: AgentSpec
    depends_on: list[int] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    estimated_complexity: float = 0.0
    estimated_duration_minutes: float = 0.0
    timeout_seconds: float | None
    idle_timeout_seconds: float | None
    max_retries: int
    check: str | None = None
    expect_changes: bool | None = None
    permissions: Permissions = "edit"
    requires: list[str] = Field(default_factory=list)
    limits: Limits


@dataclass(frozen=True)
class PlannedGroup:
    """The subtasks of a group in ascending id, and the command that its merged work must pass."""

    number: int
    check: str | None
    subtasks: tuple[ResolvedSubtask, ...]


@dataclass(frozen=True)
class ValidatedPlan:
    """A plan that keeps every rule, its groups in the order in which they run.

    `warnings` are sentences. `source` says where the plan came from. `digest` is the SHA-256, in hexadecimal, of the
    canonical JSON of what the plan says (sorted keys, no spaces, UTF-8).
    """

    plan: Plan
    groups: tuple[PlannedGroup, ...]
    warnings: tuple[str, ...]
    source: str
    digest: str

    @property
    def subtasks(self) -> tuple[ResolvedSubtask, ...]:
        return tuple(subtask for group in self.groups for subtask in group.subtasks)
