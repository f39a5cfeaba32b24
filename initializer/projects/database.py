"""The connection to the database, safe to cancel, and its migrations."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import databases
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from initializer.errors import InitializerError
from initializer.projects.address import sqlite_file

__all__ = [
    "Database",
    "DatabaseDamaged",
    "DatabaseFull",
    "DatabaseUnavailable",
    "has_no_space",
    "migrate",
    "open_database",
]

BUSY_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 30
"""How long PostgreSQL may take for one statement, which has then failed, and for a connection to be made."""
POOL_SIZE = 10
DRAIN_LIMIT_S = 10
WAL_RETRY_S = 0.05
_MIGRATIONS = Path(__file__).parent / "migrations"
_FAULTS = (
    sqlite3.DatabaseError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement after the server's farewell, before the connection ends
    OSError,
)
_MISTAKES = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
)
"""Of these, what was asked is at fault, and the database is not."""
_NO_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""The second one is said of the index over the write-ahead log, which whoever opens the file first writes."""

T = TypeVar("T")


class DatabaseUnavailable(InitializerError):
    """The database did not answer; trying again may help."""


class DatabaseDamaged(DatabaseUnavailable):
    """The file holds no sound database any more. Once it does again, trying again helps."""


class DatabaseFull(DatabaseUnavailable):
    """The disk of the database has no room. Once it does again, trying again helps."""


class Database:
    """Runs queries, each in a task of its own.

    A cancelled `databases` operation can lose its connection for good (docs/architecture.md, "Cancellation"),
    so a cancelled caller leaves and the operation ends by itself; closing waits for those, up to a limit.
    """

    def __init__(self, connection: databases.Database) -> None:
        self._connection = connection
        self._operations: set[asyncio.Task[Any]] = set()

    async def execute(self, query: Any) -> None:
        """Run a statement. Raises `DatabaseUnavailable`; integrity and data errors pass as the driver's."""
        await self._run(self._connection.execute(query))

    async def fetch_one(self, query: Any) -> Any:
        """The first row, or None."""
        return await self._run(self._connection.fetch_one(query))

    async def fetch_all(self, query: Any) -> list[Any]:
        """All rows."""
        return await self._run(self._connection.fetch_all(query))

    async def fetch_tuples(self, query: Any) -> list[tuple[Any, ...]]:
        """All rows as plain tuples, of columns that PostgreSQL's driver gives as they are wanted: no JSON.

        For many rows: what a record gives by name costs 2 µs each time.
        """
        return [tuple(row._mapping) for row in await self.fetch_all(query)]

    async def fetch_val(self, query: Any) -> Any:
        """The first column of the first row, or None."""
        return await self._run(self._connection.fetch_val(query))

    async def drain(self) -> None:
        """Wait for the operations whose callers have left."""
        if self._operations:
            await asyncio.wait(self._operations, timeout=DRAIN_LIMIT_S)

    async def _run(self, operation: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(operation)
        self._operations.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except _FAULTS as error:
            if isinstance(error, _MISTAKES):
                raise
            if type(error) is sqlite3.DatabaseError:  # itself: what is said of a damaged file alone
                sentence = f"the database is damaged ({error}); put a sound copy in its place"
                raise DatabaseDamaged(sentence) from error
            if has_no_space(error):
                raise DatabaseFull("no space is left on the disk of the database; make room there") from error
            raise DatabaseUnavailable(f"the database did not answer: {error}") from error

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._operations.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where the caller has left


@contextlib.asynccontextmanager
async def open_database(url: str, *, pool_size: int = POOL_SIZE) -> AsyncIterator[Database]:
    """A migrated, connected database; on exit running operations end first.

    `pool_size` is how many connections PostgreSQL is asked for at most; SQLite has one an operation.
    """
    if url.startswith("sqlite"):
        options: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S}
        await asyncio.to_thread(_keep_write_ahead_log, sqlite_file(url))
    else:
        options = {
            "dsn": url,  # for its parameters, which the package leaves out
            "min_size": 1,
            "max_size": pool_size,
            "command_timeout": COMMAND_TIMEOUT_S,
            "timeout": COMMAND_TIMEOUT_S,
            "reset": _keep_session,
        }
    await migrate(url)
    connection = databases.Database(url, **options)
    await connection.connect()
    database = Database(connection)
    try:
        yield database
    finally:
        await database.drain()
        await connection.disconnect()


def has_no_space(error: Exception) -> bool:
    """Whether SQLite failed because the disk of its file is full, which it also calls "disk I/O error"."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _NO_SPACE


async def _keep_session(_connection: object) -> None:
    """Give a connection back to the pool as it is: no statement here changes its session, and the driver's
    way of undoing what was not done is a round trip more each time. A transaction left open is ended before.
    """


def _keep_write_ahead_log(path: str) -> None:
    """Switch the file to WAL, in which it stays. SQLite does not wait for others in this: processes that
    start together would see "database is locked".
    """
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(WAL_RETRY_S)
            else:
                return


async def migrate(url: str) -> None:
    """Bring the database's tables to this version; processes that start together take turns."""
    engine = _engine(url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _engine(url: str) -> AsyncEngine:
    """PostgreSQL's driver reads the address itself, as it does for every other connection."""
    if url.startswith("sqlite"):
        file = URL.create("sqlite+aiosqlite", database=sqlite_file(url))
        return create_async_engine(file, poolclass=NullPool)
    return create_async_engine("postgresql+asyncpg://", connect_args={"dsn": url}, poolclass=NullPool)
