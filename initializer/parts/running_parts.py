"""What is put together in each mode: rows, events, and the engine and the runner that perform runs."""

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import structlog

from initializer.engines.engine import Engine
from initializer.forges.local import LocalForge
from initializer.journal.journal import Journal, JournalUnavailable
from initializer.journal.redis import RedisJournal
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import Projects
from initializer.running.lease import Leases
from initializer.running.recovery import retire_left_behind
from initializer.running.runner import Runner
from initializer.settings import Settings
from initializer.steps.builtin import BUILTIN_STEPS

__all__ = [
    "SWEEP_INTERVAL_S",
    "WORK_FOLDER",
    "RunningParts",
    "keep_retiring",
    "process_name",
    "retention_of",
    "runner_of",
]

WORK_FOLDER = "work"
SWEEP_INTERVAL_S = 3600

log = structlog.get_logger()


class RunningParts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, events, and the engine that performs runs.

    `leave` has it begin no more of them and hand over what it can, while the rest of the process still ends.
    """

    projects: Projects
    journal: Journal
    engine: Engine
    leave: Callable[[], object]


def runner_of(
    settings: Settings,
    forge: LocalForge,
    *,
    journal: Journal,
    projects: Projects,
    work_folder: Path,
    leases: Leases | None = None,
) -> Runner:
    """What performs the steps of all runs of a process."""
    return Runner(
        journal=journal,
        projects=projects,
        steps={step.name: step for step in BUILTIN_STEPS},
        forges={forge.name: forge},
        work_folder=work_folder,
        keep_journal_for=retention_of(settings),
        leases=leases,
    )


def retention_of(settings: Settings) -> timedelta:
    """How long the journal of a run is kept after its end."""
    return timedelta(days=settings.journal_retention_days)


def process_name() -> str:
    """The name of this process for people: its host and its number."""
    return f"{socket.gethostname()}-{os.getpid()}"


async def keep_retiring(journal: RedisJournal, projects: Projects, *, keep_for: timedelta) -> None:
    """Retire, now and every hour, journals whose process ended before it could do so."""
    while True:
        try:
            await retire_left_behind(await journal.unretired(), journal, projects, keep_for=keep_for)
        except (JournalUnavailable, DatabaseUnavailable) as error:
            log.warning("journals not retired", error=str(error))
        await asyncio.sleep(SWEEP_INTERVAL_S)
