"""Alembic's entry: runs the migrations on the connection it is handed, in one transaction."""

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
    context.run_migrations()
connection.commit()
