"""A room: the viewers of one run in this process, and what each of them is to be sent next."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from initializer.model.events import Event, EventId
from initializer.model.progress import Progress, advance
from web.languages import Language

__all__ = ["Room", "RunView", "Viewer"]


MAX_SHARED_FRAMES = 32
"""How many frames to what is shown are kept to be shared: pages that come back may have seen anything."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """All that a panel shows: the progress, and for a waiting run its place in the queue, from 1."""

    progress: Progress
    position: int | None = None


RenderFrame = Callable[[RunView, EventId, Language], str]
"""What changed in a view since an event, as HTML in a language; since none, the whole panel."""


class Viewer:
    """One open page. `seen` is the event and the position it shows, None as long as that is unknown."""

    def __init__(self, seen: tuple[EventId, int | None] | None, language: Language) -> None:
        self.seen = seen
        self.language = language
        self.woken = asyncio.Event()
        self.woken.set()


class Room:
    """Decides what is sent; does no input or output, and holds no queue.

    What viewers are shown advances with `tick`. A viewer asks for its next frame when it has sent the last
    one, so a slow one gets fewer, newer frames. Viewers of one language that have seen the same share one
    frame.
    """

    def __init__(self, view: RunView, render_frame: RenderFrame) -> None:
        self.shown = view
        self.last_frames: Mapping[Language, str] = {}
        self._latest = view
        self._render_frame = render_frame
        self._frames: dict[tuple[EventId, Language], str] = {}  # to `shown`, from the event that was seen
        self._viewers: set[Viewer] = set()

    @property
    def progress(self) -> Progress:
        """Where the run stands, shown or not yet."""
        return self._latest.progress

    @property
    def is_over(self) -> bool:
        """Whether the next frame of everyone is the last."""
        return bool(self.last_frames)

    def attach(self, *, after: EventId, language: Language = Language.ENGLISH) -> Viewer:
        """A new viewer that shows the events up to `after`; where that cannot be, it gets all."""
        viewer = Viewer((after, None) if self.shown.progress.holds(after) else None, language)
        self._viewers.add(viewer)
        return viewer

    def detach(self, viewer: Viewer) -> None:
        """The viewer has left."""
        self._viewers.discard(viewer)

    def receive(self, events: Sequence[Event]) -> None:
        """Take in what happened; events that are known already are passed over. Raises `IndexGap`."""
        progress = self.progress
        for event in events:
            if event.index > progress.index:
                progress = advance(progress, event)
        position = None if progress.index else self._latest.position
        self._latest = RunView(progress=progress, position=position)

    def move(self, position: int | None) -> None:
        """The run waits at this place in the queue."""
        if not self.progress.index:
            self._latest = RunView(progress=self.progress, position=position)

    def tick(self) -> None:
        """Show what has come since the last tick."""
        if self.shown is not self._latest:
            self.shown = self._latest
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
        now_shown = (self.shown.progress.tail, self.shown.position)
        if viewer.seen == now_shown:
            return None
        after = viewer.seen[0] if viewer.seen else ""
        viewer.seen = now_shown
        key = (after, viewer.language)
        if key not in self._frames:
            if len(self._frames) == MAX_SHARED_FRAMES:
                del self._frames[next(iter(self._frames))]
            self._frames[key] = self._render_frame(self.shown, after, viewer.language)
        return self._frames[key]

    def wake(self) -> None:
        """Have every viewer look again."""
        for viewer in self._viewers:
            viewer.woken.set()
