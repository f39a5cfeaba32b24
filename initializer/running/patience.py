"""Waits for a server that does not answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from initializer.errors import InitializerError

__all__ = ["until_answered"]

_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1, 2)

T = TypeVar("T")


async def until_answered(
    ask: Callable[[], Awaitable[T]], fault: type[InitializerError], log: FilteringBoundLogger
) -> T:
    """Ask until there is an answer, however long that takes, with growing pauses after each `fault`."""
    pauses_s = iter(_PAUSES_S)
    while True:
        try:
            return await ask()
        except fault as error:
            pause_s = next(pauses_s, _PAUSES_S[-1])
            log.warning("trying again", error=str(error), pause_s=pause_s)
            await asyncio.sleep(pause_s)
