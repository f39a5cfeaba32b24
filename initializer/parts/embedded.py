"""The embedded default: one process, SQLite, and a file for the journal of each run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog

from initializer.background import in_background
from initializer.engines.inline import open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.file import FileJournal
from initializer.parts.running_parts import (
    SWEEP_INTERVAL_S,
    WORK_FOLDER,
    RunningParts,
    retention_of,
    runner_of,
)
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running.recovery import recover, retire_left_behind
from initializer.settings import Settings

__all__ = ["open_embedded"]

JOURNAL_FOLDER = "journals"

log = structlog.get_logger()


@asynccontextmanager
async def open_embedded(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """For the one process that holds the lock on the data folder: whatever is unfinished has no owner."""
    journal = FileJournal(settings.data_dir / JOURNAL_FOLDER)
    async with open_database(settings.database_url) as database, in_background(_sweep(journal)):
        projects = Projects(database)
        runner = runner_of(
            settings,
            forge,
            journal=journal,
            projects=projects,
            work_folder=settings.data_dir / WORK_FOLDER,
        )
        async with (
            in_background(runner.keep_settling()),
            open_inline_engine(runner.run, max_concurrent_runs=settings.max_concurrent_runs) as engine,
        ):
            await asyncio.to_thread(forge.clear_up)
            left_behind = await journal.unretired()
            await retire_left_behind(left_behind, journal, projects, keep_for=retention_of(settings))
            await recover(projects, engine)
            yield RunningParts(projects=projects, journal=journal, engine=engine, leave=engine.stop)


async def _sweep(journal: FileJournal) -> None:
    """Delete retired journals, now and every hour."""
    while True:
        try:
            removed = await journal.remove_retired(datetime.now(UTC))
        except OSError as error:  # kept journals are no reason to stop
            log.warning("retired journals not deleted", error=str(error))
        else:
            if removed:
                log.info("retired journals deleted", count=removed)
        await asyncio.sleep(SWEEP_INTERVAL_S)
