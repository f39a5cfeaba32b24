"""What the projects table does when PostgreSQL, or the way to it, is not as it should be."""

import asyncio
import contextlib
import random
import ssl

import asyncpg
import pytest

from harness.proxy import Relay
from harness.servers import PostgresServer
from initializer.model.events import Reason, Started, StepFailed
from initializer.model.progress import Status, fold
from initializer.model.summary import Summary, summarise
from initializer.projects.database import DatabaseUnavailable, migrate, open_database
from initializer.projects.projects import Projects
from model.runs import PIPELINE, at, numbered, project_of

pytestmark = pytest.mark.anyio

DEADLINE_S = 30
_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
FAREWELL = b"E" + (4 + len(_FIELDS)).to_bytes(4, "big") + _FIELDS
"""What PostgreSQL sends on each connection before it stops."""


def summary() -> Summary:
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
    failed = StepFailed(at=at(2), step="create_repo", duration_ms=900, error="no")
    return summarise(fold(PIPELINE, numbered(started, failed)), completed_at=at(7), digest="d")


async def finish(projects: Projects, run: str) -> bool:
    return await projects.finish(run, attempt=1, status=Status.FAILED, summary=summary(), error="no")


async def test_json_is_kept_as_jsonb(postgres_url: str, shared_postgres: PostgresServer) -> None:
    async with open_database(postgres_url) as database:
        projects = Projects(database)
        await projects.add(project_of("a1"), idempotency_key="k")
        assert await finish(projects, "a1")
    types = shared_postgres.sql(
        "SELECT DISTINCT jsonb_typeof(parameters), jsonb_typeof(initialization_summary) FROM projects",
        database=postgres_url.rpartition("/")[2],
    )
    assert types == "object|object"


async def test_an_end_whose_answer_is_lost_after_the_commit_lands_once(
    postgres_url: str, shared_postgres: PostgresServer
) -> None:
    name = postgres_url.rpartition("/")[2]
    with Relay(shared_postgres.port) as relay:
        async with open_database(relay.through(postgres_url), pool_size=1) as database:
            projects = Projects(database)
            for run in ("a1", "b2"):
                await projects.add(project_of(run), idempotency_key=run)
            assert await finish(projects, "b2")  # from here on the statement is known to both sides
            relay.lose_answers()
            with pytest.raises(DatabaseUnavailable):
                await finish(projects, "a1")
            written = "SELECT status, xmin FROM projects WHERE id = 'a1'"
            assert shared_postgres.sql(written, database=name).startswith("failed|")
            relay.come_back()
            assert await finish(projects, "a1")
            row = await projects.get("a1")
    assert row is not None
    assert (row.status, row.summary) == (Status.FAILED, summary())


async def test_a_farewell_of_the_server_between_two_statements_is_a_database_that_is_away(
    postgres_url: str, shared_postgres: PostgresServer
) -> None:
    """It comes before the connection ends, and the driver then complains of a state of its own."""
    with Relay(shared_postgres.port) as relay:
        async with open_database(relay.through(postgres_url), pool_size=1) as database:
            projects = Projects(database)
            await projects.add(project_of("a1"), idempotency_key="k")
            relay.say(FAREWELL)
            await asyncio.sleep(0.1)  # read by the driver, which tells nobody
            with pytest.raises(DatabaseUnavailable):
                await projects.get("a1")
            relay.cut()
            with contextlib.suppress(DatabaseUnavailable):  # one statement may find out
                await projects.get("a1")
            assert await finish(projects, "a1")


async def test_a_statement_that_both_sides_know_is_one_round_trip(
    postgres_url: str, shared_postgres: PostgresServer
) -> None:
    with Relay(shared_postgres.port) as relay:
        async with open_database(relay.through(postgres_url), pool_size=1) as database:
            projects = Projects(database)
            await projects.attempt_of("a1")
            before = relay.requests
            await projects.attempt_of("a1")
            assert relay.requests == before + 1


@pytest.mark.parametrize(
    ("mode", "is_encrypted"),
    [("disable", False), ("prefer", True), ("require", True), ("verify-ca", True), ("verify-full", True)],
)
async def test_connections_are_encrypted_as_the_address_asks(
    encrypted_postgres: PostgresServer, mode: str, is_encrypted: bool
) -> None:
    url = f"{encrypted_postgres.new_database()}?sslmode={mode}&sslrootcert={encrypted_postgres.certificate}"
    async with open_database(url) as database:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await database.fetch_val(query) is is_encrypted


async def test_a_server_that_does_not_prove_who_it_is_is_told_nothing(
    encrypted_postgres: PostgresServer, postgres_server: PostgresServer
) -> None:
    postgres_server.encrypt()
    url = f"{encrypted_postgres.new_database()}?sslmode=verify-full&sslrootcert={postgres_server.certificate}"
    with pytest.raises(ssl.SSLCertVerificationError):
        await migrate(url)


async def test_a_server_without_encryption_is_not_asked_where_the_address_demands_it(
    postgres_url: str,
) -> None:
    with pytest.raises(ConnectionError, match="SSL"):
        await migrate(f"{postgres_url}?sslmode=require")


async def test_a_value_that_postgresql_cannot_hold_is_no_outage(postgres_url: str) -> None:
    """As one it would be written again for ever."""
    async with open_database(postgres_url) as database:
        with pytest.raises(asyncpg.DataError):
            await Projects(database).add(project_of("a\0b"), idempotency_key="k")


async def test_hundreds_of_cancelled_operations_leak_no_connection(
    postgres_url: str, shared_postgres: PostgresServer
) -> None:
    chance = random.Random(3)
    name = postgres_url.rpartition("/")[2]
    async with asyncio.timeout(DEADLINE_S):
        async with open_database(postgres_url, pool_size=3) as database:
            projects = Projects(database)
            for batch in range(20):
                operations = [
                    asyncio.ensure_future(
                        projects.add(project_of(f"r{batch}-{n}"), idempotency_key=f"r{batch}-{n}")
                        if n % 2
                        else projects.find(search="project")
                    )
                    for n in range(20)
                ]
                for operation in operations:
                    for _ in range(chance.randrange(20)):
                        await asyncio.sleep(0)
                    operation.cancel()
                    operation.cancel()
                await asyncio.gather(*operations, return_exceptions=True)
            await database.drain()  # what cancelled callers have left to end by itself
            found = await asyncio.gather(*(projects.find() for _ in range(30)))  # ten times the pool
            assert len({page.total for page in found}) == 1
            states = shared_postgres.sql("SELECT state FROM pg_stat_activity", database=name).split()
            assert "transaction" not in states
            held = shared_postgres.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()", database=name
            )
            assert int(held) <= 3 + 1  # and this one


async def test_a_statement_that_takes_too_long_is_unavailable_and_harms_no_other(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initializer.projects.database.COMMAND_TIMEOUT_S", 0.3)
    async with open_database(postgres_url, pool_size=1) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.fetch_val("SELECT pg_sleep(30)")
        assert await database.fetch_val("SELECT 1") == 1


async def test_a_postgresql_that_is_stopped_and_started_again_is_unavailable_in_between(
    postgres_server: PostgresServer,
) -> None:
    async with open_database(postgres_server.new_database()) as database:
        projects = Projects(database)
        await projects.add(project_of("a1"), idempotency_key="k")
        postgres_server.stop()
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await finish(projects, "a1")
        postgres_server.start()
        async with asyncio.timeout(DEADLINE_S):
            while True:  # a connection from before may fail once
                try:
                    assert await finish(projects, "a1")
                except DatabaseUnavailable:
                    await asyncio.sleep(0)
                else:
                    break
        row = await projects.get("a1")
    assert row is not None
    assert row.status is Status.FAILED
