"""What runs are performed with, in the mode that the settings ask for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from initializer.forges.local import LocalForge
from initializer.parts.embedded import open_embedded
from initializer.parts.queue import open_before_workers
from initializer.parts.running_parts import RunningParts
from initializer.parts.servers import open_on_servers
from initializer.settings import Settings

__all__ = ["open_running_parts"]


@asynccontextmanager
async def open_running_parts(settings: Settings, forge: LocalForge) -> AsyncIterator[RunningParts]:
    """The parts at work; what was left unfinished goes on."""
    opener = open_embedded
    if settings.is_on_servers:
        opener = open_before_workers if settings.has_workers else open_on_servers
    async with opener(settings, forge) as parts:
        yield parts
