"""Runs projects: one call a run, from its journal to its final row."""

import asyncio
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import structlog

from initializer.forges.forge import Forge
from initializer.journal.journal import Journal, JournalUnavailable
from initializer.model.events import Reason
from initializer.model.parameters import Project
from initializer.projects.projects import Projects
from initializer.running.attempt import Attempt, JournalDiverged
from initializer.running.context import RunContext
from initializer.running.failure import give_up
from initializer.running.ownership import OwnershipLost
from initializer.running.patience import until_answered
from initializer.steps.step import Outputs, Step

__all__ = ["Runner"]

MAX_READINGS = 5
"""How often a run begins again because its journal held events of an attempt before, before it gives up."""

log = structlog.get_logger()


class Runner:
    """Performs runs with these steps on these forges. `work_folder` is its own; it is emptied first."""

    def __init__(
        self,
        *,
        journal: Journal,
        projects: Projects,
        steps: Mapping[str, Step],
        forges: Mapping[str, Forge],
        work_folder: Path,
        keep_journal_for: timedelta,
    ) -> None:
        self._journal = journal
        self._projects = projects
        self._steps = steps
        self._forges = forges
        self._work_folder = work_folder
        self._keep_journal_for = keep_journal_for
        shutil.rmtree(work_folder, ignore_errors=True)
        work_folder.mkdir(parents=True)

    async def run(self, project: Project, *, attempt: int, reason: Reason) -> None:
        """Perform what remains of a run. A run that another attempt owns by now is left to it.

        A run that cannot go on ends `failed` rather than never: only a process that dies leaves it unended.
        """
        try:
            await self._perform(project, attempt=attempt, reason=reason)
        except OwnershipLost as lost:
            log.warning("run left to its owner", project=project.id, attempt=attempt, error=str(lost))
            return
        except Exception as error:
            log.exception("run cannot go on", project=project.id, attempt=attempt)
            is_ended = await give_up(
                project, attempt=attempt, error=error, journal=self._journal, projects=self._projects
            )
            if not is_ended:
                return
        try:
            await self._journal.retire(project.id, keep_for=self._keep_journal_for)
        except JournalUnavailable as error:
            log.warning("journal not retired", project=project.id, error=str(error))

    async def _perform(self, project: Project, *, attempt: int, reason: Reason) -> None:
        for reading in range(1, MAX_READINGS + 1):
            history = await until_answered(
                lambda: self._journal.read(project.id), JournalUnavailable, log.bind(project=project.id)
            )
            current = Attempt(
                project,
                attempt=attempt,
                history=history,
                steps=self._steps,
                journal=self._journal,
                projects=self._projects,
                perform_step=self._perform_step,
            )
            try:
                await current.perform(reason)
            except JournalDiverged as diverged:
                if reading == MAX_READINGS:
                    raise
                log.warning("reading the journal again", project=project.id, error=str(diverged))
            else:
                return

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
