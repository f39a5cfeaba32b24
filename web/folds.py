"""Where runs stand that nobody watches, for lists and fragments that ask again and again."""

import asyncio
from collections import OrderedDict

from initializer.journal.journal import Journal, JournalRewritten
from initializer.model.progress import Progress, advance_all
from initializer.projects.projects import ProjectRow

__all__ = ["MAX_FOLDS", "Folds"]

MAX_FOLDS = 60
"""How many runs are kept: three pages of the list. Each may hold the last rows of its steps' logs."""


class Folds:
    """Folds of the runs that were asked for last and go on: asking again costs only what is new."""

    def __init__(self) -> None:
        self._folds: OrderedDict[str, Progress] = OrderedDict()

    async def progress(self, journal: Journal, row: ProjectRow) -> Progress:
        """The fold of a run's journal, up to now. Raises what reading and folding it does."""
        run, nothing = row.project.id, Progress.waiting(row.project.parameters.pipeline)
        held = self._folds.get(run, nothing)
        try:
            events = await journal.read(run, after=held.tail)
        except JournalRewritten:
            held, events = nothing, await journal.read(run)
        progress = await asyncio.to_thread(advance_all, held, events) if events else held
        self._keep(run, progress)
        return progress

    def _keep(self, run: str, progress: Progress) -> None:
        self._folds[run] = progress
        self._folds.move_to_end(run)
        if progress.status.is_final:
            del self._folds[run]
        elif len(self._folds) > MAX_FOLDS:
            self._folds.popitem(last=False)
