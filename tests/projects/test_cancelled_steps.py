"""Hundreds of runs that are cancelled, and then cut off, in the middle of what they ask the database."""

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from harness.servers import PostgresServer
from harness.waiting import wait_for
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.forges.forge import Forge
from initializer.journal.memory import MemoryJournal
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.database import Database, open_database
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.recovery import recover
from initializer.running.runner import Runner
from initializer.steps.step import Step, StepContext
from model.runs import pipeline_of, project_of

pytestmark = pytest.mark.anyio

ENGINES = 6
RUNS = 35
"""Of each engine, all performed at once."""
POOL_SIZE = 3
TURNS = 60
"""The most that a cancellation is put off by, in turns of the event loop."""
DEADLINE_S = 60
ANSWER_LIMIT_S = 10
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
"""Of others than who asks this."""
IN_TRANSACTION = f"{CONNECTIONS} AND state LIKE 'idle in transaction%'"


class NotedProjects(Projects):
    """Notes the runs whose final write has begun."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.finishing: set[str] = set()
        self._begun = asyncio.Event()

    async def finish(self, project_id: str, **values: Any) -> bool:
        self.finishing.add(project_id)
        self._begun.set()
        return await super().finish(project_id, **values)

    async def until_finishing(self, runs: int) -> None:
        """Wait until so many runs have begun their final write."""
        while len(self.finishing) < runs:
            self._begun.clear()
            await self._begun.wait()


class AskingStep(Step):
    """Asks the database, then stands until it is cancelled, and asks once more as it ends."""

    name, title, timeout_s = "ask", "Ask", DEADLINE_S

    def __init__(self, projects: Projects) -> None:
        self._projects = projects
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled_in_the_middle = 0
        self.faults: list[Exception] = []

    async def run(self, context: StepContext) -> None:
        self.begun.put_nowait(context.project.id)
        try:
            await self._ask(context.project.id)
            await asyncio.Event().wait()
        finally:
            await self._ask(context.project.id)

    async def _ask(self, run: str) -> None:
        try:
            assert await self._projects.get(run) is not None
            assert await self._projects.claim(run, seen_attempt=0) is None  # a write that finds nothing
        except asyncio.CancelledError:
            self.cancelled_in_the_middle += 1
            raise
        except Exception as error:
            self.faults.append(error)


class Performer:
    """Performs runs of that step on an open database."""

    def __init__(self, database: Database, journal: MemoryJournal, work_folder: Path) -> None:
        self.projects = NotedProjects(database)
        self.step = AskingStep(self.projects)
        self._runner = Runner(
            journal=journal,
            projects=self.projects,
            steps={self.step.name: self.step},
            forges={"local": cast(Forge, object())},
            work_folder=work_folder,
            keep_journal_for=timedelta(days=7),
        )

    async def cancel_and_cut_off(self, runs: Sequence[str], chance: random.Random) -> None:
        """Cancel each run in the middle of its step; close the engine in the middle of their ends.

        A step that still cleans up is cancelled once more by the closing, and what goes on even then by
        the cancellation of the closing itself.
        """
        rows = [await self._add(run) for run in runs]
        begun = len(self.projects.finishing)
        async with asyncio.TaskGroup() as group:
            ready: asyncio.Future[InlineEngine] = asyncio.get_running_loop().create_future()
            closing = asyncio.Event()
            serving = group.create_task(self._serve(ready, closing))
            engine = await ready
            for row in rows:
                await engine.submit(row, reason=Reason.CREATED)
            await asyncio.gather(*(self._cancel_one(engine, chance.randrange(TURNS)) for _ in runs))
            await self.projects.until_finishing(begun + chance.randrange(len(runs) // 2))
            closing.set()
            await turn(chance.randrange(TURNS))
            serving.cancel()

    async def end_all(self, runs: Sequence[str]) -> None:
        """Take up these runs, which are all that are open, and end them."""
        async with open_inline_engine(self._runner.run, max_concurrent_runs=1) as engine:
            assert await recover(self.projects, engine) == len(runs)
            for run in runs:
                engine.cancel(run, 2)
            await self.projects.until_finishing(len(runs))
            await engine.until_idle()

    async def _serve(self, ready: "asyncio.Future[InlineEngine]", closing: asyncio.Event) -> None:
        async with open_inline_engine(self._runner.run, max_concurrent_runs=RUNS) as engine:
            ready.set_result(engine)
            await closing.wait()

    async def _add(self, run: str) -> ProjectRow:
        project = project_of(run, pipeline=pipeline_of(ask=1))
        await self.projects.add(project, idempotency_key=run)
        return ProjectRow(project=project, status=Status.INITIALIZING, attempt=1)

    async def _cancel_one(self, engine: InlineEngine, turns: int) -> None:
        run = await self.step.begun.get()
        await turn(turns)
        engine.cancel(run, 1)


async def turn(turns: int) -> None:
    """Give the event loop so many turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


def connection_threads() -> set[threading.Thread]:
    """Each SQLite connection has a thread; those of the event loop stay."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio")}


@pytest.fixture
def count(database_url: str, request: pytest.FixtureRequest) -> Callable[[str], int]:
    """Asks PostgreSQL for a number; SQLite has no server, and so none of anything."""
    if database_url.startswith("sqlite"):
        return lambda _: 0
    server: PostgresServer = request.getfixturevalue("shared_postgres")
    return lambda query: int(server.sql(query, database=database_url.rpartition("/")[2]))


async def test_hundreds_of_steps_cancelled_in_the_middle_leak_no_connection_and_lose_no_run(
    database_url: str, count: Callable[[str], int], tmp_path: Path
) -> None:
    chance = random.Random(5)
    journal, work_folder = MemoryJournal(), tmp_path / "work"
    batches = [[f"r{batch}-{number}" for number in range(RUNS)] for batch in range(ENGINES)]
    threads, tasks = connection_threads(), asyncio.all_tasks()
    async with asyncio.timeout(DEADLINE_S):
        async with open_database(database_url, pool_size=POOL_SIZE) as database:
            performer = Performer(database, journal, work_folder)
            for batch in batches[:-1]:
                await performer.cancel_and_cut_off(batch, chance)
            async with asyncio.timeout(ANSWER_LIMIT_S):
                pages = await asyncio.gather(*(performer.projects.find() for _ in range(10 * POOL_SIZE)))
            assert {page.total for page in pages} == {(ENGINES - 1) * RUNS}
            assert count(CONNECTIONS) <= POOL_SIZE
            assert count(IN_TRANSACTION) == 0
            await performer.cancel_and_cut_off(batches[-1], chance)  # leaves operations to the closing
        for thread in connection_threads() - threads:
            thread.join(ANSWER_LIMIT_S)  # blocks the event loop, which no connection needs any more
            assert not thread.is_alive()
        wait_for(lambda: count(CONNECTIONS) == 0, "no connection", deadline_s=ANSWER_LIMIT_S)
        assert asyncio.all_tasks() == tasks
        assert performer.step.faults == []
        assert performer.step.cancelled_in_the_middle >= 100  # of about 250 on SQLite and 330 on PostgreSQL

        async with open_database(database_url, pool_size=POOL_SIZE) as database:
            successor = Performer(database, journal, work_folder)
            runs = [run for batch in batches for run in batch]
            standings = await successor.projects.standings(runs)
            left = [run for run in runs if standings[run].status is Status.INITIALIZING]
            ended = {run for run in runs if standings[run].status is Status.CANCELLED}
            assert {*left, *ended} == set(runs)
            assert ended == performer.projects.finishing  # what had begun was carried out
            await successor.end_all(left)
            standings = await successor.projects.standings(runs)
            assert {it.status for it in standings.values()} == {Status.CANCELLED}
