"""The hub: a room for each run that somebody watches, with one reader and any number of viewers."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import islice
from math import ceil

import structlog

from initializer.engines.engine import Engine
from initializer.journal.journal import Journal
from initializer.model.events import EventId
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from web.languages import Language
from web.limits import MAX_VIEWERS
from web.open_room import TRY_AGAIN, OpenRoom, Sources
from web.rendering import Rendering
from web.room import Outlet, RunView, Viewer
from web.shared_frames import encode_text

__all__ = ["HEARTBEAT", "Hub", "open_hub"]

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
BEATS = 10
"""How many heartbeats are written at once: some tenths of a millisecond."""
LEAST_BEAT_TURNS = 5
"""In how many turns they are written at least, so that many who come at once do not wait for long."""
ROOMS_SHOWN = 2
"""How many rooms show a change before the event loop gets its turn: a panel takes a millisecond or two."""
JOURNAL_CHECK_S = 0.5
"""How often is looked whether the journal answers."""
ROW_CHECK_S = 5
"""How often the rows of all watched runs are read: a final row ends its page, whatever the journal says."""

log = structlog.get_logger()


class Hub:
    """Rooms by run. A room opens with its first viewer and closes with its last."""

    def __init__(self, sources: Sources, *, max_viewers: int, group: asyncio.TaskGroup) -> None:
        self._sources, self._max_viewers, self._group = sources, max_viewers, group
        self._rooms: dict[str, OpenRoom] = {}
        self._delivering: OrderedDict[Outlet, Viewer] = OrderedDict()  # who hears something next first
        self._viewers = 0

    @property
    def is_full(self) -> bool:
        """Whether this process has as many viewers as it takes."""
        return self._viewers >= self._max_viewers

    @asynccontextmanager
    async def join(
        self, row: ProjectRow, *, after: EventId, besides: str = "", language: Language = Language.ENGLISH
    ) -> AsyncIterator[AsyncGenerator[str, None]]:
        """Watch a run from behind event `after`: its frames as they can be sent, the last one last.

        `besides` is what the page shows that no event has told (`RunView.besides`).

        Whoever iterates closes it. It raises `WatchBroken` where the room's reader broke off.
        """
        opened, viewer = await self._enter(row, after=after, besides=besides, language=language)
        try:
            yield opened.frames(viewer)
        finally:
            self._leave(opened, viewer)

    async def deliver(
        self,
        row: ProjectRow,
        outlet: Outlet,
        *,
        after: EventId,
        besides: str = "",
        language: Language = Language.ENGLISH,
    ) -> None:
        """Have what comes behind event `after`, and between it a heartbeat, written to an outlet to its end.

        It is closed with 1000 after the last frame, and with 1013 where the reader of the room broke off
        or where it takes nothing for long.
        """
        opened, viewer = await self._enter(
            row, after=after, besides=besides, language=language, outlet=outlet
        )
        self._delivering[outlet] = viewer
        outlet.keep(
            on_drained=partial(opened.catch_up, viewer, outlet),
            on_closed=partial(self._leave, opened, viewer),
        )
        opened.catch_up(viewer, outlet)

    async def _enter(
        self,
        row: ProjectRow,
        *,
        after: EventId,
        besides: str,
        language: Language,
        outlet: Outlet | None = None,
    ) -> tuple[OpenRoom, Viewer]:
        """Take a place in the run's room, once it has been read for the first time."""
        run = row.project.id
        opened = self._rooms.get(run)
        if opened is None:
            opened = self._rooms[run] = OpenRoom(row, self._sources, on_over=self._forget)
            opened.reader = self._group.create_task(opened.read(), name=f"reader of {run}")
        opened.places += 1
        self._viewers += 1
        try:
            viewer = await opened.enter(after=after, besides=besides, language=language, outlet=outlet)
        except BaseException:
            self._give_up_place(opened)
            raise
        return opened, viewer

    def _leave(self, opened: OpenRoom, viewer: Viewer) -> None:
        opened.leave(viewer)
        if viewer.outlet is not None:
            del self._delivering[viewer.outlet]
        self._give_up_place(opened)

    def _give_up_place(self, opened: OpenRoom) -> None:
        """With the last one a room closes."""
        opened.places -= 1
        self._viewers -= 1
        if not opened.places:
            self._forget(opened)
            opened.reader.cancel()

    def _forget(self, opened: OpenRoom) -> None:
        """Whoever comes next gets a new room."""
        if self._rooms.get(opened.run) is opened:
            del self._rooms[opened.run]

    def view(self, run: str) -> RunView | None:
        """What the viewers of a run are shown now; None where nobody watches."""
        opened = self._rooms.get(run)
        return opened.room.shown if opened and opened.is_read else None

    def close(self) -> None:
        """Stop all readers; who still watches is sent away."""
        for opened in list(self._rooms.values()):
            opened.break_off()
            opened.reader.cancel()

    async def check_rows(self) -> None:
        """End the pages of runs whose row is final, and say of those that wait that they do, for ever."""
        while True:
            await asyncio.sleep(ROW_CHECK_S)
            if not self._rooms:
                continue
            try:
                standings = await self._sources.projects.standings(self._rooms)
            except DatabaseUnavailable as error:
                log.warning("rows not read", error=str(error))
                continue
            for run, standing in standings.items():
                opened = self._rooms.get(run)
                if opened is not None:
                    await opened.check(standing)

    async def follow_positions(self) -> None:
        """Show waiting runs their place in the queue, for ever."""
        async with aclosing(self._sources.engine.follow_positions()) as following:
            async for _ in following:
                async for opened in self._in_turns(self._rooms.values()):
                    opened.move(self._sources.engine.position(opened.run))
                await asyncio.sleep(self._sources.tick_s)

    async def watch_journal(self) -> None:
        """Tell all viewers when the journal does not answer, and when it does again, for ever."""
        while True:
            await asyncio.sleep(JOURNAL_CHECK_S)
            is_away = self._sources.journal.is_away
            unaware = [each for each in self._rooms.values() if each.room.is_interrupted is not is_away]
            async for opened in self._in_turns(unaware):
                opened.interrupt(is_away)

    async def beat(self) -> None:
        """Say to all outlets that the server lives, to a few at a time, for ever.

        Were it said to all at once, what happens meanwhile would come late to everybody.
        """
        frame = encode_text(HEARTBEAT)
        while True:
            turns = max(LEAST_BEAT_TURNS, ceil(len(self._delivering) / BEATS))
            await asyncio.sleep(HEARTBEAT_S / turns)
            count = min(BEATS, ceil(len(self._delivering) / turns))  # many may have come meanwhile
            for outlet in list(islice(self._delivering, count)):
                self._delivering.move_to_end(outlet)
                if not outlet.is_full:
                    outlet.write(frame)

    async def send_stuck_away(self) -> None:
        """Close outlets that take nothing for long, for ever."""
        while True:
            await asyncio.sleep(LOOK_FOR_STUCK_S)
            limit_s = time.monotonic() - STUCK_LIMIT_S
            for outlet, viewer in list(self._delivering.items()):
                if viewer.behind_since_s < limit_s:
                    outlet.close(TRY_AGAIN)

    async def _in_turns(self, rooms: Iterable[OpenRoom]) -> AsyncGenerator[OpenRoom, None]:
        """Of these rooms, a few at a time, those that are still open when their turn comes."""
        for number, opened in enumerate(list(rooms), 1):
            if self._rooms.get(opened.run) is opened:
                yield opened
            if number % ROOMS_SHOWN == 0:
                await asyncio.sleep(0)


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
        tick_s = 1 / frames_per_second if frames_per_second else 0
        sources = Sources(
            journal=journal, projects=projects, engine=engine, rendering=rendering, tick_s=tick_s
        )
        hub = Hub(sources, max_viewers=max_viewers, group=group)
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
