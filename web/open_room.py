"""A room at work: its reader brings what happens in the run, and its viewers are written what they are due.

Where the server takes finished frames (`shared_frames.py`), they are written to all viewers at once, the same
bytes, and no task is woken. Elsewhere each viewer's task asks for the next one.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from initializer.engines.engine import Engine
from initializer.errors import InitializerError
from initializer.journal.journal import Journal, JournalRewritten, JournalUnavailable
from initializer.model.events import Event, EventId, is_final
from initializer.model.progress import IndexGap, Progress
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects, Standing
from web.languages import Language
from web.rendering import Rendering
from web.room import Outlet, Room, RunView, Viewer
from web.shared_frames import encode_text

__all__ = ["TRY_AGAIN", "OpenRoom", "Sources", "WatchBroken"]

AHEAD_LIMIT_S = 10
"""How long a page that shows more than the journal has waits for its owner to make it whole again."""
EVENTS_WRITTEN = 16
"""How many events are written at once where each has a frame: well below what a connection may hold."""
EVENTS_SHOWN = 64
"""How many events are shown before the event loop gets its turn where each has a frame: a millisecond."""
FOLD_EVENTS = 1000
"""How many events of a long journal are folded before the event loop gets its turn: some milliseconds."""
RETRY_S = 1

NORMAL, TRY_AGAIN = 1000, 1013

log = structlog.get_logger()


class WatchBroken(InitializerError):
    """The room's reader broke off; the viewer is to come back and read anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What rooms are filled from, and how often they show it; with 0 `tick_s` each event gets a frame."""

    journal: Journal
    projects: Projects
    engine: Engine
    rendering: Rendering
    tick_s: float


class OpenRoom:
    """The room of a run, with its reader. `places` counts its viewers, and who waits for the first reading.

    `on_over` is called when nobody else is to be let in: it has ended or broken off.
    """

    reader: asyncio.Task[None]

    def __init__(self, row: ProjectRow, sources: Sources, *, on_over: Callable[["OpenRoom"], None]) -> None:
        self.run = row.project.id
        self.room = self._room_of(row, sources)
        self.places = 0
        self._row, self._sources, self._on_over = row, sources, on_over
        self._is_broken = False
        self._has_frame_each = False
        self._first_reading: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._encoded = ("", b"")

    @property
    def is_read(self) -> bool:
        """Whether it has been read for the first time, or never will be."""
        return self._first_reading.done()

    # Its viewers

    async def enter(
        self,
        *,
        after: EventId,
        besides: str = "",
        language: Language = Language.ENGLISH,
        outlet: Outlet | None = None,
    ) -> Viewer:
        """A viewer, once the room has been read. One that is ahead is shown what there is after a while."""
        await asyncio.shield(self._first_reading)
        viewer = self.room.attach(after=after, besides=besides, language=language, outlet=outlet)
        if self.room.is_ahead(viewer):
            loop = asyncio.get_running_loop()
            viewer.waiting = loop.call_later(AHEAD_LIMIT_S, self._wait_no_longer, viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A viewer has left."""
        self.room.detach(viewer)
        if viewer.waiting is not None:
            viewer.waiting.cancel()

    def catch_up(self, viewer: Viewer, outlet: Outlet) -> None:
        """Write what a viewer misses that has just come, or drained."""
        if self._is_broken:
            outlet.close(TRY_AGAIN)
        elif (frame := self.room.catch_up(viewer)) is not None:
            outlet.write(self._encode(frame))
            if self.room.is_over:
                outlet.close(NORMAL)

    async def frames(self, viewer: Viewer) -> AsyncGenerator[str, None]:
        """What a viewer without an outlet is to be sent, the last one last. Raises `WatchBroken`."""
        while True:
            await viewer.woken.wait()
            viewer.woken.clear()
            if self._is_broken:
                raise WatchBroken("the journal could not be followed")
            while (frame := self.room.next_frame(viewer)) is not None:
                is_last = self.room.is_over  # before it is sent: the end may come meanwhile
                yield frame
                if is_last:
                    return

    def _wait_no_longer(self, viewer: Viewer) -> None:
        if not self.room.is_ahead(viewer):
            return
        viewer.ahead = None
        if viewer.outlet is None:
            viewer.woken.set()
        else:
            self.catch_up(viewer, viewer.outlet)

    # Its reader

    async def read(self) -> None:
        """Keep the room current until its run ends."""
        try:
            following = self._sources.journal.follow(
                self.run, interval_s=self._sources.tick_s, at_once=self._take
            )
            async with aclosing(following):
                async for events in following:
                    await self._take_in_turn(events)
                    if self.room.progress.status.is_final:
                        await self._end_patiently()
                        if self.room.is_over:
                            break
                    del events  # as the journal has let go of them
        except (JournalUnavailable, JournalRewritten, IndexGap) as error:
            log.warning("viewers sent away", project=self.run, error=str(error))
            self.break_off()
        except Exception:
            log.exception("reader of a room broke off", project=self.run)
            self.break_off()

    def _take(self, events: list[Event]) -> bool:
        """Show what comes while the reader waits for it; what ends the run, or is much, is for the reader."""
        if is_final(events[-1]) or len(events) > self._most_at_once:
            return False
        try:
            self._receive(events)
            self.show()
        except Exception:
            self._give_up()
        return True

    def _give_up(self) -> None:
        """It cannot be shown: no other room suffers."""
        log.exception("room broke off", project=self.run)
        self.break_off()
        self.reader.cancel()

    async def _take_in_turn(self, events: list[Event]) -> None:
        """Show what there is, at first maybe a long journal."""
        size = self._most_at_once
        for start in range(0, len(events), size):
            if start:
                await asyncio.sleep(0)
            self._receive(events[start : start + size])
        if not self.is_read:
            self.room.expect(self._row, self._sources.engine.position(self.run))
            self.room.interrupt(self._sources.journal.is_away)  # as the page that came in has it
        self.show()
        self._let_in()

    def _receive(self, events: list[Event]) -> None:
        if self._has_frame_each:
            for start in range(0, len(events), EVENTS_WRITTEN):
                self._show_each(events[start : start + EVENTS_WRITTEN])
        else:
            self.room.receive(events)

    @property
    def _most_at_once(self) -> int:
        """How many events are taken in before the event loop gets its turn."""
        return EVENTS_SHOWN if self._has_frame_each else FOLD_EVENTS

    def _let_in(self) -> None:
        """It has been read: nobody needs to wait any more."""
        if not self.is_read:
            self._has_frame_each = not self._sources.tick_s
            self._first_reading.set_result(None)

    # What it shows

    def move(self, position: int | None) -> None:
        """Show the run's place in the queue."""
        self.room.move(position)
        self._show_alone()

    def interrupt(self, is_interrupted: bool) -> None:
        """Show that the journal does not answer, or answers again."""
        if self.room.interrupt(is_interrupted):
            self._show_alone()

    def _show_alone(self) -> None:
        try:
            self.show()
        except Exception:
            self._give_up()

    def show(self) -> None:
        """Show what has come, and write it to whoever takes it."""
        self.room.tick()
        self._encoded = "", b""
        for frame, outlets in self.room.due(time.monotonic()):
            encoded = encode_text(frame)
            for outlet in outlets:
                outlet.write(encoded)
            if self.room.is_over:
                for outlet in outlets:
                    outlet.close(NORMAL)

    def _show_each(self, events: Sequence[Event]) -> None:
        """Show events one by one; the frames that they make are written to each outlet in one go."""
        writes: defaultdict[Sequence[Outlet], list[bytes]] = defaultdict(list)
        for event in events:
            self.room.receive((event,))
            self.room.tick()
            for frame, outlets in self.room.due(time.monotonic()):
                writes[outlets].append(encode_text(frame))
        for outlets, frames in writes.items():
            written = b"".join(frames)
            for outlet in outlets:
                outlet.write(written)

    def _encode(self, frame: str) -> bytes:
        """A message as one WebSocket frame, encoded once for all that get it one after the other."""
        if frame is not self._encoded[0]:
            self._encoded = frame, encode_text(frame)
        return self._encoded[1]

    # Its end

    async def check(self, standing: Standing) -> None:
        """End it where its row is final, or say that its run waits for another try.

        Where row or summary cannot be used, no other room suffers: those that are still to be checked wait
        for this one, so a row that cannot be read is left to the next check.
        """
        if not standing.status.is_final and not self.room.misses_wait(standing):
            return
        try:
            await self._end()
        except DatabaseUnavailable as error:
            log.warning("summary not read", project=self.run, error=str(error))
        except Exception:
            log.exception("page not ended", project=self.run)
            self.break_off()

    def break_off(self) -> None:
        """Send the viewers away, to come back and read anew."""
        self._on_over(self)
        self._is_broken = True
        self._let_in()
        self.room.wake()
        for viewer in self.room.viewers:
            if viewer.outlet is not None:
                viewer.outlet.close(TRY_AGAIN)

    async def _end(self) -> None:
        """Send everyone the summary, read from the row; where that waits for another try, say so.

        Raises `DatabaseUnavailable`.
        """
        row = await self._sources.projects.get(self.run)
        if row is None or self.room.is_over:
            return
        if not row.status.is_final:
            self.room.expect(row, self._sources.engine.position(self.run))
            self.show()
            return
        rendering = self._sources.rendering
        self.room.end({each: rendering.speaking(each).last_frame(row) for each in Language})
        self.show()
        self._on_over(self)

    async def _end_patiently(self) -> None:
        """The same for the room's reader, which has nothing else to do, until the row can be read."""
        while not self.room.is_over:
            try:
                await self._end()
            except DatabaseUnavailable as error:
                log.warning("summary not read", project=self.run, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    @staticmethod
    def _room_of(row: ProjectRow, sources: Sources) -> Room:
        progress = Progress.waiting(row.project.parameters.pipeline)
        view = RunView(progress=progress, position=sources.engine.position(row.project.id))

        def render(shown: RunView, after: EventId, language: Language) -> str:
            return sources.rendering.speaking(language).frame(row.project, shown, after=after)

        return Room(view, render)
