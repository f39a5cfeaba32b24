"""Says that a worker is online: to whoever waits for one, and to BullMQ's own tools."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from redis.asyncio import Redis

from initializer.background import in_background
from initializer.engines.bullmq import QUEUE, WORKER_KEY, QueueUnavailable
from initializer.redis_client import asking, open_redis

__all__ = ["open_presence"]

BEAT_S = 1.0
LIFE_MS = 5000
"""How long a worker counts as online after its last beat."""

log = structlog.get_logger()


@asynccontextmanager
async def open_presence(redis_url: str, *, worker: str) -> AsyncIterator[None]:
    """Be online as `worker`, a name without spaces.

    Its one connection has the name by which Bull Board knows workers. BullMQ for Python leaves the queue's
    name as it is where the others take its base64, and would name all connections of its pool.
    """
    name = f"bull:{base64.b64encode(QUEUE.encode()).decode()}:w:{worker}"
    async with open_redis(redis_url, client_name=name) as client, in_background(_beat(client)):
        yield


async def _beat(client: "Redis") -> None:
    while True:
        try:
            async with asking(QueueUnavailable, "the worker cannot be told of"):
                await client.set(WORKER_KEY, "1", px=LIFE_MS)
        except QueueUnavailable as error:
            log.warning("worker not seen", error=str(error))
        await asyncio.sleep(BEAT_S)
