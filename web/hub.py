"""The hub: a room for each run that somebody watches, one reader of its journal, any number of viewers.

Where the server takes finished frames (`shared_frames.py`), the reader of a room writes them to all of its
viewers itself, the same bytes, and no task is woken. Elsewhere each viewer's task asks for the next one.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial

import structlog

from initializer.engines.engine import Engine
from initializer.errors import InitializerError
from initializer.journal.journal import Journal, JournalRewritten, JournalUnavailable
from initializer.model.events import Event, EventId, is_final
from initializer.model.progress import IndexGap, Progress
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from web.languages import Language
from web.limits import MAX_VIEWERS
from web.rendering import Rendering
from web.room import Outlet, Room, RunView, Viewer
from web.shared_frames import encode_text

__all__ = ["HEARTBEAT", "Hub", "WatchBroken", "open_hub"]

FRAMES_PER_SECOND = 33
"""A room shows the first event at once, then changes at most this often.

More than the ticks of a runner: at the same beat, what it says would have to wait for its turn.
"""
HEARTBEAT = "{}"
"""A message that htmx takes for data: it swaps nothing."""
HEARTBEAT_S = 5
"""How often a viewer hears something. A page that heard nothing for 15 s (`live.js`) connects anew."""
STUCK_LIMIT_S = 15
"""How long a viewer that takes nothing may miss what is due; then it is sent away."""
LOOK_FOR_STUCK_S = 1
AHEAD_LIMIT_S = 10
"""How long a page that shows more than the journal has waits for its owner to make it whole again."""
EVENTS_WRITTEN = 16
"""How many events are written at once where each has a frame: well below what a connection may hold."""
BEATS = 50
"""How many heartbeats are written before the event loop gets its turn: some tenths of a millisecond."""
JOURNAL_CHECK_S = 0.5
"""How often is looked whether the journal answers."""
ROW_CHECK_S = 5
"""How often the rows of all watched runs are read: a final row ends its page, whatever the journal says."""
RETRY_S = 1
FOLD_EVENTS = 1000
"""How many events of a long journal are folded before the event loop gets its turn: some milliseconds."""

NORMAL, TRY_AGAIN = 1000, 1013

log = structlog.get_logger()


class WatchBroken(InitializerError):
    """The room's reader broke off; the viewer is to come back and read anew."""


class Hub:
    """Rooms by run. A room opens with its first viewer and closes with its last."""

    def __init__(
        self,
        *,
        journal: Journal,
        projects: Projects,
        engine: Engine,
        rendering: Rendering,
        frames_per_second: int,
        max_viewers: int,
        group: asyncio.TaskGroup,
    ) -> None:
        self._max_viewers = max_viewers
        self._tick_s = 1 / frames_per_second if frames_per_second else 0
        self._journal = journal
        self._projects = projects
        self._engine = engine
        self._rendering = rendering
        self._group = group
        self._rooms: dict[str, _OpenRoom] = {}
        self._delivering: dict[Outlet, Viewer] = {}
        self._viewers = 0

    @property
    def is_full(self) -> bool:
        """Whether this process has as many viewers as it takes."""
        return self._viewers >= self._max_viewers

    @asynccontextmanager
    async def join(
        self, row: ProjectRow, *, after: EventId, language: Language = Language.ENGLISH
    ) -> AsyncIterator[AsyncGenerator[str, None]]:
        """Watch a run from behind event `after`: its frames as they can be sent, the last one last.

        Whoever iterates closes it. It raises `WatchBroken` where the room's reader broke off.
        """
        opened, viewer = await self._enter(row, after=after, language=language)
        try:
            yield self._frames(opened, viewer)
        finally:
            self._leave(opened, viewer)

    async def deliver(
        self, row: ProjectRow, outlet: Outlet, *, after: EventId, language: Language = Language.ENGLISH
    ) -> None:
        """Have what comes behind event `after`, and between it a heartbeat, written to an outlet to its end.

        It is closed with 1000 after the last frame, and with 1013 where the reader of the room broke off
        or where it takes nothing for long.
        """
        opened, viewer = await self._enter(row, after=after, language=language, outlet=outlet)
        self._delivering[outlet] = viewer
        outlet.keep(
            on_drained=partial(self._catch_up, opened, viewer, outlet),
            on_closed=partial(self._leave, opened, viewer),
        )
        self._catch_up(opened, viewer, outlet)

    async def _enter(
        self, row: ProjectRow, *, after: EventId, language: Language, outlet: Outlet | None = None
    ) -> tuple["_OpenRoom", Viewer]:
        """Take a place in the run's room, once it has been read for the first time.

        One that is ahead is shown what there is after a while.
        """
        run = row.project.id
        opened = self._rooms.get(run)
        if opened is None:
            opened = _OpenRoom(run, self._new_room(row))
            opened.reader = self._group.create_task(self._read(row, opened), name=f"reader of {run}")
            self._rooms[run] = opened
        opened.places += 1
        self._viewers += 1
        try:
            await opened.until_read()
            viewer = opened.room.attach(after=after, language=language, outlet=outlet)
        except BaseException:
            self._leave(opened)
            raise
        if opened.room.is_ahead(viewer):
            loop = asyncio.get_running_loop()
            viewer.waiting = loop.call_later(AHEAD_LIMIT_S, self._wait_no_longer, opened, viewer)
        return opened, viewer

    def _leave(self, opened: "_OpenRoom", viewer: Viewer | None = None) -> None:
        """Give up a place in a room; with the last one it closes."""
        if viewer is not None:
            opened.room.detach(viewer)
            if viewer.waiting is not None:
                viewer.waiting.cancel()
            if viewer.outlet is not None:
                del self._delivering[viewer.outlet]
        opened.places -= 1
        self._viewers -= 1
        if not opened.places:
            self._forget(opened)
            opened.reader.cancel()

    def view(self, run: str) -> RunView | None:
        """What the viewers of a run are shown now; None where nobody watches."""
        opened = self._rooms.get(run)
        return opened.room.shown if opened and opened.is_read else None

    def close(self) -> None:
        """Stop all readers; who still watches is sent away."""
        for opened in list(self._rooms.values()):
            self._break_off(opened)
            opened.reader.cancel()

    async def check_rows(self) -> None:
        """End the pages of runs whose row is final, and say of those that wait that they do, for ever."""
        while True:
            await asyncio.sleep(ROW_CHECK_S)
            if not self._rooms:
                continue
            try:
                statuses = await self._projects.statuses(self._rooms)
            except DatabaseUnavailable as error:
                log.warning("rows not read", error=str(error))
                continue
            for run, status in statuses.items():
                opened = self._rooms.get(run)
                if opened is not None and (status.is_final or opened.room.misses_wait(status)):
                    await self._end_guarded(opened)

    async def follow_positions(self) -> None:
        """Show waiting runs their place in the queue, for ever."""
        async with aclosing(self._engine.follow_positions()) as following:
            async for _ in following:
                for run, opened in self._rooms.items():
                    opened.room.move(self._engine.position(run))
                    self._show(opened)
                await asyncio.sleep(self._tick_s)

    async def watch_journal(self) -> None:
        """Tell all viewers when the journal does not answer, and when it does again, for ever."""
        was_away = False
        while True:
            await asyncio.sleep(JOURNAL_CHECK_S)
            is_away = self._journal.is_away
            for opened in self._rooms.values() if is_away or was_away else ():
                opened.room.interrupt(is_away)
                self._show(opened)
            was_away = is_away

    async def beat(self) -> None:
        """Say to all outlets that the server lives, in an even beat, for ever."""
        frame = encode_text(HEARTBEAT)
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for number, outlet in enumerate(list(self._delivering)):
                if not outlet.is_full:
                    outlet.write(frame)
                if number % BEATS == BEATS - 1:
                    await asyncio.sleep(0)

    async def send_stuck_away(self) -> None:
        """Close outlets that take nothing for long, for ever."""
        while True:
            await asyncio.sleep(LOOK_FOR_STUCK_S)
            limit_s = time.monotonic() - STUCK_LIMIT_S
            for outlet, viewer in list(self._delivering.items()):
                if viewer.behind_since_s < limit_s:
                    outlet.close(TRY_AGAIN)

    def _new_room(self, row: ProjectRow) -> Room:
        progress = Progress.waiting(row.project.parameters.pipeline)
        view = RunView(progress=progress, position=self._engine.position(row.project.id))

        def render(shown: RunView, after: EventId, language: Language) -> str:
            return self._rendering.speaking(language).frame(row.project, shown, after=after)

        return Room(view, render)

    async def _read(self, row: ProjectRow, opened: "_OpenRoom") -> None:
        """Keep a room current until its run ends. `row` was read when the room opened."""
        run = row.project.id
        follow = partial(self._journal.follow, interval_s=self._tick_s, at_once=partial(self._take, opened))
        try:
            async with aclosing(follow(run)) as following:
                async for events in following:
                    for start in range(0, len(events), FOLD_EVENTS):
                        if start:
                            await asyncio.sleep(0)
                        self._receive(opened, events[start : start + FOLD_EVENTS])
                    if not opened.is_read:
                        opened.room.expect(row, self._engine.position(run))
                    self._show(opened)
                    opened.let_in()
                    if opened.room.progress.status.is_final:
                        await self._end(opened)
                        if opened.room.is_over:
                            break
                    del events  # as the journal has let go of them
        except (JournalUnavailable, JournalRewritten, IndexGap) as error:
            log.warning("viewers sent away", project=run, error=str(error))
            self._break_off(opened)
        except Exception:
            log.exception("reader of a room broke off", project=run)
            self._break_off(opened)

    def _take(self, opened: "_OpenRoom", events: list[Event]) -> bool:
        """Show what comes while the reader waits for it; what ends the run is the reader's."""
        if not opened.is_read or is_final(events[-1]):
            return False
        try:
            self._receive(opened, events)
            self._show(opened)
        except Exception:
            log.exception("reader of a room broke off", project=opened.run)
            self._break_off(opened)
        return True

    def _receive(self, opened: "_OpenRoom", events: list[Event]) -> None:
        """Take in what happened; without a tick, each event but the last is shown as well."""
        if self._tick_s or not opened.is_read or len(events) == 1:
            opened.room.receive(events)
            return
        for start in range(0, len(events), EVENTS_WRITTEN):
            self._show_each(opened, events[start : start + EVENTS_WRITTEN])

    async def _end_guarded(self, opened: "_OpenRoom") -> None:
        """End one room; where its row or summary cannot be used, no other room suffers."""
        try:
            await self._end(opened)
        except Exception:
            log.exception("page not ended", project=opened.run)
            self._break_off(opened)

    async def _end(self, opened: "_OpenRoom") -> None:
        """Send everyone the summary, read from the row; where that waits for another try, say so."""
        while not opened.room.is_over:
            try:
                row = await self._projects.get(opened.run)
            except DatabaseUnavailable as error:
                log.warning("summary not read", project=opened.run, error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if row is None or opened.room.is_over:
                return
            if not row.status.is_final:
                opened.room.expect(row, self._engine.position(opened.run))
                self._show(opened)
                return
            opened.room.end({each: self._rendering.speaking(each).last_frame(row) for each in Language})
            self._show(opened)
        self._forget(opened)

    def _break_off(self, opened: "_OpenRoom") -> None:
        """Send a room's viewers away, to come back and read anew."""
        self._forget(opened)
        opened.is_broken = True
        opened.let_in()
        opened.room.wake()
        for viewer in opened.room.viewers:
            if viewer.outlet is not None:
                viewer.outlet.close(TRY_AGAIN)

    def _forget(self, opened: "_OpenRoom") -> None:
        """Whoever comes next gets a new room."""
        if self._rooms.get(opened.run) is opened:
            del self._rooms[opened.run]

    def _show(self, opened: "_OpenRoom") -> None:
        """Show what has come, and write it to whoever takes it."""
        opened.room.tick()
        for frame, outlets in opened.room.due(time.monotonic()):
            encoded = opened.encode(frame)
            for outlet in outlets:
                outlet.write(encoded)
            if opened.room.is_over:
                for outlet in outlets:
                    outlet.close(NORMAL)

    def _show_each(self, opened: "_OpenRoom", events: Sequence[Event]) -> None:
        """Show events one by one; the frames that they make are written to each outlet in one go."""
        writes: defaultdict[Sequence[Outlet], list[bytes]] = defaultdict(list)
        for event in events:
            opened.room.receive((event,))
            opened.room.tick()
            for frame, outlets in opened.room.due(time.monotonic()):
                writes[outlets].append(opened.encode(frame))
        for outlets, frames in writes.items():
            written = b"".join(frames)
            for outlet in outlets:
                outlet.write(written)

    def _catch_up(self, opened: "_OpenRoom", viewer: Viewer, outlet: Outlet) -> None:
        """Write what a viewer misses that has just come, or drained."""
        if opened.is_broken:
            outlet.close(TRY_AGAIN)
        elif (frame := opened.room.catch_up(viewer)) is not None:
            outlet.write(opened.encode(frame))
            if opened.room.is_over:
                outlet.close(NORMAL)

    def _wait_no_longer(self, opened: "_OpenRoom", viewer: Viewer) -> None:
        if not opened.room.is_ahead(viewer):
            return
        viewer.ahead = ""
        if viewer.outlet is None:
            viewer.woken.set()
        else:
            self._catch_up(opened, viewer, viewer.outlet)

    async def _frames(self, opened: "_OpenRoom", viewer: Viewer) -> AsyncGenerator[str, None]:
        while True:
            await viewer.woken.wait()
            viewer.woken.clear()
            if opened.is_broken:
                raise WatchBroken("the journal could not be followed")
            while (frame := opened.room.next_frame(viewer)) is not None:
                is_last = opened.room.is_over  # before it is sent: the end may come meanwhile
                yield frame
                if is_last:
                    return


class _OpenRoom:
    """A run's room with its reader; `places` counts its viewers, and who waits for the first reading."""

    reader: asyncio.Task[None]

    def __init__(self, run: str, room: Room) -> None:
        self.run, self.room = run, room
        self.places = 0
        self.is_broken = False
        self._first_reading: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._encoded = ("", b"")

    @property
    def is_read(self) -> bool:
        """Whether it has been read for the first time, or never will be."""
        return self._first_reading.done()

    async def until_read(self) -> None:
        """Wait for the first reading."""
        await asyncio.shield(self._first_reading)

    def let_in(self) -> None:
        """It has been read: nobody needs to wait any more."""
        if not self.is_read:
            self._first_reading.set_result(None)

    def encode(self, frame: str) -> bytes:
        """A message as one WebSocket frame, encoded once for all that get it one after the other."""
        if frame is not self._encoded[0]:
            self._encoded = frame, encode_text(frame)
        return self._encoded[1]


@asynccontextmanager
async def open_hub(
    *,
    journal: Journal,
    projects: Projects,
    engine: Engine,
    rendering: Rendering,
    frames_per_second: int = FRAMES_PER_SECOND,
    max_viewers: int = MAX_VIEWERS,
) -> AsyncIterator[Hub]:
    """A hub at work; on exit all of its readers end.

    With 0 `frames_per_second`, each event gets a frame.
    """
    async with asyncio.TaskGroup() as group:
        hub = Hub(
            journal=journal,
            projects=projects,
            engine=engine,
            rendering=rendering,
            frames_per_second=frames_per_second,
            max_viewers=max_viewers,
            group=group,
        )
        tasks = (
            hub.check_rows(),
            hub.follow_positions(),
            hub.watch_journal(),
            hub.beat(),
            hub.send_stuck_away(),
        )
        keepers = [group.create_task(task) for task in tasks]
        try:
            yield hub
        finally:
            for keeper in keepers:
                keeper.cancel()
            hub.close()
