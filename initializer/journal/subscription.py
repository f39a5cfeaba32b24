"""One pub/sub connection for all the channels that a process listens to.

The client library connects, with all that its URL asks for, and sends. What comes is taken from the transport
in bulk: read message by message through that library, it costs more than everything else about a message.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import hiredis
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from initializer.background import in_background
from initializer.cancellation import cancellation_kept
from initializer.journal.signal import Signal
from initializer.redis_client import REDIS_FAULTS, in_time

__all__ = ["MAX_HELD_MESSAGES", "Listener", "Subscription", "open_subscription"]

MAX_HELD_MESSAGES = 500
"""What a listener holds before it gives its messages up and reads the record instead."""
PING_S = 3.0
"""How often the connection is asked whether it lives; without any word for twice that, it is made anew."""
_PAUSES_S = (0.02, 0.1, 0.3, 1.0)

log = structlog.get_logger()


class Listener(Signal):
    """One reader of one channel.

    `is_behind` says that messages may have been missed: whoever listens reads the record, then goes on with
    `take`. So it is at first, after each gap in the connection, and where too many messages wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_behind = True
        self.is_subscribed = False
        self.messages: list[bytes] = []
        """What has come since the last `take`."""

    async def until_subscribed(self) -> None:
        """Until all that is published from now on comes."""
        while not self.is_subscribed:
            self.clear()
            await self.wait()

    def take(self) -> list[bytes]:
        """The messages since the last take, none where it was behind; from now on it is not."""
        messages, self.messages = self.messages, []
        self.is_behind = False
        self.clear()
        return messages

    def receive(self, message: bytes) -> None:
        """Take a message in."""
        if self.is_behind:
            return
        self.messages.append(message)
        if len(self.messages) == 1:
            self.set()
        elif len(self.messages) > MAX_HELD_MESSAGES:
            self.fall_behind()

    def fall_behind(self) -> None:
        """Give up what is held: something was missed, or may have been."""
        self.messages.clear()
        self.is_behind = True
        self.set()


class Subscription:
    """Subscribes to what somebody listens to, fans out what comes, and connects again by itself.

    It never says that it is away: its listeners fall behind, and their reading of the record tells.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._listeners: defaultdict[bytes, dict[Listener, None]] = defaultdict(dict)
        self._changed: set[bytes] = set()  # channels that somebody has begun to listen to, or nobody does now
        self._has_changed = asyncio.Event()
        self._asked: set[bytes] = set()  # channels that this connection was asked for
        self._confirmed: set[bytes] = set()
        self._heard_at = 0.0
        self._pauses_s = iter(_PAUSES_S)
        self.is_connected = False

    @contextmanager
    def listen(self, channel: str) -> Iterator[Listener]:
        """Listen to a channel."""
        name = channel.encode()
        listener = Listener()
        self._listeners[name][listener] = None
        listener.is_subscribed = name in self._confirmed
        self._change({name})
        try:
            yield listener
        finally:
            del self._listeners[name][listener]
            if not self._listeners[name]:
                del self._listeners[name]
                self._change({name})

    async def keep(self) -> None:
        """Stay connected, for ever."""
        while True:
            with cancellation_kept():  # before Python 3.13, a task group loses one that comes with a fault
                try:
                    async with self._connected() as connection:
                        await self._serve(connection)
                except* REDIS_FAULTS as errors:
                    log.warning("subscription lost", error=str(_first(errors)))
            await asyncio.sleep(next(self._pauses_s, _PAUSES_S[-1]))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """A connection of its own; whoever listens falls behind when it goes."""
        connection: Any = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with in_time():  # a server that stands still accepts, and says nothing
                await connection.connect()
            self.is_connected = True
            yield connection
        finally:
            self.is_connected = False
            self._asked.clear()
            self._confirmed.clear()
            for listeners in self._listeners.values():
                for listener in listeners:
                    listener.is_subscribed = False
                    listener.fall_behind()
            await connection.disconnect(nowait=True)

    async def _serve(self, connection: Any) -> None:
        self._heard_at = time.monotonic()
        self._change(self._listeners)
        answers = _Answers(self._take)
        connection._writer.transport.set_protocol(answers)  # no answer is under way: it has just connected
        async with asyncio.TaskGroup() as group:
            group.create_task(self._subscribe(connection))
            group.create_task(self._ping(connection))
            await answers.until_lost()  # no task: a group that fails as it ends counts as cancelled

    def _take(self, answers: list[Any]) -> None:
        """Hand on what has come. Raises `ResponseError`."""
        self._heard_at = time.monotonic()
        for answer in answers:
            if not isinstance(answer, list):
                if isinstance(answer, ResponseError):
                    raise answer
                continue  # to a ping, with no subscription yet
            kind, name = answer[0], answer[1]
            if kind == b"message":
                for listener in self._listeners.get(name, ()):
                    listener.receive(answer[2])
            elif kind == b"subscribe":
                self._confirm(name)
            elif kind == b"unsubscribe":
                self._confirmed.discard(name)
                for listener in self._listeners.get(name, ()):  # came meanwhile; it is asked for again
                    listener.is_subscribed = False

    def _confirm(self, name: bytes) -> None:
        """From here on nothing is missed; what came before stands in the record."""
        self._confirmed.add(name)
        self._pauses_s = iter(_PAUSES_S)  # a server may take connections, and refuse what they are for
        for listener in self._listeners.get(name, ()):
            if not listener.is_subscribed:
                listener.is_subscribed = True
                listener.fall_behind()

    async def _subscribe(self, connection: Any) -> None:
        """Ask for what is listened to, and no longer for the rest: all that changed in one command.

        Looks only at what changed: with all of it, who comes would cost more the more there are.
        """
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            changed, self._changed = self._changed, set()
            wanted = {name for name in changed if name in self._listeners}
            gone, new = self._asked & (changed - wanted), wanted - self._asked
            self._asked -= gone
            self._asked |= new
            for command, names in (("UNSUBSCRIBE", gone), ("SUBSCRIBE", new)):
                if names:
                    await connection.send_command(command, *names, check_health=False)

    def _change(self, names: Iterable[bytes]) -> None:
        self._changed.update(names)
        self._has_changed.set()

    async def _ping(self, connection: Any) -> None:
        while True:
            await asyncio.sleep(PING_S)
            if time.monotonic() - self._heard_at > 2 * PING_S:
                raise TimeoutError("no answer from Redis")
            self._pauses_s = iter(_PAUSES_S)
            await connection.send_command("PING", check_health=False)


class _Answers(asyncio.Protocol):
    """What a server sends, parsed by hiredis, handed on by the read."""

    def __init__(self, take: Callable[[list[Any]], None]) -> None:
        self._take = take
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=ResponseError)
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        answers: list[Any] = []
        try:
            while (answer := self._reader.gets()) is not False:
                answers.append(answer)
            self._take(answers)
        except (ResponseError, InvalidResponse) as fault:
            self._fail(fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or RedisConnectionError("closed by the server"))

    async def until_lost(self) -> None:
        """Raises what ended the connection, as soon as something did."""
        await self._lost

    def _fail(self, fault: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(fault)
            self._lost.exception()  # where nobody waits any more


@asynccontextmanager
async def open_subscription(client: "Redis") -> AsyncIterator[Subscription]:
    """A subscription at work."""
    subscription = Subscription(client)
    async with in_background(subscription.keep()):
        yield subscription


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
