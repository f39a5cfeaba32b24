"""Servers of virtual time: a Redis that forgets, one row, and slow ways to them that swallow answers."""

import asyncio
import heapq
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import count, islice
from typing import Any, TypeVar

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from initializer.journal.redis import _APPEND
from initializer.journal.subscription import Listener
from initializer.model.events import Reason, attempt_of, decode_event, index_of
from initializer.model.progress import Progress, Status, advance
from initializer.model.summary import Summary
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import OpenRun, ProjectRow, Standing
from initializer.running.lease import _RELEASE, _RENEW, _TAKE
from model.runs import PIPELINE, project_of

__all__ = [
    "RUN",
    "Redis",
    "RedisClient",
    "Row",
    "RowClient",
    "Subscription",
    "Timeline",
    "VirtualLoop",
    "Way",
]

RUN = "a1"
_ITERATIONS = 10_000  # of one process at one instant; more is a loop without an end
T = TypeVar("T")
Lease = tuple[bytes, float]
"""Its value, and when it runs out."""


class Timeline:
    """Virtual time, in seconds, and what servers and networks do in it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.trace: Callable[..., object] | None = None
        """Hears of whatever happens, in the order in which it does."""
        self.next_place = partial(next, count())
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Have something happen; what is due at the same time happens in the order of the calls."""
        heapq.heappush(self._due, (self.now + delay_s, next(self._numbers), action))

    def next_at(self) -> float | None:
        return self._due[0][0] if self._due else None

    def happen(self) -> bool:
        """Do what is due; whether there was something."""
        is_something = False
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()
            is_something = True
        return is_something


class VirtualTask(asyncio.Task[T]):
    """A task that has its place among all tasks as its hash: asyncio cancels those of a set as they lie."""

    def __init__(self, work: Coroutine[Any, Any, T], *, loop: "VirtualLoop", **options: Any) -> None:
        self.place = loop.timeline.next_place()
        super().__init__(work, loop=loop, **options)

    def __hash__(self) -> int:
        return self.place


class VirtualLoop(asyncio.BaseEventLoop):
    """The event loop of one process. It moves when it is told to, and waits for no file.

    It closes no generator that somebody forgot: thrown away while it waits, such a one is an error.
    """

    def __init__(self, timeline: Timeline, name: str) -> None:
        super().__init__()
        self.timeline = timeline
        self.ahead_s = 0.0  # of all others: for a process whose end nobody waits for
        self._name = name

    def time(self) -> float:
        return self.timeline.now + self.ahead_s

    def create_task(self, work: Any, **options: Any) -> Any:
        return VirtualTask(work, loop=self, **options)

    def tasks(self) -> list[VirtualTask[Any]]:
        """Those that have not ended, in order of their beginning."""
        return sorted(asyncio.all_tasks(self), key=lambda task: task.place)

    def go_on(self) -> bool:
        """Do what can be done at this time; whether there was something."""
        ready, scheduled, now = self._ready, self._scheduled, self.time()
        if not ready and not (scheduled and scheduled[0]._when <= now):
            return False
        asyncio._set_running_loop(self)
        try:
            for turned in range(_ITERATIONS):
                while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= now):
                    handle = heapq.heappop(scheduled)
                    handle._scheduled = False
                    ready.append(handle)
                if not ready:
                    return turned > 0
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        if self.timeline.trace is not None:
                            self.timeline.trace(now, self._name, _described(handle._callback))
                        handle._run()
        finally:
            asyncio._set_running_loop(None)
        raise AssertionError(f"{self._name} never waits")

    def next_at(self) -> float | None:
        """When it has something to do; None for never."""
        if self._ready:
            return self.time()
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return max(scheduled[0]._when, self.time()) if scheduled else None

    def _timer_handle_cancelled(self, _handle: object) -> None:
        pass


def _described(callback: Any) -> str:
    """What is called, and of which task."""
    place = getattr(getattr(callback, "__self__", None), "place", "")
    return f"{getattr(callback, '__qualname__', type(callback).__name__)} {place}"


class Server:
    """What is up, down or frozen. Frozen, it takes requests and answers them when it goes on."""

    def __init__(self) -> None:
        self.is_up = True
        self._is_frozen = False
        self._waiting: list[Callable[[], object]] = []

    @property
    def is_frozen(self) -> bool:
        return self._is_frozen

    @is_frozen.setter
    def is_frozen(self, is_frozen: bool) -> None:
        self._is_frozen = is_frozen
        if not is_frozen:
            waiting, self._waiting = self._waiting, []
            for serve in waiting:
                serve()

    def take(self, serve: Callable[[], object]) -> None:
        if self.is_frozen:
            self._waiting.append(serve)
        else:
            serve()


class Way:
    """From one process to one server. Without a fate, a request arrives and so does its answer."""

    def __init__(
        self, timeline: Timeline, loop: VirtualLoop, server: Server, fault: Callable[[], Exception]
    ) -> None:
        self.delay_s = 0.0
        self.fates: defaultdict[str, deque[str]] = defaultdict(deque)
        """What becomes of the next requests of a kind."""
        self.is_interrupted = False
        self.is_cut = False  # for good: the process is dead
        self._timeline, self._loop, self._server, self._fault = timeline, loop, server, fault

    @property
    def is_through(self) -> bool:
        """Whether a request would be answered at once."""
        server = self._server
        return server.is_up and not (server.is_frozen or self.is_interrupted or self.is_cut)

    async def ask(self, serve: Callable[[], T], kind: str = "reading") -> T:
        """What the server answers; it may do what is asked for and its answer be an error all the same."""
        if self.is_cut:
            raise self._fault()
        answer: asyncio.Future[T] = self._loop.create_future()
        fates = self.fates.get(kind)
        fate = fates.popleft() if fates else "arrives"
        self._timeline.after(self.delay_s, lambda: self._arrive(serve, answer, fate))
        return await answer

    def _arrive(self, serve: Callable[[], T], answer: "asyncio.Future[T]", fate: str) -> None:
        if fate == "never arrives" or self.is_interrupted or not self._server.is_up:
            self._answer(answer, self._fault())
        else:
            self._server.take(lambda: self._serve(serve, answer, fate))

    def _serve(self, serve: Callable[[], T], answer: "asyncio.Future[T]", fate: str) -> None:
        if not self._server.is_up:
            return
        given = serve()
        self._answer(answer, self._fault() if fate == "answer lost" else given)

    def _answer(self, answer: "asyncio.Future[T]", given: Any) -> None:
        def arrive() -> None:
            if self.is_cut or answer.done():
                return
            if isinstance(given, Exception):
                answer.set_exception(given)
            else:
                answer.set_result(given)

        if self.delay_s:
            self._timeline.after(self.delay_s, arrive)
        else:
            arrive()


class Redis(Server):
    """The stream, the lease and the channel of one run, and the scripts over them."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self.entries: list[tuple[str, bytes, Progress, Lease | None]] = []
        """Id, event, the progress up to it, and the lease at that time."""
        self.folds: dict[str, list[Progress]] = {}
        """What has ever been the fold of the stream up to an id: after a loss an id may come again."""
        self.lease: Lease | None = None
        self.told: dict[int, int] = {}
        """The last index that each attempt has ever added."""
        self.lost_at: float | None = None
        """When it came back with less than it had; None again once something was added."""
        self.lost_messages = 0
        self.is_read_only = False
        """Whether it answers and takes no writes, as with a full disk."""
        self.subscriptions: list[Subscription] = []
        self.timeline = timeline
        self._scripts = {
            _APPEND: self._append,
            _TAKE: self._take,
            _RENEW: self._renew,
            _RELEASE: self._release,
        }

    @property
    def tail(self) -> str:
        return self.entries[-1][0] if self.entries else ""

    def stop(self) -> None:
        """It dies, and cuts all connections."""
        self.is_up = False
        self.is_frozen = False  # what waited is lost
        for subscription in self.subscriptions:
            subscription.cut()

    def start(self, *, lost: int = 0) -> None:
        """It comes back, without the last entries, and with the lease of that time."""
        if lost:
            self.entries = self.entries[:-lost]
            self.lease = self.entries[-1][3] if self.entries else None
            self.lost_at = self.timeline.now
        self.is_up = True
        for subscription in self.subscriptions:
            subscription.connect()

    def run_script(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return self.write(partial(self._scripts[script], *map(_as_bytes, args)))

    def write(self, change: Callable[[], Any]) -> Any:
        """What a change gives, or that it is refused."""
        return ResponseError("read only") if self.is_read_only else change()

    def held(self) -> bytes | None:
        """The value of the lease, if it has not run out."""
        if self.lease is not None and self.lease[1] <= self.timeline.now:
            self.lease = None
        return self.lease[0] if self.lease else None

    def _append(self, expected: bytes, _channel: bytes, *ids_and_events: bytes) -> list[Any]:
        if self.tail != expected.decode():
            return [0, self.tail.encode()]
        progress = self.entries[-1][2] if self.entries else Progress.waiting(PIPELINE)
        for event_id, event in zip(ids_and_events[::2], ids_and_events[1::2], strict=True):
            progress = advance(progress, decode_event(event))  # raises where an index is missing
            self.entries.append((event_id.decode(), event, progress, self.lease))
            if self.timeline.trace is not None:
                self.timeline.trace(self.timeline.now, "journal", event)
            self.folds.setdefault(self.tail, []).append(progress)
            self.told[progress.attempt] = max(progress.index, self.told.get(progress.attempt, 0))
            self._publish(event)
        return [1, b""]

    def _take(self, value: bytes, life_ms: bytes, attempt: bytes) -> list[Any]:
        held = self.held()
        if held is not None and int(held.split(b":")[0]) > int(attempt):
            return [0, b""]
        self._set_lease(value, life_ms)
        return [1, self.tail.encode()]

    def _renew(self, value: bytes, life_ms: bytes, _channel: bytes) -> list[Any]:
        held = self.held()
        if held != value:
            return [int(held.split(b":")[0]) if held else 0, b""]
        self._set_lease(value, life_ms)
        if self.entries:
            self._publish(self.entries[-1][1])
        return [-1, self.tail.encode()]

    def _release(self, value: bytes, left: bytes, life_ms: bytes) -> None:
        if self.held() == value:
            self.lease = None
            if left:
                self._set_lease(left, life_ms)

    def _set_lease(self, value: bytes, life_ms: bytes) -> None:
        self.lease = (value, self.timeline.now + int(life_ms) / 1000)

    def _publish(self, event: bytes) -> None:
        if self.lost_messages:
            self.lost_messages -= 1
            return
        for subscription in self.subscriptions:
            self.timeline.after(subscription.way.delay_s, lambda it=subscription: it.receive(event))


class Subscription:
    """What `journal/subscription.py` is to the journal, over a connection of virtual time."""

    def __init__(self, way: Way, redis: Redis) -> None:
        self.way = way
        self.is_connected = redis.is_up
        self._listeners: dict[Listener, None] = {}

    @contextmanager
    def listen(self, _channel: str) -> Iterator[Listener]:
        listener = Listener()
        if self.is_connected:
            listener.is_subscribed = True
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]

    def receive(self, message: bytes) -> None:
        if self.is_connected:
            for listener in self._listeners:
                listener.receive(message)

    def cut(self) -> None:
        self.is_connected = False
        for listener in self._listeners:
            listener.is_subscribed = False
            listener.fall_behind()

    def connect(self) -> None:
        self.is_connected = True
        for listener in self._listeners:
            listener.is_subscribed = True
            listener.fall_behind()


class RedisClient:
    """As much of redis-py's client as journal and leases use.

    `on_append` hears of each append that is sent, `on_refill` of each that is taken and brings what Redis had
    acknowledged and lost, with the time of the loss.
    """

    def __init__(
        self,
        redis: Redis,
        way: Way,
        *,
        on_append: Callable[[int], None],
        on_refill: Callable[[int, float], None],
    ) -> None:
        self._on_refill = on_refill
        self._acknowledged: defaultdict[int, int] = defaultdict(int)
        self._redis, self._way, self._on_append = redis, way, on_append

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        async def run(keys: Sequence[str], args: Sequence[Any], client: "Pipeline | None" = None) -> Any:
            def serve() -> Any:
                return self._redis.run_script(script, keys, args)

            if client is not None:
                client.commands.append(serve)
                return None
            if script == _APPEND:
                return await self._append(serve, str(args[0]), [str(it) for it in args[2::2]])
            return await self._way.ask(serve, "lease")

        return run

    async def _append(self, serve: Callable[[], Any], expected: str, ids: Sequence[str]) -> Any:
        attempt = attempt_of(ids[-1])
        self._on_append(attempt)
        sent_at = self._redis.timeline.now
        is_refill = index_of(expected) < self._acknowledged[attempt]

        def append() -> Any:
            answer = serve()
            if not isinstance(answer, Exception) and answer[0]:
                lost_at, self._redis.lost_at = self._redis.lost_at, None
                if is_refill and lost_at is not None and sent_at >= lost_at:
                    self._on_refill(attempt, lost_at)
            return answer

        answer = await self._way.ask(append, "append")
        if answer[0]:
            self._acknowledged[attempt] = max(self._acknowledged[attempt], index_of(ids[-1]))
        return answer

    def pipeline(self, *, transaction: bool) -> "Pipeline":
        assert not transaction
        return Pipeline(self._way)

    async def xrange(self, _key: str, first: str, count: int | None = None) -> list[Any]:
        place = (0, 0) if first == "-" else _place(first.removeprefix("("))
        is_behind = first.startswith("(")

        def serve() -> list[Any]:
            found = (
                (it.encode(), {b"event": event})
                for it, event, *_ in self._redis.entries
                if _place(it) > place or (_place(it) == place and not is_behind)
            )
            return list(islice(found, count))

        return await self._way.ask(serve)

    async def set(self, *_: object, **__: object) -> None:
        await self._way.ask(lambda: self._redis.write(lambda: None), "lease")

    async def mget(self, _keys: Sequence[str]) -> list[bytes | None]:
        return await self._way.ask(lambda: [self._redis.held()])

    async def expire(self, *_: object) -> None:
        await self._way.ask(lambda: None)


class Pipeline:
    def __init__(self, way: Way) -> None:
        self.commands: list[Callable[[], Any]] = []
        self._way = way

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        answers = await self._way.ask(lambda: [serve() for serve in self.commands], "lease")
        if raise_on_error:
            for refusal in (it for it in answers if isinstance(it, Exception)):
                raise refusal
        return answers


class Row(Server):
    """The one row, as `Projects` treats it. A final one changes by a claim only: that is checked."""

    def __init__(self, timeline: Timeline, *, is_owned: bool) -> None:
        super().__init__()
        status = Status.INITIALIZING if is_owned else Status.PENDING
        self.row = ProjectRow(project=project_of(RUN), status=status, attempt=int(is_owned))
        self.owned_until: dict[int, float] = {}
        """When each attempt ceased to own the run, as another one had word of owning it."""
        self.last_waiting = 0
        """The last attempt for which the row has ever waited."""
        self.final_at: float | None = None
        self.ended_by: Way | None = None
        """The way by which the end of the run came."""
        self._timeline = timeline

    def somebody_owns(self, attempt: int) -> None:
        """Whoever claimed the run has word of that: what owned it before is to do no more."""
        for earlier in range(attempt):
            self.owned_until.setdefault(earlier, self._timeline.now)

    @property
    def is_short(self) -> bool:
        """Whether the run ended otherwise than well."""
        return self.row.status in (Status.FAILED, Status.CANCELLED)

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether somebody may wish so."""
        return not self.row.status.is_final and self.row.cancel_requested_at is None

    def change(self, **values: Any) -> ProjectRow:
        before, self.row = self.row, msgspec.structs.replace(self.row, **values)
        if self.row.attempt != before.attempt:
            assert self.row.attempt == before.attempt + 1
            if self.row.status is Status.PENDING:
                self.last_waiting = self.row.attempt
                self.somebody_owns(self.row.attempt)
            self.final_at = None
        else:
            assert not before.status.is_final, "a final row changed without a claim"
        if self.row.status.is_final:
            self.final_at = self._timeline.now
        return self.row


class RowClient:
    """`Projects` over a way to the row."""

    def __init__(self, table: Row, way: Way) -> None:
        self._table, self._way = table, way

    async def get(self, _run: str) -> ProjectRow:
        return await self._way.ask(lambda: self._table.row)

    async def attempt_of(self, _run: str) -> int:
        return await self._way.ask(lambda: self._table.row.attempt)

    async def open_runs(self) -> Mapping[str, OpenRun]:
        def serve() -> Mapping[str, OpenRun]:
            row = self._table.row
            if row.status.is_final:
                return {}
            is_waiting, is_cancelled = row.status is Status.PENDING, row.cancel_requested_at is not None
            return {RUN: OpenRun(attempt=row.attempt, is_waiting=is_waiting, is_cancelled=is_cancelled)}

        return await self._way.ask(serve)

    async def standings(self, _runs: object) -> Mapping[str, Standing]:
        return await self._way.ask(lambda: {RUN: Standing(self._table.row.status, self._table.row.attempt)})

    async def claim(self, _run: str, *, seen_attempt: int) -> ProjectRow | None:
        def serve() -> ProjectRow | None:
            row = self._table.row
            if row.attempt != seen_attempt or row.status.is_final:
                return None
            return self._table.change(attempt=row.attempt + 1, status=Status.INITIALIZING)

        return await self._claim(serve)

    async def take(self, _run: str, *, seen_attempt: int) -> ProjectRow | None:
        def serve() -> ProjectRow | None:
            row = self._table.row
            if row.attempt != seen_attempt or row.status is not Status.PENDING:
                return None
            return self._table.change(attempt=row.attempt + 1, status=Status.INITIALIZING)

        return await self._claim(serve)

    async def begin_again(
        self, _run: str, *, seen_attempt: int, reason: Reason, is_owned: bool
    ) -> ProjectRow | None:
        def serve() -> ProjectRow | None:
            row = self._table.row
            if row.attempt != seen_attempt or row.status not in (Status.FAILED, Status.CANCELLED):
                return None
            return self._table.change(
                attempt=row.attempt + 1,
                status=Status.INITIALIZING if is_owned else Status.PENDING,
                reason=reason,
                cancel_requested_at=None,
                error=None,
                completed_at=None,
            )

        return await self._claim(serve)

    async def _claim(self, serve: Callable[[], ProjectRow | None]) -> ProjectRow | None:
        row = await self._way.ask(serve, "writing")
        if row is not None:
            self._table.somebody_owns(row.attempt)
        return row

    async def request_cancel(self, _run: str, *, at: datetime) -> ProjectRow | None:
        def serve() -> ProjectRow | None:
            row = self._table.row
            if row.status.is_final or row.cancel_requested_at is not None:
                return None
            return self._table.change(cancel_requested_at=at)

        return await self._way.ask(serve, "writing")

    async def finish(
        self, _run: str, *, attempt: int, status: Status, summary: Summary, error: str | None
    ) -> bool:
        def serve() -> bool:
            row = self._table.row
            if row.attempt == attempt and not row.status.is_final:
                self._table.ended_by = self._way
                self._table.change(
                    status=status, summary=summary, error=error, completed_at=summary.completed_at
                )
                return True
            return (row.attempt, row.status) == (attempt, status)

        return await self._way.ask(serve, "writing")


def redis_fault() -> Exception:
    return RedisConnectionError("gone")


def row_fault() -> Exception:
    return DatabaseUnavailable("gone")


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _place(event_id: str) -> tuple[int, int]:
    attempt, _, index = event_id.partition("-")
    return int(attempt), int(index)
