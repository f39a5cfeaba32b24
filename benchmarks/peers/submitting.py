"""Submits runs as the benchmark asks: `WARM` of them, then, once it is told to, `RUNS`, one each `PAUSE_MS`.

It says READY between the two, waits for a line, and writes in the end, as JSON, the seconds that the runs took
and the moment at which each was submitted.
"""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Submit = Callable[[str], Awaitable[object]]
"""Submits a run by its id."""
UntilOver = Callable[[Sequence[str]], Awaitable[object]]
"""Waits for the end of runs."""


async def submit_runs(
    submit: Submit,
    until_over: UntilOver,
    *,
    tell: Callable[[], dict[str, Any]] = dict,
    begin: Callable[[], Any] = list,
) -> None:
    """Submit runs and wait for their end. `begin` hears that the warm-up is over; `tell` adds to what is written."""
    await _perform(int(os.environ["WARM"]), 0, submit, until_over)
    print("READY", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    begin()
    began = time.perf_counter()
    pause_s = int(os.environ["PAUSE_MS"]) / 1000
    submitted = await _perform(int(os.environ["RUNS"]), pause_s, submit, until_over)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "submitted": submitted, **tell()}), flush=True)


async def _perform(count: int, pause_s: float, submit: Submit, until_over: UntilOver) -> dict[str, int]:
    submitted: dict[str, int] = {}
    for _ in range(count):
        run = uuid.uuid4().hex
        submitted[run] = time.monotonic_ns()
        await submit(run)
        if pause_s:
            await asyncio.sleep(pause_s)
    await until_over(list(submitted))
    return submitted
