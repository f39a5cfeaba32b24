"""A cancellation of what uses a queue's client, at whatever moment it comes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from bullmq import Queue

from initializer.engines.bull_worker import Card
from initializer.errors import InitializerError
from initializer.redis_client import asking, open_redis

pytestmark = pytest.mark.anyio

DEADLINE_S = 5
MOMENTS = 40
"""In how many turns of the event loop a command is through, and more."""


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def ends_when_cancelled_at_any_moment(use: Callable[[], Awaitable[object]]) -> None:
    is_over = asyncio.Event()

    async def use_again_and_again() -> None:
        while not is_over.is_set():
            await use()

    for turns in range(MOMENTS):
        using = asyncio.create_task(use_again_and_again())
        for _ in range(turns):
            await asyncio.sleep(0)
        using.cancel()
        await asyncio.wait([using], timeout=DEADLINE_S)
        if not using.done():
            is_over.set()
            await using
        assert using.cancelled(), f"a cancellation after {turns} turns was swallowed"


async def test_whoever_asks_redis_ends_when_cancelled(redis_url: str) -> None:
    async with open_redis(redis_url, is_text=True, read_limit_s=10) as client:

        async def ask() -> None:
            async with asking(InitializerError, "no answer"):
                await client.ping()

        await ask()
        await ends_when_cancelled_at_any_moment(ask)


async def test_whoever_shows_a_job_ends_when_cancelled(redis_url: str) -> None:
    async with open_redis(redis_url, is_text=True, read_limit_s=10) as client:
        queue = Queue("test", {"connection": client})
        card = Card(await queue.add("run", {}, {}))

        async def show() -> None:
            await card.show({"progress": 1}, ["one line"])

        await show()
        await ends_when_cancelled_at_any_moment(show)
