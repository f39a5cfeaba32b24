"""Runs that come from a queue: claimed by their row like all others, however often they are delivered."""

import asyncio
from collections.abc import Mapping

import structlog

from initializer.engines.bull_worker import ComeAgain, RunFailed
from initializer.engines.bullmq import BullEngine, QueueUnavailable, Ticket
from initializer.engines.engine import Perform
from initializer.journal.journal import Journal
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.absence import Sight
from initializer.running.lease import Leases, LeaseState, LeaseUnavailable
from initializer.running.mirror import Mirrored, mirroring
from initializer.running.patience import until_answered
from initializer.running.recovery import LOOK_S, Recovery

__all__ = ["QueuedRuns", "end_cancelled", "submit_again"]

Result = Mapping[str, object]

log = structlog.get_logger()


class QueuedRuns:
    """Performs tickets. Where a run is delivered twice, one owns it, and the other waits for its end."""

    def __init__(
        self,
        *,
        projects: Projects,
        journal: Journal,
        leases: Leases,
        recovery: Recovery,
        engine: BullEngine,
        run: Perform,
        lease_s: float,
    ) -> None:
        self._projects = projects
        self._journal = journal
        self._leases = leases
        self._recovery = recovery
        self._engine = engine
        self._run = run
        self._lease_s = lease_s

    async def perform(self, ticket: Ticket, mirrored: Mirrored) -> Result:
        """Perform what remains of the run, if nobody else does; gives what it came to.

        Raises `RunFailed`, and `ComeAgain` where it is not over.
        """
        try:
            row = await self._projects.take(ticket.project, seen_attempt=ticket.attempt)
            if row is not None:
                reason = row.reason
            else:
                row = await self._projects.get(ticket.project)
                _check_current(ticket, row)
                if row is None or row.status.is_final:
                    return _result(row)
                row, reason = await self._take_over(row)
        except DatabaseUnavailable as error:
            log.warning("run not claimed", project=ticket.project, error=str(error))
            raise ComeAgain(self._lease_s) from error
        return await self._perform(row, reason, mirrored)

    async def _perform(self, row: ProjectRow, reason: Reason, mirrored: Mirrored) -> Result:
        project, attempt = row.project, row.attempt
        self._leases.hold(project.id, attempt)
        try:
            async with mirroring(project, attempt, self._journal, mirrored) as mirror:
                with self._engine.performing(row) as cancelled:
                    await self._run(row, reason, cancelled)
                ended = await until_answered(
                    lambda: self._projects.get(project.id), DatabaseUnavailable, log.bind(project=project.id)
                )
                if ended is None or ended.status.is_final:
                    mirror.end()
        except BaseException:  # also where it was cut off: whoever gets the job next need not wait
            await self._leases.drop(project.id, attempt, is_handed_over=True)
            raise
        if ended is not None and not ended.status.is_final:
            raise ComeAgain(0)  # it was handed over
        return _result(ended)

    async def _take_over(self, row: ProjectRow) -> tuple[ProjectRow, Reason]:
        """Claim a run that is lost, or was left. Raises `ComeAgain` where its owner lives, or may live."""
        run = row.project.id
        try:
            state = (await self._leases.look({run: row.attempt}))[run]
        except LeaseUnavailable as error:
            log.warning("lease not read", project=run, error=str(error))
            raise ComeAgain(LOOK_S) from error
        if state is LeaseState.HELD:
            raise ComeAgain(self._lease_s)
        if state is LeaseState.ABSENT and not self._recovery.is_lost(run, row.attempt):
            raise ComeAgain(LOOK_S)
        claimed = await self._projects.claim(run, seen_attempt=row.attempt)
        if claimed is None:
            raise ComeAgain(LOOK_S)
        log.info("run taken over", project=run, attempt=claimed.attempt)
        return claimed, Reason.HANDOVER if state is LeaseState.HANDED_OVER else Reason.TAKEOVER


async def submit_again(projects: Projects, engine: BullEngine, lost: Sight) -> None:
    """Have a run that nobody owns wait in the queue, if it does not. Raises `DatabaseUnavailable`."""
    run, _ = lost
    if engine.is_queued(run):
        return
    row = await projects.get(run)
    if row is None or row.status.is_final:
        return
    try:
        reason = row.reason if row.status is Status.PENDING else Reason.TAKEOVER
        await engine.submit_again(row, reason=reason)
    except QueueUnavailable as error:
        log.warning("run not queued again", project=run, error=str(error))


async def end_cancelled(
    run: Perform, engine: BullEngine, row: ProjectRow, reason: Reason, cancelled: asyncio.Event
) -> None:
    """Perform a run that was cancelled before anybody had begun it, and let its job wait no longer."""
    await run(row, reason, cancelled)
    try:
        await engine.withdraw(row)
    except QueueUnavailable as error:  # a worker will find that it has nothing to do
        log.warning("job not withdrawn", project=row.project.id, error=str(error))


def _check_current(ticket: Ticket, row: ProjectRow | None) -> None:
    """Raises `RunFailed` where the job is of a try that is over, and of which its worker heard no more."""
    if row is not None and ticket.try_id < row.try_id:
        raise RunFailed("another try of this run has followed")


def _result(row: ProjectRow | None) -> Result:
    """What operators are told of a run that is over. Raises `RunFailed`."""
    if row is None:
        return {}
    if row.status is not Status.ACTIVE:
        raise RunFailed(row.error or f"the run was {row.status.value}")
    return {"status": row.status.value, "attempt": row.attempt}
