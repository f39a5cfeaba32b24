"""Processes and browsers of virtual time: the product's own code, an event loop a process."""

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import partial
from typing import Any, cast

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

from initializer.background import in_background
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.journal.redis import RedisJournal
from initializer.model.events import EventId, Reason
from initializer.model.progress import Progress, awaiting
from initializer.parts.servers import leave
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow
from initializer.running.lease import open_leases
from initializer.running.recovery import Recovery
from initializer.running.runner import Runner
from initializer.steps.step import Outputs, Step, StepContext, StepError
from model.runs import PIPELINE
from web.hub import HEARTBEAT, Hub, WatchBroken, open_hub
from web.room import RunView

__all__ = ["LEASE_S", "Browser", "Process", "World"]

LEASE_S = 3.0
GRACE_S = 1.0
COME_BACK_S = 0.5
_ITERATIONS = 10_000  # of one process at one instant; more is a loop without an end


class World:
    """Servers, processes and browsers, and the time that passes for all of them."""

    def __init__(self, seed: int) -> None:
        self.timeline = Timeline()
        self.redis = Redis(self.timeline)
        self.table = Row(self.timeline)
        self.random = random.Random(seed)
        self.started = 0
        self.violations: list[str] = []
        self.frames: dict[str, tuple[EventId, Progress] | ProjectRow] = {}
        self.processes = [Process(self), Process(self)]
        self.browsers = [Browser(self, number) for number in range(3)]
        self._come_back()

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
        return self._frame((after, view.progress))

    def last_frame(self, row: ProjectRow) -> str:
        return self._frame(row)

    def _frame(self, shown: tuple[EventId, Progress] | ProjectRow) -> str:
        name = f"frame {len(self.frames) + 1}"
        self.frames[name] = shown
        return name

    def _come_back(self) -> None:
        for browser in self.browsers:
            if browser.process is None and browser.end is None:
                browser.connect()
        self.timeline.after(COME_BACK_S, self._come_back)


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
    engine: InlineEngine

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

    def go_on(self) -> bool:
        """Do what can be done now; whether there was something."""
        for turned in range(_ITERATIONS):
            following = self.loop.next_at()
            if following is None or following > self.loop.time():
                return turned > 0
            self.loop.turn()
            assert not self._errors, self._errors
            if self._main.done():
                self._main.result()
        raise AssertionError(f"{self.name} never waits")

    def kill(self) -> None:
        """Kill -9: nothing that it still does reaches anybody."""
        self.to_redis.is_cut = self.to_row.is_cut = True
        with suppress(ValueError):
            self.world.redis.subscriptions.remove(self._subscription)
        for browser in self.world.browsers:
            browser.lose(self)
        for task in self.loop.tasks():
            task.cancel()
        while self.loop.tasks():
            following = self.loop.next_at()
            assert following is not None, "a task of a dead process never ends"
            self.loop.ahead_s += max(0.0, following - self.loop.time())
            self.loop.turn()
        self.loop.close()

    def leave(self) -> None:
        """SIGTERM: it takes nobody in any more."""
        self.is_serving = False
        self._leaving.set()

    async def deliver(self, seen_attempt: int) -> None:
        """The queue hands the run to this process: the row decides, as for everyone else."""
        with suppress(DatabaseUnavailable):
            row = await self.projects.claim(RUN, seen_attempt=seen_attempt)
            if row is not None:
                await self.engine.submit(row, reason=Reason.CREATED)

    async def begin_again(self, reason: Reason, seen_attempt: int) -> None:
        """Somebody asks this process for another try."""
        with suppress(DatabaseUnavailable):
            row = await self.projects.begin_again(RUN, seen_attempt=seen_attempt, reason=reason)
            if row is not None:
                await self.engine.submit(row, reason=reason)

    async def _serve(self) -> None:
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
            async with open_inline_engine(
                runner.run, max_concurrent_runs=2, on_submit=leases.hold
            ) as self.engine:
                try:
                    async with (
                        in_background(Recovery(self.projects, self.engine, leases, lease_s=LEASE_S).keep()),
                        open_hub(
                            journal=journal,
                            projects=self.projects,
                            engine=self.engine,
                            rendering=cast(Any, self.world),
                        ) as self.hub,
                    ):
                        self.is_serving = not self._leaving.is_set()
                        await self._leaving.wait()
                finally:
                    await leave(runner, self.engine, leases, grace_s=GRACE_S)


class Browser:
    """A page. Each frame has to fit what it shows; where its connection ends early, it comes back."""

    def __init__(self, world: World, number: int) -> None:
        self.pause_s = 0.0  # between frames
        self.process: Process | None = None
        self.has_outlet = number > 0
        self._world, self._tries = world, number
        self.load()

    def load(self) -> None:
        """Load the page anew."""
        self.shown = Progress.waiting(PIPELINE)
        self.end: ProjectRow | None = None
        self.process = None

    def connect(self) -> None:
        self._tries += 1
        self.process = None
        process = self._world.processes[self._tries % len(self._world.processes)]
        if process.is_serving:
            self.process = process
            process.do(self._watch(process, self._tries))

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
                outlet = Pipe(self, partial(self._take, connection=connection))
                async with process.hub.deliver(row, cast(Any, outlet), after=self.shown.tail):
                    await outlet.closed.wait()
                return
            async with process.hub.join(row, after=self.shown.tail) as joined, aclosing(joined) as frames:
                async for frame in frames:
                    self._take(frame, connection)
                    await asyncio.sleep(self.pause_s)
        except (WatchBroken, DatabaseUnavailable):
            pass
        finally:
            if self._tries == connection:
                self.process = None

    def _take(self, name: str, connection: int) -> None:
        frame = self._world.frames[name]
        if self._world.timeline.trace is not None:
            self._world.timeline.trace(self._world.timeline.now, "browser", connection, name)
        if connection != self._tries or self.process is None:
            return  # it has connected elsewhere since
        if isinstance(frame, ProjectRow):
            assert frame.status.is_final
            self.end = frame
            return
        after, progress = frame
        self._world.demand(after in ("", self.shown.tail), "a frame does not fit what the page shows")
        self._world.demand(self._is_fold(progress), "a frame is no fold")
        self.shown = progress

    def _is_fold(self, progress: Progress) -> bool:
        """Whether it is the fold of what the journal was once, or of a run that is over and waits."""
        if not progress.tail:
            return True
        folds = self._world.redis.folds[progress.tail]
        if progress.is_waiting and progress.reason is not None:
            return any(progress == awaiting(it, progress.reason) for it in folds if it.status.is_final)
        return progress in folds


class Pipe:
    """A browser's connection as an `Outlet`: full while the browser takes its time over a frame."""

    def __init__(self, browser: Browser, take: Callable[[str], None]) -> None:
        self.on_drained: Callable[[], object] = lambda: None
        self.is_full = False
        self.closed = asyncio.Event()
        self._browser, self._take = browser, take

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
        self.closed.set()

    def _drain(self) -> None:
        self.is_full = False
        if not self.closed.is_set():
            self.on_drained()


def step_of(world: World, step_name: str) -> Step:
    """A step that takes some time, says something, changes something, and fails now and then."""

    class VirtualStep(Step):
        name, title, weight, timeout_s = step_name, step_name.capitalize(), 1, 60

        async def run(self, context: StepContext) -> Outputs | None:
            attempt = cast(Any, context)._attempt.attempt
            world.check_owned(attempt)
            for percent in range(world.random.randrange(4)):
                context.log(f"{step_name} in attempt {attempt}")
                context.progress(percent * 30)
                await asyncio.sleep(world.random.choice((0, 0.01, 0.2, 2, 9)))
            await context.before_change()
            world.check_owned(attempt)
            await asyncio.sleep(world.random.choice((0, 0.2)))
            if world.random.random() < 0.1:
                raise StepError("it does not work")
            return {step_name: attempt}

    return VirtualStep()
