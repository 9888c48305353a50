"""places in order."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index(
        "ix_subtasks_waiting_place",
        "subtasks",
        ["job_id", "group_number", sa.literal_column("estimated_duration_seconds DESC"), "subtask_id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND released_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_subtasks_waiting_place",
        table_name="subtasks",
        postgresql_where=sa.text("status = 'pending' AND released_at IS NULL"),
    )
