"""Jobs that a worker gives back whose clock is wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import pytest
from bullmq import Queue
from redis.asyncio import Redis

from initializer.engines.bull_worker import Card, ComeAgain, open_bull_worker
from initializer.engines.bullmq import NEW_RUN_PRIORITY, QUEUE, Ticket
from initializer.redis_client import open_redis

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("after_s", [0, 1])]

DEADLINE_S = 10
OFF_S = 60


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator["Redis"]:
    """A client of a Redis whose queue has one job."""
    async with open_redis(redis_url, is_text=True, read_limit_s=15) as client:
        ticket = {"project": "a", "attempt": 0, "try_id": 1}
        await Queue(QUEUE, {"connection": client}).add(
            "a", ticket, {"jobId": "a-1", "priority": NEW_RUN_PRIORITY}
        )
        yield client


@contextmanager
def clock_off(by_s: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        real = time.time
        patched.setattr(time, "time", lambda: real() + by_s)
        yield


@asynccontextmanager
async def giver(client: "Redis", *, after_s: float) -> AsyncIterator["asyncio.Queue[str]"]:
    """A worker that gives back each job it gets, and tells of it."""
    given_back = asyncio.Queue[str]()

    async def give_back(ticket: Ticket, card: Card) -> Mapping[str, object]:
        given_back.put_nowait(ticket.project)
        raise ComeAgain(after_s)

    async with open_bull_worker(client, give_back, concurrency=1, lease_s=5):
        yield given_back


async def test_from_a_worker_whose_clock_is_ahead_another_one_gets_it_no_later(
    client: "Redis", after_s: float
) -> None:
    performed = asyncio.Event()

    async def perform(ticket: Ticket, card: Card) -> Mapping[str, object]:
        performed.set()
        return {}

    async with asyncio.timeout(DEADLINE_S):
        with clock_off(OFF_S):
            async with giver(client, after_s=after_s) as given_back:
                await given_back.get()
        async with open_bull_worker(client, perform, concurrency=1, lease_s=5):
            await performed.wait()


async def test_a_worker_alone_whose_clock_is_behind_gets_it_again_no_later(
    client: "Redis", after_s: float
) -> None:
    with clock_off(-OFF_S):
        async with asyncio.timeout(DEADLINE_S), giver(client, after_s=after_s) as given_back:
            for _ in range(2):
                await given_back.get()
