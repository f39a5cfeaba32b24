"""What holds for every engine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engine_stands import DEADLINE_S, BullStand, InlineStand, Runs, Stand

from initializer.engines import bullmq, inline
from initializer.engines.engine import QueueFull
from initializer.model.events import Reason

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["inline", "bullmq"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Stand:
    if request.param == "inline":
        return InlineStand()
    return BullStand(tmp_path, request.getfixturevalue("redis_url"))


async def test_runs_begin_in_order_and_no_more_at_once_than_allowed(stand: Stand) -> None:
    runs = Runs()
    async with stand.open(runs, 2) as engine:
        await stand.submit(engine, *"abcde")
        await runs.until(lambda: len(runs.begun) == 2)
        assert sorted(runs.begun) == ["a", "b"]
        for done, begun in zip("bac", "cde", strict=True):
            runs.let_go(done)
            await runs.until(lambda begun=begun: begun in runs.begun)  # type: ignore[misc]
            assert len(runs.begun) - len(runs.ended) == 2
        runs.let_go("d", "e")
        await runs.until(lambda: len(runs.ended) == 5)
    assert runs.begun[2:] == list("cde")
    assert runs.cut_off == []


async def test_waiting_runs_have_a_place_in_line_and_followers_hear_of_changes(stand: Stand) -> None:
    runs = Runs()
    async with stand.open(runs, 1) as engine, asyncio.timeout(DEADLINE_S):
        following: Any = engine.follow_positions()
        await stand.submit(engine, *"abc")
        while [engine.position(run) for run in "abcd"] != [None, 1, 2, None]:
            await anext(following)
        runs.let_go("a")
        while [engine.position(run) for run in "abc"] != [None, None, 1]:
            await anext(following)
        await runs.until(lambda: runs.begun == ["a", "b"])
        await following.aclose()


async def test_what_another_process_has_left_goes_before_what_nobody_has_begun(stand: Stand) -> None:
    runs = Runs()
    async with stand.open(runs, 1) as engine, asyncio.timeout(DEADLINE_S):
        following: Any = engine.follow_positions()
        await stand.submit(engine, "a")
        await runs.until(lambda: runs.begun == ["a"])
        await stand.submit(engine, *"bc")
        await stand.submit(engine, "d", reason=Reason.TAKEOVER)
        await stand.submit(engine, "e", reason=Reason.HANDOVER)
        while [engine.position(run) for run in "debc"] != [1, 2, 3, 4]:
            await anext(following)
        runs.let_go(*"abcde")
        await runs.until(lambda: len(runs.ended) == 5)
    assert runs.begun == list("adebc")


async def test_a_run_that_is_submitted_while_all_is_idle_begins(stand: Stand) -> None:
    runs = Runs()
    async with stand.open(runs, 3) as engine:
        for run in "abc":
            runs.let_go(run)
            await stand.submit(engine, run)
            await runs.until(lambda run=run: run in runs.ended)  # type: ignore[misc]


async def test_a_run_that_is_performed_hears_that_its_attempt_is_to_end_and_of_no_other(stand: Stand) -> None:
    runs = Runs()
    async with stand.open(runs, 1) as engine:
        await stand.submit(engine, "a")
        await runs.until(lambda: runs.begun == ["a"])
        engine.cancel("unknown", 1)
        for another_attempt in (0, 2):
            engine.cancel("a", another_attempt)
        assert not runs.cancelled["a"].is_set()
        engine.cancel("a", 1)
        assert runs.cancelled["a"].is_set()
        runs.let_go("a")
        await runs.until(lambda: runs.ended == ["a"])


@pytest.mark.parametrize("error", [RuntimeError("a bug"), asyncio.CancelledError()], ids=["bug", "cancel"])
async def test_a_run_that_breaks_or_cancels_itself_takes_no_other_with_it(
    stand: Stand, error: BaseException
) -> None:
    runs = Runs()
    async with stand.open(runs, 1) as engine:
        await stand.submit(engine, *"ab")
        runs.let_go("a", error=error)
        runs.let_go("b")
        await runs.until(lambda: "b" in runs.ended)


async def test_at_the_end_all_runs_are_cut_off_where_they_stand(stand: Stand) -> None:
    runs = Runs()
    tasks = asyncio.all_tasks()
    async with asyncio.timeout(DEADLINE_S):
        async with stand.open(runs, 2) as engine:
            await stand.submit(engine, *"abc")
            await runs.until(lambda: len(runs.begun) == 2)
    assert sorted(runs.cut_off) == sorted(runs.begun) == ["a", "b"]
    assert asyncio.all_tasks() == tasks


async def test_an_error_around_the_engine_passes_through(stand: Stand) -> None:
    runs = Runs()
    with pytest.raises(ExceptionGroup) as raised:
        async with stand.open(runs, 2) as engine:
            await stand.submit(engine, "a")
            await runs.until(lambda: runs.begun == ["a"])
            raise KeyError("around")
    assert raised.group_contains(KeyError)
    assert runs.cut_off == ["a"]


async def test_a_full_queue_takes_no_more(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine_module in (inline, bullmq):
        monkeypatch.setattr(engine_module, "MAX_WAITING_RUNS", 2)
    runs = Runs()
    async with stand.open(runs, 1) as engine, asyncio.timeout(DEADLINE_S):
        following: Any = engine.follow_positions()
        await stand.submit(engine, "a")
        await runs.until(lambda: runs.begun == ["a"])
        for run in "bc":
            engine.check_room()
            await stand.submit(engine, run)
        while engine.position("c") != 2:
            await anext(following)
        with pytest.raises(QueueFull, match="2 projects are waiting already"):
            engine.check_room()
        runs.let_go("a")
        while engine.position("c") != 1:
            await anext(following)
        engine.check_room()
