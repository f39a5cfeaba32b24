"""Runs on Celery: `celery --app celery_runs worker`, or `celery_runs.py` to submit.

Settings are those that its documentation has for tasks that take long: acknowledged when they are done, and
none taken in advance.
"""

import asyncio
import os
from collections.abc import Sequence

from celery import Celery, Task
from celery.result import ResultSet
from first_step import UPDATES, note_start, told
from submitting import submit_runs

app = Celery("celery_runs", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_concurrency=int(os.environ["CONCURRENT"]),
    broker_connection_retry_on_startup=True,
)


@app.task(bind=True)
def initialize(self: Task, run: str) -> dict[str, str]:
    """Six steps that do nothing and tell of it."""
    for update in range(UPDATES):
        self.update_state(state="PROGRESS", meta=told(update))
        if update == 0:
            note_start(run)
    return {"status": "active"}


async def submit(run: str) -> None:
    """Submit a run; Celery's client knows no asyncio, and blocks."""
    initialize.apply_async((run,), task_id=run)


async def until_over(runs: Sequence[str]) -> None:
    """Wait for the results."""
    ResultSet([app.AsyncResult(run) for run in runs]).join_native()


if __name__ == "__main__":
    # Run as a program, the task's module is called otherwise than the worker knows it.
    import celery_runs

    asyncio.run(submit_runs(celery_runs.submit, celery_runs.until_over))
