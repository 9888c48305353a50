"""ledger."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JOBS = {
    "spent_usd": "by its ended attempts; counted where there is a budget, and exact, so that ten times 0.1 is 1",
    "dearest_attempt_usd": "what an agent at work is taken to cost, where it has no limit of its own",
}
_FLAGS = {
    "cost_estimated": "its tokens times the list price",
    "cost_unknown": "its agent may have spent what nobody could tell",
}
_COMMENTS = {
    "usage": ("tokens by kind, of this attempt alone", "tokens by kind, as the agent reported them"),
    "cost_usd": ("of this attempt alone", None),
}


def upgrade() -> None:
    for name, comment in _JOBS.items():
        column = sa.Column(name, sa.Numeric(asdecimal=False), server_default="0", nullable=False, comment=comment)
        op.add_column("jobs", column)
    limit: sa.Column[float] = sa.Column(
        "max_cost_usd", sa.Double(), comment="of one attempt, by its agent's own configuration"
    )
    op.add_column("subtasks", limit)
    op.add_column(
        "attempts", sa.Column("model", sa.Text(), comment="as the agent's program named it, else as the plan does")
    )
    for name, comment in _FLAGS.items():
        flag: sa.Column[bool] = sa.Column(
            name, sa.Boolean(), server_default=sa.text("false"), nullable=False, comment=comment
        )
        op.add_column("attempts", flag)
    reported = "as the program told it: of its session so far, with some programs"
    op.add_column("attempts", sa.Column("reported_usage", postgresql.JSONB(astext_type=sa.Text()), comment=reported))
    op.add_column("attempts", sa.Column("reported_cost_usd", sa.Double()))
    for name, (new, old) in _COMMENTS.items():
        op.alter_column("attempts", name, comment=new, existing_comment=old)
    # Until now each attempt began a session of its own: what it reported is what it has used.
    op.execute("UPDATE attempts SET reported_usage = usage WHERE usage <> '{}'")
    op.execute("UPDATE attempts SET reported_cost_usd = cost_usd WHERE cost_usd IS NOT NULL")
    op.execute(
        """
        UPDATE jobs SET spent_usd = paid.usd, dearest_attempt_usd = paid.dearest
        FROM (SELECT job_id, sum(CAST(cost_usd AS numeric)) AS usd, max(CAST(cost_usd AS numeric)) AS dearest
              FROM attempts WHERE cost_usd IS NOT NULL GROUP BY job_id) paid
        WHERE jobs.id = paid.job_id AND jobs.max_cost_usd IS NOT NULL
        """
    )


def downgrade() -> None:
    for name, (new, old) in _COMMENTS.items():
        op.alter_column("attempts", name, comment=old, existing_comment=new)
    for name in ("reported_cost_usd", "reported_usage", *_FLAGS, "model"):
        op.drop_column("attempts", name)
    op.drop_column("subtasks", "max_cost_usd")
    for name in _JOBS:
        op.drop_column("jobs", name)
