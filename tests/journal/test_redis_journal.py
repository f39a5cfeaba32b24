"""What the journal in Redis does when the server, the way to it, or the reader is not as it should be."""

import asyncio
import gc
import random
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from harness.proxy import Relay
from harness.servers import RedisServer
from initializer import redis_client
from initializer.journal import subscription as subscription_module
from initializer.journal.journal import (
    AppendRefused,
    JournalDamaged,
    JournalRewritten,
    JournalUnavailable,
)
from initializer.journal.redis import READ_EVENTS, RedisJournal, channel_of, open_redis_journal, stream_of
from initializer.journal.subscription import MAX_HELD_MESSAGES, Listener, Subscription, open_subscription
from initializer.model.events import (
    Event,
    Log,
    Progressed,
    Saving,
    StepCompleted,
    StepStarted,
    decode_event,
    encode_event,
)
from initializer.redis_client import RedisUnfit, examine_redis, open_redis
from model.runs import at, numbered

pytestmark = pytest.mark.anyio

RUN = "a1"
DEADLINE_S = 20

Following = AsyncGenerator[list[Event], None]
Follow = Callable[..., "aclosing[Following]"]


def events(count: int, *, first: int = 1, attempt: int = 1) -> list[Event]:
    return numbered(*(Saving(at=at(n)) for n in range(first, first + count)), attempt=attempt, first=first)


@asynccontextmanager
async def journal_at(url: str) -> AsyncIterator[RedisJournal]:
    async with open_redis(url) as client, open_redis_journal(client) as journal:
        yield journal


async def bytes_sent(client: "Redis") -> int:
    """By the server, to everyone."""
    return int((await client.info("stats"))["total_net_output_bytes"])


@pytest.fixture
async def client(anyio_backend: str, redis_url: str) -> AsyncIterator["Redis"]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
async def journal(client: "Redis") -> AsyncIterator[RedisJournal]:
    async with open_redis_journal(client) as journal:
        yield journal


def follow_in_turn(journal: RedisJournal, run: str = RUN) -> "aclosing[Following]":
    return aclosing(journal.follow(run))


def follow_at_once(journal: RedisJournal, run: str = RUN) -> "aclosing[Following]":
    return aclosing(all_that_comes(journal, run))


async def all_that_comes(journal: RedisJournal, run: str) -> Following:
    """What a follower takes at once and what it is yielded, in the order of its coming."""
    taken: asyncio.Queue[list[Event]] = asyncio.Queue()

    def take(given: list[Event]) -> bool:
        taken.put_nowait(given)
        return True

    async with aclosing(journal.follow(run, at_once=take)) as following:
        while True:
            turn = asyncio.ensure_future(anext(following))
            try:
                while not turn.done():
                    coming = asyncio.ensure_future(taken.get())
                    await asyncio.wait((turn, coming), return_when=asyncio.FIRST_COMPLETED)
                    if coming.done():
                        yield coming.result()
                    coming.cancel()
            finally:
                turn.cancel()
                await asyncio.wait((turn,))
            yield turn.result()


@pytest.fixture(params=[follow_in_turn, follow_at_once], ids=["in-turn", "at-once"])
def follow(request: pytest.FixtureRequest) -> Follow:
    return cast(Follow, request.param)


async def take_upto(following: Following, index: int) -> list[Event]:
    taken: list[Event] = []
    async with asyncio.timeout(DEADLINE_S):
        while not taken or taken[-1].index < index:
            taken += await anext(following)
    return taken


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.005)


def indexes(of: Sequence[Event]) -> list[int]:
    return [event.index for event in of]


async def test_outsiders_find_stream_and_channel_as_the_contract_says(
    client: "Redis", journal: RedisJournal
) -> None:
    async with client.pubsub() as outsider:
        await outsider.subscribe("project:a1")
        assert (await outsider.get_message(timeout=5))["type"] == "subscribe"
        await journal.append(RUN, events(2), expected_tail=None)
        with pytest.raises(AppendRefused):
            await journal.append(RUN, events(1, first=9), expected_tail="1-8")
        await journal.append(RUN, events(1, first=3, attempt=2), expected_tail="1-2")
        published = [decode_event((await outsider.get_message(timeout=5))["data"]) for _ in range(3)]
    assert published == [*events(2), *events(1, first=3, attempt=2)]
    entries: Any = await client.xrange("project:a1:events")
    assert [entry_id for entry_id, _ in entries] == [b"1-1", b"1-2", b"2-3"]
    assert [decode_event(fields[b"event"]) for _, fields in entries] == published


async def test_all_that_a_tick_says_goes_to_redis_in_one_round_trip(redis_server: RedisServer) -> None:
    said: tuple[Event, ...] = (
        Log(at=at(3), step="create_repo", first=1, lines=("one", "two")),
        Progressed(at=at(3), step="create_repo", progress=8, step_progress=50, message="half way"),
        StepCompleted(at=at(3), step="create_repo", duration_ms=7),
        StepStarted(at=at(3), step="push_template"),
    )
    with Relay(redis_server.port) as relay:
        async with (
            open_redis(relay.through(redis_server.url)) as client,
            open_subscription(client) as subscription,
        ):
            journal = RedisJournal(client, subscription)  # which proves nothing in between
            await journal.append(RUN, events(1), expected_tail=None)  # Redis knows the script from here on
            before = relay.requests
            await journal.append(RUN, numbered(*said, attempt=1, first=2), expected_tail="1-1")
            assert relay.requests == before + 1
            assert len(await journal.read(RUN)) == 1 + len(said)


async def test_reading_on_has_redis_send_only_what_is_new(client: "Redis", journal: RedisJournal) -> None:
    await journal.append(RUN, events(2000), expected_tail=None)
    before = await bytes_sent(client)
    assert len(await journal.read(RUN)) == 2000
    for_all = await bytes_sent(client) - before
    await journal.append(RUN, events(1, first=2001), expected_tail="1-2000")
    before = await bytes_sent(client)
    assert [event.id for event in await journal.read(RUN, after="1-2000")] == ["1-2001"]
    assert await bytes_sent(client) - before < for_all / 10


async def test_a_long_journal_is_read_with_turns_for_everybody_else(journal: RedisJournal) -> None:
    for first in range(1, 20_000, 5000):
        expected = f"1-{first - 1}" if first > 1 else None
        await journal.append(RUN, events(5000, first=first), expected_tail=expected)
    gc.collect()
    gc.freeze()  # as the server does: what all tests before have made is not looked through again
    try:
        turns_s = [time.thread_time()]  # no other program's turn is held against the reader
        reading = asyncio.create_task(journal.read(RUN))
        while not reading.done():
            await asyncio.sleep(0)
            turns_s.append(time.thread_time())
    finally:
        gc.unfreeze()
    assert len(reading.result()) == 20_000
    longest_s = max(after - before for before, after in pairwise(turns_s))
    assert longest_s < (turns_s[-1] - turns_s[0]) / 5


async def test_what_was_made_anew_between_two_pieces_is_read_again(
    client: "Redis", journal: RedisJournal
) -> None:
    await journal.append(RUN, events(READ_EVENTS + 10), expected_tail=None)
    anew = [*events(500), *events(700, first=501, attempt=2)]
    read = client.xrange

    async def read_and_lose(*asked: Any, **options: Any) -> Any:
        client.xrange = read  # type: ignore[method-assign] - the next one is not in the way
        answer = await read(*asked, **options)
        await client.delete(stream_of(RUN))
        await journal.append(RUN, anew, expected_tail=None)
        return answer

    client.xrange = read_and_lose  # type: ignore[method-assign]
    assert await journal.read(RUN) == anew


async def test_a_new_attempt_undoes_the_expiry(client: "Redis", journal: RedisJournal) -> None:
    await journal.append(RUN, events(1), expected_tail=None)
    await journal.retire(RUN, keep_for=timedelta(days=7))
    assert 604_790 < await client.ttl(stream_of(RUN)) <= 604_800
    await journal.append(RUN, events(1, first=2, attempt=2), expected_tail="1-1")
    assert await client.ttl(stream_of(RUN)) == -1


async def test_journals_without_an_end_are_listed_among_many(client: "Redis", journal: RedisJournal) -> None:
    for number in range(1200):
        await client.set(f"other:{number}", "")
    for number in range(30):
        await journal.append(f"r{number}", events(1), expected_tail=None)
        if number % 3:
            await journal.retire(f"r{number}", keep_for=timedelta(days=1))
    assert set(await journal.unretired()) == {f"r{number}" for number in range(0, 30, 3)}


async def test_an_answer_that_is_lost_surfaces_and_the_next_append_tells_that_it_had_arrived(
    redis_url: str, shared_redis: RedisServer
) -> None:
    with Relay(shared_redis.port) as relay:
        async with journal_at(f"redis://127.0.0.1:{relay.port}") as journal:
            await journal.append(RUN, events(1), expected_tail=None)
            relay.lose_answers()
            with pytest.raises(JournalUnavailable):
                await journal.append(RUN, events(2, first=2), expected_tail="1-1")
            relay.come_back()
            with pytest.raises(AppendRefused) as refused:
                await journal.append(RUN, events(2, first=2), expected_tail="1-1")
            assert refused.value.tail == "1-3"
            assert indexes(await journal.read(RUN)) == [1, 2, 3]


async def test_hundreds_of_cancelled_operations_mix_no_answers_and_keep_no_connection(
    client: "Redis", journal: RedisJournal
) -> None:
    chance = random.Random(5)
    runs = [f"r{number}" for number in range(30)]

    async def use(run: str) -> None:
        for index in range(1, 21):
            held = await journal.read(run)
            tail = held[-1].id if held else None
            first = len(held) + 1
            assert indexes(held) == list(range(1, first))
            await journal.append(run, events(1 + index % 3, first=first), expected_tail=tail)

    for _ in range(10):
        users = [asyncio.ensure_future(use(run)) for run in runs]
        for user in users:
            for _turn in range(chance.randrange(12)):
                await asyncio.sleep(0)
            user.cancel()
        for outcome in await asyncio.gather(*users, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError | AppendRefused | None), outcome
    for run in runs:
        held = await journal.read(run)
        assert indexes(held) == list(range(1, len(held) + 1))
    pool: Any = client.connection_pool
    assert not pool._in_use_connections


async def test_one_connection_follows_however_many_runs(client: "Redis", journal: RedisJournal) -> None:
    async with AsyncExitStack() as stack:
        followers = []
        for number in range(200):
            following = await stack.enter_async_context(follow_in_turn(journal, f"r{number}"))
            assert await anext(following) == []
            followers.append(following)
        assert len(await client.client_list(_type="pubsub")) == 1
        assert len(await client.pubsub_channels("project:*")) == 200
        for number, following in enumerate(followers):
            await journal.append(f"r{number}", events(2), expected_tail=None)
            assert indexes(await take_upto(following, 2)) == [1, 2]

    async def is_unsubscribed() -> bool:
        return not await client.pubsub_channels("project:*")

    await until(is_unsubscribed)


async def test_who_comes_as_the_last_one_leaves_reads_the_record_once_it_is_subscribed_again(
    redis_server: RedisServer,
) -> None:
    async with open_redis(redis_server.url) as client, open_subscription(client) as subscription:
        with subscription.listen("channel") as first:
            await first.until_subscribed()
        redis_server.freeze()
        for _ in range(10):  # turns, in which the channel is asked for no longer
            await asyncio.sleep(0)
        with subscription.listen("channel") as second:
            second.take()
            redis_server.thaw()
            async with asyncio.timeout(DEADLINE_S):
                await second.wait()
            assert second.is_behind


async def test_who_comes_long_after_the_last_one_left_is_subscribed_no_sooner_than_redis_says(
    redis_server: RedisServer,
) -> None:
    async with open_redis(redis_server.url) as client, open_subscription(client) as subscribed:

        async def is_unsubscribed() -> bool:
            return not await client.pubsub_channels("channel")

        with subscribed.listen("channel") as first:
            await first.until_subscribed()
        await until(is_unsubscribed)
        await client.ping()  # what the subscription was told before that has been read
        redis_server.freeze()
        with subscribed.listen("channel") as second:
            second.take()
            assert not second.is_subscribed
            redis_server.thaw()
            async with asyncio.timeout(DEADLINE_S):
                await second.wait()
            assert second.is_subscribed
            assert second.is_behind


async def test_a_message_that_was_lost_is_read_from_the_stream_when_the_next_one_comes(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    async with follow(journal) as following:
        await journal.append(RUN, events(1), expected_tail=None)
        await take_upto(following, 1)
        await client.xadd(
            stream_of(RUN), {"event": b'{"type":"saving","id":"1-2","at":"2026-01-01T10:00:02Z"}'}, "1-2"
        )
        await journal.append(RUN, events(1, first=3), expected_tail="1-2")
        assert indexes(await take_upto(following, 3)) == [2, 3]


async def test_the_tail_published_again_brings_a_lost_last_message_and_nothing_twice(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    async with follow(journal) as following:
        await journal.append(RUN, events(1), expected_tail=None)
        await take_upto(following, 1)
        last = b'{"type":"saving","id":"1-2","at":"2026-01-01T10:00:02Z"}'
        await client.xadd(stream_of(RUN), {"event": last}, "1-2")
        for _ in range(3):
            await client.publish(channel_of(RUN), last)
        await journal.append(RUN, events(1, first=3), expected_tail="1-2")
        assert indexes(await take_upto(following, 3)) == [2, 3]


async def test_a_follower_that_lags_holds_little_and_misses_nothing(journal: RedisJournal) -> None:
    async with follow_in_turn(journal) as following:
        await anext(following)
        tail = None
        for batch in range(40):
            await journal.append(RUN, events(50, first=batch * 50 + 1), expected_tail=tail)
            tail = f"1-{batch * 50 + 50}"
        (listener,) = next(iter(journal._subscription._listeners.values()))
        async with asyncio.timeout(DEADLINE_S):
            while not listener.is_behind:  # noqa: ASYNC110 - it sets its event for each message
                await asyncio.sleep(0.005)
        assert not listener.messages
        assert indexes(await take_upto(following, 2000)) == list(range(1, 2001))


def test_a_listener_gives_up_what_it_holds_rather_than_holding_more() -> None:
    listener = Listener()
    assert listener.is_behind
    listener.take()
    for _ in range(MAX_HELD_MESSAGES):
        listener.receive(b"x")
    assert not listener.is_behind
    listener.receive(b"x")
    assert listener.is_behind
    assert listener.take() == []
    listener.receive(b"y")
    assert listener.take() == [b"y"]


async def test_a_subscription_that_is_cut_comes_back_by_itself_and_nothing_is_missed(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    async with follow(journal) as following, follow(journal, "b2") as other:
        assert await anext(following) == await anext(other) == []
        for index in range(1, 31):
            if index % 5 == 0:
                await client.client_kill_filter(_type="pubsub")
            await journal.append(
                RUN, events(1, first=index), expected_tail=f"1-{index - 1}" if index > 1 else None
            )
        assert indexes(await take_upto(following, 30)) == list(range(1, 31))
        await journal.append("b2", events(1), expected_tail=None)
        assert indexes(await take_upto(other, 1)) == [1]


async def test_a_connection_without_a_word_is_made_anew_and_nothing_is_missed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    monkeypatch.setattr(subscription_module, "PING_S", 0.1)
    async with journal_at(redis_server.url) as journal, follow(journal) as following:
        assert await anext(following) == []

        async def is_away() -> bool:
            return journal.is_away

        async def is_back() -> bool:
            return not journal.is_away

        redis_server.freeze()
        await until(is_away)
        redis_server.thaw()
        await until(is_back)
        await journal.append(RUN, events(1), expected_tail=None)
        assert indexes(await take_upto(following, 1)) == [1]


async def test_a_server_that_accepts_and_says_nothing_is_left_for_the_one_that_takes_its_place(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, follow: Follow
) -> None:
    monkeypatch.setattr(redis_client, "ANSWER_LIMIT_S", 0.2)
    with Relay(redis_server.port) as relay, socket.create_server(("127.0.0.1", 0)) as mute:
        async with journal_at(relay.through(redis_server.url)) as journal, follow(journal) as following:
            assert await anext(following) == []
            relay.lead_to(mute.getsockname()[1])
            relay.cut()
            held, _ = await asyncio.to_thread(mute.accept)
            with held:
                relay.lead_to(redis_server.port)
                await journal.append(RUN, events(1), expected_tail=None)
                assert indexes(await take_upto(following, 1)) == [1]


async def test_a_server_that_refuses_subscriptions_is_asked_less_and_less(redis_server: RedisServer) -> None:
    user = ("narrow", "on", ">secret", "~*", "+@all", "resetchannels")
    narrow_url = redis_server.url.replace("//", "//narrow:secret@")
    async with open_redis(redis_server.url) as client:
        await client.execute_command("ACL", "SETUSER", *user)

        async def connections() -> int:
            stats: Any = await client.info("stats")
            return int(stats["total_connections_received"])

        async with open_redis(narrow_url) as narrow, open_subscription(narrow) as subscription:
            with subscription.listen(channel_of(RUN)):
                asked = await connections()

                async def is_asked_again() -> bool:
                    return await connections() >= asked + 6

                began = time.monotonic()
                await until(is_asked_again)
                assert time.monotonic() - began > 1


async def test_a_subscription_ends_when_it_is_told_to_whatever_goes_wrong(redis_server: RedisServer) -> None:
    """It is told so at many moments of being refused."""
    user = ("narrow", "on", ">secret", "~*", "+@all", "resetchannels")
    async with open_redis(redis_server.url) as client:
        await client.execute_command("ACL", "SETUSER", *user)
    async with open_redis(redis_server.url.replace("//", "//narrow:secret@")) as narrow:
        for turns in range(60):
            subscription = Subscription(narrow)
            with subscription.listen(channel_of(RUN)):
                keeping = asyncio.create_task(subscription.keep())
                async with asyncio.timeout(DEADLINE_S):
                    while not subscription.is_connected:  # noqa: ASYNC110 - each turn of the loop counts
                        await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                keeping.cancel()
                ended, _ = await asyncio.wait([keeping], timeout=1)
            assert ended, f"still at work after {turns} turns"


async def test_without_its_server_everything_is_unavailable_and_afterwards_all_is_there(
    redis_server: RedisServer, follow: Follow
) -> None:
    async with journal_at(redis_server.url) as journal, follow(journal) as following:
        await journal.append(RUN, events(2), expected_tail=None)
        await take_upto(following, 2)
        redis_server.kill()
        for operation in (
            journal.append(RUN, events(1, first=3), expected_tail="1-2"),
            journal.read(RUN),
            journal.retire(RUN, keep_for=timedelta(days=1)),
        ):
            with pytest.raises(JournalUnavailable, match=f"the journal of run {RUN} cannot be"):
                await operation
        async with follow(journal) as new:
            with pytest.raises(JournalUnavailable):
                await anext(new)
        redis_server.start()
        await journal.append(RUN, events(1, first=3), expected_tail="1-2")
        assert indexes(await take_upto(following, 3)) == [3]
        async with follow(journal) as again:
            assert indexes(await take_upto(again, 3)) == [1, 2, 3]
            await journal.append(RUN, events(1, first=4), expected_tail="1-3")
            assert indexes(await take_upto(again, 4)) == [4]


async def until_unavailable(journal: RedisJournal) -> None:
    async def is_away() -> bool:
        return journal.is_away

    await until(is_away)
    with pytest.raises(JournalUnavailable):
        await journal.read(RUN)


async def test_a_follower_that_has_begun_waits_for_a_server_that_is_away(
    redis_server: RedisServer, follow: Follow
) -> None:
    """Begun anew, it could see the run go back: its owner may not have made the stream whole again."""
    async with journal_at(redis_server.url) as journal, follow(journal) as following:
        await journal.append(RUN, events(2), expected_tail=None)
        await take_upto(following, 2)
        reading = asyncio.create_task(take_upto(following, 3))
        redis_server.kill()
        await until_unavailable(journal)
        redis_server.start()
        await journal.append(RUN, events(1, first=3), expected_tail="1-2")
        assert indexes(await reading) == [3]


async def test_a_follower_of_a_run_that_waits_has_begun_too(
    redis_server: RedisServer, follow: Follow
) -> None:
    async with journal_at(redis_server.url) as journal, follow(journal) as following:
        assert await anext(following) == []
        reading = asyncio.create_task(take_upto(following, 1))
        redis_server.kill()
        await until_unavailable(journal)
        redis_server.start()
        await journal.append(RUN, events(1), expected_tail=None)
        assert indexes(await reading) == [1]


async def test_a_follower_of_what_another_attempt_wrote_anew_is_told_so(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    async with follow(journal) as following:
        await journal.append(RUN, events(5), expected_tail=None)
        await take_upto(following, 5)
        await client.delete(stream_of(RUN))
        await journal.append(RUN, events(2), expected_tail=None)
        await journal.append(RUN, events(1, first=3, attempt=2), expected_tail="1-2")
        with pytest.raises(JournalRewritten):
            await take_upto(following, 6)


async def test_a_follower_that_missed_where_another_attempt_began_anew_is_told_so(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    stream = stream_of(RUN)
    async with follow(journal) as following:
        await journal.append(RUN, events(5), expected_tail=None)
        await take_upto(following, 5)
        await client.xdel(stream, "1-5")
        (first,) = events(1, first=5, attempt=2)
        await client.xadd(stream, {"event": encode_event(first)}, id=first.id)  # and published in vain
        await journal.append(RUN, events(1, first=6, attempt=2), expected_tail="2-5")
        with pytest.raises(JournalRewritten):
            await take_upto(following, 6)


async def test_a_follower_of_what_its_owner_appends_again_sees_nothing_twice(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    async with follow(journal) as following:
        await journal.append(RUN, events(5), expected_tail=None)
        await take_upto(following, 5)
        await client.delete(stream_of(RUN))
        await client.client_kill_filter(_type="pubsub")
        await journal.append(RUN, events(7), expected_tail=None)
        assert indexes(await take_upto(following, 7)) == [6, 7]


async def test_without_memory_nothing_is_added_and_nothing_is_published(
    redis_server: RedisServer, follow: Follow
) -> None:
    async with journal_at(redis_server.url) as journal, follow(journal) as following:
        await journal.append(RUN, events(1), expected_tail=None)
        await take_upto(following, 1)
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(JournalUnavailable, match="memory"):
            await journal.append(RUN, events(3, first=2), expected_tail="1-1")
        assert indexes(await journal.read(RUN)) == [1]
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        await journal.append(RUN, events(3, first=2), expected_tail="1-1")
        assert indexes(await take_upto(following, 4)) == [2, 3, 4]


async def test_something_else_in_the_place_of_a_journal_is_damage(
    client: "Redis", journal: RedisJournal
) -> None:
    await client.set(stream_of(RUN), "text")
    with pytest.raises(JournalDamaged):
        await journal.read(RUN)
    with pytest.raises(JournalDamaged):
        await journal.append(RUN, events(1), expected_tail=None)
    await client.delete(stream_of(RUN))
    await client.xadd(stream_of(RUN), {"event": b"no event"}, "1-1")
    with pytest.raises(JournalDamaged):
        await journal.read(RUN)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_throws_keys_away_is_refused(redis_server: RedisServer, policy: str) -> None:
    async with open_redis(redis_server.url) as client:
        assert await examine_redis(client) == []
        await client.config_set("maxmemory-policy", policy)
        with pytest.raises(RedisUnfit, match=f"{policy}.*set it to noeviction"):
            await examine_redis(client)


async def test_a_redis_that_persists_nothing_is_warned_of(client: "Redis") -> None:
    assert ["persists nothing" in warning for warning in await examine_redis(client)] == [True]


async def test_a_redis_that_is_not_there_is_refused_without_its_password(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with open_redis(redis_server.url.replace("://", "://:secret@")) as client:
        with pytest.raises(RedisUnfit, match="REDIS_URL names a server that does not answer") as unfit:
            await examine_redis(client)
    assert "secret" not in str(unfit.value)


async def test_a_message_that_no_runner_sends_breaks_the_follower_off_and_leaves_it_not_silent(
    client: "Redis", journal: RedisJournal, follow: Follow
) -> None:
    await journal.append(RUN, events(1), expected_tail=None)
    async with follow(journal) as following:
        assert indexes(await take_upto(following, 1)) == [1]
        waiting = asyncio.ensure_future(take_upto(following, 2))
        await asyncio.sleep(0)
        odd = encode_event(events(1, first=2)[0]).replace(b'"1-2"', b'"x"')
        await client.publish(channel_of(RUN), odd)
        with pytest.raises(ValueError, match="invalid literal"):
            await waiting
