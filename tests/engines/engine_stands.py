"""The engines that there are, each with all that it needs, opened in the same way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from initializer.engines.bull_worker import open_bull_worker
from initializer.engines.bullmq import open_bull_engine
from initializer.engines.engine import Engine
from initializer.engines.inline import InlineEngine, Perform, open_inline_engine
from initializer.engines.presence import open_presence
from initializer.journal.memory import MemoryJournal
from initializer.model.events import Completed, Reason
from initializer.model.progress import Progress, Status
from initializer.model.summary import summarise
from initializer.projects.database import open_database
from initializer.projects.projects import ProjectRow, Projects
from initializer.redis_client import open_redis
from initializer.running.lease import open_leases
from initializer.running.queued import QueuedRuns
from initializer.running.recovery import Recovery
from model.runs import project_of

__all__ = ["BullStand", "InlineStand", "Runs", "Stand"]

DEADLINE_S = 20


class Runs:
    """Performs runs by waiting until they are let go; breaks those that are to break."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cut_off: list[str] = []
        self.cancelled: dict[str, asyncio.Event] = {}
        self._let_go: dict[str, asyncio.Future[BaseException | None]] = {}
        self._changed = asyncio.Condition()

    async def perform(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        run = row.project.id
        self.cancelled[run] = cancelled
        self.begun.append(run)
        await self._tell()
        try:
            error = await self._future(run)
        except asyncio.CancelledError:
            self.cut_off.append(run)
            raise
        self.ended.append(run)
        await self._tell()
        if error is not None:
            raise error

    def let_go(self, *runs: str, error: BaseException | None = None) -> None:
        for run in runs:
            self._future(run).set_result(error)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(condition)

    def _future(self, run: str) -> "asyncio.Future[BaseException | None]":
        return self._let_go.setdefault(run, asyncio.get_running_loop().create_future())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


Open = Callable[[Runs, int], AbstractAsyncContextManager[Engine]]


class Stand:
    """Opens an engine that performs so many runs at once, and submits to it as the app does."""

    def open(self, runs: Runs, max_concurrent_runs: int) -> AbstractAsyncContextManager[Engine]:
        raise NotImplementedError

    async def submit(self, engine: Engine, *runs: str, reason: Reason = Reason.CREATED) -> None:
        for run in runs:
            is_owned = engine.owns_runs
            status = Status.INITIALIZING if is_owned else Status.PENDING
            row = ProjectRow(project=project_of(run), status=status, attempt=int(is_owned))
            await engine.submit(row, reason=reason)


class InlineStand(Stand):
    def open(self, runs: Runs, max_concurrent_runs: int) -> AbstractAsyncContextManager[Engine]:
        return open_inline_engine(runs.perform, max_concurrent_runs=max_concurrent_runs)


class BullStand(Stand):
    """A web process's engine and a worker in one, over a real Redis; rows in SQLite."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._url = f"sqlite:///{folder}/projects.db"
        self._redis_url = redis_url
        self._projects: Projects | None = None

    @asynccontextmanager
    async def open(self, runs: Runs, max_concurrent_runs: int) -> AsyncIterator[Engine]:
        lease_s = 5
        async with (
            open_database(self._url) as database,
            open_redis(self._redis_url) as client,
            open_redis(self._redis_url, is_text=True, read_limit_s=10) as queue_client,
            open_redis(self._redis_url, is_text=True, read_limit_s=10) as worker_client,
        ):
            projects, journal = Projects(database), MemoryJournal()
            self._projects = projects
            async with (
                open_leases(client, projects, owner="me", lease_s=lease_s) as leases,
                open_bull_engine(queue_client, keep_for=timedelta(days=7)) as engine,
            ):
                queued = QueuedRuns(
                    projects=projects,
                    journal=journal,
                    leases=leases,
                    recovery=Recovery(projects, InlineEngine(), leases, lease_s=lease_s),
                    engine=engine,
                    run=_ending(runs.perform, projects, journal),
                    lease_s=lease_s,
                )
                async with (
                    open_bull_worker(
                        worker_client, queued.perform, concurrency=max_concurrent_runs, lease_s=lease_s
                    ),
                    open_presence(self._redis_url, worker="me"),
                ):
                    yield engine

    async def submit(self, engine: Engine, *runs: str, reason: Reason = Reason.CREATED) -> None:
        assert self._projects is not None
        for run in runs:
            await self._projects.add(project_of(run), idempotency_key=run, is_owned=engine.owns_runs)
        await super().submit(engine, *runs, reason=reason)


def _ending(perform: Perform, projects: Projects, journal: MemoryJournal) -> Perform:
    """The same, with an end in the row and the journal."""

    async def run(row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        await perform(row, reason, cancelled)
        project, attempt, now = row.project, row.attempt, datetime.now(UTC)
        summary = summarise(Progress.waiting(project.parameters.pipeline), completed_at=now, digest="")
        await projects.finish(project.id, attempt=attempt, status=Status.ACTIVE, summary=summary, error=None)
        await journal.append(project.id, [Completed(id=f"{attempt}-1", at=now)], expected_tail=None)

    return run
