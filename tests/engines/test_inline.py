import asyncio
from typing import Any

import msgspec
import pytest
from engine_stands import Runs

from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.projects import ProjectRow
from model.runs import at, project_of

pytestmark = pytest.mark.anyio


def row_of(run: str, **values: Any) -> ProjectRow:
    return ProjectRow(project=project_of(run, **values), status=Status.INITIALIZING, attempt=1)


async def submit(engine: InlineEngine, *runs: str) -> None:
    for run in runs:
        await engine.submit(row_of(run), reason=Reason.CREATED)


async def test_a_waiting_run_that_is_cancelled_is_performed_at_once_to_be_ended() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        await submit(engine, *"abc")
        await runs.until(lambda: runs.begun == ["a"])
        engine.cancel("c", 2)
        assert engine.position("c") == 2
        engine.cancel("c", 1)
        engine.cancel("unknown", 1)
        await runs.until(lambda: runs.begun == ["a", "c"])
        assert [engine.position(run) for run in "abc"] == [None, 1, None]
        assert runs.cancelled["c"].is_set()
        assert not runs.cancelled["a"].is_set()
        engine.cancel("a", 1)
        assert runs.cancelled["a"].is_set()


async def test_a_run_whose_cancel_stands_in_its_row_does_not_wait_either() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        await submit(engine, "a")
        await runs.until(lambda: runs.begun == ["a"])
        row = msgspec.structs.replace(row_of("b"), cancel_requested_at=at(1))
        await engine.submit(row, reason=Reason.TAKEOVER)
        await runs.until(lambda: "b" in runs.begun)
        assert runs.cancelled["b"].is_set()


async def test_of_two_attempts_of_a_run_that_are_here_at_once_the_one_that_is_named_is_cancelled() -> None:
    """The older one has lost the run, and does not know it yet."""
    runs, cancelled = Runs(), dict[int, asyncio.Event]()

    async def perform(row: ProjectRow, reason: Reason, wish: asyncio.Event) -> None:
        cancelled[row.attempt] = wish
        await runs.perform(row, reason, wish)

    async with open_inline_engine(perform, max_concurrent_runs=2) as engine:
        for attempt in (1, 2):
            row = msgspec.structs.replace(row_of("a"), attempt=attempt)
            await engine.submit(row, reason=Reason.TAKEOVER)
        await runs.until(lambda: len(cancelled) == 2)
        engine.cancel("a", 1)
        assert [cancelled[attempt].is_set() for attempt in (1, 2)] == [True, False]
        engine.cancel("a", 2)
        assert cancelled[2].is_set()


async def test_of_the_runs_that_wait_the_oldest_is_first_in_whatever_order_they_come() -> None:
    engine = InlineEngine()
    for reason, names in ((Reason.TAKEOVER, "bca"), (Reason.CREATED, "fed")):
        for run in names:
            await engine.submit(row_of(run, created_at=at(ord(run))), reason=reason)
    await engine.submit(row_of("late", created_at=at(0)), reason=Reason.RETRY)
    assert [engine.position(run) for run in (*"abc", "late", *"def")] == [1, 2, 3, 4, 5, 6, 7]
