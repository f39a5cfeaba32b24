"""The journal on servers: a Redis stream a run, and a channel that tells of what is appended."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import msgspec
from redis.asyncio import Redis

from initializer.background import in_background
from initializer.journal.journal import (
    AppendRefused,
    JournalDamaged,
    JournalRewritten,
    JournalUnavailable,
    TakeEvents,
    are_taken,
    behind,
)
from initializer.journal.subscription import Subscription, open_subscription
from initializer.model.events import Event, EventId, decode_events, encode_event
from initializer.model.pace import Pace
from initializer.redis_client import asking, prove_writes

__all__ = ["RedisJournal", "channel_of", "open_redis_journal", "stream_of"]

RETRY_S = 0.5
PROVE_S = 1.0
"""How often is looked whether Redis takes writes."""
SCANNED_KEYS = 500
READ_EVENTS = 1000
"""How many events are asked for at once: a long stream is read with turns for everybody else between."""
NO_END = -1
"""What Redis says of a key that has no expiry."""
SUBSCRIBE_LIMIT_S = 1.0
"""How long a follower waits for its subscription before its first look; it looks again when it has come."""

_APPEND = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local tail = last and last[1] or ''
if tail ~= ARGV[1] then
  return {0, tail}
end
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], ARGV[i], 'event', ARGV[i + 1])
end
redis.call('PERSIST', KEYS[1])
for i = 4, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[2], ARGV[i])
end
return {1, ''}
"""
"""Compare, add, publish, in one: in a MULTI the PUBLISH of a refused XADD would still run. Redis refuses a
script that finds no memory at its first write, and lets it finish after that, so it adds all or nothing."""


def stream_of(run: str) -> str:
    """The key of a run's stream; its entry ids are event ids, the field `event` has the JSON."""
    return f"project:{run}:events"


def channel_of(run: str) -> str:
    """The channel on which each appended event is published."""
    return f"project:{run}"


def _run_of(stream: bytes) -> str:
    return stream.decode().split(":")[1]


class RedisJournal:
    """Journals in one Redis, for any number of processes.

    `is_durable` asks for nothing more here: how much survives a loss of power is the server's to decide, and
    what it lost, the run's owner appends again.
    """

    def __init__(self, client: "Redis", subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription
        self._takes_writes = True
        self._append = client.register_script(_APPEND)

    @property
    def is_away(self) -> bool:
        return not (self._subscription.is_connected and self._takes_writes)

    async def keep_proving(self) -> None:
        """See whether it can be written, for ever: a server that answers may still refuse that."""
        while True:
            try:
                async with asking(JournalUnavailable, "journals cannot be written"):
                    await prove_writes(self._client)
            except JournalUnavailable:
                self._takes_writes = False
            else:
                self._takes_writes = True
            await asyncio.sleep(PROVE_S)

    async def append(
        self,
        run: str,
        events: Sequence[Event],
        *,
        expected_tail: EventId | None,
        is_durable: bool = False,  # noqa: ARG002 - see the class
    ) -> None:
        values: list[str | bytes] = [expected_tail or "", channel_of(run)]
        for event in events:
            values += (event.id, encode_event(event))
        async with _asking(run, "written"):
            is_appended, tail = await self._append(keys=[stream_of(run)], args=values)
        if not is_appended:
            raise AppendRefused(expected=expected_tail, tail=tail.decode() or None)

    async def read(self, run: str, *, after: EventId = "") -> list[Event]:
        return await self._read_behind(run, after)

    async def follow(
        self, run: str, *, after: EventId = "", interval_s: float = 0, at_once: TakeEvents | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """See `Journal`. The channel is quick and may lose something; the stream is the record.

        Once it has begun it waits for a Redis that is away: whoever began anew could find a stream that its
        owner has not made whole again yet, and see the run go back.
        """
        last: EventId = ""
        pace, has_begun = Pace(interval_s), False
        with self._subscription.listen(channel_of(run)) as listener:

            def look() -> bool:
                """Where the stream has to be read, or something is wrong, the follower's own turn does it."""
                nonlocal last
                try:
                    events = None if listener.is_behind else _following(_decode(run, listener.messages), last)
                    is_enough = events is not None and are_taken(behind(run, events, after), at_once)
                except (JournalDamaged, JournalRewritten):
                    return False
                if is_enough:
                    listener.take()
                    last = events[-1].id if events else last
                return is_enough

            with suppress(TimeoutError):
                async with asyncio.timeout(SUBSCRIBE_LIMIT_S):
                    await listener.until_subscribed()
            while True:
                is_behind = listener.is_behind
                messages = _decode(run, listener.take())
                events = None if is_behind else _following(messages, last)
                if events is None:
                    try:
                        events = await self._read_behind(run, last)
                    except JournalUnavailable:
                        if not has_begun:
                            raise
                        await asyncio.sleep(RETRY_S)
                        listener.fall_behind()
                        continue
                if events:
                    last = events[-1].id
                has_begun = True  # also where nothing is there yet
                yield behind(run, events, after)
                del messages, events  # maybe all there ever was, and nothing may come for long
                await listener.next_turn(pace, look if at_once else None)

    async def retire(self, run: str, *, keep_for: timedelta) -> None:
        async with _asking(run, "retired"):
            await self._client.expire(stream_of(run), keep_for)

    async def unretired(self) -> list[str]:
        """The runs whose journal has no end in sight. Raises `JournalUnavailable`."""
        runs: list[str] = []
        cursor = 0
        while True:
            async with asking(JournalUnavailable, "the journals cannot be listed"):
                found: Any = await self._client.scan(cursor, match=stream_of("*"), count=SCANNED_KEYS)
                cursor, keys = found
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.ttl(key)
                ends: list[int] = await pipeline.execute()
            runs += [_run_of(key) for key, end_s in zip(keys, ends, strict=True) if end_s == NO_END]
            if not cursor:
                return runs

    async def _read_behind(self, run: str, last: EventId) -> list[Event]:
        """What the stream has behind an event that was seen. Raises `JournalRewritten`.

        A stream that has lost that event and not been refilled yet has nothing behind it.
        """
        return behind(run, await self._read_from(run, last or "-"), last)

    async def _read_from(self, run: str, first: str) -> list[Event]:
        """From stream entry `first` on. What was made anew between two pieces is read again in one."""
        events: list[Event] = []
        start = first
        while True:
            entries = await self._entries(run, start, count=READ_EVENTS)
            piece = _decode_entries(run, entries)
            if events and piece and piece[0].index != events[-1].index + 1:
                return _decode_entries(run, await self._entries(run, first))
            events += piece
            if len(entries) < READ_EVENTS:
                return events
            start = f"({entries[-1][0].decode()}"

    async def _entries(self, run: str, first: str, *, count: int | None = None) -> list[Any]:
        async with _asking(run, "read"):
            entries: Any = await self._client.xrange(stream_of(run), first, count=count)
        return list(entries)


@asynccontextmanager
async def open_redis_journal(client: "Redis") -> AsyncIterator[RedisJournal]:
    """The journal on that server, following with one connection however many runs are followed."""
    async with open_subscription(client) as subscription:
        journal = RedisJournal(client, subscription)
        async with in_background(journal.keep_proving()):
            yield journal


def _following(messages: list[Event], last: EventId) -> list[Event] | None:
    """What is new in published events; None where the stream has to be read to know.

    Known indexes are passed over: the tail is published again from time to time. Where another attempt goes
    on, what it said first may have been missed, and stand in the place of what is known.
    """
    attempt, _, place = last.partition("-")
    known = int(place or 0)
    count = len(messages)
    is_end_next = count > 0 and messages[-1].id == f"{attempt}-{known + count}"
    if is_end_next and (count == 1 or messages[0].id == f"{attempt}-{known + 1}"):
        return messages  # nearly always; whoever folds them looks at each
    events: list[Event] = []
    for event in messages:
        own_attempt, _, place = event.id.partition("-")
        index = int(place)
        if index == known + 1 and (own_attempt == attempt or not attempt):
            events.append(event)
            known, attempt = index, own_attempt
        elif index > known or int(own_attempt) > int(attempt) or (index == known and own_attempt != attempt):
            return None
    return events


def _decode_entries(run: str, entries: Sequence[Any]) -> list[Event]:
    return _decode(run, [fields.get(b"event", b"") for _, fields in entries])


def _decode(run: str, lines: Sequence[bytes]) -> list[Event]:
    try:
        return decode_events(lines)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalDamaged(f"the journal of run {run} is damaged: {error}") from error


@asynccontextmanager
async def _asking(run: str, done: str) -> AsyncIterator[None]:
    what = f"the journal of run {run} cannot be {done}"
    try:
        async with asking(JournalUnavailable, what):
            yield
    except JournalUnavailable as error:
        if str(error.__cause__).startswith("WRONGTYPE"):
            raise JournalDamaged(f"{what}: its key holds something else") from error
        raise
