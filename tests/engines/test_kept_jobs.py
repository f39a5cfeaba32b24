"""Jobs that are over are kept up to a number, and no more of them."""

import asyncio
from pathlib import Path

import pytest
from engine_stands import DEADLINE_S, BullStand, Runs

from initializer.engines import bullmq
from initializer.redis_client import open_redis

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("error", "state"), [(None, "completed"), (RuntimeError("a bug"), "failed")])
async def test_of_the_jobs_that_are_over_only_the_last_ones_are_kept(
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    state: str,
) -> None:
    monkeypatch.setattr(bullmq, "KEPT_JOBS", 2)
    ended = f"bull:projects:{state}"
    runs, stand = Runs(), BullStand(tmp_path, redis_url)
    async with stand.open(runs, 1) as engine, open_redis(redis_url, is_text=True) as client:
        runs.let_go(*"abcde", error=error)
        for run in "abcde":
            await stand.submit(engine, run)
            async with asyncio.timeout(DEADLINE_S):
                while await client.zscore(ended, f"{run}-1") is None:  # noqa: ASYNC110 - BullMQ sets no event
                    await asyncio.sleep(0.005)
        assert await client.zrange(ended, 0, -1) == ["d-1", "e-1"]
        hashes = [await client.exists(f"bull:projects:{run}-1") for run in "abcde"]
        assert hashes == [0, 0, 0, 1, 1]
