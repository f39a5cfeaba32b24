"""What plain SQL asks for: a row for each step of each summary, and failures by step (docs/sql.md)."""

from alembic import op

revision = "0002"
down_revision = "0001"

_INDEX = """
CREATE INDEX projects_by_failed_step
ON projects ({failed_step}, initialization_completed_at)
"""
_VIEW = """
CREATE VIEW initialization_steps AS
SELECT
    projects.id AS project_id,
    projects.slug AS slug,
    projects.status AS project_status,
    projects.parameters -> 'template' ->> 'name' AS template,
    projects.initialization_completed_at AS completed_at,
    {position} AS position,
    one.value ->> 'step' AS step,
    one.value ->> 'status' AS status,
    CAST(one.value ->> 'duration' AS BIGINT) AS duration_ms,
    one.value ->> 'error' AS error
FROM projects, {steps}
"""
_POSTGRESQL_STEPS = """
jsonb_array_elements(
    CASE jsonb_typeof(initialization_summary -> 'steps')
        WHEN 'array' THEN initialization_summary -> 'steps'
        ELSE '[]'
    END
) WITH ORDINALITY AS one (value, number)
"""
_SQLITE_STEPS = """
json_each(
    CASE json_type(initialization_summary, '$.steps')
        WHEN 'array' THEN initialization_summary
        ELSE '{"steps": []}'
    END,
    '$.steps'
) AS one
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_INDEX.format(failed_step="(initialization_summary ->> 'failedStep')"))
        op.execute(_VIEW.format(position="one.number", steps=_POSTGRESQL_STEPS))
    else:
        op.execute(_INDEX.format(failed_step="initialization_summary ->> 'failedStep'"))
        op.execute(_VIEW.format(position="one.key + 1", steps=_SQLITE_STEPS.replace(":", "\\:")))


def downgrade() -> None:
    op.execute("DROP VIEW initialization_steps")
    op.execute("DROP INDEX projects_by_failed_step")
