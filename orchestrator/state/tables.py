"""The tables, and for each state who moves it on and what rescues it if that party dies.

PostgreSQL only: one dialect, one clock. Invariants stand in the schema, so that no code path can break them.

Units: every `*_seconds` is in seconds, every `*_bytes` in bytes, every time is a `timestamptz` of the database's clock.
`None` means no limit, or not yet.

Job
    pending     the dispatcher's `start_job` moves it on; its outbox row is published until it did
    running     group by group; the reconciler moves on a job in which nothing is under way
    completed · failed · cancelled      final

Group
    pending     waits for the group before it; dispatched in the transaction that ends that one
    running     its subtasks are under way; woken by the chord's callback, else by the reconciler
    merging     one dispatcher holds the merge lease; when that expires the reconciler calls the merge again
    completed · failed · cancelled · skipped      final

Subtask
    pending     waits for its group, for a free place (`released_at` unset), for its back-off (`not_before`), for its
                provider (`waits_for`) or for a worker; the window, the reconciler and the republished message move it on
    in_progress one attempt is running under a lease; an expired lease ends the attempt as `worker_lost`
    completed · failed · timeout · cancelled · skipped      final; a merge may send `completed` back to `pending`

Attempt
    running     a worker holds the lease and renews it; the reconciler ends it when the lease expired
    any outcome of `orchestrator.outcomes`      final and immutable
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.outcomes import Outcome

JOB_FINAL: Final = ("completed", "failed", "cancelled")
GROUP_FINAL: Final = ("completed", "failed", "cancelled", "skipped")
SUBTASK_FINAL: Final = ("completed", "failed", "timeout", "cancelled", "skipped")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _states(open_states: tuple[str, ...], final_states: tuple[str, ...]) -> list[CheckConstraint]:
    return [
        CheckConstraint(_one_of("status", open_states + final_states), name="status"),
        CheckConstraint(f"({_one_of('status', final_states)}) = (finished_at IS NOT NULL)", name="final_has_end"),
    ]


def _time(name: str, **kwargs: Any) -> Column[Any]:
    return Column(name, DateTime(timezone=True), **kwargs)


def _of_job() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE")


def _of_subtask() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["job_id", "subtask_id"], ["subtasks.job_id", "subtasks.subtask_id"], ondelete="CASCADE"
    )


jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True, comment="twelve hexadecimal digits"),
    Column("title", Text, nullable=False),
    Column("goal", Text, nullable=False, server_default=""),
    Column("plan", JSONB, nullable=False, comment="the whole plan as it was validated, the models' JSON form"),
    Column(
        "plan_digest", Text, nullable=False, comment="SHA-256 of that JSON: the same key with another plan is refused"
    ),
    Column("idempotency_key", Text, unique=True),
    Column("repo", Text, comment="absolute path or URL; NULL: each attempt gets an empty folder, nothing is merged"),
    Column("base", Text, comment="what the plan named"),
    Column("base_commit", Text, comment="what that name meant at submission"),
    Column("branch", Text, comment="the integration branch"),
    Column("head_commit", Text, comment="the integration branch's last recorded commit"),
    Column("max_parallel_agents", Integer, nullable=False),
    Column("parallelization_strategy", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("reason", Text, comment="why it ended so: subtasks_failed, group_check, conflict, deadline, cancelled, …"),
    Column("error", Text, comment="the same in words"),
    _time("deadline_at"),
    Column("max_cost_usd", Double),
    Column(
        "spent_usd",
        Numeric(asdecimal=False),
        nullable=False,
        server_default="0",
        comment="by its ended attempts; counted where there is a budget, and exact, so that ten times 0.1 is 1",
    ),
    Column(
        "dearest_attempt_usd",
        Numeric(asdecimal=False),
        nullable=False,
        server_default="0",
        comment="what an agent at work is taken to cost, where it has no limit of its own",
    ),
    _time("paused_at"),
    _time("cancel_requested_at"),
    _time("created_at", nullable=False, server_default=func.now()),
    _time("started_at"),
    _time("finished_at"),
    *_states(("pending", "running"), JOB_FINAL),
    CheckConstraint("max_parallel_agents >= 1", name="some_agents"),
    Index("ix_jobs_created_at", "created_at"),
    Index("ix_jobs_open", "id", postgresql_where=text("finished_at IS NULL")),
)

groups = Table(
    "groups",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("number", Integer, nullable=False, comment="groups run in ascending order"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("check_command", Text),
    Column("base_commit", Text, comment="where the agents of the current group run begin"),
    Column("error", Text),
    Column("merge_token", Text, comment="the merge lease: who may merge now"),
    _time("merge_lease_expires_at"),
    Column("woken_by", Text, comment="who called the merge that is under way: callback or reconciler"),
    _time("started_at"),
    _time("finished_at"),
    PrimaryKeyConstraint("job_id", "number"),
    _of_job(),
    *_states(("pending", "running", "merging"), GROUP_FINAL),
    CheckConstraint("(status = 'merging') = (merge_token IS NOT NULL)", name="merging_has_lease"),
    Index("ix_groups_open", "job_id", postgresql_where=text("status IN ('running', 'merging')")),
)

group_runs = Table(
    "group_runs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("group_number", Integer, nullable=False),
    Column("number", Integer, nullable=False, comment="passages of the group count from 1"),
    Column("chord_id", Text, nullable=False, comment="Celery's group id of the chord"),
    Column("subtask_ids", JSONB, nullable=False),
    Column("agent_ids", JSONB, nullable=False, server_default="[]", comment="attempt ids, in subtask order"),
    Column("num_agents", Integer, nullable=False),
    Column("success", Boolean),
    Column("failure_reason", Text),
    Column("failed_agent_count", Integer),
    Column("conflict_detected", Boolean),
    Column("conflict_details", JSONB),
    Column("total_duration_seconds", Double, comment="the group run's wall time"),
    Column("sequential_estimate_seconds", Double, comment="sum of the completed agents' durations"),
    Column("speedup_factor", Double, comment="sequential_estimate_seconds / total_duration_seconds"),
    Column("max_concurrent_agents", Integer, comment="seen, from the attempts' starts and ends"),
    Column("total_token_usage", BigInteger),
    Column("parallelization_strategy", Text, nullable=False),
    Column("fallback_to_sequential", Boolean, nullable=False, server_default=text("false")),
    Column("execution_metadata", JSONB, nullable=False, server_default="{}"),
    Column("base_commit", Text),
    Column("head_commit", Text, comment="the integration branch after this run's merge"),
    Column("woken_by", Text, comment="callback or reconciler; NULL until merged"),
    _time("started_at", nullable=False, server_default=func.now()),
    _time("completed_at"),
    UniqueConstraint("job_id", "group_number", "number"),
    ForeignKeyConstraint(["job_id", "group_number"], ["groups.job_id", "groups.number"], ondelete="CASCADE"),
    CheckConstraint("woken_by IN ('callback', 'reconciler')", name="woken_by"),
    CheckConstraint("num_agents >= 1", name="some_agents"),
)

subtasks = Table(
    "subtasks",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("subtask_id", Integer, nullable=False),
    Column("group_number", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("agent", Text, nullable=False, comment="the registered name; its configuration is in spec"),
    Column(
        "spec",
        JSONB,
        nullable=False,
        comment="the subtask with the plan's defaults filled in: plan.model.ResolvedSubtask",
    ),
    Column("estimated_duration_seconds", Double, nullable=False, server_default="0"),
    Column("max_cost_usd", Double, comment="of one attempt, by its agent's own configuration"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("outcome", Text, comment="the last attempt's, or conflict, or skipped"),
    Column("error", Text, comment="in words"),
    Column("result", Text, comment="what the agent said at its end"),
    Column("feedback", Text, comment="what went wrong last time, for the next prompt"),
    Column("commit", Text, comment="the winner's commit"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0", comment="count against max_retries"),
    Column("redeliveries", Integer, nullable=False, server_default="0", comment="count against max_redeliveries"),
    Column("provider_faults", Integer, nullable=False, server_default="0"),
    _time("released_at", comment="it holds one of the job's max_parallel_agents places"),
    _time("not_before", comment="the end of its back-off"),
    Column("waits_for", Text, comment="the provider account that a claim was refused for, until the next claim"),
    _time("merged_at", comment="its change is on the integration branch"),
    _time("started_at"),
    _time("finished_at"),
    PrimaryKeyConstraint("job_id", "subtask_id"),
    ForeignKeyConstraint(["job_id", "group_number"], ["groups.job_id", "groups.number"], ondelete="CASCADE"),
    *_states(("pending", "in_progress"), SUBTASK_FINAL),
    CheckConstraint("status <> 'in_progress' OR released_at IS NOT NULL", name="works_only_when_released"),
    Index("ix_subtasks_group", "job_id", "group_number", "status"),
    Index("ix_subtasks_in_flight", "job_id", postgresql_where=text("released_at IS NOT NULL AND finished_at IS NULL")),
    Index(
        "ix_subtasks_waiting_place",
        "job_id",
        "group_number",
        text("estimated_duration_seconds DESC"),
        "subtask_id",
        postgresql_where=text("status = 'pending' AND released_at IS NULL"),
    ),
    Index(
        "ix_subtasks_waiting_retry",
        "not_before",
        postgresql_where=text("status = 'pending' AND not_before IS NOT NULL"),
    ),
    Index(
        "ix_subtasks_waiting_provider",
        "waits_for",
        postgresql_where=text("status = 'pending' AND waits_for IS NOT NULL"),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("subtask_id", Integer, nullable=False),
    Column("number", Integer, nullable=False, comment="attempts of a subtask count from 1"),
    Column("lane", Integer, nullable=False, server_default="0"),
    Column("group_run_id", BigInteger),
    Column("worker", Text, nullable=False, comment="Celery's node name"),
    Column("agent", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="running", comment="running, then the outcome"),
    Column("error", Text),
    Column("result", Text),
    Column("lease_token", Text, nullable=False, comment="fences every later write"),
    _time("lease_expires_at", nullable=False),
    _time("started_at", nullable=False, server_default=func.now()),
    _time("finished_at"),
    _time("agent_started_at", comment="the agent's own process, without workspace, check and push"),
    Column("agent_duration_seconds", Double),
    Column("base_commit", Text),
    Column("commit", Text, comment="pushed to `ref` before this row said so"),
    Column("ref", Text),
    Column("files_changed", JSONB),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("check_output", Text),
    Column("session_id", Text),
    Column("resumed_from", Integer, comment="the attempt whose session and work it went on with"),
    Column("model", Text, comment="as the agent's program named it, else as the plan does"),
    Column("usage", JSONB, comment="tokens by kind, of this attempt alone"),
    Column("cost_usd", Double, comment="of this attempt alone"),
    Column(
        "cost_estimated",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="its tokens times the list price",
    ),
    Column(
        "cost_unknown",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="its agent may have spent what nobody could tell",
    ),
    Column("reported_usage", JSONB, comment="as the program told it: of its session so far, with some programs"),
    Column("reported_cost_usd", Double),
    Column("account", Text, comment="whose limits it counts against: orchestrator.provider_account; NULL: nobody's"),
    UniqueConstraint("job_id", "subtask_id", "number"),
    _of_subtask(),
    *_states(("running",), tuple(str(outcome) for outcome in Outcome)),
    Index(
        "uq_attempts_running", "job_id", "subtask_id", "lane", unique=True, postgresql_where=text("status = 'running'")
    ),
    Index("ix_attempts_lease", "lease_expires_at", postgresql_where=text("status = 'running'")),
    Index("ix_attempts_account", "account", postgresql_where=text("status = 'running' AND account IS NOT NULL")),
)

provider_limits = Table(
    "provider_limits",
    metadata,
    Column("account", Text, primary_key=True, comment="orchestrator.provider_account"),
    _time("closed_until", nullable=False, comment="no agent of the account starts before"),
    Column("allowed", Integer, nullable=False, comment="agents at work at once, when it is open"),
    Column("most", Integer, nullable=False, comment="were at work when the provider had enough"),
    _time("throttled_at", nullable=False, comment="the last halving of `allowed`"),
    Column("strikes", Integer, nullable=False, comment="halvings since an agent got its answers"),
    CheckConstraint("allowed >= 1", name="some_agents"),
    comment="An account without a row has no limit. orchestrator.rate_limit says how one changes.",
)

provider_salt = Table(
    "provider_salt",
    metadata,
    Column("the_one", Boolean, primary_key=True, server_default=text("true")),
    Column("salt", Text, nullable=False),
    CheckConstraint("the_one", name="one_row"),
    comment="What this fleet's hashes of provider keys are made with. It is shown nowhere.",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("subtask_id", Integer, nullable=False),
    Column("attempt_number", Integer, nullable=False, comment="whose state this is"),
    Column("base_commit", Text, nullable=False, comment="where that attempt had begun"),
    Column("commit", Text, comment="its files, pushed to `ref` before this row said so; NULL: as in base_commit"),
    Column("head_commit", Text, comment="the last of its own commits, an ancestor of `commit` or the same"),
    Column("ref", Text),
    Column("session_id", Text, nullable=False),
    Column("session", LargeBinary, nullable=False, comment="the session's files: workers.session_files"),
    Column("stalls", Integer, nullable=False, comment="how often in a row the session has run out of time"),
    _time("stored_at", nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("job_id", "subtask_id"),
    _of_subtask(),
    comment="What the next attempt can go on with: one row a subtask, gone when the subtask is final.",
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("subtask_id", Integer, comment="set on the header messages of a chord"),
    Column("message", JSONB, nullable=False, comment="the Celery signature, with its frozen ids"),
    _time("due_at", comment="when to publish it (again); NULL: not now"),
    _time("published_at"),
    Column("publish_count", Integer, nullable=False, server_default="0"),
    _time("created_at", nullable=False, server_default=func.now()),
    _of_job(),
    Index("ix_outbox_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("uq_outbox_subtask", "job_id", "subtask_id", unique=True, postgresql_where=text("subtask_id IS NOT NULL")),
    comment="A row is deleted when what it asks for has happened; what is left is still owed.",
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _time("at", nullable=False, server_default=func.clock_timestamp()),
    Column("job_id", Text, nullable=False),
    Column("group_number", Integer),
    Column("subtask_id", Integer),
    Column("attempt", Integer),
    Column("name", Text, nullable=False, comment="stable: job.started, subtask.claimed, attempt.finished, …"),
    Column("data", JSONB, nullable=False, server_default="{}"),
    _of_job(),
    Index("ix_events_job", "job_id", "id"),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("attempt_id", BigInteger, nullable=False),
    Column("sequence", Integer, nullable=False, comment="chunks of an attempt count from 1; a gap is the cut"),
    Column("job_id", Text, nullable=False),
    Column("subtask_id", Integer, nullable=False),
    Column("line_count", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="zlib: JSON lines [seconds since the start, stream, text]"),
    _time("written_at", nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("attempt_id", "sequence"),
    ForeignKeyConstraint(["attempt_id"], ["attempts.id"], ondelete="CASCADE"),
    Index("ix_log_chunks_job", "job_id", "subtask_id", "attempt_id", "sequence"),
)
