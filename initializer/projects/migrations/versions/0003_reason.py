"""Why the current try of a run began, so that it is not forgotten where its process dies at once."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("projects", sa.Column("reason", sa.String(16), nullable=False, server_default="created"))


def downgrade() -> None:
    op.drop_column("projects", "reason")
