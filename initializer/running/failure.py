"""The end of a run that cannot go on: a damaged journal, or an error that nobody foresaw."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from initializer.errors import InitializerError
from initializer.journal.journal import Journal, JournalUnavailable
from initializer.model.events import Event
from initializer.model.execution import Execution
from initializer.model.parameters import Project
from initializer.model.pipeline import StepSpec
from initializer.model.progress import Status, fold
from initializer.model.summary import summarise
from initializer.model.text import sentence_of
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.outbox import Outbox
from initializer.running.outcome import unexpected
from initializer.running.ownership import OwnershipLost
from initializer.running.patience import until_answered

__all__ = ["give_up"]

log = structlog.get_logger()


async def give_up(row: ProjectRow, error: Exception, *, journal: Journal, projects: Projects) -> bool:
    """End the run `failed`, at the step it stood in, with what its journal still tells.

    The row is what counts; the journal gets the last events if it takes them. A run that has ended
    otherwise, or is another attempt's by now, stays as it is: that gives False.
    """
    project, attempt = row.project, row.attempt
    history = await _readable(project, journal)
    execution = Execution(fold(project.parameters.pipeline, history))
    is_ended = execution.progress.status.is_final
    if is_ended and execution.progress.attempt == attempt:
        return True  # the row is written before the final event
    try:
        outbox = Outbox(attempt=attempt, history=history)
    except OwnershipLost:
        return False

    def put(event: Event) -> None:
        for numbered in outbox.put(event):
            execution.advance(numbered)

    now = datetime.now(UTC)
    if is_ended:  # as the try before this one did
        put(execution.start(row.reason, now))
    if execution.progress.failed is None:
        spec = _step_at_hand(execution)
        put(execution.fail_step(spec, duration_ms=0, error=_sentence(project, error), at=now))
    put(execution.save(now))
    summary = summarise(
        execution.progress,
        completed_at=now,
        digest=outbox.digest.hex(),
        reason=row.reason,
        earlier=row.summary,
    )
    is_written = await until_answered(
        lambda: projects.finish(
            project.id, attempt=attempt, status=Status.FAILED, summary=summary, error=execution.error
        ),
        DatabaseUnavailable,
        log.bind(project=project.id),
    )
    if not is_written:
        return False
    put(execution.finish(now))
    expected, events = outbox.batch()
    with suppress(InitializerError):
        await journal.append(project.id, events, expected_tail=expected, is_durable=True)
    return True


async def _readable(project: Project, journal: Journal) -> Sequence[Event]:
    """The run's events, none where they cannot be read or folded. A journal that is away is waited for."""
    try:
        events = await until_answered(
            lambda: journal.read(project.id), JournalUnavailable, log.bind(project=project.id)
        )
        fold(project.parameters.pipeline, events)
    except Exception as error:
        log.warning("journal cannot be used", project=project.id, error=str(error))
        return ()
    return events


def _step_at_hand(execution: Execution) -> StepSpec:
    progress = execution.progress
    return progress.current.spec if progress.current else execution.next_step or progress.pipeline.steps[-1]


def _sentence(project: Project, error: Exception) -> str:
    if isinstance(error, InitializerError):
        return sentence_of(str(error))
    return unexpected(error, project.id)
