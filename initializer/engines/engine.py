"""Where a run is started; implementations stand beside this module."""

from collections.abc import AsyncIterator
from typing import Protocol

from initializer.errors import InitializerError
from initializer.model.events import Reason
from initializer.projects.projects import ProjectRow

__all__ = ["Engine", "QueueFull"]


class QueueFull(InitializerError):
    """So many runs wait already that another would wait too long."""


class Engine(Protocol):
    """Starts runs, a bounded number at once; the rest wait in order."""

    def check_room(self) -> None:
        """Raises `QueueFull` where a new run would not be taken."""

    def submit(self, row: ProjectRow, *, reason: Reason) -> None:
        """Queue a run that this process owns. It starts as soon as there is a free place."""

    def cancel(self, run: str) -> None:
        """Have a run that is here end as cancelled: at once if it waits, its step ended if it runs."""

    def position(self, run: str) -> int | None:
        """The place of a waiting run, from 1; None where it runs, or is not known here."""

    def follow_positions(self) -> AsyncIterator[None]:
        """Tells, by an item, that positions have changed; first at once."""
