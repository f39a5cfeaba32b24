import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from initializer.engines import inline
from initializer.engines.engine import QueueFull
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.projects import ProjectRow
from model.runs import at, project_of

pytestmark = pytest.mark.anyio

DEADLINE_S = 10


class Runs:
    """Performs runs by waiting until they are let go; breaks those that are to break."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cut_off: list[str] = []
        self.cancelled: dict[str, asyncio.Event] = {}
        self._let_go: dict[str, asyncio.Future[Exception | None]] = {}
        self._changed = asyncio.Condition()

    async def perform(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        run = row.project.id
        self.cancelled[run] = cancelled
        self.begun.append(run)
        await self._tell()
        try:
            error = await self._future(run)
        except asyncio.CancelledError:
            self.cut_off.append(run)
            raise
        self.ended.append(run)
        await self._tell()
        if error is not None:
            raise error

    def let_go(self, *runs: str, error: Exception | None = None) -> None:
        for run in runs:
            self._future(run).set_result(error)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(condition)

    def _future(self, run: str) -> "asyncio.Future[Exception | None]":
        return self._let_go.setdefault(run, asyncio.get_running_loop().create_future())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def row_of(run: str) -> ProjectRow:
    return ProjectRow(project=project_of(run), status=Status.INITIALIZING, attempt=1)


def submit(engine: InlineEngine, *runs: str) -> None:
    for run in runs:
        engine.submit(row_of(run), reason=Reason.CREATED)


async def test_runs_begin_in_order_and_no_more_at_once_than_allowed() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=2) as engine:
        submit(engine, *"abcde")
        await runs.until(lambda: len(runs.begun) == 2)
        assert runs.begun == ["a", "b"]
        for done, begun in zip("bac", "cde", strict=True):
            runs.let_go(done)
            await runs.until(lambda begun=begun: begun in runs.begun)  # type: ignore[misc]
            assert len(runs.begun) - len(runs.ended) == 2
        runs.let_go("d", "e")
        await runs.until(lambda: len(runs.ended) == 5)
    assert runs.begun == list("abcde")
    assert runs.cut_off == []


async def test_waiting_runs_have_a_place_in_line_and_followers_hear_of_changes() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        submit(engine, *"abc")
        await runs.until(lambda: runs.begun == ["a"])
        assert [engine.position(run) for run in "abcd"] == [None, 1, 2, None]
        following: Any = engine.follow_positions()
        await anext(following)
        heard = asyncio.ensure_future(anext(following))
        runs.let_go("a")
        async with asyncio.timeout(DEADLINE_S):
            await heard
        await runs.until(lambda: "b" in runs.begun)
        assert [engine.position(run) for run in "abc"] == [None, None, 1]
        await following.aclose()


async def test_a_run_that_is_submitted_while_all_is_idle_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=3) as engine:
        for run in "abc":
            runs.let_go(run)
            submit(engine, run)
            await runs.until(lambda run=run: run in runs.ended)  # type: ignore[misc]


async def test_a_waiting_run_that_is_cancelled_is_performed_at_once_to_be_ended() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        submit(engine, *"abc")
        await runs.until(lambda: runs.begun == ["a"])
        engine.cancel("c")
        engine.cancel("unknown")
        await runs.until(lambda: runs.begun == ["a", "c"])
        assert [engine.position(run) for run in "abc"] == [None, 1, None]
        assert runs.cancelled["c"].is_set()
        assert not runs.cancelled["a"].is_set()
        engine.cancel("a")
        assert runs.cancelled["a"].is_set()


async def test_a_run_whose_cancel_stands_in_its_row_does_not_wait_either() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        submit(engine, "a")
        await runs.until(lambda: runs.begun == ["a"])
        row = msgspec.structs.replace(row_of("b"), cancel_requested_at=at(1))
        engine.submit(row, reason=Reason.TAKEOVER)
        await runs.until(lambda: "b" in runs.begun)
        assert runs.cancelled["b"].is_set()


async def test_a_run_that_breaks_takes_no_other_with_it() -> None:
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        submit(engine, *"ab")
        runs.let_go("a", error=RuntimeError("a bug"))
        runs.let_go("b")
        await runs.until(lambda: runs.ended == ["a", "b"])


async def test_a_run_that_cancels_itself_takes_no_other_with_it() -> None:
    runs = Runs()

    async def perform(row: ProjectRow, *values: Any) -> None:
        await runs.perform(row, *values)
        if row.project.id == "a":
            raise asyncio.CancelledError

    async with open_inline_engine(perform, max_concurrent_runs=1) as engine:
        submit(engine, *"ab")
        runs.let_go("a", "b")
        await runs.until(lambda: runs.ended == ["a", "b"])


async def test_at_the_end_all_runs_are_cut_off_where_they_stand() -> None:
    runs = Runs()
    tasks = asyncio.all_tasks()
    async with asyncio.timeout(DEADLINE_S):
        async with open_inline_engine(runs.perform, max_concurrent_runs=2) as engine:
            submit(engine, *"abc")
            await runs.until(lambda: len(runs.begun) == 2)
    assert sorted(runs.cut_off) == ["a", "b"]
    assert runs.begun == ["a", "b"]
    assert asyncio.all_tasks() == tasks


async def test_an_error_around_the_engine_passes_through(anyio_backend: str) -> None:
    runs = Runs()
    with pytest.raises(ExceptionGroup) as raised:
        async with open_inline_engine(runs.perform, max_concurrent_runs=2) as engine:
            submit(engine, "a")
            await runs.until(lambda: runs.begun == ["a"])
            raise KeyError("around")
    assert raised.group_contains(KeyError)
    assert runs.cut_off == ["a"]


async def test_a_full_queue_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "MAX_WAITING_RUNS", 2)
    runs = Runs()
    async with open_inline_engine(runs.perform, max_concurrent_runs=1) as engine:
        submit(engine, "a")
        await runs.until(lambda: runs.begun == ["a"])
        for run in "bc":
            engine.check_room()
            submit(engine, run)
        with pytest.raises(QueueFull, match="2 projects are waiting already"):
            engine.check_room()
        runs.let_go("a")
        await runs.until(lambda: "b" in runs.begun)
        engine.check_room()
