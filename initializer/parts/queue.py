"""On servers with workers: those who have runs performed, and those who perform what the queue gives them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import msgspec
import structlog
from redis.asyncio import Redis

from initializer.background import in_background
from initializer.engines.bull_worker import BullWorker, open_bull_worker
from initializer.engines.bullmq import BullEngine, open_bull_engine
from initializer.engines.inline import open_inline_engine
from initializer.engines.presence import open_presence
from initializer.forges.local import LocalForge
from initializer.journal.redis import RedisJournal, open_redis_journal
from initializer.parts.running_parts import (
    WORK_FOLDER,
    RunningParts,
    keep_retiring,
    process_name,
    retention_of,
    runner_of,
)
from initializer.parts.servers import new_owner, own_work_folder
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.redis_client import open_redis
from initializer.running.lease import Leases, open_leases
from initializer.running.queued import QueuedRuns, end_cancelled, submit_again
from initializer.running.recovery import Recovery
from initializer.running.runner import Runner
from initializer.settings import Settings

__all__ = ["open_before_workers", "open_worker"]

BULLMQ_READ_LIMIT_S = 15

log = structlog.get_logger()


@asynccontextmanager
async def open_before_workers(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """For a process that has its runs performed by workers."""
    async with _open_queue(settings, forge) as parts:
        yield RunningParts(
            projects=parts.projects,
            journal=parts.journal,
            engine=parts.engine,
            leave=lambda: None,  # its workers have the runs
        )


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
                async with open_presence(settings.redis_url, worker=process_name()):
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
    with own_work_folder(settings.data_dir / WORK_FOLDER) as work_folder:
        async with (
            open_database(settings.database_url, pool_size=settings.database_pool_size) as database,
            open_redis(settings.redis_url) as client,
            open_redis_journal(client) as journal,
            open_leases(client, Projects(database), owner=new_owner(), lease_s=settings.lease_s) as leases,
            _open_bullmq_client(settings) as bullmq_client,
            open_bull_engine(bullmq_client, keep_for=retention_of(settings)) as engine,
        ):
            projects = Projects(database)
            runner = runner_of(
                settings, forge, journal=journal, projects=projects, work_folder=work_folder, leases=leases
            )
            end = partial(end_cancelled, runner.run, engine)
            async with open_inline_engine(end, max_concurrent_runs=1, on_submit=leases.hold) as ending:
                recovery = Recovery(
                    projects,
                    ending,
                    leases,
                    lease_s=settings.lease_s,
                    take_up=partial(submit_again, projects, engine),
                    cancel=engine.cancel,
                )
                async with in_background(
                    recovery.keep(),
                    runner.keep_settling(),
                    keep_retiring(journal, projects, keep_for=retention_of(settings)),
                ):
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


async def _leave_queue(runner: Runner, worker: BullWorker, *, grace_s: float) -> None:
    """Take no more jobs; runs are handed over after their step, or after the grace period as they stand."""
    await worker.leave()
    runner.leave()
    try:
        async with asyncio.timeout(grace_s):
            await worker.until_idle()
    except TimeoutError:
        log.warning("runs cut off at the end of the grace period", grace_s=grace_s)
