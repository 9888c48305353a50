"""governor."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "provider_limits",
        sa.Column("account", sa.Text(), nullable=False, comment="orchestrator.provider_account"),
        sa.Column(
            "closed_until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="no agent of the account starts before",
        ),
        sa.Column("allowed", sa.Integer(), nullable=False, comment="agents at work at once, when it is open"),
        sa.Column("most", sa.Integer(), nullable=False, comment="were at work when the provider had enough"),
        sa.Column("throttled_at", sa.DateTime(timezone=True), nullable=False, comment="the last halving of `allowed`"),
        sa.Column("strikes", sa.Integer(), nullable=False, comment="halvings since an agent got its answers"),
        sa.CheckConstraint("allowed >= 1", name=op.f("ck_provider_limits_some_agents")),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_provider_limits")),
        comment="An account without a row has no limit. orchestrator.rate_limit says how one changes.",
    )
    op.create_table(
        "provider_salt",
        sa.Column("the_one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.CheckConstraint("the_one", name=op.f("ck_provider_salt_one_row")),
        sa.PrimaryKeyConstraint("the_one", name=op.f("pk_provider_salt")),
        comment="What this fleet's hashes of provider keys are made with. It is shown nowhere.",
    )
    op.add_column(
        "attempts",
        sa.Column(
            "account",
            sa.Text(),
            nullable=True,
            comment="whose limits it counts against: orchestrator.provider_account; NULL: nobody's",
        ),
    )
    op.create_index(
        "ix_attempts_account",
        "attempts",
        ["account"],
        unique=False,
        postgresql_where=sa.text("status = 'running' AND account IS NOT NULL"),
    )
    op.add_column(
        "subtasks",
        sa.Column(
            "waits_for",
            sa.Text(),
            nullable=True,
            comment="the provider account that a claim was refused for, until the next claim",
        ),
    )
    op.create_index(
        "ix_subtasks_waiting_provider",
        "subtasks",
        ["waits_for"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND waits_for IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_subtasks_waiting_provider", table_name="subtasks")
    op.drop_column("subtasks", "waits_for")
    op.drop_index("ix_attempts_account", table_name="attempts")
    op.drop_column("attempts", "account")
    op.drop_table("provider_salt")
    op.drop_table("provider_limits")
