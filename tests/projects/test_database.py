import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from initializer.model.progress import Status
from initializer.projects.database import Database, DatabaseUnavailable, migrate, open_database
from initializer.projects.projects import Projects
from model.runs import project_of

pytestmark = pytest.mark.anyio

DEADLINE_S = 30
OPEN_AND_ADD = """
import asyncio, sys
from initializer.projects.database import open_database
async def main():
    async with open_database(sys.argv[1]) as database:
        print(await database.fetch_val("select count(*) from projects"))
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


async def cancel_somewhere(operation: asyncio.Task[object], turns: int) -> None:
    """Cancel an operation after some turns of the loop; it may be over by then."""
    for _ in range(turns):
        await asyncio.sleep(0)
    operation.cancel()
    await asyncio.wait([operation])
    if not operation.cancelled():
        operation.exception()


def connection_threads() -> int:
    """Each SQLite connection has a thread; those of the event loop stay."""
    return sum(not thread.name.startswith("asyncio") for thread in threading.enumerate())


async def ask(projects: Projects, run: str, attempt: int, which: int) -> object:
    match which:
        case 0:
            return await projects.find(search="project")
        case 1:
            return await projects.add(project_of(run), idempotency_key=run)
        case 2:
            return await projects.claim("first", seen_attempt=attempt)
        case _:
            return await projects.get("first")


async def test_hundreds_of_cancelled_operations_leave_the_database_usable_and_it_closes(
    database_url: str,
) -> None:
    chance = random.Random(7)
    threads = connection_threads()
    async with asyncio.timeout(DEADLINE_S):
        async with open_database(database_url) as database:
            projects = Projects(database)
            await projects.add(project_of("first"), idempotency_key="first")
            for batch in range(20):
                operations: list[asyncio.Task[object]] = []
                for n in range(15):
                    run = f"r{batch}-{n}"
                    operations.append(asyncio.ensure_future(ask(projects, run, batch, chance.randrange(4))))
                await asyncio.gather(*(cancel_somewhere(it, chance.randrange(60)) for it in operations))
            assert await projects.get("first") is not None
            assert (await projects.find()).total >= 1
            for _ in range(20):
                last = asyncio.ensure_future(projects.find())
                await cancel_somewhere(last, 3)
    assert not database._operations
    async with asyncio.timeout(DEADLINE_S):
        while connection_threads() > threads:  # noqa: ASYNC110 - threads of connections that were closed
            await asyncio.sleep(0)


async def test_a_write_whose_caller_was_cancelled_is_carried_out(database: Database) -> None:
    projects = Projects(database)
    for n in range(40):
        adding: asyncio.Task[object] = asyncio.ensure_future(
            projects.add(project_of(f"r{n}"), idempotency_key=f"k{n}")
        )
        await cancel_somewhere(adding, n)
    await database.drain()
    assert (await projects.find()).total >= 39  # the first may have been cancelled before it began
    for n in range(40):
        assert await projects.add(project_of(f"r{n}"), idempotency_key=f"k{n}") == f"r{n}"
    assert (await projects.find()).total == 40


async def test_a_timeout_around_an_operation_is_a_timeout_and_nothing_else(database: Database) -> None:
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await database.fetch_val("select 1")
    assert await database.fetch_val("select 1") == 1


async def test_a_query_that_the_database_cannot_answer_now_is_unavailable(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with open_database(sqlite_url) as database:
        (tmp_path / "projects.db").write_bytes(b"")
        (tmp_path / "projects.db-wal").unlink(missing_ok=True)
        (tmp_path / "projects.db-shm").unlink(missing_ok=True)
        with pytest.raises(DatabaseUnavailable, match="did not answer"):
            await Projects(database).get("a1")


async def test_a_database_is_opened_twice_and_keeps_what_it_has(database_url: str) -> None:
    for total in range(3):
        async with open_database(database_url) as database:
            projects = Projects(database)
            assert (await projects.find()).total == total
            await projects.add(project_of(f"r{total}"), idempotency_key=str(total))


async def test_two_openings_at_once_see_the_same(database_url: str) -> None:
    async with open_database(database_url) as one, open_database(database_url) as other:
        await Projects(one).add(project_of("a1"), idempotency_key="k")
        claimed = await Projects(other).claim("a1", seen_attempt=1)
        assert claimed is not None
        assert claimed.attempt == 2
        row = await Projects(one).get("a1")
        assert row is not None
        assert (row.attempt, row.status) == (2, Status.INITIALIZING)


def test_four_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    starters = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPEN_AND_ADD, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    answers = [(*starter.communicate(timeout=60), starter.returncode) for starter in starters]
    assert answers == [("0\n", "", 0)] * 4


async def test_tables_have_the_columns_of_the_schema_after_the_migrations(
    sqlite_url: str, tmp_path: Path
) -> None:
    await migrate(sqlite_url)
    await migrate(sqlite_url)
    with sqlite3.connect(tmp_path / "projects.db") as connection:
        columns = {row[1] for row in connection.execute("pragma table_info(projects)")}
    connection.close()
    assert {"id", "slug", "status", "attempt", "initialization_summary", "initialization_error"} <= columns
    assert not any("step" in column for column in columns)


async def test_tables_that_a_newer_version_has_migrated_do_for_this_one(database_url: str) -> None:
    async with open_database(database_url) as database:
        await Projects(database).add(project_of("a1"), idempotency_key="a1")
        await database.execute("ALTER TABLE projects ADD COLUMN colour TEXT")
        await database.execute("UPDATE alembic_version SET version_num = '9999'")
    with capture_logs() as logs:
        async with open_database(database_url) as database:
            projects = Projects(database)
            await projects.add(project_of("b2"), idempotency_key="b2")
            assert (await projects.find()).total == 2
            assert await database.fetch_val("SELECT version_num FROM alembic_version") == "9999"
    (warning,) = logs
    assert (warning["log_level"], warning["revisions"]) == ("warning", ["9999"])
