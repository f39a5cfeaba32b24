"""Ends a step that is cancelled or too slow: it is asked to end, and left behind where it does not."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from initializer.errors import InitializerError

__all__ = ["STEP_END_LIMIT_S", "StepTimedOut", "end_when_due"]

STEP_END_LIMIT_S = 10.0
"""How long a step that is to end may take to clean up before the run ends without it."""

Outcome = TypeVar("Outcome")

log = structlog.get_logger()
_left_behind: set[asyncio.Task[Any]] = set()
"""Steps that ignored that they were to end: kept until they do. They may change nothing more."""


class StepTimedOut(InitializerError):
    """A step outlived its time limit."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"it did not end within {limit_s:g} s")


async def end_when_due(
    step: Coroutine[Any, Any, Outcome],
    *,
    limit_s: float,
    cancelled: asyncio.Event,
    on_cancel: Callable[[], None],
) -> Outcome | None:
    """How a step ended; None where it was cancelled, after `on_cancel`. Raises `StepTimedOut`.

    Where this task itself is cancelled, the step is ended likewise, and the cancellation goes on.
    """
    performing = asyncio.ensure_future(step)
    performing.add_done_callback(_see)
    wish = asyncio.ensure_future(cancelled.wait())
    try:
        due, _ = await asyncio.wait((performing, wish), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if performing not in due:
            if wish in due:
                on_cancel()
            await _end(performing)
    finally:
        wish.cancel()
        if not performing.done() and performing not in _left_behind:
            await _end(performing)
    if performing not in _left_behind and not performing.cancelled():
        return performing.result()
    if due:
        return None
    raise StepTimedOut(limit_s)


def _see(performing: asyncio.Task[Any]) -> None:
    """Look at how it ended, also where nobody waits for it any more: asyncio would complain."""
    if not performing.cancelled():
        performing.exception()


async def _end(performing: asyncio.Task[Any]) -> None:
    performing.cancel()
    await asyncio.wait((performing,), timeout=STEP_END_LIMIT_S)
    if not performing.done():
        log.error("step left behind: it does not end", limit_s=STEP_END_LIMIT_S)
        _left_behind.add(performing)
        performing.add_done_callback(_left_behind.discard)
