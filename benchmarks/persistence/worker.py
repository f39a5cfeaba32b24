"""A process that performs runs with one design, and may be killed meanwhile.

`python -m benchmarks.persistence.worker DESIGN RUNS PAUSE_S FOLDER POSTGRES_URL REDIS_URL` writes the seconds
that they took. `FOLDER/reported` holds a byte for each run, its last update: shared memory, which outlives a
kill -9.
"""

import asyncio
import mmap
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec

from benchmarks.empty_runs import NAMES, project, until_over
from benchmarks.persistence.designs import STEPS, UPDATES_A_STEP, Design, opened
from initializer.engines.inline import open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.redis import open_redis_journal
from initializer.logs import configure_logging
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.parts.servers import new_owner
from initializer.projects.database import open_database
from initializer.projects.projects import ProjectRow, Projects
from initializer.redis_client import open_redis
from initializer.running.lease import open_leases
from initializer.running.runner import Runner
from initializer.steps.step import Step, StepContext

__all__ = ["APP", "CONCURRENT", "run_ids"]

APP = "app"
CONCURRENT = 50


def run_ids(count: int) -> Sequence[str]:
    """The runs, in the order of their bytes in the file."""
    return [f"{number:032x}" for number in range(count)]


def reporting_step(step_name: str, before: int, pause_s: float, reported: mmap.mmap) -> Step:
    """A step that reports its updates, after `before` of the steps before it."""

    class Reporting(Step):
        name, title = step_name, step_name

        async def run(self, context: StepContext) -> None:
            run = int(context.project.id, 16)
            for number in range(1, UPDATES_A_STEP + 1):
                context.progress(number * 100 // UPDATES_A_STEP, f"update {before + number}")
                reported[run] = before + number
                await asyncio.sleep(pause_s)

    return Reporting()


async def perform_app(
    count: int, pause_s: float, folder: Path, urls: tuple[str, str], reported: mmap.mmap
) -> float:
    """The product's runner, rows, journal and leases."""
    async with (
        open_database(urls[0]) as database,
        open_redis(urls[1]) as client,
        open_redis_journal(client) as journal,
        open_leases(client, Projects(database), owner=new_owner(), lease_s=5) as leases,
    ):
        projects = Projects(database)
        runner = Runner(
            journal=journal,
            projects=projects,
            steps={
                name: reporting_step(name, number * UPDATES_A_STEP, pause_s, reported)
                for number, name in enumerate(NAMES)
            },
            forges={"local": LocalForge(folder / "repositories", "http://localhost")},
            work_folder=folder / "work",
            keep_journal_for=timedelta(days=1),
            leases=leases,
        )
        async with open_inline_engine(
            runner.run, max_concurrent_runs=CONCURRENT, on_submit=leases.hold
        ) as engine:

            async def perform(run: str) -> None:
                one = msgspec.structs.replace(project(int(run, 16)), id=run)
                await projects.add(one, idempotency_key=run)
                row = ProjectRow(project=one, status=Status.INITIALIZING, attempt=1)
                await engine.submit(row, reason=Reason.CREATED)
                await until_over(journal, run)

            return await timed(perform, count)


async def perform_design(design: Design, count: int, pause_s: float, reported: mmap.mmap) -> float:
    """The same runs as a loop."""

    async def perform(run: str) -> None:
        await design.begin(run)
        number = 0
        for _ in range(STEPS):
            for _ in range(UPDATES_A_STEP):
                number += 1
                await design.update(run, number)
                reported[int(run, 16)] = number
                await asyncio.sleep(pause_s)
            await design.step_over(run, number)
        await design.end(run, number)

    keeping = asyncio.create_task(design.keep())
    try:
        took = await timed(perform, count)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    await design.flush()
    return took


async def timed(perform: Callable[[str], Awaitable[None]], count: int) -> float:
    """Seconds until all runs are over, so many at once."""
    waiting = iter(run_ids(count))

    async def one_after_another() -> None:
        for run in waiting:
            await perform(run)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(one_after_another())
    return time.perf_counter() - began


async def main() -> None:
    """Perform the runs."""
    name, runs, pause, folder_name, *urls = sys.argv[1:]
    folder, count, pause_s = Path(folder_name), int(runs), float(pause)
    with (folder / "reported").open("w+b") as file:
        file.truncate(count)
        with mmap.mmap(file.fileno(), count) as reported:
            if name == APP:
                took = await perform_app(count, pause_s, folder, (urls[0], urls[1]), reported)
            else:
                async with opened(name, urls[0], urls[1]) as design:
                    took = await perform_design(design, count, pause_s, reported)
    print(took)


if __name__ == "__main__":
    configure_logging("WARNING")
    asyncio.run(main())
