import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from reference_page import Element, Page, parse

from initializer.engines.inline import InlineEngine
from initializer.forges.forge import Forge
from initializer.journal.file import FileJournal
from initializer.journal.journal import JournalUnavailable
from initializer.journal.memory import MemoryJournal
from initializer.model.events import (
    Completed,
    Event,
    EventId,
    Failed,
    Log,
    Reason,
    Saving,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    index_of,
)
from initializer.model.parameters import Project
from initializer.model.progress import Status, fold
from initializer.model.summary import summarise
from initializer.projects.database import DatabaseDamaged, DatabaseUnavailable, open_database
from initializer.projects.projects import ProjectRow, Projects, Standing
from initializer.running.runner import Runner
from initializer.steps.step import Step, StepContext
from model.runs import PIPELINE, at, pipeline_of, project_of
from web import hub as hub_module
from web import open_room
from web.assets import Assets, folder_of
from web.hub import Hub, open_hub
from web.languages import Language
from web.open_room import TRY_AGAIN, WatchBroken
from web.rendering import Rendering
from web.room import RunView

pytestmark = pytest.mark.anyio

RUN = "a1"
DEADLINE_S = 10
MANY = 50
STARTED = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)


class Watched(MemoryJournal):
    """A journal that counts its followers, and can be held back and broken.

    Where what comes is not taken at once, each batch waits for the reader's own turn.
    """

    is_away = False

    def __init__(self, *, is_taken_at_once: bool) -> None:
        super().__init__()
        self.is_taken_at_once = is_taken_at_once
        self.follows = self.following = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_broken = False

    async def follow(self, run: str, **options: Any) -> AsyncGenerator[list[Event], None]:
        self.follows += 1
        self.following += 1
        take = options.pop("at_once")
        if self.is_taken_at_once:
            options["at_once"] = lambda events: not self.is_broken and take(events)
        try:
            await self.gate.wait()
            async with aclosing(super().follow(run, **options)) as following:
                async for events in following:
                    if self.is_broken:
                        raise JournalUnavailable("the disk is on fire")
                    yield events
        finally:
            self.following -= 1


class Theatre:
    """A run, written by the test, and the hub that shows it."""

    def __init__(self, hub: Hub, journal: Watched, projects: Projects, engine: InlineEngine) -> None:
        self.hub, self.journal, self.projects, self.engine = hub, journal, projects, engine
        self.rendering = hub._sources.rendering
        self.events: list[Event] = []

    async def say(self, *drafts: Event, attempt: int = 1) -> None:
        tail = self.events[-1].id if self.events else None
        events = [draft.numbered(attempt, len(self.events) + n) for n, draft in enumerate(drafts, 1)]
        self.events += events
        await self.journal.append(RUN, events, expected_tail=tail)

    async def write_row(self, status: Status = Status.ACTIVE, *, attempt: int = 1, run: str = RUN) -> None:
        """The end of the run as its row has it."""
        summary = summarise(fold(PIPELINE, self.events), completed_at=at(60), digest="d")
        assert await self.projects.finish(run, attempt=attempt, status=status, summary=summary, error=None)

    async def row(self, run: str = RUN) -> ProjectRow:
        row = await self.projects.get(run)
        assert row is not None
        return row

    @asynccontextmanager
    async def watch(
        self, *, after: EventId = "", language: Language = Language.ENGLISH, run: str = RUN
    ) -> AsyncIterator["Watcher"]:
        async with self.hub.join(await self.row(run), after=after, language=language) as frames:
            yield Watcher(frames)

    def panel(self) -> str:
        return self.rendering.panel(project_of(RUN), RunView(progress=fold(PIPELINE, self.events)))


class Watcher:
    def __init__(self, frames: AsyncIterator[str]) -> None:
        self._frames = frames

    async def next(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            return await anext(self._frames)

    async def until(self, condition: Callable[[str], bool]) -> list[str]:
        frames = [await self.next()]
        while not condition(frames[-1]):
            frames.append(await self.next())
        return frames

    async def rest(self) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            return [frame async for frame in self._frames]


def shows(index: int, *, attempt: int = 1) -> Callable[[str], bool]:
    return lambda frame: f'data-event="{attempt}-{index}"' in frame


def is_summary(frame: str) -> bool:
    return "Complete log" in frame and 'hx-target="#live"' in frame


@pytest.fixture(params=[True, False], ids=["at-once", "in-turn"])
async def theatre(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Theatre]:
    monkeypatch.setattr(open_room, "RETRY_S", 0.001)
    monkeypatch.setattr(hub_module, "ROW_CHECK_S", 0.02)
    rendering = Rendering(folder_of("templates"), Assets(folder_of("static")), now=lambda: at(1000))
    journal, engine = Watched(is_taken_at_once=request.param), InlineEngine()
    async with open_database(f"sqlite:///{tmp_path}/projects.db") as database:
        projects = Projects(database)
        await projects.add(project_of(RUN), idempotency_key=RUN)
        async with open_hub(
            journal=journal, projects=projects, engine=engine, rendering=rendering, frames_per_second=1000
        ) as hub:
            yield Theatre(hub, journal, projects, engine)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - of what is inside of the hub nobody is told
            await asyncio.sleep(0)


def readers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("reader of")]


async def test_a_viewer_sees_a_run_from_where_it_is_to_its_summary(theatre: Theatre) -> None:
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    async with theatre.watch() as watcher:
        assert 'hx-target="#run"' in await watcher.next()
        await theatre.say(StepCompleted(at=at(2), step="create_repo", duration_ms=5))
        await watcher.until(shows(3))
        await theatre.say(Saving(at=at(3)))
        await theatre.write_row()
        await theatre.say(Completed(at=at(4)))
        frames = await watcher.rest()
    assert is_summary(frames[-1])
    assert frames[-1] == theatre.rendering.last_frame(await theatre.row())
    assert not any(map(is_summary, frames[:-1]))


async def test_viewers_of_each_language_share_their_frames_and_get_their_own_end(theatre: Theatre) -> None:
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    languages = [*Language, *Language]
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(theatre.watch(language=each)) for each in languages]
        english, chinese, *others = [await watcher.next() for watcher in watchers]
        assert others[0] is english
        assert others[1] is chinese
        assert "Initialising" in english
        assert "初始化中" in chinese
        await theatre.write_row()
        await theatre.say(Completed(at=at(4)))
        ends = [(await watcher.rest())[-1] for watcher in watchers]
    row = await theatre.row()
    assert ends == [theatre.rendering.speaking(each).last_frame(row) for each in languages]
    assert ends[0] != ends[1]


async def test_a_page_and_its_frames_show_the_whole(theatre: Theatre) -> None:
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    page = Page(theatre.panel())
    async with theatre.watch(after="1-2") as watcher:
        for number in range(1, 20):
            await theatre.say(Log(at=at(2), step="create_repo", first=number, lines=(f"line {number}",)))
            if number % 3 == 0:
                for frame in await watcher.until(shows(number + 2)):
                    page.apply(frame)
                assert str(page.body) == str(parse(theatre.panel()))


async def test_however_many_viewers_there_is_one_reader_of_the_journal(theatre: Theatre) -> None:
    await theatre.say(STARTED)
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(theatre.watch()) for _ in range(50)]
        frames = [await watcher.next() for watcher in watchers]
        await theatre.say(StepStarted(at=at(1), step="create_repo"))
        frames = [await watcher.next() for watcher in watchers]
        assert theatre.journal.follows == 1
        assert all(frame is frames[0] for frame in frames)
        assert len(readers()) == 1


async def test_the_room_closes_with_its_last_viewer_and_leaves_nothing(theatre: Theatre) -> None:
    await theatre.say(STARTED)
    async with theatre.watch() as staying:
        await staying.next()
        async with theatre.watch() as leaving:
            await leaving.next()
        await theatre.say(StepStarted(at=at(1), step="create_repo"))
        await staying.next()
    await until(lambda: not readers() and theatre.journal.following == 0)
    assert not theatre.hub._rooms
    assert not theatre.journal._signals._followed


async def test_who_comes_after_the_last_has_left_gets_a_new_room(theatre: Theatre) -> None:
    await theatre.say(STARTED)
    for _ in range(3):
        async with theatre.watch() as watcher:
            assert shows(1)(await watcher.next())
    assert theatre.journal.follows == 3


async def test_a_slow_viewer_gets_one_frame_for_all_that_it_missed_and_holds_up_nobody(
    theatre: Theatre,
) -> None:
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    async with theatre.watch(after="1-1") as slow, theatre.watch(after="1-1") as fast:
        for number in range(1, 31):
            await theatre.say(Log(at=at(2), step="create_repo", first=number, lines=(f"line {number};",)))
            await fast.until(shows(number + 2))
        frame = await slow.next()
        assert shows(32)(frame)
        assert all(f"line {number};" in frame for number in range(1, 31))


async def test_a_reader_that_breaks_sends_its_viewers_away_and_who_comes_back_reads_anew(
    theatre: Theatre,
) -> None:
    await theatre.say(STARTED)
    async with theatre.watch() as one, theatre.watch() as other:
        for watcher in (one, other):
            await watcher.next()
        theatre.journal.is_broken = True
        await theatre.say(StepStarted(at=at(1), step="create_repo"))
        for watcher in (one, other):
            with pytest.raises(WatchBroken):
                await watcher.rest()
        theatre.journal.is_broken = False
        async with theatre.watch() as back:
            assert shows(2)(await back.next())
    await until(lambda: not readers())
    assert not theatre.hub._rooms


async def test_a_first_reading_that_breaks_shows_nothing_that_is_not_true(theatre: Theatre) -> None:
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    theatre.journal.is_broken = True
    async with theatre.watch(after="1-2") as watcher:
        with pytest.raises(WatchBroken):
            await watcher.next()


async def test_viewers_that_come_during_the_first_reading_wait_for_it(theatre: Theatre) -> None:
    await theatre.say(STARTED)
    theatre.journal.gate.clear()

    async def first_frame() -> str:
        async with theatre.watch() as watcher:
            frame = await watcher.next()
            seen.append(frame)
            await until(lambda: len(seen) == 3)
            return frame

    seen: list[str] = []
    coming = [asyncio.create_task(first_frame()) for _ in range(3)]
    await until(lambda: bool(theatre.hub._rooms) and theatre.hub._rooms[RUN].places == 3)
    theatre.journal.gate.set()
    frames = await asyncio.gather(*coming)
    assert all(map(shows(1), frames))
    assert theatre.journal.follows == 1


async def test_viewers_that_leave_during_the_first_reading_leave_nothing(theatre: Theatre) -> None:
    theatre.journal.gate.clear()

    async def come() -> None:
        async with theatre.watch() as watcher:
            await watcher.next()

    coming = [asyncio.create_task(come()) for _ in range(3)]
    await until(lambda: bool(theatre.hub._rooms) and theatre.hub._rooms[RUN].places == 3)
    for task in coming[:2]:
        task.cancel()
    await asyncio.wait(coming[:2])
    assert theatre.hub._rooms
    coming[2].cancel()
    await asyncio.wait(coming)
    await until(lambda: not readers())
    assert not theatre.hub._rooms
    assert theatre.journal.following == 0


async def test_a_final_row_ends_the_page_whatever_the_journal_says(theatre: Theatre) -> None:
    await theatre.say(STARTED)
    async with theatre.watch() as watcher:
        await watcher.next()
        await theatre.write_row()
        assert is_summary((await watcher.rest())[-1])


async def test_a_database_that_is_away_only_delays_the_end(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    class Away(Projects):
        async def get(self, project_id: str) -> ProjectRow | None:
            nonlocal asked
            asked += 1
            if asked < 5:
                raise DatabaseUnavailable("away")
            return await super().get(project_id)

    await theatre.say(STARTED)
    async with theatre.watch() as watcher:
        await watcher.next()
        monkeypatch.setattr(theatre.projects, "get", Away(theatre.projects._database).get)
        await theatre.write_row()
        await theatre.say(Completed(at=at(4)))
        assert is_summary((await watcher.rest())[-1])
    assert asked >= 5


async def test_rows_that_cannot_be_asked_for_are_asked_for_again(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter(range(3))

    class Away(Projects):
        async def standings(self, ids: Any) -> Any:
            if next(faults, None) is not None:
                raise DatabaseUnavailable("away")
            return await super().standings(ids)

    monkeypatch.setattr(theatre.projects, "standings", Away(theatre.projects._database).standings)
    await test_a_final_row_ends_the_page_whatever_the_journal_says(theatre)


async def test_a_row_that_cannot_be_read_keeps_no_other_room_from_its_end_and_is_looked_at_again(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    class Damaged(Projects):
        async def get(self, project_id: str) -> ProjectRow | None:
            nonlocal asked
            if project_id == RUN:
                asked += 1
                raise DatabaseDamaged("a page of that row")
            return await super().get(project_id)

    await theatre.say(STARTED)
    await theatre.projects.add(project_of("other"), idempotency_key="other")
    async with theatre.watch() as watcher, theatre.watch(run="other") as other:
        for each in (watcher, other):
            await each.next()
        with monkeypatch.context() as patch:
            patch.setattr(theatre.projects, "get", Damaged(theatre.projects._database).get)
            await theatre.write_row()
            await until(lambda: asked > 0)
            await theatre.write_row(run="other")
            assert is_summary((await other.rest())[-1])
        assert is_summary((await watcher.rest())[-1])


async def test_a_summary_that_cannot_be_shown_sends_its_viewers_away_and_harms_no_other_room(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(row: ProjectRow) -> str:
        raise ValueError(row)

    await theatre.say(STARTED)
    async with theatre.watch() as watcher:
        await watcher.next()
        with monkeypatch.context() as patch:
            patch.setattr(theatre.rendering, "last_frame", broken)
            await theatre.write_row()
            with pytest.raises(WatchBroken):
                await watcher.rest()
    async with theatre.watch() as watcher:
        assert is_summary((await watcher.rest())[-1])


async def test_who_comes_when_others_still_look_at_the_end_gets_a_room_of_its_own(theatre: Theatre) -> None:
    await theatre.say(STARTED)
    async with theatre.watch() as watcher:
        await watcher.next()
        row = await theatre.row()
        await theatre.write_row()
        await theatre.say(Completed(at=at(4)))
        await watcher.rest()
        assert not theatre.hub._rooms
        async with theatre.hub.join(row, after="") as frames:
            assert is_summary((await Watcher(frames).rest())[-1])
    assert theatre.journal.follows == 2


async def test_a_waiting_run_shows_its_place_in_line_as_it_moves(theatre: Theatre) -> None:
    for run in ("x1", "x2", RUN):
        row = ProjectRow(project=project_of(run), status=Status.INITIALIZING, attempt=1)
        await theatre.engine.submit(row, reason=Reason.CREATED)
    async with theatre.watch() as watcher:
        assert "number 3 in line" in await watcher.next()
        for place in (2, 1):
            begin_first(theatre)
            await watcher.until(lambda frame, place=place: f"number {place} in line" in frame)  # type: ignore[misc]
        await theatre.say(STARTED)
        await watcher.until(shows(1))


class Window:
    """An outlet that takes everything, and keeps what was written last, and in which turn."""

    is_full = False

    def __init__(self, turn: Callable[[], int]) -> None:
        self._turn = turn
        self.frame, self.turn = b"", 0
        self.closed_with: int | None = None
        self.on_closed: Callable[[], object]

    def keep(self, *, on_drained: Callable[[], object], on_closed: Callable[[], object]) -> None:
        self.on_closed = on_closed

    def write(self, frames: bytes) -> None:
        self.frame, self.turn = frames, self._turn()

    def close(self, code: int) -> None:
        self.closed_with = code

    def shows_place(self, place: int) -> bool:
        return f"number {place} in line".encode() in self.frame


@asynccontextmanager
async def many_waiting(theatre: Theatre) -> AsyncIterator[list[Window]]:
    """Windows on many runs that wait in line, in its order, while others want their turns too."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    windows = [Window(lambda: turns) for _ in range(MANY)]
    working = asyncio.create_task(others())
    for number, window in enumerate(windows, 1):
        row = ProjectRow(project=project_of(f"x{number}"), status=Status.INITIALIZING, attempt=1)
        await theatre.engine.submit(row, reason=Reason.CREATED)
        await theatre.hub.deliver(row, window, after="")
    try:
        await until(lambda: all(window.shows_place(n) for n, window in enumerate(windows, 1)))
        yield windows
    finally:
        working.cancel()
        for window in windows:
            window.on_closed()


def begin_first(theatre: Theatre) -> None:
    """The first run in line begins."""
    theatre.engine._waiting.popleft()
    theatre.engine._signals.wake("positions")


def yet_to_move(windows: Sequence[Window]) -> list[int]:
    """Which runs behind the first, counted from 0, are not shown one place nearer."""
    return [place for place, window in enumerate(windows) if place and not window.shows_place(place)]


def turns_between(windows: Sequence[Window]) -> int:
    """How many turns others had between what was written first and what was written last."""
    written = [window.turn for window in windows]
    return max(written) - min(written)


async def test_when_many_move_up_in_line_others_get_their_turns_meanwhile(theatre: Theatre) -> None:
    async with many_waiting(theatre) as windows:
        begin_first(theatre)
        await until(lambda: not yet_to_move(windows))
        assert turns_between(windows) > MANY // 10


async def test_a_room_that_breaks_off_while_many_move_up_in_line_is_passed_over(theatre: Theatre) -> None:
    async with many_waiting(theatre) as windows:
        begin_first(theatre)
        await until(lambda: len(yet_to_move(windows)) < MANY - 1)
        broken = yet_to_move(windows)[-2]
        theatre.hub._rooms[f"x{broken + 1}"].break_off()
        await until(lambda: yet_to_move(windows) == [broken])
        assert windows[broken].closed_with == TRY_AGAIN


async def test_a_room_that_cannot_be_shown_while_many_move_up_in_line_breaks_off_alone(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = theatre.rendering.frame

    def break_one(project: Project, view: RunView, *, after: EventId) -> str:
        if project.id == "x3":
            raise RuntimeError("a template is broken")
        return frame(project, view, after=after)

    async with many_waiting(theatre) as windows:
        monkeypatch.setattr(theatre.rendering, "frame", break_one)
        begin_first(theatre)
        await until(lambda: yet_to_move(windows) == [2])
        assert windows[2].closed_with == TRY_AGAIN


async def test_when_many_are_told_of_their_journal_others_get_their_turns_meanwhile(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "JOURNAL_CHECK_S", 0.02)
    async with many_waiting(theatre) as windows:
        theatre.journal.is_away = True
        await until(lambda: all(b"Live data is interrupted" in window.frame for window in windows))
        assert turns_between(windows) > MANY // 10
        theatre.journal.is_away = False
        await until(lambda: all(b"in line" in window.frame for window in windows))
        assert turns_between(windows) > MANY // 10


async def fail_and_begin_again(theatre: Theatre) -> None:
    """A run that fails, and is retried before anybody has looked at its row."""
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    await theatre.say(StepFailed(at=at(2), step="create_repo", duration_ms=5, error="no"), Saving(at=at(3)))
    await theatre.write_row(Status.FAILED)
    row = await theatre.projects.begin_again(RUN, seen_attempt=1, reason=Reason.RETRY, is_owned=False)
    assert row is not None
    await theatre.engine.submit(row, reason=Reason.RETRY)
    await theatre.say(Failed(at=at(4), step="create_repo", error="no"))


async def begin(theatre: Theatre) -> None:
    """The other try begins."""
    row = await theatre.projects.claim(RUN, seen_attempt=2)
    assert row is not None
    theatre.engine._waiting.popleft()
    await theatre.say(Started(at=at(9), reason=Reason.RETRY, pipeline=PIPELINE), attempt=3)


@pytest.mark.parametrize("comes_late", [False, True])
async def test_whoever_watches_while_another_try_waits_is_shown_that_and_how_it_goes_on(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, comes_late: bool
) -> None:
    async def nothing(_runs: object) -> dict[str, Standing]:
        return {}

    monkeypatch.setattr(theatre.projects, "standings", nothing)  # the end is told by the journal alone
    if comes_late:
        await fail_and_begin_again(theatre)
    async with theatre.watch() as watcher:
        if not comes_late:
            await watcher.next()
            await fail_and_begin_again(theatre)
        frames = await watcher.until(lambda frame: "number 1 in line" in frame)
        assert 'class="run" data-state="pending"' in frames[-1]
        assert not comes_late or len(frames) == 1
        await begin(theatre)
        assert 'data-state="initializing"' in (await watcher.until(shows(6, attempt=3)))[-1]
        await theatre.say(Saving(at=at(10)), attempt=3)
        await theatre.write_row(attempt=3)
        await theatre.say(Completed(at=at(11)), attempt=3)
        assert is_summary((await watcher.rest())[-1])


async def test_whoever_missed_the_end_of_a_try_learns_from_the_row_that_another_one_waits(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_retried, standings = asyncio.Event(), theatre.projects.standings

    async def then(runs: Iterable[str]) -> Mapping[str, Standing]:
        await is_retried.wait()
        return await standings(runs)

    monkeypatch.setattr(theatre.projects, "standings", then)
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    async with theatre.watch() as watcher:
        await watcher.next()
        await theatre.write_row(Status.FAILED)  # its last event is lost, and with it what went before
        begun = await theatre.projects.begin_again(RUN, seen_attempt=1, reason=Reason.RETRY, is_owned=False)
        assert begun is not None
        is_retried.set()
        await watcher.until(lambda frame: 'class="run" data-state="pending"' in frame)


async def test_a_hub_that_closes_sends_everyone_away(tmp_path: Path, theatre: Theatre) -> None:
    await theatre.say(STARTED)
    async with AsyncExitStack() as stack:
        async with open_hub(
            journal=theatre.journal,
            projects=theatre.projects,
            engine=theatre.engine,
            rendering=theatre.rendering,
        ) as hub:
            frames = await stack.enter_async_context(hub.join(await theatre.row(), after=""))
            watcher = Watcher(frames)
            await watcher.next()
            watching = asyncio.create_task(watcher.rest())
            await asyncio.sleep(0)
        with pytest.raises(WatchBroken):
            await watching
    assert theatre.journal.following == 0


def busy_step(step_name: str, lines: int) -> Step:
    """Says a lot, a little at a time."""

    class Busy(Step):
        name, title = step_name, step_name.capitalize()

        async def run(self, context: StepContext) -> None:
            for number in range(1, lines + 1):
                context.log(f"line {number} of {step_name}")
                context.progress(number * 100 // lines, f"line {number}")
                if number % 40 == 0:
                    await asyncio.sleep(0.02)  # so that there are many ticks

    return Busy()


async def test_viewers_that_come_and_go_in_a_real_run_miss_nothing_and_see_nothing_twice(
    theatre: Theatre, tmp_path: Path
) -> None:
    """Each leaves after some frames and comes back with what its page shows, until the summary is there."""
    steps = [busy_step(name, 400) for name in ("one", "two", "three")]
    pipeline = pipeline_of(one=1, two=1, three=1)
    project = project_of("real", pipeline=pipeline)
    await theatre.projects.add(project, idempotency_key="real")
    row = await theatre.projects.get("real")
    assert row is not None
    journal = FileJournal(tmp_path / "journals")
    runner = Runner(
        journal=journal,
        projects=theatre.projects,
        steps={step.name: step for step in steps},
        forges={"local": cast(Forge, object())},
        work_folder=tmp_path / "work",
        keep_journal_for=timedelta(days=7),
    )
    shown: dict[int, str] = {}

    async def watch(number: int) -> int:
        page, tail, visits = Page(""), "", 0
        while True:
            visits += 1
            async with hub.join(row, after=tail) as frames:
                watcher = Watcher(frames)
                for _ in range(1 + (number + visits) % 5):
                    frame = await watcher.next()
                    if is_summary(frame):
                        return visits
                    if not tail:
                        page = Page('<section id="run"></section>')
                    page.apply(frame)
                    tail = str(page.body.find("run-header").attributes["data-event"])
                    index = index_of(tail)
                    assert shown.setdefault(index, looks(page.body)) == looks(page.body)

    async with open_hub(
        journal=journal,
        projects=theatre.projects,
        engine=theatre.engine,
        rendering=theatre.rendering,
        frames_per_second=1000,
    ) as hub:
        async with asyncio.timeout(3 * DEADLINE_S), asyncio.TaskGroup() as group:
            watching = [group.create_task(watch(number)) for number in range(6)]
            await runner.run(row, Reason.CREATED, asyncio.Event())
        assert max(task.result() for task in watching) > 3
        assert not hub._rooms
    events = await journal.read("real")
    assert len(shown) > 10
    for index, look in shown.items():
        view = RunView(progress=fold(pipeline, events[:index]))
        assert look == looks(parse(theatre.rendering.panel(project, view)))


def looks(page: Element) -> str:
    """What a page shows, without the steps that its user has opened, and without the state of the frame
    around it, which the summary replaces.
    """
    for element in page.walk():
        if element.tag == "details":
            element.attributes.pop("open", None)
        if element.tag == "section":
            element.attributes.pop("data-state", None)
    return str(page)


async def test_what_viewers_are_shown_is_known_without_a_look_into_the_journal(theatre: Theatre) -> None:
    assert theatre.hub.view(RUN) is None
    await theatre.say(STARTED, StepStarted(at=at(1), step="create_repo"))
    async with theatre.watch() as watcher:
        await watcher.next()
        view = theatre.hub.view(RUN)
        assert view is not None
        assert view.progress == fold(PIPELINE, theatre.events)
    assert theatre.hub.view(RUN) is None


async def test_a_long_journal_is_read_in_pieces_and_shown_at_once(theatre: Theatre) -> None:
    logs = (Log(at=at(n), step="create_repo", first=n, lines=(f"line {n}",)) for n in range(1, 3501))
    await theatre.say(STARTED, StepStarted(at=at(0), step="create_repo"), *logs)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        working = group.create_task(others())
        async with theatre.watch() as watcher:
            assert 'id="create_repo-L3500"' in await watcher.next()
        working.cancel()
    assert turns > 3
