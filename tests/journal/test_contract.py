"""What every journal does."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import cast

import pytest

from initializer.background import in_background
from initializer.journal.journal import AppendRefused, Journal, JournalRewritten
from initializer.model.events import Event, EventId, Log, Saving, decode_event
from model.runs import HOSTILE, at, numbered

pytestmark = pytest.mark.anyio

RUN, OTHER = "a1", "b2"
DEADLINE_S = 10
INTERVAL_S = 0.05

Following = AsyncGenerator[list[Event], None]


@pytest.fixture(params=["memory_journal", "file_journal", "redis_journal"])
def journal(request: pytest.FixtureRequest) -> Journal:
    return cast(Journal, request.getfixturevalue(request.param))


def events(count: int, *, first: int = 1, attempt: int = 1) -> list[Event]:
    return numbered(*(Saving(at=at(n)) for n in range(first, first + count)), attempt=attempt, first=first)


async def fill(journal: Journal, count: int, run: str = RUN) -> Sequence[Event]:
    made = events(count)
    await journal.append(run, made, expected_tail=None)
    return made


async def take(following: Following) -> list[Event]:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(following)


async def take_upto(following: Following, index: int) -> list[Event]:
    """Everything up to the event of that index, in however many portions it comes."""
    taken: list[Event] = []
    while not taken or taken[-1].index < index:
        taken += await take(following)
    return taken


def follow(journal: Journal, run: str = RUN, *, after: EventId = "") -> "aclosing[Following]":
    return aclosing(journal.follow(run, after=after))


async def test_an_empty_journal_reads_as_nothing(journal: Journal) -> None:
    assert await journal.read(RUN) == []


async def test_what_is_appended_is_read_in_order(journal: Journal) -> None:
    await journal.append(RUN, events(2), expected_tail=None)
    await journal.append(RUN, events(3, first=3), expected_tail="1-2", is_durable=True)
    assert await journal.read(RUN) == [*events(2), *events(3, first=3)]


async def test_read_gives_only_what_is_behind_an_event(journal: Journal) -> None:
    await fill(journal, 3)
    assert [event.index for event in await journal.read(RUN, after="1-1")] == [2, 3]
    assert await journal.read(RUN, after="1-3") == await journal.read(RUN, after="1-99") == []


async def test_runs_do_not_mix(journal: Journal) -> None:
    await fill(journal, 2)
    await fill(journal, 1, run=OTHER)
    assert len(await journal.read(RUN)) == 2
    assert len(await journal.read(OTHER)) == 1


async def test_hostile_text_and_unknown_events_come_back_as_they_were(journal: Journal) -> None:
    unknown = decode_event(b'{"id":"1-2","type":"weather","at":"2026-01-01T10:00:00Z","is": "\\u2028fine"}')
    log = Log(at=at(1), step="a", first=1, lines=(*HOSTILE, "\u2028\u0085\x1c"[:2])).numbered(1, 1)
    await journal.append(RUN, [log, unknown], expected_tail=None)
    assert await journal.read(RUN) == [log, unknown]


@pytest.mark.parametrize("believed", [None, "1-1", "1-3", "2-2"])
async def test_an_append_behind_another_tail_is_refused_and_tells_the_true_one(
    journal: Journal, believed: str | None
) -> None:
    held = await fill(journal, 2)
    with pytest.raises(AppendRefused) as refused:
        await journal.append(RUN, events(2, first=3), expected_tail=believed)
    assert (refused.value.expected, refused.value.tail) == (believed, "1-2")
    assert await journal.read(RUN) == held


async def test_an_append_to_an_empty_journal_that_expects_something_is_refused(journal: Journal) -> None:
    with pytest.raises(AppendRefused) as refused:
        await journal.append(RUN, events(1, first=2), expected_tail="1-1")
    assert refused.value.tail is None


async def test_the_same_append_twice_arrives_once(journal: Journal) -> None:
    await fill(journal, 2)
    with pytest.raises(AppendRefused) as refused:
        await journal.append(RUN, events(2), expected_tail=None)
    assert refused.value.tail == "1-2"


async def test_of_many_writers_at_once_one_wins(journal: Journal) -> None:
    async def write(attempt: int) -> bool:
        try:
            await journal.append(RUN, events(3, attempt=attempt), expected_tail=None, is_durable=True)
        except AppendRefused:
            return False
        return True

    won = await asyncio.gather(*(write(attempt) for attempt in range(1, 21)))
    assert won.count(True) == 1
    assert await journal.read(RUN) == events(3, attempt=won.index(True) + 1)


async def test_what_comes_while_a_follower_waits_is_taken_at_once_and_what_that_leaves_is_yielded(
    journal: Journal,
) -> None:
    got: list[Event] = []
    yielded: list[int] = []

    def take_most(given: list[Event]) -> bool:
        if given[-1].index % 3 == 0:
            return False
        got.extend(given)
        return True

    async def read(following: Following) -> None:
        async for given in following:
            got.extend(given)
            yielded.extend(event.index for event in given)

    await fill(journal, 2)
    async with aclosing(journal.follow(RUN, at_once=take_most)) as following, in_background(read(following)):
        for index in range(3, 12):
            async with asyncio.timeout(DEADLINE_S):
                while len(got) < index - 1:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.001)
            await journal.append(RUN, events(1, first=index), expected_tail=f"1-{index - 1}")
        async with asyncio.timeout(DEADLINE_S):
            while len(got) < 11:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)
    assert got == events(11)
    assert yielded == [1, 2, 3, 6, 9]


@pytest.mark.parametrize("is_at_once", [True, False], ids=["at-once", "in-turn"])
async def test_what_comes_sooner_than_the_interval_allows_is_given_together(
    journal: Journal, is_at_once: bool
) -> None:
    loop = asyncio.get_running_loop()
    batches: list[tuple[float, list[Event]]] = []

    def take_in(given: list[Event]) -> bool:
        batches.append((loop.time(), given))
        return True

    async def read(following: Following) -> None:
        async for given in following:
            if given:
                take_in(given)

    following = journal.follow(RUN, interval_s=INTERVAL_S, at_once=take_in if is_at_once else None)
    async with aclosing(following), in_background(read(following)):
        for index in range(1, 31):
            tail = f"1-{index - 1}" if index > 1 else None
            await journal.append(RUN, events(1, first=index), expected_tail=tail)
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            while not batches or batches[-1][1][-1].index < 30:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)
    assert [event for _, given in batches for event in given] == events(30)
    in_beat = len(batches) - 3  # the first reading waits for nothing, nor do two turns after a rest
    assert batches[-1][0] - batches[0][0] > INTERVAL_S * in_beat - 0.001


@pytest.mark.parametrize("journal", ["memory_journal", "file_journal"], indirect=True)  # no way between
async def test_nothing_is_taken_at_once_before_the_follower_waits_for_it(journal: Journal) -> None:
    asked: list[int] = []

    def refuse(given: list[Event]) -> bool:
        asked.append(given[-1].index)
        return False

    async with aclosing(journal.follow(RUN, at_once=refuse)) as following, asyncio.timeout(DEADLINE_S):
        assert await anext(following) == []
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)  # now it waits
        await journal.append(RUN, events(1), expected_tail=None)
        assert await waiting == events(1)
        await journal.append(RUN, events(1, first=2), expected_tail="1-1")
        for _ in range(5):  # turns, in which it could be asked
            await asyncio.sleep(0)
        assert asked == [1]
        assert await anext(following) == events(1, first=2)


async def test_a_follower_that_has_left_takes_nothing(journal: Journal) -> None:
    taken: list[Event] = []
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    following = journal.follow(RUN, interval_s=INTERVAL_S, at_once=lambda given: not taken.extend(given))
    async with aclosing(following), in_background(take_upto(following, 10)):
        index = 0
        async with asyncio.timeout(DEADLINE_S):
            while index == len(taken) or index < 4:  # until a turn waits for the interval to be over
                tail = f"1-{index}" if index else None
                index += 1
                await journal.append(RUN, events(1, first=index), expected_tail=tail)
                for _ in range(3):
                    await asyncio.sleep(0)
    before = list(taken)
    await asyncio.sleep(2 * INTERVAL_S)
    assert taken == before
    assert not faults


async def test_a_follower_gets_what_there_is_and_then_what_comes(journal: Journal) -> None:
    await fill(journal, 2)
    async with follow(journal) as following:
        assert await take(following) == events(2)
        await journal.append(RUN, events(1, first=3), expected_tail="1-2")
        assert await take_upto(following, 3) == events(1, first=3)


async def test_a_follower_of_an_empty_journal_is_told_so_at_once(journal: Journal) -> None:
    async with follow(journal) as following:
        assert await take(following) == []
        await fill(journal, 1)
        assert await take_upto(following, 1) == events(1)


async def test_a_follower_begins_behind_its_index(journal: Journal) -> None:
    await fill(journal, 3)
    async with follow(journal, after="1-2") as following:
        assert await take(following) == events(1, first=3)
        await journal.append(RUN, events(1, first=4), expected_tail="1-3")
        assert await take_upto(following, 4) == events(1, first=4)


async def test_many_appends_before_a_look_are_one_portion(journal: Journal) -> None:
    async with follow(journal) as following:
        await take(following)
        await fill(journal, 1)
        for index in range(2, 51):
            await journal.append(RUN, events(1, first=index), expected_tail=f"1-{index - 1}")
        assert [event.index for event in await take_upto(following, 50)] == list(range(1, 51))


async def test_every_follower_gets_everything_once(journal: Journal) -> None:
    async def watch() -> list[int]:
        async with follow(journal) as following:
            return [event.index for event in await take_upto(following, 40)]

    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(watch()) for _ in range(5)]
        for index in range(1, 41):
            await journal.append(
                RUN, events(1, first=index), expected_tail=f"1-{index - 1}" if index > 1 else None
            )
            if index % 7 == 0:
                await asyncio.sleep(0)
    assert all(watcher.result() == list(range(1, 41)) for watcher in watchers)


async def test_a_refused_append_shows_followers_nothing(journal: Journal) -> None:
    await fill(journal, 1)
    async with follow(journal) as following:
        await take(following)
        with pytest.raises(AppendRefused):
            await journal.append(RUN, events(1, first=9), expected_tail="1-8")
        await journal.append(RUN, events(1, first=2), expected_tail="1-1")
        assert await take_upto(following, 2) == events(1, first=2)


async def test_a_follower_that_leaves_takes_no_other_with_it(journal: Journal) -> None:
    async with follow(journal) as staying:
        await take(staying)
        async with follow(journal) as leaving:
            await take(leaving)
        await fill(journal, 1)
        assert await take_upto(staying, 1) == events(1)


async def test_a_retired_journal_can_be_read_until_its_time_has_come(journal: Journal) -> None:
    held = await fill(journal, 2)
    await journal.retire(RUN, keep_for=timedelta(days=7))
    assert await journal.read(RUN) == held


async def test_a_journal_can_be_retired_again_and_without_having_been(journal: Journal) -> None:
    await journal.retire(OTHER, keep_for=timedelta(days=7))
    await fill(journal, 1)
    for _ in range(2):
        await journal.retire(RUN, keep_for=timedelta(days=7))
    assert len(await journal.read(RUN)) == 1


async def test_who_reads_on_behind_an_event_that_was_overwritten_is_told(journal: Journal) -> None:
    await fill(journal, 2)
    await journal.append(RUN, [event.numbered(2, 3) for event in events(1)], expected_tail="1-2")
    for lost in ("1-3", "1-5"):
        with pytest.raises(JournalRewritten):
            await journal.read(RUN, after=lost)
    async with follow(journal, after="1-3") as following:
        with pytest.raises(JournalRewritten):
            await take(following)
    assert [event.id for event in await journal.read(RUN, after="1-2")] == ["2-3"]
