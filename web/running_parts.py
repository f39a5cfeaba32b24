"""What runs are performed with: embedded in one process, or on servers with any number of processes."""

import asyncio
import fcntl
import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.file import FileJournal
from initializer.journal.journal import Journal, JournalUnavailable
from initializer.journal.redis import RedisJournal, open_redis_journal
from initializer.projects.database import DatabaseUnavailable, open_database
from initializer.projects.projects import Projects
from initializer.redis_client import open_redis
from initializer.running.lease import Leases, open_leases
from initializer.running.recovery import Recovery, recover, retire_left_behind
from initializer.running.runner import Runner
from initializer.settings import Settings
from initializer.steps.builtin import BUILTIN_STEPS

__all__ = ["RunningParts", "open_running_parts"]

WORK_FOLDER, JOURNAL_FOLDER = "work", "journals"
SWEEP_INTERVAL_S = 3600

log = structlog.get_logger()


class RunningParts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, events, and the engine that performs runs."""

    projects: Projects
    journal: Journal
    engine: InlineEngine


@asynccontextmanager
async def open_running_parts(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """The parts at work; what was left unfinished goes on."""
    opener = _open_on_servers if settings.is_on_servers else _open_embedded
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
    owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    with _work_folder(settings.data_dir / WORK_FOLDER) as work_folder:
        async with (
            open_database(settings.database_url, pool_size=settings.database_pool_size) as database,
            open_redis(settings.redis_url) as client,
            open_redis_journal(client) as journal,
            open_leases(client, Projects(database), owner=owner, lease_s=settings.lease_s) as leases,
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
