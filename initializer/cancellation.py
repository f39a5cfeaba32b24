"""Tells a cancellation of this task from one that came out of what it waits for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["cancellation_kept", "is_cancelled"]


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task, and its `CancelledError` must travel on."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Let a cancellation travel on that comes within the block, also where a library there swallows it.

    `asyncio.wait_for` does before Python 3.12, where what it waits for ends at the same moment.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
