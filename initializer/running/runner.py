"""Runs projects: one call a run, from its journal to its final row."""

import asyncio
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import structlog

from initializer.forges.forge import Forge
from initializer.journal.journal import Journal
from initializer.model.events import Reason
from initializer.model.parameters import Project
from initializer.projects.projects import Projects
from initializer.running.attempt import Attempt, JournalDiverged
from initializer.running.context import RunContext
from initializer.running.ownership import OwnershipLost
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
        """Perform what remains of a run. A run that another attempt owns by now is left to it."""
        for _ in range(MAX_READINGS):
            history = await self._journal.read(project.id)
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
                log.warning("reading the journal again", project=project.id, error=str(diverged))
            except OwnershipLost as lost:
                log.warning("run left to its owner", project=project.id, error=str(lost))
                return
            else:
                await self._journal.retire(project.id, keep_for=self._keep_journal_for)
                return

    async def _perform_step(self, attempt: Attempt, step: Step) -> Outputs | None:
        """One step with a folder of its own, which is gone afterwards."""
        folder = self._work_folder / f"{attempt.project.id}-{attempt.attempt}"
        forge = self._forges[attempt.project.parameters.forge]
        try:
            return await step.run(RunContext(attempt, step=step.name, forge=forge, folder=folder))
        finally:
            if folder.exists():
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
