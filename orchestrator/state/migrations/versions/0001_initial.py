"""initial."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False, comment="twelve hexadecimal digits"),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("goal", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "plan",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="the whole plan as it was validated, the models' JSON form",
        ),
        sa.Column(
            "plan_digest",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of that JSON: the same key with another plan is refused",
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column(
            "repo",
            sa.Text(),
            nullable=True,
            comment="absolute path or URL; NULL: each attempt gets an empty folder, nothing is merged",
        ),
        sa.Column("base", sa.Text(), nullable=True, comment="what the plan named"),
        sa.Column("base_commit", sa.Text(), nullable=True, comment="what that name meant at submission"),
        sa.Column("branch", sa.Text(), nullable=True, comment="the integration branch"),
        sa.Column("head_commit", sa.Text(), nullable=True, comment="the integration branch's last recorded commit"),
        sa.Column("max_parallel_agents", sa.Integer(), nullable=False),
        sa.Column("parallelization_strategy", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=True,
            comment="why it ended so: subtasks_failed, group_check, conflict, deadline, cancelled, …",
        ),
        sa.Column("error", sa.Text(), nullable=True, comment="the same in words"),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_cost_usd", sa.Double(), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_final_has_end"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')", name=op.f("ck_jobs_status")
        ),
        sa.CheckConstraint("max_parallel_agents >= 1", name=op.f("ck_jobs_some_agents")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_jobs_idempotency_key")),
    )
    op.create_index("ix_jobs_created_at", "jobs", ["created_at"], unique=False)
    op.create_index("ix_jobs_open", "jobs", ["id"], unique=False, postgresql_where=sa.text("finished_at IS NULL"))
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("group_number", sa.Integer(), nullable=True),
        sa.Column("subtask_id", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column(
            "name", sa.Text(), nullable=False, comment="stable: job.started, subtask.claimed, attempt.finished, …"
        ),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_job", "events", ["job_id", "id"], unique=False)
    op.create_table(
        "groups",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="groups run in ascending order"),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("check_command", sa.Text(), nullable=True),
        sa.Column("base_commit", sa.Text(), nullable=True, comment="where the agents of the current group run begin"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("merge_token", sa.Text(), nullable=True, comment="the merge lease: who may merge now"),
        sa.Column("merge_lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "woken_by",
            sa.Text(),
            nullable=True,
            comment="who called the merge that is under way: callback or reconciler",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'merging') = (merge_token IS NOT NULL)", name=op.f("ck_groups_merging_has_lease")
        ),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled', 'skipped')) = (finished_at IS NOT NULL)",
            name=op.f("ck_groups_final_has_end"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'merging', 'completed', 'failed', 'cancelled', 'skipped')",
            name=op.f("ck_groups_status"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_groups_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_groups")),
    )
    op.create_index(
        "ix_groups_open",
        "groups",
        ["job_id"],
        unique=False,
        postgresql_where=sa.text("status IN ('running', 'merging')"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("subtask_id", sa.Integer(), nullable=True, comment="set on the header messages of a chord"),
        sa.Column(
            "message",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="the Celery signature, with its frozen ids",
        ),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), nullable=True, comment="when to publish it (again); NULL: not now"
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("publish_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_outbox_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        comment="A row is deleted when what it asks for has happened; what is left is still owed.",
    )
    op.create_index("ix_outbox_due", "outbox", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index(
        "uq_outbox_subtask",
        "outbox",
        ["job_id", "subtask_id"],
        unique=True,
        postgresql_where=sa.text("subtask_id IS NOT NULL"),
    )
    op.create_table(
        "group_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("group_number", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="passages of the group count from 1"),
        sa.Column("chord_id", sa.Text(), nullable=False, comment="Celery's group id of the chord"),
        sa.Column("subtask_ids", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "agent_ids",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
            comment="attempt ids, in subtask order",
        ),
        sa.Column("num_agents", sa.Integer(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failed_agent_count", sa.Integer(), nullable=True),
        sa.Column("conflict_detected", sa.Boolean(), nullable=True),
        sa.Column("conflict_details", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("total_duration_seconds", sa.Double(), nullable=True, comment="the group run's wall time"),
        sa.Column(
            "sequential_estimate_seconds", sa.Double(), nullable=True, comment="sum of the completed agents' durations"
        ),
        sa.Column(
            "speedup_factor", sa.Double(), nullable=True, comment="sequential_estimate_seconds / total_duration_seconds"
        ),
        sa.Column(
            "max_concurrent_agents", sa.Integer(), nullable=True, comment="seen, from the attempts' starts and ends"
        ),
        sa.Column("total_token_usage", sa.BigInteger(), nullable=True),
        sa.Column("parallelization_strategy", sa.Text(), nullable=False),
        sa.Column("fallback_to_sequential", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("execution_metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("base_commit", sa.Text(), nullable=True),
        sa.Column("head_commit", sa.Text(), nullable=True, comment="the integration branch after this run's merge"),
        sa.Column("woken_by", sa.Text(), nullable=True, comment="callback or reconciler; NULL until merged"),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("woken_by IN ('callback', 'reconciler')", name=op.f("ck_group_runs_woken_by")),
        sa.CheckConstraint("num_agents >= 1", name=op.f("ck_group_runs_some_agents")),
        sa.ForeignKeyConstraint(
            ["job_id", "group_number"],
            ["groups.job_id", "groups.number"],
            name=op.f("fk_group_runs_groups"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_group_runs")),
        sa.UniqueConstraint("job_id", "group_number", "number", name=op.f("uq_group_runs_job_id_group_number_number")),
    )
    op.create_table(
        "subtasks",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("subtask_id", sa.Integer(), nullable=False),
        sa.Column("group_number", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False, comment="the registered name; its configuration is in spec"),
        sa.Column(
            "spec",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="the subtask with the plan's defaults filled in: plan.model.ResolvedSubtask",
        ),
        sa.Column("estimated_duration_seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True, comment="the last attempt's, or conflict, or skipped"),
        sa.Column("error", sa.Text(), nullable=True, comment="in words"),
        sa.Column("result", sa.Text(), nullable=True, comment="what the agent said at its end"),
        sa.Column("feedback", sa.Text(), nullable=True, comment="what went wrong last time, for the next prompt"),
        sa.Column("commit", sa.Text(), nullable=True, comment="the winner's commit"),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False, comment="count against max_retries"),
        sa.Column(
            "redeliveries", sa.Integer(), server_default="0", nullable=False, comment="count against max_redeliveries"
        ),
        sa.Column("provider_faults", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "released_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="it holds one of the job's max_parallel_agents places",
        ),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True, comment="the end of its back-off"),
        sa.Column(
            "merged_at", sa.DateTime(timezone=True), nullable=True, comment="its change is on the integration branch"
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'timeout', 'cancelled', 'skipped')) = (finished_at IS NOT NULL)",
            name=op.f("ck_subtasks_final_has_end"),
        ),
        sa.CheckConstraint(
            "status <> 'in_progress' OR released_at IS NOT NULL", name=op.f("ck_subtasks_works_only_when_released")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'in_progress', 'completed', 'failed', 'timeout', 'cancelled', 'skipped')",
            name=op.f("ck_subtasks_status"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "group_number"],
            ["groups.job_id", "groups.number"],
            name=op.f("fk_subtasks_groups"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "subtask_id", name=op.f("pk_subtasks")),
    )
    op.create_index("ix_subtasks_group", "subtasks", ["job_id", "group_number", "status"], unique=False)
    op.create_index(
        "ix_subtasks_in_flight",
        "subtasks",
        ["job_id"],
        unique=False,
        postgresql_where=sa.text("released_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.create_index(
        "ix_subtasks_waiting_retry",
        "subtasks",
        ["not_before"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND not_before IS NOT NULL"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("subtask_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="attempts of a subtask count from 1"),
        sa.Column("lane", sa.Integer(), server_default="0", nullable=False),
        sa.Column("group_run_id", sa.BigInteger(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False, comment="Celery's node name"),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="running", nullable=False, comment="running, then the outcome"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=False, comment="fences every later write"),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "agent_started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the agent's own process, without workspace, check and push",
        ),
        sa.Column("agent_duration_seconds", sa.Double(), nullable=True),
        sa.Column("base_commit", sa.Text(), nullable=True),
        sa.Column("commit", sa.Text(), nullable=True, comment="pushed to `ref` before this row said so"),
        sa.Column("ref", sa.Text(), nullable=True),
        sa.Column("files_changed", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("check_output", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column(
            "usage",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="tokens by kind, as the agent reported them",
        ),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'no_changes', 'check_failed', 'timeout', 'idle_timeout', 'rate_limited', 'provider_unavailable', 'worker_lost', 'interrupted', 'turn_limit', 'budget_exceeded', 'auth_error', 'permission_denied', 'agent_missing', 'bad_config', 'resource_limit', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_attempts_final_has_end"),
        ),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'no_changes', 'check_failed', 'timeout', 'idle_timeout', 'rate_limited', 'provider_unavailable', 'worker_lost', 'interrupted', 'turn_limit', 'budget_exceeded', 'auth_error', 'permission_denied', 'agent_missing', 'bad_config', 'resource_limit', 'cancelled')",
            name=op.f("ck_attempts_status"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "subtask_id"],
            ["subtasks.job_id", "subtasks.subtask_id"],
            name=op.f("fk_attempts_subtasks"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_id", "subtask_id", "number", name=op.f("uq_attempts_job_id_subtask_id_number")),
    )
    op.create_index(
        "ix_attempts_lease",
        "attempts",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "uq_attempts_running",
        "attempts",
        ["job_id", "subtask_id", "lane"],
        unique=True,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "log_chunks",
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "sequence", sa.Integer(), nullable=False, comment="chunks of an attempt count from 1; a gap is the cut"
        ),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("subtask_id", sa.Integer(), nullable=False),
        sa.Column("line_count", sa.Integer(), nullable=False),
        sa.Column(
            "content",
            sa.LargeBinary(),
            nullable=False,
            comment="zlib: JSON lines [seconds since the start, stream, text]",
        ),
        sa.Column(
            "written_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_log_chunks_attempts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", "sequence", name=op.f("pk_log_chunks")),
    )
    op.create_index("ix_log_chunks_job", "log_chunks", ["job_id", "subtask_id", "attempt_id", "sequence"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_log_chunks_job", table_name="log_chunks")
    op.drop_table("log_chunks")
    op.drop_index("uq_attempts_running", table_name="attempts", postgresql_where=sa.text("status = 'running'"))
    op.drop_index("ix_attempts_lease", table_name="attempts", postgresql_where=sa.text("status = 'running'"))
    op.drop_table("attempts")
    op.drop_index(
        "ix_subtasks_waiting_retry",
        table_name="subtasks",
        postgresql_where=sa.text("status = 'pending' AND not_before IS NOT NULL"),
    )
    op.drop_index(
        "ix_subtasks_in_flight",
        table_name="subtasks",
        postgresql_where=sa.text("released_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.drop_index("ix_subtasks_group", table_name="subtasks")
    op.drop_table("subtasks")
    op.drop_table("group_runs")
    op.drop_index("uq_outbox_subtask", table_name="outbox", postgresql_where=sa.text("subtask_id IS NOT NULL"))
    op.drop_index("ix_outbox_due", table_name="outbox", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_table("outbox")
    op.drop_index("ix_groups_open", table_name="groups", postgresql_where=sa.text("status IN ('running', 'merging')"))
    op.drop_table("groups")
    op.drop_index("ix_events_job", table_name="events")
    op.drop_table("events")
    op.drop_index("ix_jobs_open", table_name="jobs", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_index("ix_jobs_created_at", table_name="jobs")
    op.drop_table("jobs")
