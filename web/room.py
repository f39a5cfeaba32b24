"""A room: the viewers of one run in this process, and what each of them is to be sent next."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from initializer.model.events import Event, EventId, attempt_of
from initializer.model.progress import Progress, Status, advance_all, awaiting
from initializer.projects.projects import ProjectRow, Standing
from web.languages import Language

__all__ = ["Outlet", "Room", "RunView", "Viewer"]


MAX_SHARED_FRAMES = 32
"""How many frames to what is shown are kept to be shared: pages that come back may have seen anything."""


class RunView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that a panel shows: the progress, and for a waiting run its place in the queue, from 1."""

    progress: Progress
    position: int | None = None
    is_interrupted: bool = False
    """Whether the journal does not answer, so that the run may have gone on unseen."""

    @classmethod
    def of(cls, progress: Progress, row: ProjectRow, position: int | None) -> "RunView":
        """What is shown of a fold. Where the row asks for another try since, the run waits for that.

        So it does where the journal has lost the end of the try before.
        """
        if row.attempt > progress.attempt > 0 and (progress.status.is_final or row.status is Status.PENDING):
            progress = awaiting(progress, row.reason)
        return cls(progress=progress, position=position if progress.is_waiting else None)

    @property
    def besides(self) -> str:
        """What it shows that no event has told, in words; mostly empty.

        A page says it when it comes back. Else a line that is not true any more would stay on it until the
        next event, which may be minutes away.
        """
        waiting = f"waiting-{self.position}" if self.progress.is_waiting else ""
        if not self.is_interrupted:
            return waiting
        return f"interrupted-{waiting}" if waiting else "interrupted"


Shown = tuple[EventId, str]
"""What one page shows of a view: up to which event, and what besides (`RunView.besides`)."""
RenderFrame = Callable[[RunView, EventId, Language], str]
"""What changed in a view since an event, as HTML in a language; since none, the whole panel."""


class Outlet(Protocol):
    """A connection that takes finished frames, without waiting."""

    is_full: bool
    """Whether more waits for the connection than should."""

    def keep(self, *, on_drained: Callable[[], object], on_closed: Callable[[], object]) -> None:
        """Let the connection last when the app's call for it returns. What the peer says is dropped.

        `on_drained` is called each time it is no longer full; `on_closed` once, after the call has returned:
        when it is closed from either side, or was so before.
        """

    def write(self, frames: bytes) -> None:
        """Send whole frames; a connection that is closing, or gone, takes none."""

    def close(self, code: int) -> None:
        """Say goodbye behind all that was written."""


class Viewer:
    """One open page. `seen` is what it shows, None as long as that is unknown.

    `ahead` is what it shows where the room has yet to learn of its last event. One without an outlet asks
    for its frames. Of one that keeps level, the room knows what it has seen.
    """

    def __init__(
        self,
        seen: Shown | None,
        language: Language,
        outlet: Outlet | None = None,
        *,
        ahead: Shown | None = None,
    ) -> None:
        self.seen = seen
        self.ahead = ahead
        self.language = language
        self.outlet = outlet
        self.behind_since_s = math.inf
        """When it was first passed over because its outlet was full, by a monotonic clock."""
        self.waiting: asyncio.TimerHandle | None = None
        """What ends its waiting, where it is ahead."""
        if outlet is None:
            self.woken = asyncio.Event()
            self.woken.set()


class Room:
    """Decides what is sent; does no input or output, and holds no queue.

    What viewers are shown advances with `tick`. Then what is `due` is written, the same frame to all that
    keep level. One whose outlet is full is passed over, and when it has drained, `catch_up` gives it one
    frame for all that it missed. A viewer without an outlet asks for its `next_frame` when it has sent the
    last one. So whoever is slow gets fewer, newer frames. Viewers of one language that have seen the same
    share one frame.

    A viewer that is ahead waits: the journal has lost what it shows, its owner adds that again, and no page
    is to see a run go back.
    """

    def __init__(self, view: RunView, render_frame: RenderFrame) -> None:
        self.progress = view.progress
        """The fold: where the run stands, shown or not yet."""
        self.shown = view
        self.last_frames: Mapping[Language, str] = {}
        self._latest = view
        self._row: ProjectRow | None = None
        self._render_frame = render_frame
        self._frames: dict[tuple[EventId, Language], str] = {}  # to `shown`, from the event that was seen
        self._viewers: dict[Viewer, None] = {}  # in order of their coming
        self._asking: dict[Viewer, None] = {}  # those without an outlet
        self._level: defaultdict[Language, dict[Viewer, Outlet]] = defaultdict(dict)  # have seen `_told`
        self._ahead: dict[Viewer, Outlet] = {}
        self._position: Shown = view.progress.tail, view.besides
        self._told = self._position

    @property
    def is_over(self) -> bool:
        """Whether the next frame of everyone is the last."""
        return bool(self.last_frames)

    @property
    def viewers(self) -> Collection[Viewer]:
        """Who watches, in order of their coming."""
        return self._viewers

    def attach(
        self,
        *,
        after: EventId,
        besides: str = "",
        language: Language = Language.ENGLISH,
        outlet: Outlet | None = None,
    ) -> Viewer:
        """A new viewer that shows the events up to `after`; where those were others, it gets all.

        `besides` is what it shows that no event has told (`RunView.besides`).
        """
        progress, shown = self.shown.progress, (after, besides)
        viewer = Viewer(
            shown if progress.holds(after) or shown == self._position else None,
            language,
            outlet,
            ahead=shown if progress.lacks(after) else None,
        )
        self._viewers[viewer] = None
        if outlet is None:
            self._asking[viewer] = None
        return viewer

    def is_ahead(self, viewer: Viewer) -> bool:
        """Whether the viewer waits for the journal to have again what it shows.

        Nobody adds again what the journal has lost of a try, where the row waits for the next one.
        """
        if viewer.ahead is None or viewer not in self._viewers:
            return False
        event, row = viewer.ahead[0], self._row
        is_given_up = row is not None and row.status is Status.PENDING and attempt_of(event) < row.attempt
        return not is_given_up and self.shown.progress.lacks(event)

    def detach(self, viewer: Viewer) -> None:
        """The viewer has left."""
        self._viewers.pop(viewer, None)
        self._asking.pop(viewer, None)
        self._ahead.pop(viewer, None)
        self._level[viewer.language].pop(viewer, None)

    def receive(self, events: Sequence[Event]) -> None:
        """Take in what happened; events that are known already are passed over. Raises `IndexGap`."""
        known = self.progress.index
        if events and events[0].index <= known:
            events = [event for event in events if event.index > known]
        self.progress = advance_all(self.progress, events)
        self._latest = self._view(self._latest.position)

    def expect(self, row: ProjectRow, position: int | None) -> None:
        """What the row asked for when it was read: maybe another try than the one whose end is shown."""
        self._row = row
        self._latest = self._view(position)

    def move(self, position: int | None) -> None:
        """The run waits at this place in the queue."""
        if self._latest.progress.is_waiting:
            self._latest = self._view(position)

    def misses_wait(self, standing: Standing) -> bool:
        """Whether the row says that the run waits, for another try, and the room does not know of that one.

        It may show that the run waits, and for an earlier try: what the journal tells of that next would be
        shown as if the run went on.
        """
        if standing.status is not Status.PENDING:
            return False
        is_known = self._row is not None and self._row.attempt >= standing.attempt
        return not (is_known and self._latest.progress.is_waiting)

    @property
    def is_interrupted(self) -> bool:
        """Whether it has been told that the journal does not answer."""
        return self._latest.is_interrupted

    def interrupt(self, is_interrupted: bool) -> bool:
        """The journal does not answer, or answers again; gives whether that is to be shown."""
        if is_interrupted is self.is_interrupted:
            return False
        self._latest = msgspec.structs.replace(self._latest, is_interrupted=is_interrupted)
        return True

    def tick(self) -> None:
        """Show what has come since the last tick."""
        if self.shown is not self._latest:
            self.shown = self._latest
            self._position = self.shown.progress.tail, self.shown.besides
            self._frames.clear()
            self.wake()

    def end(self, last_frames: Mapping[Language, str]) -> None:
        """The run is over, and these are the last frames for everyone, one in each language."""
        self.last_frames = last_frames
        self.wake()

    def next_frame(self, viewer: Viewer) -> str | None:
        """What the viewer is to be sent now; None where it has seen all that is shown."""
        if self.is_over:
            return self.last_frames[viewer.language]
        if self.is_ahead(viewer):
            return None
        if viewer.ahead is not None:
            if self.shown.progress.holds(viewer.ahead[0]):
                viewer.seen = viewer.ahead
            viewer.ahead = None
        if viewer.seen == self._position:
            return None
        after = viewer.seen[0] if viewer.seen else ""
        viewer.seen = self._position
        return self._frame(after, viewer.language)

    def catch_up(self, viewer: Viewer) -> str | None:
        """The next frame of a viewer that has come, or whose outlet has drained; from now on it keeps level.

        None where it did all the time, or is ahead still. All that was due has been written.
        """
        assert viewer.outlet is not None
        if self.is_ahead(viewer) and not self.is_over:
            self._ahead[viewer] = viewer.outlet
            return None
        if viewer in self._level[viewer.language]:
            return None
        viewer.behind_since_s = math.inf
        self._ahead.pop(viewer, None)
        if not self.is_over:
            self._level[viewer.language][viewer] = viewer.outlet
        return self.next_frame(viewer)

    def due(self, now_s: float) -> Sequence[tuple[str, Sequence[Outlet]]]:
        """What is to be written now, and where; a viewer whose outlet is full falls behind."""
        told, self._told = self._told, self._position
        if told == self._told and not self.is_over:
            return []
        due: list[tuple[str, Sequence[Outlet]]] = []
        for language, level in self._level.items():
            for viewer in [viewer for viewer, outlet in level.items() if outlet.is_full]:
                viewer.seen, viewer.behind_since_s = told, now_s
                del level[viewer]
            if level:
                frame = (
                    self.last_frames[language]
                    if self.is_over
                    else self._render_frame(self.shown, told[0], language)  # whoever comes saw something else
                )
                due.append((frame, tuple(level.values())))
        if self.is_over:
            self._level.clear()
        if self._ahead:
            behind = ((self.catch_up(viewer), outlet) for viewer, outlet in list(self._ahead.items()))
            due += [(missed, (outlet,)) for missed, outlet in behind if missed is not None]
        return due

    def _view(self, position: int | None) -> RunView:
        if self._row is not None:
            view = RunView.of(self.progress, self._row, position)
        else:
            view = RunView(progress=self.progress, position=position if self.progress.is_waiting else None)
        # What comes meanwhile may come from another way than the one that is interrupted.
        return msgspec.structs.replace(view, is_interrupted=True) if self.is_interrupted else view

    def _frame(self, after: EventId, language: Language) -> str:
        key = (after, language)
        if key not in self._frames:
            if len(self._frames) == MAX_SHARED_FRAMES:
                del self._frames[next(iter(self._frames))]
            self._frames[key] = self._render_frame(self.shown, after, language)
        return self._frames[key]

    def wake(self) -> None:
        """Have every viewer that asks for its frames look again."""
        for viewer in self._asking:
            viewer.woken.set()
