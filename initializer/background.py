"""Work that goes on beside a block, for as long as the block lasts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

__all__ = ["in_background"]


@asynccontextmanager
async def in_background(*works: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Do these beside the block; on exit they are cancelled. One that breaks off ends the block with it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
