"""Where a run is started; implementations stand beside this module."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

from initializer.errors import InitializerError
from initializer.model.events import Reason
from initializer.projects.projects import ProjectRow

__all__ = ["NO_WORKER", "Engine", "Perform", "QueueFull"]

Perform = Callable[[ProjectRow, Reason, asyncio.Event], Awaitable[None]]
"""Performs a run to its end; the event says that it is to end as cancelled."""
NO_WORKER = 0
"""The place in a line that nobody serves."""


class QueueFull(InitializerError):
    """So many runs wait already that another would wait too long."""


class Engine(Protocol):
    """Starts runs, a bounded number at once; the rest wait in order: what a process left first."""

    owns_runs: bool
    """Whether a run that is submitted here belongs to this process; else to whoever claims it by its row."""

    def check_room(self) -> None:
        """Raises `QueueFull` where a new run would not be taken."""

    async def submit(self, row: ProjectRow, *, reason: Reason) -> None:
        """Queue a run. It starts as soon as there is a free place.

        A queue that does not answer is no fault of the run's: whoever looks for lost runs submits it again.
        """

    def cancel(self, run: str, attempt: int) -> None:
        """Have a run that is here end as cancelled: at once if it waits, its step ended if it runs.

        Only with that attempt: what was wished for a try that is over holds for no later one.
        """

    def position(self, run: str) -> int | None:
        """The place of a waiting run, from 1; None where it runs, or is not known here.

        `NO_WORKER` where nobody is there to begin it.
        """

    def follow_positions(self) -> AsyncGenerator[None, None]:
        """Tells, by an item, that positions have changed; first at once."""
