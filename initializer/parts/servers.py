"""On servers: PostgreSQL, Redis, and any number of processes that perform runs themselves."""

import asyncio
import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from initializer.background import in_background
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.redis import open_redis_journal
from initializer.parts.running_parts import (
    WORK_FOLDER,
    RunningParts,
    keep_retiring,
    process_name,
    retention_of,
    runner_of,
)
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.redis_client import open_redis
from initializer.running.lease import Leases, open_leases
from initializer.running.recovery import Recovery
from initializer.running.runner import Runner
from initializer.settings import Settings

__all__ = ["hand_over", "new_owner", "open_on_servers", "own_work_folder"]

log = structlog.get_logger()


@asynccontextmanager
async def open_on_servers(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """For one of any number of processes: each run has a lease, and whoever sees one lost takes it over."""
    with own_work_folder(settings.data_dir / WORK_FOLDER) as work_folder:
        async with (
            open_database(settings.database_url, pool_size=settings.database_pool_size) as database,
            open_redis(settings.redis_url) as client,
            open_redis_journal(client) as journal,
            open_leases(client, Projects(database), owner=new_owner(), lease_s=settings.lease_s) as leases,
        ):
            projects = Projects(database)
            runner = runner_of(
                settings, forge, journal=journal, projects=projects, work_folder=work_folder, leases=leases
            )
            async with open_inline_engine(
                runner.run,
                max_concurrent_runs=settings.max_concurrent_runs,
                on_submit=leases.hold,
                pass_on=leases.pass_on,
            ) as engine:
                recovery = Recovery(projects, engine, leases, lease_s=settings.lease_s)
                is_leaving = asyncio.Event()

                async def look_after_runs() -> None:
                    # What is handed over is for others to take.
                    async with in_background(
                        recovery.keep(),
                        runner.keep_settling(),
                        keep_retiring(journal, projects, keep_for=retention_of(settings)),
                    ):
                        await is_leaving.wait()
                    await hand_over(runner, engine, leases, grace_s=settings.shutdown_grace_s)

                async with asyncio.TaskGroup() as group:
                    looking_after = group.create_task(look_after_runs())
                    try:
                        yield RunningParts(
                            projects=projects, journal=journal, engine=engine, leave=is_leaving.set
                        )
                    finally:
                        is_leaving.set()
                        await asyncio.wait((looking_after,))


async def hand_over(runner: Runner, engine: InlineEngine, leases: Leases, *, grace_s: float) -> None:
    """Hand over: what waits at once, what runs after its step or after the grace period."""
    runner.leave()  # before Redis is asked, which may not answer
    await leases.hand_over(engine.stop())
    try:
        async with asyncio.timeout(grace_s):
            await engine.until_idle()
    except TimeoutError:
        log.warning("runs cut off at the end of the grace period", grace_s=grace_s)


def new_owner() -> str:
    """A name for this process that never was another's."""
    return f"{process_name()}-{uuid.uuid4().hex}"


@contextmanager
def own_work_folder(parent: Path) -> Iterator[Path]:
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
