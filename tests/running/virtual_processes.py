"""Processes and browsers of virtual time: the product's own code, an event loop a process."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, cast

from virtual_queue import Job, Queue, QueueEngine, QueueWorker
from virtual_servers import (
    RUN,
    Redis,
    RedisClient,
    Row,
    RowClient,
    Subscription,
    Timeline,
    VirtualLoop,
    Way,
    redis_fault,
    row_fault,
)

from initializer.access import Action
from initializer.background import in_background
from initializer.control import Control, NotPossible
from initializer.engines.engine import Engine
from initializer.engines.inline import open_inline_engine
from initializer.journal.redis import RedisJournal
from initializer.model.events import EventId, attempt_of
from initializer.model.progress import Progress, awaiting
from initializer.parts.servers import hand_over
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow
from initializer.running.lease import Leases, open_leases
from initializer.running.queued import QueuedRuns, end_cancelled, submit_again
from initializer.running.recovery import Recovery
from initializer.running.runner import Runner
from initializer.steps.step import Outputs, Step, StepContext, StepError
from model.runs import PIPELINE
from web.hub import HEARTBEAT, Hub, open_hub
from web.open_room import AHEAD_LIMIT_S, WatchBroken
from web.room import RunView

__all__ = ["LEASE_S", "Browser", "Process", "World"]

LEASE_S = 3.0
GRACE_S = 1.0
GO_ROUND_S = 0.5
TRIED_AGAIN = 0.2
"""How likely it is at each round that somebody tries a run again that ended short."""


class World:
    """Servers, processes and browsers, and the time that passes for all of them."""

    def __init__(self, seed: int, *, has_queue: bool) -> None:
        self.timeline = Timeline()
        self.redis = Redis(self.timeline)
        self.table = Row(self.timeline, is_owned=not has_queue)
        self.queue = Queue(self.timeline, self.redis) if has_queue else None
        self.random = random.Random(seed)
        self.started = 0
        self.is_calm = False
        self._faults: dict[tuple[Any, str], tuple[int, object]] = {}
        self._numbers = count(1)
        self.violations: list[str] = []
        self.frames: dict[str, tuple[EventId, RunView] | ProjectRow] = {}
        self.processes = [Process(self), Process(self)]
        self.browsers = [Browser(self, number) for number in range(3)]
        self._go_round()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.timeline.now + seconds
        while True:
            awake = [process for process in self.processes if not process.is_stalled]
            is_something = self.timeline.happen()
            for process in awake:
                is_something = process.go_on() or is_something
            if is_something:
                continue
            times = [self.timeline.next_at(), *(process.loop.next_at() for process in awake)]
            following = min((it for it in times if it is not None), default=until + 1)
            assert not self.violations, self.violations
            if following > until:
                self.timeline.now = until
                return
            self.timeline.now = max(following, self.timeline.now)

    @property
    def is_serving(self) -> bool:
        """Whether any process takes somebody in."""
        return any(it.is_serving for it in self.processes)

    @property
    def owner(self) -> "Process | None":
        """Who owns the run by its lease, and is not stalled."""
        held = (self.redis.held() or b"").decode()
        awake = (it for it in self.processes if not it.is_stalled)
        return next((it for it in awake if held.endswith(f":{it.name}")), None)

    @property
    def next_job(self) -> Job | None:
        """What the queue delivers next."""
        return self.queue.next_job() if self.queue else None

    def suffer(
        self, thing: object, name: str, value: object, seconds: float, *, healthy: object = None
    ) -> None:
        """Have something of a thing be out of order for a time."""
        fault, number = (thing, name), next(self._numbers)
        setattr(thing, name, value)
        self._faults[fault] = number, not value if healthy is None else healthy
        self.timeline.after(seconds, lambda: self._heal(fault, number))

    def heal(self) -> None:
        """No more faults: also none of those that are still to strike."""
        for fault, (number, _) in list(self._faults.items()):
            self._heal(fault, number)
        for process in self.processes:
            process.to_redis.fates.clear()
            process.to_row.fates.clear()
        self.redis.lost_messages = 0

    def _heal(self, fault: tuple[Any, str], number: int) -> None:
        """Unless the same fault has come once more, and lasts."""
        latest, healthy = self._faults.get(fault, (0, None))
        if latest == number:
            del self._faults[fault]
            setattr(*fault, healthy)

    def try_again(self) -> None:
        """Somebody asks some process for another try of a run that ended short."""
        row, action = self.table.row, self.random.choice((Action.RETRY, Action.RESTART))
        self._chosen(lambda process: process.begin_again(row, action))
        self.look_again()

    def look_again(self) -> None:
        """Everybody loads the page anew, as whoever asks for another try does."""
        for browser in self.browsers:
            browser.load()

    def replace(self, process: "Process") -> None:
        """Kill a process; another one starts in its place."""
        process.kill()
        self.processes[self.processes.index(process)] = Process(self)

    def demand(self, is_so: bool, what: str) -> None:
        """Hold it against the history where it is not so: the product would catch what is raised here."""
        if not is_so:
            self.violations.append(what)

    def check_owned(self, attempt: int) -> None:
        """Whatever an attempt begins, its row named it at a moment within one lease (invariant 5)."""
        ceased_at = self.table.owned_until.get(attempt)
        if ceased_at is not None:
            self.demand(
                self.timeline.now - ceased_at < LEASE_S, f"attempt {attempt} acts without owning the run"
            )

    def check_refill(self, attempt: int, lost_at: float) -> None:
        """What Redis lost is added again by who owned the run then, and not by who has slept over it."""
        ceased_at = self.table.owned_until.get(attempt)
        assert ceased_at is None or ceased_at >= lost_at, f"attempt {attempt} refills another's journal"

    # What frames are made of: the rendering of these processes

    def speaking(self, _language: object) -> "World":
        return self

    def frame(self, _project: object, view: RunView, *, after: EventId) -> str:
        return self._frame((after, view))

    def last_frame(self, row: ProjectRow) -> str:
        return self._frame(row)

    def _frame(self, shown: tuple[EventId, RunView] | ProjectRow) -> str:
        name = f"frame {len(self.frames) + 1}"
        self.frames[name] = shown
        return name

    def _go_round(self) -> None:
        """What comes about by itself: pages connect, processes start, jobs are delivered, people retry."""
        for browser in self.browsers:
            if browser.process is None and browser.end is None:
                browser.connect()
        for process in [it for it in self.processes if it.has_ended]:
            self.replace(process)
        if self.queue is not None and not self.queue.is_still:
            for job in [it for it in self.queue.jobs.values() if it.is_waiting]:
                self._chosen(lambda process, job=job: process.take(job))
        if not self.is_calm and self.table.is_short and self.random.random() < TRIED_AGAIN:
            self.try_again()
        self.timeline.after(GO_ROUND_S, self._go_round)

    def _chosen(self, ask: "Callable[[Process], Coroutine[Any, Any, None]]") -> None:
        process = self.random.choice(self.processes)
        if process.is_serving:
            process.do(ask(process))


class NoFolder:
    """The work folder of steps that make no files."""

    def __fspath__(self) -> str:
        return os.devnull + "/no/folder"

    def __truediv__(self, _name: str) -> "NoFolder":
        return self

    def mkdir(self, *, parents: bool) -> None:
        assert parents

    def exists(self) -> bool:
        return False


class Process:
    """A process of the app on servers: what `parts/servers.py` and `hub.py` put together."""

    hub: Hub
    engine: Engine
    _worker: QueueWorker

    def __init__(self, world: World) -> None:
        self.world = world
        world.started += 1
        self.name = f"process-{world.started}"
        self.is_stalled = False
        self.loop = VirtualLoop(world.timeline, self.name)
        self.to_redis = Way(world.timeline, self.loop, world.redis, redis_fault)
        self.to_row = Way(world.timeline, self.loop, world.table, row_fault)
        self.projects = cast(Any, RowClient(world.table, self.to_row))
        self._subscription = Subscription(self.to_redis, world.redis)
        world.redis.subscriptions.append(self._subscription)
        self._leaving = asyncio.Event()
        self.is_serving = False
        self._errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self._errors.append(context))
        self._main = self.do(self._serve())

    def do(self, what: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begin something in this process."""
        return self.loop.create_task(what)

    @property
    def has_ended(self) -> bool:
        return self._main.done()

    def go_on(self) -> bool:
        """Do what can be done now; whether there was something."""
        is_something = self.loop.go_on()
        assert not self._errors, self._errors
        if is_something and self._main.done():
            self._main.result()
        return is_something

    def kill(self) -> None:
        """Kill -9: nothing that it still does reaches anybody."""
        self.to_redis.is_cut = self.to_row.is_cut = True
        with suppress(ValueError):
            self.world.redis.subscriptions.remove(self._subscription)
        for browser in self.world.browsers:
            browser.lose(self)
        tasks = self.loop.tasks()
        for task in tasks:
            task.cancel()
        while tasks:
            self.loop.go_on()
            tasks = [task for task in tasks if not task.done()] or self.loop.tasks()
            following = self.loop.next_at()
            assert following is not None or not tasks, "a task of a dead process never ends"
            self.loop.ahead_s += max(0.0, (following or 0) - self.loop.time())
        self.loop.close()

    def leave(self) -> None:
        """SIGTERM: it takes nobody in any more."""
        self.is_serving = False
        self._leaving.set()

    async def take(self, job: Job) -> None:
        """The queue hands a job to this process."""
        await self._worker.take(job, lock_s=LEASE_S)

    async def begin_again(self, row: ProjectRow, action: Action) -> None:
        """Somebody who has seen the end of this row asks this process for another try."""
        with suppress(NotPossible, DatabaseUnavailable):
            await Control(self.projects, self.engine).begin_again(row, action, seen_attempt=row.attempt)

    async def cancel(self, row: ProjectRow) -> None:
        """Somebody asks this process to end the run."""
        with suppress(NotPossible, DatabaseUnavailable):
            await Control(self.projects, self.engine).cancel(row)

    async def _serve(self) -> None:
        """As `parts/servers.py` and `parts/queue.py` put it together."""
        client = cast(
            Any,
            RedisClient(
                self.world.redis,
                self.to_redis,
                on_append=self.world.check_owned,
                on_refill=self.world.check_refill,
            ),
        )
        journal = RedisJournal(client, cast(Any, self._subscription))
        async with open_leases(client, self.projects, owner=self.name, lease_s=LEASE_S) as leases:
            runner = Runner(
                journal=journal,
                projects=self.projects,
                steps={spec.name: step_of(self.world, spec.name) for spec in PIPELINE.steps},
                forges={"local": cast(Any, object())},
                work_folder=cast(Any, NoFolder()),
                keep_journal_for=timedelta(days=7),
                leases=leases,
            )
            open_engine = self._performing_itself if self.world.queue is None else self._with_workers
            async with (
                open_engine(runner, journal, leases) as self.engine,
                open_hub(
                    journal=journal,
                    projects=self.projects,
                    engine=self.engine,
                    rendering=cast(Any, self.world),
                ) as self.hub,
            ):
                self.is_serving = not self._leaving.is_set()
                await self._leaving.wait()

    @asynccontextmanager
    async def _performing_itself(
        self, runner: Runner, _journal: RedisJournal, leases: Leases
    ) -> AsyncIterator[Engine]:
        async with open_inline_engine(
            runner.run, max_concurrent_runs=2, on_submit=leases.hold, pass_on=leases.pass_on
        ) as engine:
            try:
                recovery = Recovery(self.projects, engine, leases, lease_s=LEASE_S)
                async with in_background(recovery.keep(), runner.keep_settling()):
                    yield engine
            finally:
                await hand_over(runner, engine, leases, grace_s=GRACE_S)

    @asynccontextmanager
    async def _with_workers(
        self, runner: Runner, journal: RedisJournal, leases: Leases
    ) -> AsyncIterator[Engine]:
        assert self.world.queue is not None
        engine = QueueEngine(self.world.queue, self.to_redis)
        end = partial(end_cancelled, runner.run, engine)
        async with open_inline_engine(end, max_concurrent_runs=1, on_submit=leases.hold) as ending:
            recovery = Recovery(
                self.projects,
                ending,
                leases,
                lease_s=LEASE_S,
                take_up=partial(submit_again, self.projects, engine),
                cancel=engine.cancel,
            )
            queued = QueuedRuns(
                projects=self.projects,
                journal=journal,
                leases=leases,
                recovery=recovery,
                engine=engine,
                run=runner.run,
                lease_s=LEASE_S,
            )
            self._worker = QueueWorker(self.world.queue, queued.perform, self.to_redis)
            async with in_background(recovery.keep(), runner.keep_settling()):
                try:
                    yield engine
                finally:
                    self._worker.is_leaving = True
                    runner.leave()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(GRACE_S):
                            await self._worker.until_idle()
                    await self._worker.close()


class Browser:
    """A page. Each frame has to fit what it shows; where its connection ends early, it comes back."""

    def __init__(self, world: World, number: int) -> None:
        self.pause_s = 0.0  # between frames
        self.process: Process | None = None
        self.has_outlet = number > 0
        self._world, self.connection = world, number
        self.load()

    def load(self) -> None:
        """Load the page anew."""
        self.shown, self.besides = Progress.waiting(PIPELINE), ""
        self.end: ProjectRow | None = None
        self.process = None

    def connect(self) -> None:
        self.connection += 1
        self._connected_at = self._world.timeline.now
        self.process = None
        process = self._world.processes[self.connection % len(self._world.processes)]
        if process.is_serving:
            self.process = process
            process.do(self._watch(process, self.connection))

    def lose(self, process: Process) -> None:
        """The process is gone."""
        if self.process is process:
            self.process = None

    async def _watch(self, process: Process, connection: int) -> None:
        try:
            row = await process.projects.get(RUN)
            if row.status.is_final:
                self._take(self._world.last_frame(row), connection)
                return
            if not process.is_serving:
                return
            if self.has_outlet:
                pipe = Pipe(self, partial(self._take, connection=connection))
                await process.hub.deliver(row, pipe, after=self.shown.tail, besides=self.besides)
                await pipe.last()
                return
            joining = process.hub.join(row, after=self.shown.tail, besides=self.besides)
            async with joining as joined, aclosing(joined) as frames:
                async for frame in frames:
                    self._take(frame, connection)
                    await asyncio.sleep(self.pause_s)
        except (WatchBroken, DatabaseUnavailable):
            pass
        finally:
            if self.connection == connection:
                self.process = None

    def _take(self, name: str, connection: int) -> None:
        frame = self._world.frames[name]
        if self._world.timeline.trace is not None:
            self._world.timeline.trace(self._world.timeline.now, "browser", connection, name)
        if connection != self.connection or self.process is None:
            return  # it has connected elsewhere since
        if isinstance(frame, ProjectRow):
            assert frame.status.is_final
            self.end = frame
            return
        after, view = frame
        progress = view.progress
        self._world.demand(after in ("", self.shown.tail), "a frame does not fit what the page shows")
        self._world.demand(self._is_fold(progress), "a frame is no fold")
        has_waited = self._world.timeline.now - self._connected_at > AHEAD_LIMIT_S - 0.001  # floats
        waiting = self._world.table.last_waiting
        is_given_up = progress.is_waiting and attempt_of(self.shown.tail) < waiting  # nobody adds that again
        self._world.demand(
            has_waited or is_given_up or not (self.shown.tail and progress.lacks(self.shown.tail)),
            "a page sees a run go back",
        )
        self.shown, self.besides = progress, view.besides

    def _is_fold(self, progress: Progress) -> bool:
        """Whether it is the fold of what the journal was once, or of a run that is over and waits."""
        if not progress.tail:
            return True
        folds = self._world.redis.folds[progress.tail]
        if progress.is_waiting and progress.reason is not None:
            return any(progress == awaiting(it, progress.reason) for it in folds)
        return progress in folds


class Pipe:
    """A browser's connection as an `Outlet`: full while the browser takes its time over a frame."""

    def __init__(self, browser: Browser, take: Callable[[str], None]) -> None:
        self.is_full = False
        self._closed = asyncio.Event()
        self._browser, self._take = browser, take

    def keep(self, *, on_drained: Callable[[], object], on_closed: Callable[[], object]) -> None:
        self._on_drained, self._on_closed = on_drained, on_closed

    async def last(self) -> None:
        """Until it is closed, or its process is gone."""
        try:
            await self._closed.wait()
        finally:
            self._on_closed()

    def write(self, frames: bytes) -> None:
        while frames:
            length = frames[1]  # names of frames are short, and frames of servers have no mask
            text, frames = frames[2 : 2 + length].decode(), frames[2 + length :]
            if text != HEARTBEAT:
                self._take(text)
        if self._browser.pause_s and not self.is_full:
            self.is_full = True
            asyncio.get_running_loop().call_later(self._browser.pause_s, self._drain)

    def close(self, _code: int) -> None:
        self._closed.set()

    def _drain(self) -> None:
        self.is_full = False
        if not self._closed.is_set():
            self._on_drained()


def step_of(world: World, step_name: str) -> Step:
    """A step that takes some time, says something, changes something, and fails now and then."""

    class VirtualStep(Step):
        name, title, weight, timeout_s = step_name, step_name.capitalize(), 1, 60

        async def run(self, context: StepContext) -> Outputs | None:
            attempt = cast(Any, context)._attempt.attempt
            world.check_owned(attempt)
            for percent in range(world.random.randrange(1, 6)):
                context.log(f"{step_name} in attempt {attempt}")
                context.progress(percent * 20)
                await asyncio.sleep(world.random.choice((0.01, 0.05, 0.3, 1, 9)))
            await context.before_change()
            world.check_owned(attempt)
            await asyncio.sleep(world.random.choice((0, 0.2)))
            if world.random.random() < (0.1 if world.is_calm else 0.35):
                raise StepError("it does not work")
            return {step_name: attempt}

    return VirtualStep()
