"""Ends a step that somebody has cancelled: it is asked to end, and left behind where it does not."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

__all__ = ["STEP_END_LIMIT_S", "end_when_cancelled"]

STEP_END_LIMIT_S = 10.0
"""How long a cancelled step may take to clean up before the run ends without it."""

Outcome = TypeVar("Outcome")

log = structlog.get_logger()
_left_behind: set[asyncio.Task[Any]] = set()
"""Steps that ignored their cancellation: kept until they end by themselves. They may change nothing more."""


async def end_when_cancelled(
    step: Coroutine[Any, Any, Outcome], cancelled: asyncio.Event, on_cancel: Callable[[], None]
) -> Outcome | None:
    """How a step ended; None where it was cancelled, after `on_cancel`.

    Where this task itself is cancelled, the step is ended likewise, and the cancellation goes on.
    """
    performing = asyncio.ensure_future(step)
    performing.add_done_callback(_see)
    wish = asyncio.ensure_future(cancelled.wait())
    try:
        await asyncio.wait((performing, wish), return_when=asyncio.FIRST_COMPLETED)
        if not performing.done():
            on_cancel()
            await _end(performing)
    finally:
        wish.cancel()
        if not performing.done() and performing not in _left_behind:
            await _end(performing)
    return None if performing in _left_behind or performing.cancelled() else performing.result()


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
