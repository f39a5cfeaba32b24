"""Tells a cancellation of this task from one that came out of what it waits for."""

import asyncio

__all__ = ["is_cancelled"]


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task, and its `CancelledError` must travel on."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
