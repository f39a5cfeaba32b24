"""A process that performs runs with one design, and may be killed meanwhile.

`python -m benchmarks.persistence.worker DESIGN RUNS PAUSE_S FOLDER POSTGRES_URL REDIS_URL` writes the seconds
that they took. `FOLDER/reported` holds a byte for each run, its last update: shared memory, which outlives a
kill -9. So does `FOLDER/notes`, which says of the app's runs with pauses where their updates were (`Notes`).
"""

import asyncio
import mmap
import re
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec

from benchmarks.empty_runs import NAMES, project, until_over
from benchmarks.persistence.designs import STEPS, UPDATES_A_STEP, Design, opened
from initializer.engines.inline import open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.journal import Journal
from initializer.journal.redis import open_redis_journal
from initializer.logs import configure_logging
from initializer.model.events import Event, Progressed, Reason
from initializer.model.progress import Status
from initializer.parts.servers import new_owner
from initializer.projects.database import open_database
from initializer.projects.projects import ProjectRow, Projects
from initializer.redis_client import open_redis
from initializer.running.lease import open_leases
from initializer.running.runner import Runner
from initializer.steps.step import Step, StepContext

__all__ = ["APP", "CONCURRENT", "Notes", "last_update", "run_ids"]

APP = "app"
CONCURRENT = 50


def run_ids(count: int) -> Sequence[str]:
    """The runs, in the order of their bytes in the file."""
    return [f"{number:032x}" for number in range(count)]


def last_update(events: Sequence[Event]) -> int:
    """The number in the last report of some events; 0 if there is none."""
    reports = [event for event in events if isinstance(event, Progressed)]
    number = re.search(r"update (\d+)", str(reports[-1].message)) if reports else None
    return int(number[1]) if number else 0


class Notes:
    """Of each run: when each update was said, and the last that the journal was given and has answered."""

    _RUN = struct.Struct(f"={STEPS * UPDATES_A_STEP + 1}d2B")

    def __init__(self, file: Path, runs: int) -> None:
        self._file = file.open("a+b")
        self._file.truncate(runs * self._RUN.size)
        self._memory = mmap.mmap(self._file.fileno(), runs * self._RUN.size)

    def say(self, run: int, number: int) -> None:
        """An update is said now."""
        struct.pack_into("=d", self._memory, run * self._RUN.size + number * 8, time.monotonic())

    def hand_over(self, run: int, number: int) -> None:
        """The journal is given all up to an update."""
        self._memory[(run + 1) * self._RUN.size - 2] = number

    def acknowledge(self, run: int, number: int) -> None:
        """It has answered that it has them."""
        self._memory[(run + 1) * self._RUN.size - 1] = number

    def read(self) -> Sequence[tuple[Sequence[float], int, int]]:
        """Of each run the moments of its updates by their numbers, then those two numbers."""
        rows = self._RUN.iter_unpack(self._memory)
        return [(moments, handed_over, acknowledged) for *moments, handed_over, acknowledged in rows]

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        self._file.close()


class _NotedJournal:
    """A journal that notes the updates which it is given."""

    def __init__(self, journal: Journal, notes: Notes) -> None:
        self._journal, self._notes = journal, notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def append(self, run: str, events: Sequence[Event], **asked: Any) -> None:
        number = last_update(events)
        if number:
            self._notes.hand_over(int(run, 16), number)
        await self._journal.append(run, events, **asked)
        if number:
            self._notes.acknowledge(int(run, 16), number)


def reporting_step(
    step_name: str, before: int, pause_s: float, reported: mmap.mmap, notes: Notes | None
) -> Step:
    """A step that reports its updates, after `before` of the steps before it."""

    class Reporting(Step):
        name, title = step_name, step_name

        async def run(self, context: StepContext) -> None:
            run = int(context.project.id, 16)
            for number in range(1, UPDATES_A_STEP + 1):
                if notes is not None:
                    notes.say(run, before + number)
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
        notes = Notes(folder / "notes", count) if pause_s else None
        runner = Runner(
            journal=cast(Journal, _NotedJournal(journal, notes)) if notes else journal,
            projects=projects,
            steps={
                name: reporting_step(name, number * UPDATES_A_STEP, pause_s, reported, notes)
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
