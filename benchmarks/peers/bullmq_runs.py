"""Runs on BullMQ for Python: `bullmq_runs.py worker`, or `submit`."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from bullmq import Job, Queue, QueueEvents, Worker
from first_step import UPDATES, note_start, told
from submitting import submit_runs

REDIS = {"connection": os.environ["REDIS_URL"]}


async def initialize(job: Job, _token: str) -> dict[str, str]:
    """Six steps that do nothing and tell of it."""
    for update in range(UPDATES):
        await job.updateProgress(told(update))
        if update == 0:
            note_start(job.id)
    return {"status": "active"}


async def work() -> None:
    """Perform runs until the process is ended."""
    worker = Worker(
        "runs", initialize, {**REDIS, "concurrency": int(os.environ["CONCURRENT"]), "autorun": False}
    )
    print("READY", flush=True)
    await worker.run()


async def submit() -> None:
    """Submit runs and wait for their end."""
    queue = Queue("runs", REDIS)
    events = QueueEvents("runs", {**REDIS, "lastEventId": "0"})
    over: set[str] = set()
    ended = asyncio.Event()

    def note_end(event: dict[str, Any], _id: str) -> None:
        over.add(event["jobId"])
        ended.set()

    async def add(run: str) -> None:
        await queue.add("initialize", {"project": run}, {"jobId": run})

    async def until_over(runs: Sequence[str]) -> None:
        while not over.issuperset(runs):
            ended.clear()
            await ended.wait()

    events.on("completed", note_end)
    await submit_runs(add, until_over)
    await events.close()
    await queue.close()


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "worker" else submit())
