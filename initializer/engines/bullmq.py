"""The engine on workers: BullMQ decides which worker wakes; who owns a run, its row decides."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis

from initializer.background import in_background
from initializer.engines.engine import NO_WORKER, QueueFull
from initializer.errors import InitializerError
from initializer.journal.signal import Signals
from initializer.model.events import Reason
from initializer.projects.projects import ProjectRow
from initializer.redis_client import asking

try:
    from bullmq import Job, Queue
except ImportError:  # an extra of the package; who asks for it without having it is refused at the start
    Job = Queue = None

__all__ = [
    "JOB_FAULT",
    "QUEUE",
    "WORKER_KEY",
    "BullEngine",
    "QueueUnavailable",
    "Ticket",
    "give_back",
    "open_bull_engine",
]

QUEUE = "projects"
"""The name of the queue; its keys begin with `bull:projects:`."""
MAX_WAITING_RUNS = 1000
KEPT_JOBS = 10_000
"""How many jobs that are done are kept at most, and as many that failed; `keep_for` says how long."""
NEW_RUN_PRIORITY = 10
"""Behind whatever was begun before: that has none, and so goes first."""
LOOK_S = 1.0
WORKER_KEY = "bull:projects:worker-online"
"""There as long as any worker is online (`engines/presence.py`)."""
_POSITIONS = "positions"
_ENDED, _ACTIVE = ("completed", "failed"), "active"
JOB_FAULT = TypeError
"""What BullMQ raises for a job that is not there, not locked, or not in the state that it was in."""
WITHOUT_LOCK = "0"
"""The token of whoever holds no lock and needs none, as BullMQ has it."""

log = structlog.get_logger()


class QueueUnavailable(InitializerError):
    """The queue does not answer; trying again may help."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What a job says: which run to perform, and the attempt that its row named then."""

    project: str
    attempt: int
    try_id: int
    """Which try of the run it is (`ProjectRow.try_id`)."""


class BullEngine:
    """Puts runs into the queue, and tells how they stand there; a worker performs them (`bull_worker.py`)."""

    owns_runs = False

    def __init__(self, client: "Redis", *, keep_for: timedelta) -> None:
        self._client = client
        self._queue = Queue(QUEUE, {"connection": client})
        kept = {"age": int(keep_for.total_seconds()), "count": KEPT_JOBS}
        self._options = {"removeOnComplete": kept, "removeOnFail": kept, "stackTraceLimit": 0}
        self._places: dict[str, int] = {}
        self._queued: frozenset[str] = frozenset()
        self._has_worker = True
        self._performing: dict[tuple[str, int], asyncio.Event] = {}
        self._signals = Signals()

    def check_room(self) -> None:
        if len(self._places) >= MAX_WAITING_RUNS:
            raise QueueFull(f"{MAX_WAITING_RUNS} projects are waiting already; try again in a few minutes")

    async def submit(self, row: ProjectRow, *, reason: Reason) -> None:
        try:
            async with asking(QueueUnavailable, "the run cannot be queued"):
                await self._add(row, reason)
        except QueueUnavailable as error:
            log.warning("run not queued yet", project=row.project.id, error=str(error))

    async def submit_again(self, row: ProjectRow, *, reason: Reason) -> None:
        """Put a run into the queue that nobody owns, unless it waits there or a worker is at it.

        Raises `QueueUnavailable`.
        """
        async with asking(QueueUnavailable, "the run cannot be queued"):
            job = await Job.fromId(self._queue, job_id_of(row))
            if job is None:
                await self._add(row, reason)
            elif not await self._revive(job):
                return
        log.info("run queued again", project=row.project.id, attempt=row.attempt)

    async def withdraw(self, row: ProjectRow) -> None:
        """Take the job of a run's current try away, unless a worker is at it. Raises `QueueUnavailable`."""
        async with asking(QueueUnavailable, "the run cannot be taken out of the queue"):
            await self._queue.remove(job_id_of(row))

    def cancel(self, run: str, attempt: int) -> None:
        cancelled = self._performing.get((run, attempt))
        if cancelled is not None:
            cancelled.set()

    @contextmanager
    def performing(self, row: ProjectRow) -> Iterator[asyncio.Event]:
        """While a run is performed here: the event that says that it is to end as cancelled."""
        held, cancelled = (row.project.id, row.attempt), asyncio.Event()
        if row.cancel_requested_at is not None:
            cancelled.set()
        self._performing[held] = cancelled
        try:
            yield cancelled
        finally:
            del self._performing[held]

    def is_queued(self, run: str) -> bool:
        """Whether the run waited in the queue at the last look."""
        return run in self._queued

    def position(self, run: str) -> int | None:
        return self._places.get(run) if self._has_worker else NO_WORKER

    async def follow_positions(self) -> AsyncGenerator[None, None]:
        with self._signals.listen(_POSITIONS) as signal:
            while True:
                yield
                await signal.wait()
                signal.clear()

    async def keep(self) -> None:
        """Look how the queue stands, for ever."""
        while True:
            try:
                await self._look()
            except QueueUnavailable as error:
                log.warning("queue not read", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        keys: Mapping[str, str] = self._queue.keys
        async with (
            asking(QueueUnavailable, "the queue cannot be read"),
            self._client.pipeline(transaction=False) as pipeline,
        ):
            pipeline.lrange(keys["wait"], 0, -1)
            pipeline.zrange(keys["prioritized"], 0, -1)
            pipeline.zrange(keys["delayed"], 0, -1)
            pipeline.exists(WORKER_KEY)
            wait, prioritized, delayed, workers = await pipeline.execute()
        before = (self._places, self._has_worker)
        self._places = {_run_of(job): place for place, job in enumerate([*reversed(wait), *prioritized], 1)}
        self._queued = frozenset([*self._places, *map(_run_of, delayed)])
        self._has_worker = bool(workers)
        if before != (self._places, self._has_worker):
            self._signals.wake(_POSITIONS)

    async def _revive(self, job: Any) -> bool:
        """Have a job wait again, with what its log tells; False where it waits, or a worker is at it."""
        state = await job.getState()
        is_left = state == _ACTIVE and not await self._client.exists(f"{self._queue.toKey(job.id)}:lock")
        try:
            if state in _ENDED:
                await job.retry(state)
            elif is_left:
                await give_back(job, WITHOUT_LOCK, after_s=0)
        except JOB_FAULT:  # another process was faster
            return False
        return is_left or state in _ENDED

    async def _add(self, row: ProjectRow, reason: Reason) -> None:
        """A job that is there already stays as it is."""
        ticket = Ticket(project=row.project.id, attempt=row.attempt, try_id=row.try_id)
        options: dict[str, Any] = {"jobId": job_id_of(row), **self._options}
        if reason is Reason.CREATED:
            options["priority"] = NEW_RUN_PRIORITY
        await self._queue.add(row.project.slug, msgspec.to_builtins(ticket), options)


async def give_back(job: Any, token: str, *, after_s: float) -> None:
    """Have a job delivered again, before the runs that have not begun yet.

    The clock of whoever looks decides when it is due. What need not wait is therefore due since long ago.
    """
    now_ms = await _now_ms(job.backend.conn) if after_s else 0
    await job.changePriority({"priority": 0})
    await job.backend.moveToDelayed(job.id, now_ms, round(after_s * 1000), token, {"skipAttempt": True})


def job_id_of(row: ProjectRow) -> str:
    """The id of the job of a run's current try, whoever performs it."""
    return f"{row.project.id}-{row.try_id}"


async def _now_ms(client: "Redis") -> int:
    """The earlier of this host's time and of Redis': who looks too early only looks once more."""
    seconds, microseconds = await client.time()
    return round(min(time.time(), seconds + microseconds / 1e6) * 1000)


def _run_of(job: str) -> str:
    return job.rpartition("-")[0]


@asynccontextmanager
async def open_bull_engine(client: "Redis", *, keep_for: timedelta) -> AsyncIterator[BullEngine]:
    """The queue on that server, looked at each second; `client` gives text. Jobs are kept for `keep_for`."""
    engine = BullEngine(client, keep_for=keep_for)
    async with in_background(engine.keep()):
        yield engine
