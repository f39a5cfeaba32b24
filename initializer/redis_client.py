"""The connection to Redis: no hidden retries, and what its faults mean."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError

from initializer.cancellation import cancellation_kept
from initializer.errors import InitializerError

__all__ = [
    "ANSWER_LIMIT_S",
    "REDIS_FAULTS",
    "RedisUnfit",
    "asking",
    "examine_redis",
    "in_time",
    "open_redis",
    "prove_writes",
]

ANSWER_LIMIT_S = 5
"""How long an answer may take: a frozen server is no different from a dead one."""
REDIS_FAULTS = (RedisError, OSError, TimeoutError, RuntimeError)
"""A RuntimeError is what uvloop raises for a transport that has just been closed."""
_POOL_SIZE = 2000  # a run appends one thing at a time, a page reads one; more than that is no use

PROOF, PROOF_MS = "projects:written", 60_000
CLIENT_NAME = "project-initializer"
RUNNING_OUT = "noeviction"


class RedisUnfit(InitializerError):
    """A Redis that would lose runs as it is configured; the message says what to change."""


@asynccontextmanager
async def open_redis(
    url: str, *, is_text: bool = False, read_limit_s: float | None = None, client_name: str = CLIENT_NAME
) -> AsyncIterator["Redis"]:
    """A client of that server; connections are made when they are needed.

    It tries nothing twice: whoever sends a command knows whether it may be sent again. `is_text` has it give
    text in the place of bytes. `read_limit_s` is for commands that are sent without `asking`.
    """
    client = Redis.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=read_limit_s,  # a wait_for: see `cancellation_kept`
        decode_responses=is_text,
        socket_connect_timeout=ANSWER_LIMIT_S,
        max_connections=_POOL_SIZE,
        client_name=client_name,
    )
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_Leaving, pool.connection_class), {})
    async with client:
        yield client


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raise `TimeoutError` where an answer takes longer than it may."""
    with cancellation_kept():
        async with asyncio.timeout(ANSWER_LIMIT_S):
            yield


@asynccontextmanager
async def asking(fault: type[InitializerError], what: str) -> AsyncIterator[None]:
    """Raise `fault` for what Redis, or the way to it, does wrong or does not do in time.

    `what` could not be done; whether it has been done all the same is not known.
    """
    try:
        async with in_time():
            yield
    except REDIS_FAULTS as error:
        raise fault(f"{what}: {_without_password(str(error)) or 'no answer'}") from error


async def prove_writes(client: "Redis") -> None:
    """Write something, as a server that answers may take no writes.

    So it is where its disk or its memory is full, where it lacks its replicas, and once it has become one.
    """
    await client.set(PROOF, "1", px=PROOF_MS)


async def examine_redis(client: "Redis") -> list[str]:
    """What is unwise about the server's configuration, a sentence each.

    Raises `RedisUnfit` where it throws keys away when memory runs out, is part of a cluster, or cannot be
    reached. A server that does not show its configuration, as hosted ones do, is taken as it is.
    """
    async with asking(RedisUnfit, "REDIS_URL names a server that does not answer"):
        memory = await client.info("memory")
        persistence = await client.info("persistence")
        cluster = await client.info("cluster")
        snapshots = await _configured(client, "save")
    if cluster.get("cluster_enabled"):
        raise RedisUnfit("REDIS_URL names a Redis Cluster, where no script reaches all keys: name one Redis")
    policy = memory.get("maxmemory_policy", RUNNING_OUT)
    if policy != RUNNING_OUT:
        raise RedisUnfit(
            f"Redis has maxmemory-policy {policy}, which throws away the events of running projects when "
            f"memory runs out: set it to {RUNNING_OUT}"
        )
    if not persistence.get("aof_enabled") and snapshots == "":
        return [
            "Redis persists nothing: after its restart, running projects refill it, ended ones lose their log"
        ]
    return []


class _Leaving(AbstractConnection):
    """Is made anew once its server has become a replica: the address may lead to another master by then."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[no-untyped-call] # when the whole pipeline is answered
            raise


async def _configured(client: "Redis", name: str) -> str | None:
    try:
        answer = await client.config_get(name)
    except RedisError:
        return None  # CONFIG is refused or renamed
    value = answer.get(name)
    return None if value is None else str(value)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/\s@]*@", "//", text)
