"""resume."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "attempts",
        sa.Column(
            "resumed_from", sa.Integer(), nullable=True, comment="the attempt whose session and work it went on with"
        ),
    )
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("subtask_id", sa.Integer(), nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False, comment="whose state this is"),
        sa.Column("base_commit", sa.Text(), nullable=False, comment="where that attempt had begun"),
        sa.Column(
            "commit",
            sa.Text(),
            nullable=True,
            comment="its files, pushed to `ref` before this row said so; NULL: as in base_commit",
        ),
        sa.Column(
            "head_commit",
            sa.Text(),
            nullable=True,
            comment="the last of its own commits, an ancestor of `commit` or the same",
        ),
        sa.Column("ref", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("session", sa.LargeBinary(), nullable=False, comment="the session's files: workers.session_files"),
        sa.Column("stalls", sa.Integer(), nullable=False, comment="how often in a row the session has run out of time"),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "subtask_id"],
            ["subtasks.job_id", "subtasks.subtask_id"],
            name=op.f("fk_checkpoints_subtasks"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "subtask_id", name=op.f("pk_checkpoints")),
        comment="What the next attempt can go on with: one row a subtask, gone when the subtask is final.",
    )


def downgrade() -> None:
    op.drop_table("checkpoints")
    op.drop_column("attempts", "resumed_from")
