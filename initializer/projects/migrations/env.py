"""Alembic's entry: runs the migrations on the connection it is handed, in one transaction.

Migrations only add, so that an older version works with the tables of a newer one, and leaves them alone.
"""

import structlog
from alembic import context
from sqlalchemy import text

from initializer.projects.schema import metadata

connection = context.config.attributes["connection"]
is_sqlite = connection.dialect.name == "sqlite"

if is_sqlite:
    # The driver's own transaction would begin deferred, and the second of two starters would fail at once.
    connection.connection.driver_connection.isolation_level = None
    connection.exec_driver_sql("BEGIN IMMEDIATE")

context.configure(connection=connection, target_metadata=metadata, render_as_batch=is_sqlite)
with context.begin_transaction():
    if not is_sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(7260158334871)"))
    known = {script.revision for script in context.script.walk_revisions()}
    if unknown := set(context.get_context().get_current_heads()) - known:
        structlog.get_logger().warning(
            "a newer version has migrated the tables; they are used as they are", revisions=sorted(unknown)
        )
    else:
        context.run_migrations()
connection.commit()
