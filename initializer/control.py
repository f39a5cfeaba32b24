"""What people can do to a run that was created: cancel it, retry it, restart it."""

from datetime import UTC, datetime

from initializer.access import Action
from initializer.engines.engine import Engine
from initializer.errors import InitializerError
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.projects import ProjectRow, Projects

__all__ = ["Control", "NotPossible", "possible"]

_REASONS = {Action.RETRY: Reason.RETRY, Action.RESTART: Reason.RESTART}


class NotPossible(InitializerError):
    """The state of the run does not allow it; the message is one sentence for the person who asked."""


def possible(row: ProjectRow) -> tuple[Action, ...]:
    """What the state of a run allows, the first the most likely wish."""
    match row.status:
        case Status.PENDING | Status.INITIALIZING:
            return () if row.cancel_requested_at else (Action.CANCEL,)
        case Status.FAILED | Status.CANCELLED:
            return (Action.RETRY, Action.RESTART)
        case _:
            return ()


class Control:
    """Carries out what people ask for. Each wish stands in the row, so that whoever is to obey it may die.

    Asking for what is so already is no error: two people may press at once. All methods give the row as it
    is then, and raise `NotPossible` and `DatabaseUnavailable`.
    """

    def __init__(self, projects: Projects, engine: Engine) -> None:
        self._projects = projects
        self._engine = engine

    async def cancel(self, row: ProjectRow) -> ProjectRow:
        """Have a run end: at once if it waits, else as soon as its step has let go.

        A wish that stands in the row already is told once more: its first answer may have been lost.
        """
        asked = await self._projects.request_cancel(row.project.id, at=datetime.now(UTC))
        row = asked or await self._read(row)
        if not row.status.is_final and row.cancel_requested_at is not None:
            self._engine.cancel(row.project.id, row.attempt)
        elif row.status.is_final and row.status is not Status.CANCELLED:
            raise NotPossible("The run has ended already, so there is nothing to cancel.")
        return row

    async def begin_again(self, row: ProjectRow, action: Action, *, seen_attempt: int) -> ProjectRow:
        """Retry the run from the step that failed, or restart it from the first.

        `seen_attempt` is the attempt whose end the person saw. Raises `QueueFull`.
        """
        self._engine.check_room()
        reason = _REASONS[action]
        begun = await self._projects.begin_again(
            row.project.id, seen_attempt=seen_attempt, reason=reason, is_owned=self._engine.owns_runs
        )
        if begun is not None:
            await self._engine.submit(begun, reason=reason)
            return begun
        row = await self._read(row)
        if row.attempt > seen_attempt:
            return row  # somebody else was faster
        if row.status is Status.ACTIVE:
            raise NotPossible("The project is ready, so there is nothing to do again.")
        raise NotPossible("The run is still under way; cancel it first.")

    async def _read(self, row: ProjectRow) -> ProjectRow:
        return await self._projects.get(row.project.id) or row
