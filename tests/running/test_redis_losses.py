"""A real Redis is killed under a run that is watched, and comes back with all, with less, or with nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from stage import DEADLINE_S, RUN, Stage, step_of

from harness.proxy import Relay
from harness.servers import RedisServer
from initializer.journal.journal import JournalUnavailable
from initializer.journal.redis import RedisJournal, open_redis_journal
from initializer.model.events import Event, is_final
from initializer.model.progress import Status, fold
from initializer.redis_client import open_redis
from initializer.running.lease import lease_of, open_leases
from initializer.steps.step import StepContext

pytestmark = pytest.mark.anyio


@pytest.fixture
async def journal(anyio_backend: str, redis_server: RedisServer) -> AsyncIterator[RedisJournal]:
    async with open_redis(redis_server.url) as client, open_redis_journal(client) as journal:
        yield journal


async def watch(journal: RedisJournal) -> list[Event]:
    """What a viewer has seen at the end, each event once: it comes back as often as it is sent away."""
    seen: list[Event] = []
    while True:
        try:
            async with aclosing(journal.follow(RUN, after=seen[-1].id if seen else "")) as following:
                async for events in following:
                    seen += events
                    if seen and is_final(seen[-1]):
                        return seen
        except JournalUnavailable:
            await asyncio.sleep(0.05)


def with_all(server: RedisServer) -> None:
    server.kill()


def with_less(server: RedisServer) -> None:
    server.kill()
    server.restore(server.folder.with_name(f"{server.folder.name}-backup"))


def with_nothing(server: RedisServer) -> None:
    server.kill()
    server.wipe()


@pytest.mark.parametrize("lose", [with_all, with_less, with_nothing])
async def test_a_run_goes_on_without_its_redis_and_makes_the_journal_whole_again(
    stage: Stage, journal: RedisJournal, redis_server: RedisServer, lose: Callable[[RedisServer], None]
) -> None:
    stage.journal = journal
    reached, back = asyncio.Event(), asyncio.Event()

    async def first(context: StepContext) -> None:
        for number in range(30):
            context.log(f"before {number}")
            context.progress(number)
        await stage.until_event(3)
        redis_server.backup()
        context.log("after the backup")
        await stage.until_event(4)
        reached.set()
        await back.wait()
        context.log("in the dark")

    async def second(context: StepContext) -> None:
        context.log("the second step")

    steps = step_of("first", first, timeout_s=60), step_of("second", second)
    await stage.add(*steps)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stage.run(*steps))
        viewers = [group.create_task(watch(journal)) for _ in range(3)]
        await asyncio.wait_for(reached.wait(), DEADLINE_S)
        lose(redis_server)
        back.set()
        await asyncio.sleep(0)
        redis_server.start()
        await running
    events = await stage.events()
    assert is_final(events[-1])
    assert all(viewer.result() == events for viewer in viewers)
    assert await stage.lines() == [
        *(f"before {number}" for number in range(30)), "after the backup", "in the dark", "the second step",
    ]  # fmt: skip
    row = await stage.row()
    assert row.status is Status.ACTIVE
    assert row.summary is not None
    assert row.summary.events == len(events) - 1
    assert fold(stage.project.parameters.pipeline, events).status is Status.ACTIVE


@pytest.mark.parametrize("lose", [with_all, with_nothing])
async def test_a_run_whose_redis_stays_away_ends_in_its_row_and_refills_what_comes_back(
    stage: Stage,
    journal: RedisJournal,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[RedisServer], None],
) -> None:
    monkeypatch.setattr("initializer.running.attempt.SETTLE_LIMIT_S", 0.2)
    monkeypatch.setattr("initializer.running.attempt.LAST_WORDS_LIMIT_S", 0.2)
    monkeypatch.setattr("initializer.running.runner.SETTLE_PAUSE_S", 0.1)
    stage.journal = journal

    async def step(context: StepContext) -> None:
        await stage.until_event(2)
        lose(redis_server)
        context.log("in the dark")

    async def come_back() -> None:
        assert (await stage.row()).status is Status.ACTIVE
        redis_server.start()
        while await journal.unretired() or not await stage.events():  # noqa: ASYNC110 - no event is set
            await asyncio.sleep(0.01)

    await stage.run(step_of("only", step), afterwards=come_back)
    events, row = await stage.events(), await stage.row()
    assert is_final(events[-1])
    assert row.summary is not None
    assert row.summary.events == len(events) - 1
    assert await stage.lines() == ["in the dark"]


async def test_a_frozen_redis_holds_up_no_run_and_gets_everything_once(
    stage: Stage, journal: RedisJournal, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The appends that ran out of time arrive all the same when it wakes: each is taken once."""
    monkeypatch.setattr("initializer.redis_client.ANSWER_LIMIT_S", 0.3)
    stage.journal = journal

    async def step(context: StepContext) -> None:
        await stage.until_event(2)
        redis_server.freeze()
        for number in range(20):
            context.log(f"line {number}")
            await asyncio.sleep(0.05)
        redis_server.thaw()

    async with asyncio.TaskGroup() as group:
        viewer = group.create_task(watch(journal))
        await stage.run(step_of("only", step))
    assert await stage.lines() == [f"line {number}" for number in range(20)]
    assert viewer.result() == await stage.events()


async def test_a_log_that_no_append_carries_over_a_slow_link_in_time_is_refilled_in_pieces(
    stage: Stage, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initializer.redis_client.ANSWER_LIMIT_S", 1)
    said = [f"{n:04}".ljust(3999, ".") for n in range(1000)]

    async def step(context: StepContext) -> None:
        for first in range(0, len(said), 100):
            for line in said[first : first + 100]:
                context.log(line)
            await stage.until_event(3 + first // 100)
        assert redis_server.ask("FLUSHALL") == b"+OK\r\n"
        relay.slow_down(2_000_000)

    with Relay(redis_server.port) as relay:
        async with (
            open_redis(relay.through(redis_server.url)) as client,
            open_redis_journal(client) as stage.journal,
        ):
            await stage.run(step_of("only", step))
            assert await stage.lines() == said
            assert (await stage.types())[-1] == "completed"


async def test_a_journal_that_forgets_while_a_step_is_silent_is_refilled_without_a_word_of_it(
    stage: Stage, journal: RedisJournal, redis_server: RedisServer
) -> None:
    stage.journal = journal
    async with (
        open_redis(redis_server.url) as client,
        open_leases(client, stage.projects, owner="one", lease_s=0.6) as leases,
    ):

        async def step(context: StepContext) -> None:
            await stage.until_event(2)
            before = await stage.events()
            async with asyncio.timeout(DEADLINE_S):
                while not await client.get(lease_of(RUN)):  # noqa: ASYNC110 - Redis sets no event
                    await asyncio.sleep(0.01)
            await client.flushall()
            await stage.until_event(len(before))
            assert (await stage.events())[: len(before)] == before

        await stage.run(step_of("only", step, timeout_s=20), leases=leases)
    assert (await stage.row()).status is Status.ACTIVE
