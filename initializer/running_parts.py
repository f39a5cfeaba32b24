"""What runs are performed with: embedded in one process, or on servers in any number of them."""

import asyncio
import fcntl
import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import structlog
from redis.asyncio import Redis

from initializer.engines.bull_worker import BullWorker, open_bull_worker
from initializer.engines.bullmq import BullEngine, open_bull_engine
from initializer.engines.engine import Engine
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.engines.presence import open_presence
from initializer.forges.local import LocalForge
from initializer.journal.file import FileJournal
from initializer.journal.journal import Journal, JournalUnavailable
from initializer.journal.redis import RedisJournal, open_redis_journal
from initializer.projects.database import DatabaseUnavailable, open_database
from initializer.projects.projects import Projects
from initializer.redis_client import open_redis
from initializer.running.lease import Leases, open_leases
from initializer.running.queued import QueuedRuns, submit_again
from initializer.running.recovery import Recovery, recover, retire_left_behind
from initializer.running.runner import Runner
from initializer.settings import Settings
from initializer.steps.builtin import BUILTIN_STEPS

__all__ = ["RunningParts", "open_running_parts", "open_worker"]

WORK_FOLDER, JOURNAL_FOLDER = "work", "journals"
SWEEP_INTERVAL_S = 3600
BULLMQ_READ_LIMIT_S = 15

log = structlog.get_logger()


class RunningParts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, events, and the engine that performs runs."""

    projects: Projects
    journal: Journal
    engine: Engine


@asynccontextmanager
async def open_running_parts(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """The parts at work; what was left unfinished goes on."""
    opener = _open_embedded
    if settings.is_on_servers:
        opener = _open_before_workers if settings.has_workers else _open_on_servers
    async with opener(settings, forge) as parts:
        yield parts


@asynccontextmanager
async def _open_embedded(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """For the one process that holds the lock on the data folder: whatever is unfinished has no owner."""
    journal = FileJournal(settings.data_dir / JOURNAL_FOLDER)
    async with open_database(settings.database_url) as database, _sweeping(journal):
        projects = Projects(database)
        runner = _runner(
            settings,
            forge,
            journal=journal,
            projects=projects,
            work_folder=settings.data_dir / WORK_FOLDER,
        )
        async with open_inline_engine(runner.run, max_concurrent_runs=settings.max_concurrent_runs) as engine:
            await asyncio.to_thread(forge.clear_up)
            left_behind = await journal.unretired()
            await retire_left_behind(left_behind, journal, projects, keep_for=_retention(settings))
            await recover(projects, engine)
            yield RunningParts(projects=projects, journal=journal, engine=engine)


@asynccontextmanager
async def _open_on_servers(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """For one of any number of processes: each run has a lease, and whoever sees one lost takes it over."""
    with _work_folder(settings.data_dir / WORK_FOLDER) as work_folder:
        async with (
            open_database(settings.database_url, pool_size=settings.database_pool_size) as database,
            open_redis(settings.redis_url) as client,
            open_redis_journal(client) as journal,
            open_leases(client, Projects(database), owner=_owner(), lease_s=settings.lease_s) as leases,
        ):
            projects = Projects(database)
            runner = _runner(
                settings, forge, journal=journal, projects=projects, work_folder=work_folder, leases=leases
            )
            async with open_inline_engine(
                runner.run, max_concurrent_runs=settings.max_concurrent_runs, on_submit=leases.hold
            ) as engine:
                try:
                    # What is handed over below is for others to take.
                    async with (
                        _recovering(Recovery(projects, engine, leases, lease_s=settings.lease_s)),
                        _retiring(journal, projects, keep_for=_retention(settings)),
                    ):
                        yield RunningParts(projects=projects, journal=journal, engine=engine)
                finally:
                    await _leave(runner, engine, leases, grace_s=settings.shutdown_grace_s)


@asynccontextmanager
async def _open_before_workers(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """For a process that has its runs performed by workers."""
    async with _open_queue(settings, forge) as parts:
        yield RunningParts(projects=parts.projects, journal=parts.journal, engine=parts.engine)


@asynccontextmanager
async def open_worker(settings: Settings, forge: LocalForge, *, concurrency: int) -> AsyncIterator[None]:
    """A worker that performs queued runs, `concurrency` at once; on exit it hands them over."""
    async with _open_queue(settings, forge) as parts, _open_bullmq_client(settings) as client:
        queued = QueuedRuns(
            projects=parts.projects,
            journal=parts.journal,
            leases=parts.leases,
            recovery=parts.recovery,
            engine=parts.engine,
            run=parts.runner.run,
            lease_s=settings.lease_s,
        )
        async with open_bull_worker(
            client, queued.perform, concurrency=concurrency, lease_s=settings.lease_s
        ) as worker:
            try:
                async with open_presence(settings.redis_url, worker=_process_name()):
                    yield
            finally:
                await _leave_queue(parts.runner, worker, grace_s=settings.shutdown_grace_s)


class _QueueParts(msgspec.Struct, frozen=True, kw_only=True):
    projects: Projects
    journal: RedisJournal
    leases: Leases
    engine: BullEngine
    recovery: Recovery
    runner: Runner


@asynccontextmanager
async def _open_queue(settings: Settings, forge: LocalForge) -> AsyncIterator[_QueueParts]:
    """What workers, and those who have work for them, have in common.

    A run that is cancelled while nobody performs it needs no worker: whoever sees it first ends it.
    """
    with _work_folder(settings.data_dir / WORK_FOLDER) as work_folder:
        async with (
            open_database(settings.database_url, pool_size=settings.database_pool_size) as database,
            open_redis(settings.redis_url) as client,
            open_redis_journal(client) as journal,
            open_leases(client, Projects(database), owner=_owner(), lease_s=settings.lease_s) as leases,
            _open_bullmq_client(settings) as bullmq_client,
            open_bull_engine(bullmq_client, keep_for=_retention(settings)) as engine,
        ):
            projects = Projects(database)
            runner = _runner(
                settings, forge, journal=journal, projects=projects, work_folder=work_folder, leases=leases
            )
            async with open_inline_engine(runner.run, max_concurrent_runs=1, on_submit=leases.hold) as ending:
                recovery = Recovery(
                    projects,
                    ending,
                    leases,
                    lease_s=settings.lease_s,
                    take_up=partial(submit_again, projects, engine),
                    cancel=engine.cancel,
                )
                async with _recovering(recovery), _retiring(journal, projects, keep_for=_retention(settings)):
                    yield _QueueParts(
                        projects=projects,
                        journal=journal,
                        leases=leases,
                        engine=engine,
                        recovery=recovery,
                        runner=runner,
                    )


def _open_bullmq_client(settings: Settings) -> AbstractAsyncContextManager["Redis"]:
    """A client for BullMQ, which waits for jobs 5 s at a time and sets no limits of its own."""
    return open_redis(settings.redis_url, is_text=True, read_limit_s=BULLMQ_READ_LIMIT_S)


def _owner() -> str:
    return f"{_process_name()}-{uuid.uuid4().hex}"


def _process_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _runner(
    settings: Settings,
    forge: LocalForge,
    *,
    journal: Journal,
    projects: Projects,
    work_folder: Path,
    leases: Leases | None = None,
) -> Runner:
    return Runner(
        journal=journal,
        projects=projects,
        steps={step.name: step for step in BUILTIN_STEPS},
        forges={forge.name: forge},
        work_folder=work_folder,
        keep_journal_for=_retention(settings),
        leases=leases,
    )


def _retention(settings: Settings) -> timedelta:
    return timedelta(days=settings.journal_retention_days)


async def _leave(runner: Runner, engine: InlineEngine, leases: Leases, *, grace_s: float) -> None:
    """Hand over: what waits at once, what runs after its step or after the grace period."""
    for run, attempt in engine.stop():
        await leases.drop(run, attempt, is_handed_over=True)
    runner.leave()
    try:
        async with asyncio.timeout(grace_s):
            await engine.until_idle()
    except TimeoutError:
        log.warning("runs cut off at the end of the grace period", grace_s=grace_s)


async def _leave_queue(runner: Runner, worker: BullWorker, *, grace_s: float) -> None:
    """Take no more jobs; runs are handed over after their step, or after the grace period as they stand."""
    await worker.leave()
    runner.leave()
    try:
        async with asyncio.timeout(grace_s):
            await worker.until_idle()
    except TimeoutError:
        log.warning("runs cut off at the end of the grace period", grace_s=grace_s)


@asynccontextmanager
async def _recovering(recovery: Recovery) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(recovery.keep())
        try:
            yield
        finally:
            keeper.cancel()


@asynccontextmanager
async def _retiring(journal: RedisJournal, projects: Projects, *, keep_for: timedelta) -> AsyncIterator[None]:
    """Retire, at start and every hour, journals whose process ended before it could do so."""

    async def retire() -> None:
        while True:
            try:
                await retire_left_behind(await journal.unretired(), journal, projects, keep_for=keep_for)
            except (JournalUnavailable, DatabaseUnavailable) as error:
                log.warning("journals not retired", error=str(error))
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async with asyncio.TaskGroup() as group:
        retirer = group.create_task(retire())
        try:
            yield
        finally:
            retirer.cancel()


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A numbered folder that no other process of this machine works in; the lock ends with the process."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        number += 1
        descriptor = os.open(parent / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            yield parent / str(number)
        finally:
            os.close(descriptor)
        return


@asynccontextmanager
async def _sweeping(journal: FileJournal) -> AsyncIterator[None]:
    """Delete retired journals at start and every hour."""

    async def sweep() -> None:
        while True:
            try:
                removed = await journal.remove_retired(datetime.now(UTC))
            except OSError as error:  # kept journals are no reason to stop
                log.warning("retired journals not deleted", error=str(error))
            else:
                if removed:
                    log.info("retired journals deleted", count=removed)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async with asyncio.TaskGroup() as group:
        sweeper = group.create_task(sweep())
        try:
            yield
        finally:
            sweeper.cancel()
