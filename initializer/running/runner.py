"""Runs projects: one call a run, from its journal to its final row."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import structlog

from initializer.cancellation import is_cancelled
from initializer.errors import InitializerError
from initializer.forges.forge import Forge
from initializer.journal.journal import Journal, JournalUnavailable
from initializer.model.events import (
    Event,
    EventId,
    Reason,
    Started,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepSkipped,
)
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.attempt import Attempt, HandedOver, JournalDiverged
from initializer.running.context import RunContext
from initializer.running.ending import append_end
from initializer.running.failure import give_up
from initializer.running.lease import Leases
from initializer.running.ownership import OwnershipLost
from initializer.running.patience import until_answered
from initializer.steps.step import Outputs, Step

__all__ = ["Runner", "WorkerStopped"]

MAX_READINGS = 5
"""How often a run begins again because its journal held events of an attempt before, before it gives up."""

MAX_DEATHS = 3
"""How often a run's process may end within one step: what brought it down will do so again."""

MAX_UNSETTLED = 64
"""How many runs that are over wait for their journal; what more of them have said is given up."""
SETTLE_PAUSE_S = 2.0
EVENTS_GIVEN_UP = "last events given up"

log = structlog.get_logger()


class WorkerStopped(InitializerError):
    """The process of a run ended again and again within the same step."""


class Runner:
    """Performs runs with these steps on these forges. `work_folder` is its own; it is emptied first.

    With `leases` there are other processes: who owns a run has to be proven again and again. While
    `keep_settling` goes on, a run whose journal is away at its end keeps its events, and its lease, until the
    journal has taken them; else they are given up then.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        projects: Projects,
        steps: Mapping[str, Step],
        forges: Mapping[str, Forge],
        work_folder: Path,
        keep_journal_for: timedelta,
        leases: Leases | None = None,
    ) -> None:
        self._journal = journal
        self._projects = projects
        self._steps = steps
        self._forges = forges
        self._work_folder = work_folder
        self._keep_journal_for = keep_journal_for
        self._leases = leases
        self._attempts: dict[Attempt, None] = {}
        self._unsettled: dict[Attempt, ProjectRow] = {}  # over, in their order
        self._has_unsettled = asyncio.Event()
        self._is_settling = False
        self._is_leaving = False
        if leases is not None:
            leases.on_tail = self._hear_tail
        shutil.rmtree(work_folder, ignore_errors=True)
        work_folder.mkdir(parents=True)

    async def run(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        """Perform what remains of a run that was claimed as this row has it; `cancelled` ends it early.

        A run that another attempt owns by now is left to it. One that cannot go on ends `failed` rather than
        never: only a process that dies leaves it unended.
        """
        run = row.project.id
        try:
            is_ended = await self._run_guarded(row, reason, cancelled)
        except HandedOver as left:
            log.info("run handed over", project=run, attempt=row.attempt, reason=str(left))
            await self._drop(row, is_handed_over=True)
            return
        except BaseException:  # a lease that is kept would keep everybody else from the run
            await self._drop(row, is_handed_over=is_cancelled())
            raise
        if row not in self._unsettled.values():
            await self._let_go(row, is_ended=is_ended)

    async def keep_settling(self) -> None:
        """Bring to the journal what it did not take of runs that are over, for ever."""
        self._is_settling = True
        try:
            while True:
                await self._has_unsettled.wait()
                for attempt, row in list(self._unsettled.items()):
                    await self._settle(attempt, row)
                if self._unsettled:
                    await asyncio.sleep(SETTLE_PAUSE_S)
                else:
                    self._has_unsettled.clear()
        finally:
            self._is_settling = False

    def leave(self) -> None:
        """Hand every run over once its running step has ended, and begin no other."""
        self._is_leaving = True
        for attempt in self._attempts:
            attempt.leave()

    def _hear_tail(self, run: str, tail: EventId | None) -> None:
        for attempt in self._attempts:
            if attempt.project.id == run:
                attempt.hear_tail(tail)

    async def _settle(self, attempt: Attempt, row: ProjectRow) -> None:
        """Let an attempt go whose journal has all that was said, or is another attempt's by now."""
        is_ended = True
        try:
            await attempt.settle()
        except JournalUnavailable:
            return
        except Exception as error:
            is_ended = False
            log.warning(EVENTS_GIVEN_UP, project=attempt.project.id, error=str(error))
        await self._let_go(row, is_ended=is_ended)
        del self._unsettled[attempt]

    def _settle_later(self, attempt: Attempt, row: ProjectRow) -> None:
        if not self._is_settling or len(self._unsettled) >= MAX_UNSETTLED:
            log.warning(EVENTS_GIVEN_UP, project=attempt.project.id, error="the journal is away")
            return
        self._unsettled[attempt] = row
        self._has_unsettled.set()

    async def _let_go(self, row: ProjectRow, *, is_ended: bool) -> None:
        """Of a run that is over here, or another's."""
        if is_ended:
            try:
                await self._journal.retire(row.project.id, keep_for=self._keep_journal_for)
            except JournalUnavailable as error:
                log.warning("journal not retired", project=row.project.id, error=str(error))
        await self._drop(row)

    async def _run_guarded(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> bool:
        """Whether the run has ended in this attempt's hands. Raises `HandedOver`."""
        try:
            await self._perform(row, reason, cancelled)
        except OwnershipLost as lost:
            log.warning("run left to its owner", project=row.project.id, attempt=row.attempt, error=str(lost))
            return False
        except HandedOver:
            raise
        except Exception as error:
            log.exception("run cannot go on", project=row.project.id, attempt=row.attempt)
            return await give_up(row, error, journal=self._journal, projects=self._projects)
        return True

    async def _drop(self, row: ProjectRow, *, is_handed_over: bool = False) -> None:
        if self._leases is not None:
            await self._leases.drop(row.project.id, row.attempt, is_handed_over=is_handed_over)

    async def _perform(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        project, attempt = row.project, row.attempt
        for reading in range(1, MAX_READINGS + 1):
            history = await until_answered(
                lambda: self._journal.read(project.id), JournalUnavailable, log.bind(project=project.id)
            )
            current = Attempt(
                row,
                history=history,
                cancelled=cancelled,
                steps=self._steps,
                journal=self._journal,
                projects=self._projects,
                perform_step=self._perform_step,
                ownership=self._leases.hold(project.id, attempt) if self._leases else None,
            )
            has_step_left = current.execution.next_step is not None and not cancelled.is_set()
            if self._leases is not None and reason is Reason.TAKEOVER and has_step_left:
                _check_deaths(history)
            if self._is_leaving:
                current.leave()
            self._attempts[current] = None
            try:
                await current.perform(reason)
            except JournalDiverged as diverged:
                if reading == MAX_READINGS:
                    raise
                log.warning("reading the journal again", project=project.id, error=str(diverged))
                held = await until_answered(
                    lambda: self._projects.get(project.id), DatabaseUnavailable, log.bind(project=project.id)
                )
                if held is not None and held.attempt == attempt and held.status.is_final:
                    await append_end(held, self._journal)  # it was late with the events, not with the row
                    return
            else:
                if not current.is_settled:
                    self._settle_later(current, row)
                return
            finally:
                del self._attempts[current]

    async def _perform_step(self, attempt: Attempt, step: Step) -> Outputs | None:
        """One step with a folder of its own, which is gone afterwards."""
        folder = self._work_folder / f"{attempt.project.id}-{attempt.attempt}"
        forge = self._forges[attempt.project.parameters.forge]
        try:
            context = RunContext(attempt, step=step.name, forge=forge, folder=folder / step.name)
            return await step.run(context)
        finally:
            if folder.exists():
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _check_deaths(history: Sequence[Event]) -> None:
    """Raises `WorkerStopped` where a takeover is the third one from the dead since the last step ended."""
    takeovers = 1
    for event in reversed(history):
        match event:
            case Started(reason=Reason.TAKEOVER, handed_over=is_handed_over):
                takeovers += not is_handed_over
            case Started() | StepCompleted() | StepFailed() | StepCancelled() | StepSkipped():
                break
    if takeovers >= MAX_DEATHS:
        raise WorkerStopped("the worker stopped three times here")
