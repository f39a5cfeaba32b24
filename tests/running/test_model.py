"""Two and more attempts, a journal that forgets and a network that swallows answers, a row, three viewers.

Only the pure cores run here: `Execution`, `Outbox`, `Ownership`, `Room`. What is around them is as bad as the
design allows; design 4.2, 4.3 and 5 say what has to hold all the same.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from initializer.model.events import Completed, Event, EventId, Failed, Reason, attempt_of, index_of, is_final
from initializer.model.execution import Execution
from initializer.model.progress import Progress, Status, fold
from initializer.running.outbox import Outbox, Refusal
from initializer.running.ownership import Decision, Ownership
from model.runs import PIPELINE, at
from web.languages import Language
from web.room import Room, RunView, Viewer

CHOICES = st.integers(0, 99)


class Refused(Exception):
    def __init__(self, tail: EventId | None) -> None:
        super().__init__(tail)
        self.tail = tail


class World:
    """The journal, the row, and what time it is."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.attempt = 0
        self.status = Status.INITIALIZING
        self.second = 0

    def append(self, expected: EventId | None, events: Sequence[Event]) -> None:
        tail = self.events[-1].id if self.events else None
        if tail != expected:
            raise Refused(tail)
        self.events.extend(events)

    def finish(self, attempt: int, status: Status) -> bool:
        """What `Projects.finish` does."""
        if attempt != self.attempt or (self.status.is_final and self.status is not status):
            return False
        self.status = status
        return True


class Writer:
    """One attempt, with its decisions made by hand instead of by a loop."""

    def __init__(self, world: World, reason: Reason) -> None:
        self.world, self.reason = world, reason
        self.attempt = world.attempt
        self.is_stopped = self.is_over = False
        self.begin()

    def begin(self) -> None:
        """As `Runner` does, at first and whenever the journal holds what this attempt has not seen."""
        history = list(self.world.events)
        self.execution = Execution(fold(PIPELINE, history))
        self.outbox = Outbox(attempt=self.attempt, history=history)
        self.ownership = Ownership(attempt=self.attempt, lease_s=math.inf, now=0)
        self.is_over = self.attempt == self.world.attempt and self.world.status.is_final
        if self.is_over:  # it was late with the events, not with the row
            is_active = self.world.status is Status.ACTIVE
            self.put(Completed(at=self.now) if is_active else Failed(at=self.now, step="", error="no"))
        else:
            self.put(self.execution.start(self.reason, self.now))

    @property
    def now(self) -> datetime:
        self.world.second += 1
        return at(self.world.second)

    def put(self, event: Event) -> None:
        self.take(self.outbox.put(event))

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            self.execution.advance(event)

    def go_on(self, choice: int) -> None:
        """The next thing that the run does."""
        execution = self.execution
        spec = execution.next_step
        if spec is None:
            self.end()
        elif execution.progress.current is None:
            self.put(execution.start_step(spec, self.now))
        elif choice < 40:
            self.outbox.log(spec.name, f"line {choice} of attempt {self.attempt}")
        elif choice < 70:
            self.outbox.report(execution.report(spec.name, choice, "", None, self.now))
        elif choice < 95:
            self.take(self.outbox.end_step(spec.name, self.now))
            self.put(execution.complete_step(spec, duration_ms=1, outputs={spec.name: choice}, at=self.now))
        else:
            self.put(execution.fail_step(spec, duration_ms=1, error="no", at=self.now))

    def end(self) -> None:
        """The row before the final event."""
        if not self.execution.progress.is_saving:
            self.put(self.execution.save(self.now))
        elif self.world.finish(self.attempt, self.execution.outcome):
            self.put(self.execution.finish(self.now))
            self.is_over = True
        else:
            self.is_stopped = True

    def send(self, fate: str) -> None:
        """One append; its answer may get lost, or it itself."""
        self.take(self.outbox.cut(self.now))
        expected, events = self.outbox.batch()
        if not events or fate == "never arrives":
            return
        assert self.ownership.decide(now=0) is Decision.PROCEED
        try:
            self.world.append(expected, events)
        except Refused as refused:
            self.refused(refused.tail)
        else:
            if fate == "arrives":
                self.outbox.acknowledge(events[-1].id)

    def refused(self, tail: EventId | None) -> None:
        match self.outbox.refused(tail):
            case Refusal.FENCED:
                self.is_stopped = True
            case Refusal.UNKNOWN:
                self.begin()
            case Refusal.LOST:
                self.ownership.doubted()

    def verify(self) -> None:
        """Ask the row, where the ownership is in doubt; some time may pass before what it allows is done."""
        if self.ownership.decide(now=0) is Decision.VERIFY:
            self.ownership.row_read(attempt=self.world.attempt, now=0)
        self.is_stopped = self.is_stopped or self.ownership.decide(now=0) is Decision.STOP

    @property
    def may_send(self) -> bool:
        return not self.is_stopped and self.ownership.decide(now=0) is Decision.PROCEED


class Page:
    """A browser, its connection, and the room that it is connected to."""

    def __init__(self) -> None:
        self.join(())

    def join(self, events: Sequence[Event]) -> None:
        """Load the page anew."""
        self.read = list(events)
        self.frames: dict[str, tuple[EventId, Progress]] = {}
        self.room = Room(RunView(progress=Progress.waiting(PIPELINE)), self.render)
        self.room.receive(self.read)
        self.room.tick()
        self.shown = self.room.shown.progress
        self.viewer: Viewer = self.room.attach(after=self.shown.tail)

    def render(self, view: RunView, after: EventId, _language: Language) -> str:
        name = f"{after} to {view.progress.tail}"
        self.frames[name] = (after, view.progress)
        return name

    def look(self, world: World, upto: int) -> None:
        """Take what the journal has by now, or some of it; one that was rewritten is read anew."""
        events = world.events
        common = min(len(events), len(self.read))
        if events[:common] != self.read[:common]:
            self.join(events)
            return
        fresh = events[len(self.read) : len(self.read) + upto]
        self.read += fresh
        self.room.receive(fresh)

    def draw(self) -> None:
        """The browser takes its next frame: it has to fit what it shows."""
        frame = self.room.next_frame(self.viewer)
        if frame is not None:
            after, progress = self.frames[frame]
            assert after in ("", self.shown.tail)
            self.shown = progress


class Runs(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.world.attempt = 1
        self.writers = [Writer(self.world, Reason.CREATED)]
        self.pages = [Page(), Page(), Page()]

    def writer(self, choice: int) -> Writer:
        return self.writers[choice % len(self.writers)]

    @rule(which=CHOICES, choices=st.lists(CHOICES, min_size=1, max_size=4))
    def a_run_goes_on(self, which: int, choices: list[int]) -> None:
        writer = self.writer(which)
        for choice in choices:
            if not writer.is_stopped and not writer.is_over:
                writer.go_on(choice)

    @rule(which=CHOICES, fate=st.sampled_from(["arrives", "arrives", "answer lost", "never arrives"]))
    def a_writer_appends(self, which: int, fate: str) -> None:
        writer = self.writer(which)
        writer.verify()
        if writer.may_send:
            writer.send(fate)

    @rule(which=CHOICES)
    def a_writer_that_was_stalled_appends_without_asking(self, which: int) -> None:
        writer = self.writer(which)
        if writer.may_send:
            writer.send("arrives")

    @precondition(lambda self: not self.world.status.is_final)
    @rule()
    def another_process_takes_over(self) -> None:
        self.claim(Reason.TAKEOVER)

    @precondition(lambda self: self.world.status is Status.FAILED)
    @rule(reason=st.sampled_from([Reason.RETRY, Reason.RESTART]))
    def somebody_tries_again(self, reason: Reason) -> None:
        self.world.status = Status.INITIALIZING
        self.claim(reason)

    def claim(self, reason: Reason) -> None:
        self.world.attempt += 1
        self.writers = [*self.writers[-2:], Writer(self.world, reason)]

    @rule(keep=CHOICES)
    def the_journal_forgets_its_end(self, keep: int) -> None:
        del self.world.events[keep % (len(self.world.events) + 1) :]

    @rule(which=CHOICES, upto=st.integers(1, 5))
    def a_reader_looks(self, which: int, upto: int) -> None:
        self.pages[which % 3].look(self.world, upto)

    @rule(which=CHOICES)
    def a_room_ticks(self, which: int) -> None:
        self.pages[which % 3].room.tick()

    @rule(which=CHOICES)
    def a_browser_draws(self, which: int) -> None:
        self.pages[which % 3].draw()

    @rule(which=CHOICES)
    def a_browser_comes_back_with_what_it_shows(self, which: int) -> None:
        page = self.pages[which % 3]
        page.room.detach(page.viewer)
        page.viewer = page.room.attach(after=page.shown.tail)

    @invariant()
    def indexes_have_no_holes(self) -> None:
        assert [event.index for event in self.world.events] == list(range(1, len(self.world.events) + 1))

    @invariant()
    def no_attempt_writes_behind_a_newer_one(self) -> None:
        attempts = [attempt_of(event.id) for event in self.world.events]
        assert all(before <= after for before, after in pairwise(attempts))
        assert not attempts or attempts[-1] <= self.world.attempt

    @invariant()
    def each_page_shows_the_fold_of_what_its_reader_has_read(self) -> None:
        for page in self.pages:
            assert page.room.progress == fold(PIPELINE, page.read)
            assert page.shown == fold(PIPELINE, page.read[: page.shown.index])

    @invariant()
    def nobody_sees_an_end_before_the_row_has_it(self) -> None:
        tail = self.world.events[-1] if self.world.events else None
        if tail is not None and is_final(tail) and attempt_of(tail.id) == self.world.attempt:
            assert self.world.status.is_final

    @invariant()
    def a_writers_own_fold_is_that_of_all_it_has_numbered(self) -> None:
        for writer in self.writers:
            assert writer.execution.progress.index == index_of(writer.outbox.tail or "")

    def teardown(self) -> None:
        """No more faults: the run ends, the journal is whole, and everybody sees the same."""
        if not hasattr(self, "world"):
            return
        owner = self.writers[-1]
        for _ in range(200):
            owner.verify()
            assert not owner.is_stopped
            if owner.is_over and not owner.outbox.is_unacknowledged:
                break
            if not owner.is_over:
                owner.go_on(90)
            owner.send("arrives")
        # What is acknowledged may have been lost since; only the next append would tell. Refill as it does.
        if owner.outbox.tail != (self.world.events[-1].id if self.world.events else None):
            owner.refused(self.world.events[-1].id if self.world.events else None)
            owner.verify()
            owner.send("arrives")
        self.indexes_have_no_holes()
        assert is_final(self.world.events[-1])
        whole = fold(PIPELINE, self.world.events)
        assert whole == owner.execution.progress
        assert whole.status is self.world.status
        for page in self.pages:
            page.look(self.world, len(self.world.events))
            page.room.tick()
            page.draw()
            assert page.shown == whole


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=250, stateful_step_count=60, deadline=None)
