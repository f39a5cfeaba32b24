"""Takes up what a process left behind when it ended: its runs, and the journals of those that were over."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from initializer.engines.engine import Engine
from initializer.journal.journal import Journal
from initializer.model.events import Reason
from initializer.projects.projects import Projects

__all__ = ["recover", "retire_left_behind"]

ROWS_ASKED = 500

log = structlog.get_logger()


async def recover(projects: Projects, engine: Engine) -> int:
    """Claim every unfinished run and submit it, oldest first; gives how many.

    Only for a process that knows itself alone, as the lock on the data folder makes it: whatever is
    unfinished then has no owner. Raises `DatabaseUnavailable`.
    """
    claimed = 0
    for row in await projects.unfinished():
        attempt = await projects.claim(row.project.id, seen_attempt=row.attempt)
        if attempt is None:
            continue
        log.info("run taken over", project=row.project.id, attempt=attempt)
        engine.submit(row.project, attempt=attempt, reason=Reason.TAKEOVER)
        claimed += 1
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
