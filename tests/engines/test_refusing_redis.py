"""A worker whose Redis answers, and refuses to give it jobs."""

import asyncio
from collections.abc import Mapping

import pytest
from bullmq import Queue
from structlog.testing import capture_logs

from harness.servers import RedisServer
from initializer.engines.bull_worker import TELL_AGAIN_S, Card, open_bull_worker
from initializer.engines.bullmq import QUEUE, Ticket
from initializer.redis_client import open_redis

pytestmark = pytest.mark.anyio

DEADLINE_S = 20
REFUSALS = 20


async def test_a_worker_says_now_and_then_that_it_is_refused_jobs_and_takes_them_when_it_is_not(
    redis_server: RedisServer,
) -> None:
    performed = asyncio.Event()

    async def perform(ticket: Ticket, card: Card) -> Mapping[str, object]:
        performed.set()
        return {}

    async with (
        asyncio.timeout(DEADLINE_S),
        open_redis(redis_server.url, is_text=True, read_limit_s=15) as client,
    ):
        await client.config_set("min-replicas-to-write", 1)
        with capture_logs() as told:
            async with open_bull_worker(client, perform, concurrency=1, lease_s=5):
                while len(told) < REFUSALS:  # noqa: ASYNC110 - the log sets no event
                    await asyncio.sleep(0.005)
                await client.config_set("min-replicas-to-write", 0)
                ticket = {"project": "a", "attempt": 0, "try_id": 1}
                await Queue(QUEUE, {"connection": client}).add("a", ticket, {})
                await performed.wait()
                while not (await client.info("clients"))["blocked_clients"]:  # noqa: ASYNC110 - for a next job
                    await asyncio.sleep(0.005)
    warned = [it for it in told if it["log_level"] == "warning"]
    assert 1 <= len(warned) <= DEADLINE_S / TELL_AGAIN_S
    assert {it["event"] for it in warned} == {"queue in trouble"}
