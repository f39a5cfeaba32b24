"""The end that a row has, for a journal that does not have it."""

from contextlib import suppress
from datetime import UTC, datetime

from initializer.errors import InitializerError
from initializer.journal.journal import Journal
from initializer.model.events import Cancelled, Completed, Event, Failed, is_final
from initializer.model.progress import Status
from initializer.projects.projects import ProjectRow
from initializer.running.outbox import Outbox

__all__ = ["append_end"]


async def append_end(row: ProjectRow, journal: Journal) -> None:
    """Append the final event that says what the final row says, unless an end is there or it is not taken."""
    run = row.project.id
    with suppress(InitializerError):
        history = await journal.read(run)
        if history and is_final(history[-1]):
            return
        outbox = Outbox(attempt=row.attempt, history=history)
        outbox.put(_end_of(row, datetime.now(UTC)))
        expected, events = outbox.batch()
        await journal.append(run, events, expected_tail=expected, is_durable=True)


def _end_of(row: ProjectRow, at: datetime) -> Event:
    match row.status:
        case Status.ACTIVE:
            return Completed(at=at)
        case Status.FAILED:
            step = row.summary.failed_step if row.summary else None
            return Failed(at=at, step=step or "", error=row.error or "")
        case _:
            return Cancelled(at=at)
