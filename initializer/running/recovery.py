"""Takes up what a process left behind when it ended: its runs, and the journals of those that were over."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import structlog

from initializer.engines.engine import Engine
from initializer.journal.journal import Journal
from initializer.model.events import Reason
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import Projects
from initializer.running.absence import Absences, Sight
from initializer.running.lease import Leases, LeaseState, LeaseUnavailable

__all__ = ["Recovery", "recover", "retire_left_behind", "takeover_limit_s"]

LOOK_S = 1.0
"""How often a process looks for runs without an owner."""
ROWS_ASKED = 500

log = structlog.get_logger()


def takeover_limit_s(lease_s: float) -> float:
    """How soon a run whose process died is taken over: its lease runs out, and is away for as long again."""
    return 2 * lease_s + 2 * LOOK_S


async def recover(projects: Projects, engine: Engine) -> int:
    """Claim every unfinished run and submit it, oldest first; gives how many.

    Only for a process that knows itself alone, as the lock on the data folder makes it: whatever is
    unfinished then has no owner. Raises `DatabaseUnavailable`.
    """
    claimed = 0
    for row in await projects.unfinished():
        claimed += await _take_over(projects, engine, (row.project.id, row.attempt))
    return claimed


async def retire_left_behind(
    journals: Sequence[str], journal: Journal, projects: Projects, *, keep_for: timedelta
) -> None:
    """Retire those of these journals whose run is over: its process ended before it could do so.

    Raises `DatabaseUnavailable` and `JournalUnavailable`.
    """
    for start in range(0, len(journals), ROWS_ASKED):
        statuses = await projects.statuses(journals[start : start + ROWS_ASKED])
        for run, status in statuses.items():
            if status.is_final:
                await journal.retire(run, keep_for=keep_for)


class Recovery:
    """Looks at open rows in every process of many: claims each lost run once, and ends what is cancelled."""

    def __init__(self, projects: Projects, engine: Engine, leases: Leases, *, lease_s: float) -> None:
        self._projects = projects
        self._engine = engine
        self._leases = leases
        self._absences = Absences(period_s=lease_s, max_gap_s=max(lease_s / 2, 2 * LOOK_S))

    async def keep(self) -> None:
        """Look, for ever."""
        while True:
            try:
                for lost in await self._look():
                    await _take_over(self._projects, self._engine, lost)
            except LeaseUnavailable as error:
                self._absences.broke()
                log.warning("lost runs not looked for", error=str(error))
            except DatabaseUnavailable as error:
                log.warning("lost runs not looked for", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> list[Sight]:
        runs = await self._projects.open_runs()
        for run, seen in runs.items():
            if seen.is_cancelled:
                self._engine.cancel(run)
        leases = await self._leases.look(runs)
        absent = [(run, runs[run].attempt) for run, state in leases.items() if state is LeaseState.ABSENT]
        left = [(run, runs[run].attempt) for run, state in leases.items() if state is LeaseState.HANDED_OVER]
        return [*left, *self._absences.saw(absent, now=time.monotonic())]


async def _take_over(projects: Projects, engine: Engine, lost: Sight) -> bool:
    run, seen_attempt = lost
    row = await projects.claim(run, seen_attempt=seen_attempt)
    if row is None:
        return False
    log.info("run taken over", project=run, attempt=row.attempt)
    engine.submit(row, reason=Reason.TAKEOVER)
    return True
