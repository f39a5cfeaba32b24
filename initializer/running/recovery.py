"""Takes over the runs that a process left behind when it ended."""

import structlog

from initializer.engines.engine import Engine
from initializer.model.events import Reason
from initializer.projects.projects import Projects

__all__ = ["recover"]

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
