"""What the field keeps of a run's progress, as small honest programs; this app is in `worker.py`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from redis.asyncio import Redis

__all__ = ["DESIGNS", "STEPS", "UPDATES_A_STEP", "Design", "opened"]

STEPS, UPDATES_A_STEP = 6, 10
WRITE_BEHIND_S = 5.0


class Design:
    """Keeps nothing: progress lives in the process. `number` counts the updates of a run from 1."""

    title = "nothing is kept"

    def __init__(self, pool: "asyncpg.Pool", client: "Redis") -> None:
        self.pool, self.client = pool, client

    async def begin(self, run: str) -> None:
        """The run starts."""

    async def update(self, run: str, number: int) -> None:
        """A step reports progress."""

    async def step_over(self, run: str, number: int) -> None:
        """A step has ended; `number` is its last update."""

    async def end(self, run: str, number: int) -> None:
        """The run is over."""

    async def keep(self) -> None:
        """What goes on beside the runs."""

    async def flush(self) -> None:
        """Write what waits: the process ends in good order."""

    async def left(self, run: str) -> int:
        """The last update that a new process can show."""
        del run
        return 0


class _InRows(Design):
    async def begin(self, run: str) -> None:
        await self.pool.execute("INSERT INTO runs (id, number) VALUES ($1, 0)", run)

    async def end(self, run: str, number: int) -> None:
        await self.pool.execute("UPDATE runs SET number = $2, is_over = true WHERE id = $1", run, number)

    async def left(self, run: str) -> int:
        return await self.pool.fetchval("SELECT number FROM runs WHERE id = $1", run) or 0


class EveryUpdate(_InRows):
    """A row is written at each update."""

    title = "every update written"

    async def update(self, run: str, number: int) -> None:
        await self.pool.execute("UPDATE runs SET number = $2 WHERE id = $1", run, number)


class StepBoundaries(_InRows):
    """A row is written when a step ends."""

    title = "step boundaries only"

    async def step_over(self, run: str, number: int) -> None:
        await self.pool.execute("UPDATE runs SET number = $2 WHERE id = $1", run, number)


class WriteBehind(_InRows):
    """Rows are written together, every few seconds."""

    title = f"write-behind every {WRITE_BEHIND_S:g} s"

    def __init__(self, pool: "asyncpg.Pool", client: "Redis") -> None:
        super().__init__(pool, client)
        self._changed: dict[str, int] = {}

    async def update(self, run: str, number: int) -> None:
        self._changed[run] = number

    async def end(self, run: str, number: int) -> None:
        self._changed.pop(run, None)
        await super().end(run, number)

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(WRITE_BEHIND_S)
            await self.flush()

    async def flush(self) -> None:
        changed, self._changed = self._changed, {}
        rows = [(number, run) for run, number in changed.items()]
        await self.pool.executemany("UPDATE runs SET number = $1 WHERE id = $2", rows)


class RedisHistory(Design):
    """A job in Redis: its fields, and a stream of what happened."""

    title = "job history in Redis"

    async def begin(self, run: str) -> None:
        await self._note(run, 0)

    async def update(self, run: str, number: int) -> None:
        await self._note(run, number)

    async def end(self, run: str, number: int) -> None:
        await self._note(run, number)

    async def left(self, run: str) -> int:
        return int(await self.client.hget(f"job:{run}", "number") or 0)  # type: ignore[misc]

    async def _note(self, run: str, number: int) -> None:
        async with self.client.pipeline(transaction=True) as pipeline:
            pipeline.hset(f"job:{run}", "number", str(number))
            pipeline.xadd(f"job:{run}:events", {"number": number})
            await pipeline.execute()


DESIGNS: dict[str, type[Design]] = {
    "nothing": Design,
    "every": EveryUpdate,
    "redis": RedisHistory,
    "behind": WriteBehind,
    "steps": StepBoundaries,
}


@asynccontextmanager
async def opened(name: str, postgres_url: str, redis_url: str) -> AsyncIterator[Design]:
    """A design on servers that run, with its table."""
    client = Redis.from_url(redis_url)
    try:
        async with asyncpg.create_pool(postgres_url, min_size=10, max_size=10) as pool:
            await pool.execute(
                "CREATE TABLE IF NOT EXISTS runs "
                "(id text PRIMARY KEY, number int, is_over bool DEFAULT false)"
            )
            yield DESIGNS[name](pool, client)
    finally:
        await client.aclose()
