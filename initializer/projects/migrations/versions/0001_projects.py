"""The projects table."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_json = sa.JSON().with_variant(JSONB(), "postgresql")
_instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("slug", sa.String(63), nullable=False, unique=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("idempotency_key", sa.String(64), nullable=False, unique=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("parameters", _json, nullable=False),
        sa.Column("cancel_requested_at", _instant),
        sa.Column("initialization_summary", _json),
        sa.Column("initialization_error", sa.Text),
        sa.Column("initialization_completed_at", _instant),
        sa.Column("created_at", _instant, nullable=False),
    )
    op.create_index("projects_by_creation", "projects", ["created_at"])
    op.create_index("projects_by_status", "projects", ["status", "created_at"])


def downgrade() -> None:
    op.drop_table("projects")
