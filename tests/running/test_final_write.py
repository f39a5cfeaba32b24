"""PostgreSQL is stopped at the moment of the final write: it lands when the server is back, and once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stage import DEADLINE_S, Stage, step_of

from harness.servers import PostgresServer
from initializer.model.events import Saving, is_final
from initializer.model.progress import Status
from initializer.projects.database import DatabaseUnavailable, open_database
from initializer.projects.projects import Projects
from initializer.running import patience
from initializer.steps.step import StepContext

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(
    anyio_backend: str, tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    monkeypatch.setattr(patience, "_PAUSES_S", (0.01,))
    async with open_database(postgres_server.new_database()) as database:
        yield Stage(tmp_path, Projects(database))


async def test_the_end_of_a_run_waits_for_a_postgresql_that_is_stopped(
    stage: Stage, postgres_server: PostgresServer
) -> None:
    async def step(context: StepContext) -> None:
        postgres_server.stop()

    steps = (step_of("only", step),)
    await stage.add(*steps)
    running = asyncio.create_task(stage.run(*steps))
    async with asyncio.timeout(DEADLINE_S):
        while not any(isinstance(event, Saving) for event in await stage.events()):
            await stage.until_event(len(await stage.events()) + 1)
    assert (await stage.progress()).is_saving  # which is what the page says
    with pytest.raises(DatabaseUnavailable):
        await stage.row()
    assert not running.done()
    postgres_server.start()
    await running
    row = await stage.row()
    assert row.status is Status.ACTIVE
    assert row.summary is not None
    assert is_final((await stage.events())[-1])
