import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initializer.model.events import (
    Event,
    EventId,
    Log,
    Reason,
    Saving,
    Started,
    StepStarted,
    index_of,
    is_final,
)
from initializer.model.progress import IndexGap, Progress, Status, fold
from initializer.projects.projects import ProjectRow, Standing
from model.runs import PIPELINE, Run, at, numbered, project_of, runs
from web.languages import Language
from web.room import MAX_SHARED_FRAMES, Room, RunView, Viewer

EVENTS: list[Event] = numbered(
    Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE),
    StepStarted(at=at(1), step="create_repo"),
    *(Log(at=at(n), step="create_repo", first=n, lines=(f"line {n}",)) for n in range(1, 9)),
)

LONG = numbered(*(Saving(at=at(n)) for n in range(200)))


LAST = {Language.ENGLISH: "the end", Language.CHINESE: "完"}


class Rendered:
    """Renders a frame as the indexes that it leads from and to, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, view: RunView, after: EventId, language: Language) -> str:
        where = f"waiting {view.position}" if view.position else str(view.progress.index)
        said = "" if language is Language.ENGLISH else f" in {language}"
        self.made.append(f"{index_of(after)} to {where}{said}")
        return self.made[-1]


def room_at(index: int, *, position: int | None = None) -> tuple[Room, Rendered]:
    rendered = Rendered()
    room = Room(RunView(progress=Progress.waiting(PIPELINE), position=position), rendered)
    show(room, index)
    assert list(room.due(0)) == []  # nobody keeps level yet
    return room, rendered


def show(room: Room, upto: int) -> None:
    room.receive(EVENTS[:upto])
    room.tick()


def test_a_new_viewer_gets_all_and_then_nothing_until_something_changes() -> None:
    room, _ = room_at(3)
    viewer = room.attach(after="")
    assert room.next_frame(viewer) == "0 to 3"
    assert room.next_frame(viewer) is None
    show(room, 4)
    assert room.next_frame(viewer) == "3 to 4"


def test_a_viewer_that_knows_the_beginning_gets_the_rest() -> None:
    room, _ = room_at(5)
    assert room.next_frame(room.attach(after="1-2")) == "2 to 5"


def test_a_viewer_that_knows_all_gets_nothing() -> None:
    room, _ = room_at(5)
    assert room.next_frame(room.attach(after="1-5")) is None


@pytest.mark.parametrize("after", ["", "0-0", "1-0", "2-3"])
def test_a_viewer_that_claims_what_cannot_be_gets_all(after: EventId) -> None:
    room, _ = room_at(5)
    assert room.next_frame(room.attach(after=after)) == "0 to 5"


def test_a_viewer_that_shows_more_than_the_journal_has_waits_until_that_has_come_again() -> None:
    room, _ = room_at(3)
    asking = room.attach(after="1-5")
    _, pipe = join(room, "1-5")
    for index in (4, 5):
        show(room, index)
        write_due(room)
        assert room.next_frame(asking) is None
    assert pipe.frames == []
    show(room, 6)
    write_due(room)
    assert room.next_frame(asking) == "5 to 6"
    assert pipe.frames == ["5 to 6"]
    show(room, 7)
    write_due(room)
    assert pipe.frames == ["5 to 6", "6 to 7"]


def test_a_viewer_that_is_ahead_is_shown_what_another_attempt_has_made_of_it() -> None:
    room, _ = room_at(3)
    asking, (_, pipe) = room.attach(after="1-9"), join(room, "1-9")
    room.receive([Started(at=at(9), reason=Reason.TAKEOVER, pipeline=PIPELINE).numbered(2, 4)])
    room.tick()
    write_due(room)
    assert room.next_frame(asking) == "0 to 4"
    assert pipe.frames == ["0 to 4"]


def test_a_viewer_that_is_ahead_is_shown_at_once_that_its_run_waits_for_another_try() -> None:
    room, _ = room_at(3)
    asking, (_, pipe) = room.attach(after="1-9"), join(room, "1-9")
    room.expect(ProjectRow(project=project_of("a1"), status=Status.PENDING, attempt=2), 1)
    room.tick()
    write_due(room)
    assert room.next_frame(asking) == "0 to waiting 1"
    assert pipe.frames == ["0 to waiting 1"]


def test_a_viewer_that_is_ahead_with_the_try_that_was_waited_for_waits_for_it_to_come() -> None:
    room, _ = room_at(3)
    room.expect(ProjectRow(project=project_of("a1"), status=Status.PENDING, attempt=2), 1)
    room.tick()
    asking, (_, pipe) = room.attach(after="2-9"), join(room, "2-9")
    write_due(room)
    assert room.next_frame(asking) is None
    assert pipe.frames == []


def test_a_viewer_that_is_ahead_sees_the_end_like_everyone() -> None:
    room, _ = room_at(3)
    asking, (_, pipe) = room.attach(after="1-9"), join(room, "1-9")
    room.end(dict.fromkeys(Language, "the end"))
    write_due(room)
    assert room.next_frame(asking) == "the end"
    assert pipe.frames == ["the end"]


def test_a_viewer_that_was_ahead_and_has_left_is_not_written_to() -> None:
    room, _ = room_at(3)
    viewer, pipe = join(room, "1-4")
    room.detach(viewer)
    show(room, 5)
    write_due(room)
    assert pipe.frames == []


def interrupted(room: Room, is_interrupted: bool) -> None:
    room.interrupt(is_interrupted)
    room.tick()


def test_a_viewer_that_comes_back_gets_a_frame_where_only_what_no_event_tells_has_changed() -> None:
    room, _ = room_at(5)
    asking, (_, pipe) = room.attach(after="1-5", besides="interrupted"), join(room, "1-5", "interrupted")
    assert room.next_frame(asking) == "5 to 5"
    assert room.next_frame(asking) is None
    assert pipe.frames == ["5 to 5"]
    write_due(room)
    assert pipe.frames == ["5 to 5"]


def test_a_viewer_that_comes_to_an_interruption_is_told_unless_it_shows_it_already() -> None:
    room, _ = room_at(5)
    interrupted(room, True)
    write_due(room)
    _, unaware = join(room, "1-5")
    _, aware = join(room, "1-5", room.shown.besides)
    assert (unaware.frames, aware.frames) == (["5 to 5"], [])
    interrupted(room, False)
    write_due(room)
    assert (unaware.frames, aware.frames) == (["5 to 5"] * 2, ["5 to 5"])


def test_what_comes_in_an_interruption_does_not_end_it() -> None:
    room, _ = room_at(3)
    interrupted(room, True)
    show(room, 5)
    assert room.shown.besides == "interrupted"
    interrupted(room, False)
    assert room.shown.besides == ""


def test_a_viewer_that_was_ahead_goes_on_from_what_else_it_shows() -> None:
    room, _ = room_at(3)
    asking, (_, pipe) = room.attach(after="1-5", besides="interrupted"), join(room, "1-5", "interrupted")
    (_, plain) = join(room, "1-5")
    show(room, 5)
    write_due(room)
    assert room.next_frame(asking) == "5 to 5"
    assert (pipe.frames, plain.frames) == (["5 to 5"], [])


def test_a_viewer_that_comes_back_to_a_run_that_has_not_begun_gets_nothing_where_nothing_is_new() -> None:
    room, _ = room_at(0, position=3)
    assert join(room, "", room.shown.besides)[1].frames == []
    assert len(join(room, "", "waiting-4")[1].frames) == 1
    assert len(join(room, "")[1].frames) == 1


def test_a_viewer_that_comes_back_to_a_queue_is_told_its_place_where_that_is_another() -> None:
    room, _ = room_at(5)
    row = ProjectRow(project=project_of("a1"), status=Status.PENDING, attempt=2, reason=Reason.RETRY)
    room.expect(row, 3)
    room.tick()
    write_due(room)
    third = room.shown.besides
    assert join(room, "1-5", third)[1].frames == []
    assert join(room, "1-5")[1].frames == ["5 to waiting 3"]
    room.move(2)
    room.tick()
    write_due(room)
    assert join(room, "1-5", third)[1].frames == ["5 to waiting 2"]


@pytest.mark.parametrize("besides", ["x" * 9999, "\0", "<b>", "waiting-", "interrupted-"])
def test_a_viewer_that_says_it_shows_what_nothing_ever_showed_gets_one_frame(besides: str) -> None:
    room, _ = room_at(5)
    assert join(room, "1-5", besides)[1].frames == ["5 to 5"]


def test_what_a_view_shows_besides_the_events_has_a_word_of_its_own_for_each_line_that_may_stand() -> None:
    waiting, running = Progress.waiting(PIPELINE), fold(PIPELINE, EVENTS)
    assert RunView(progress=running).besides == ""
    words = [
        RunView(progress=progress, position=position, is_interrupted=is_interrupted).besides
        for progress, position in ((waiting, None), (waiting, 0), (waiting, 1), (waiting, 2), (running, None))
        for is_interrupted in (False, True)
    ]
    assert len(set(words)) == len(words)


def test_viewers_that_have_seen_the_same_share_one_frame() -> None:
    room, rendered = room_at(3)
    viewers = [room.attach(after="1-2") for _ in range(100)]
    frames = [room.next_frame(viewer) for viewer in viewers]
    assert set(frames) == {"2 to 3"}
    assert all(frame is frames[0] for frame in frames)
    assert len(rendered.made) == 1


def test_viewers_of_one_language_share_a_frame_and_each_language_has_its_own() -> None:
    room, rendered = room_at(3)
    viewers = [room.attach(after="1-2", language=language) for language in Language for _ in range(50)]
    frames = [room.next_frame(viewer) for viewer in viewers]
    assert frames == ["2 to 3"] * 50 + ["2 to 3 in zh-Hans"] * 50
    assert rendered.made == ["2 to 3", "2 to 3 in zh-Hans"]
    room.end(LAST)
    assert {(viewer.language, room.next_frame(viewer)) for viewer in viewers} == set(LAST.items())


def test_a_viewer_that_comes_late_gets_a_frame_of_its_own_and_then_shares() -> None:
    room, rendered = room_at(3)
    early = room.attach(after="")
    room.next_frame(early)
    show(room, 5)
    late = room.attach(after="")
    assert [room.next_frame(early), room.next_frame(late)] == ["3 to 5", "0 to 5"]
    show(room, 6)
    assert [room.next_frame(early), room.next_frame(late)] == ["5 to 6", "5 to 6"]
    assert rendered.made.count("5 to 6") == 1


def test_a_slow_viewer_gets_one_frame_for_all_that_it_missed() -> None:
    room, rendered = room_at(2)
    slow, fast = room.attach(after="1-2"), room.attach(after="1-2")
    for upto in range(3, 9):
        show(room, upto)
        assert room.next_frame(fast) == f"{upto - 1} to {upto}"
    assert room.next_frame(slow) == "2 to 8"
    assert room.next_frame(slow) is None
    assert len(rendered.made) == 7


def test_frames_that_nobody_shares_do_not_pile_up() -> None:
    room = Room(RunView(progress=fold(PIPELINE, LONG)), Rendered())
    for _ in range(2):
        for after in range(1, len(LONG)):
            assert room.next_frame(room.attach(after=f"1-{after}")) == f"{after} to {len(LONG)}"
            assert len(room._frames) <= MAX_SHARED_FRAMES


def test_nothing_is_shown_before_the_tick() -> None:
    room, _ = room_at(2)
    viewer = room.attach(after="1-2")
    room.receive(EVENTS[:6])
    assert room.progress.index == 6
    assert room.next_frame(viewer) is None
    room.tick()
    assert room.next_frame(viewer) == "2 to 6"


def test_what_is_known_is_passed_over_and_what_is_missing_is_a_gap() -> None:
    room, _ = room_at(4)
    room.receive(EVENTS[1:6])
    assert room.progress.index == 6
    with pytest.raises(IndexGap):
        room.receive(EVENTS[7:])
    assert room.progress.index == 6


def test_a_waiting_run_moves_up_and_then_starts() -> None:
    room, _ = room_at(0, position=3)
    viewer = room.attach(after="")
    assert room.next_frame(viewer) == "0 to waiting 3"
    for position in (2, 2, 1):
        room.move(position)
        room.tick()
    assert room.next_frame(viewer) == "0 to waiting 1"
    room.move(None)
    show(room, 1)
    assert room.next_frame(viewer) == "0 to 1"


def test_a_run_that_has_begun_has_no_place_in_line_any_more() -> None:
    room, _ = room_at(0, position=1)
    show(room, 1)
    room.move(4)
    room.tick()
    assert room.shown.position is None


@pytest.mark.parametrize("reason", [Reason.RETRY, Reason.RESTART])
def test_a_run_that_waits_for_another_try_waits_though_its_journal_lost_the_end_before(
    reason: Reason,
) -> None:
    room, _ = room_at(5)
    assert not room.misses_wait(Standing(Status.INITIALIZING, 2))
    assert room.misses_wait(Standing(Status.PENDING, 2))
    room.expect(ProjectRow(project=project_of("a1"), status=Status.PENDING, attempt=2, reason=reason), 3)
    assert not room.misses_wait(Standing(Status.PENDING, 2))
    assert room.misses_wait(Standing(Status.PENDING, 4))  # what comes of 3 is not what it waits for
    show(room, 8)  # the end comes late
    assert (room.shown.progress.status, room.shown.position) == (Status.PENDING, 3)


def test_a_run_that_is_taken_over_is_not_shown_to_wait_while_its_journal_has_no_word_of_that() -> None:
    room, _ = room_at(5)
    before = room.progress
    room.expect(ProjectRow(project=project_of("a1"), status=Status.INITIALIZING, attempt=2), None)
    room.tick()
    assert room.shown.progress == before


@given(expected=st.sampled_from([Reason.RETRY, Reason.RESTART]), runs=runs())
def test_whatever_another_try_was_expected_for_it_is_shown_as_it_begins(expected: Reason, runs: Run) -> None:
    room = Room(RunView(progress=Progress.waiting(runs.pipeline)), Rendered())
    ended = next((n for n, event in enumerate(runs.events, 1) if is_final(event)), len(runs.events))
    room.receive(runs.events[:ended])
    attempt = room.progress.attempt + 1
    room.expect(
        ProjectRow(project=project_of("a1"), status=Status.PENDING, attempt=attempt, reason=expected), 1
    )
    draft = Started(at=at(99), reason=Reason.RETRY, pipeline=runs.pipeline)
    events = [*runs.events[:ended], draft.numbered(attempt + 1, ended + 1)]
    room.receive(events)
    room.tick()
    assert room.shown.progress == fold(runs.pipeline, events)


def test_the_end_is_the_last_frame_of_everyone_early_and_late() -> None:
    room, _ = room_at(4)
    viewers = [room.attach(after=""), room.attach(after="1-4")]
    room.next_frame(viewers[0])
    room.end(LAST)
    viewers.append(room.attach(after=""))
    assert [room.next_frame(viewer) for viewer in viewers] == ["the end"] * 3


def test_viewers_are_woken_by_what_is_shown_and_by_the_end() -> None:
    room, _ = room_at(2)
    viewer = room.attach(after="1-2")
    assert viewer.woken.is_set()  # it has to look once
    viewer.woken.clear()
    show(room, 3)
    assert viewer.woken.is_set()
    viewer.woken.clear()
    room.end(LAST)
    assert viewer.woken.is_set()
    viewer.woken.clear()
    room.tick()
    assert not viewer.woken.is_set()


def test_a_viewer_that_has_left_is_not_woken_again() -> None:
    room, _ = room_at(2)
    viewer = room.attach(after="")
    viewer.woken.clear()
    room.detach(viewer)
    room.detach(viewer)
    room.wake()
    assert not viewer.woken.is_set()


@settings(deadline=None)
@given(runs(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_whatever_the_order_each_frame_fits_the_page_that_gets_it(
    run: Run, happenings: list[tuple[int, int]]
) -> None:
    """Reads, ticks, draws, and pages that come back with what they show."""
    frames: dict[str, tuple[int, Progress]] = {}

    def render(view: RunView, after: EventId, _language: Language) -> str:
        name = f"{index_of(after)} to {view.progress.index}"
        frames[name] = (index_of(after), view.progress)
        return name

    room = Room(RunView(progress=Progress.waiting(run.pipeline)), render)
    viewers = [room.attach(after="") for _ in range(3)]
    pages = [Progress.waiting(run.pipeline)] * 3
    read = 0

    def draw(which: int) -> None:
        frame = room.next_frame(viewers[which])
        if frame is not None:
            after, progress = frames[frame]
            assert after in (0, pages[which].index)
            pages[which] = progress
        assert pages[which] == fold(run.pipeline, run.events[: pages[which].index])

    for what, number in happenings:
        match what:
            case 0:
                room.receive(run.events[max(0, read - 2) : read + number])
                read = max(read, min(len(run.events), read + number))
            case 1:
                room.tick()
            case 2:
                draw(number % 3)
            case _:
                room.detach(viewers[number % 3])
                viewers[number % 3] = room.attach(after=pages[number % 3].tail)
    room.receive(run.events)
    room.tick()
    for which in range(3):
        draw(which)
    assert all(before == after for before, after in pairwise(pages))
    assert pages[0] == fold(run.pipeline, run.events)


def test_saving_is_shown_like_anything_else() -> None:
    room, _ = room_at(len(EVENTS))
    viewer = room.attach(after=EVENTS[-1].id)
    room.receive(numbered(Saving(at=at(99)), first=len(EVENTS) + 1))
    room.tick()
    assert room.next_frame(viewer) == f"{len(EVENTS)} to {len(EVENTS) + 1}"


def test_a_page_whose_events_were_lost_and_written_anew_by_another_attempt_gets_all() -> None:
    room, _ = room_at(2)
    again = [Started(at=at(9), reason=Reason.TAKEOVER, pipeline=PIPELINE), *LONG[:4]]
    room.receive([event.numbered(2, index) for index, event in enumerate(again, 3)])
    room.tick()
    assert room.next_frame(room.attach(after="1-2")) == "2 to 7"
    assert room.next_frame(room.attach(after="2-5")) == "5 to 7"
    assert room.next_frame(room.attach(after="1-5")) == "0 to 7"
    assert room.next_frame(room.attach(after="2-2")) == "0 to 7"


class Pipe:
    """An outlet that a test fills and drains."""

    def __init__(self) -> None:
        self.is_full = False
        self.frames: list[str] = []
        self.codes: list[int] = []

    def keep(self, *, on_drained: Callable[[], object], on_closed: Callable[[], object]) -> None:
        """Nobody looks after this one but the test."""

    def write(self, frame: bytes) -> None:
        self.frames.append(frame.decode())

    def close(self, code: int) -> None:
        self.codes.append(code)


def write_due(room: Room, now_s: float = 0) -> None:
    for frame, outlets in room.due(now_s):
        for outlet in outlets:
            outlet.write(frame.encode())


def join(
    room: Room, after: str, besides: str = "", *, language: Language = Language.ENGLISH
) -> tuple[Viewer, Pipe]:
    pipe = Pipe()
    viewer = room.attach(after=after, besides=besides, language=language, outlet=pipe)
    catch_up(room, viewer, pipe)
    return viewer, pipe


def catch_up(room: Room, viewer: Viewer, pipe: Pipe) -> None:
    frame = room.catch_up(viewer)
    if frame is not None:
        pipe.write(frame.encode())


def test_all_that_keep_level_are_written_the_same_frame_in_one_go() -> None:
    room, rendered = room_at(2)
    joined = [join(room, "1-2") for _ in range(100)] + [join(room, "1-2", language=Language.CHINESE)]
    show(room, 3)
    assert [len(outlets) for _, outlets in room.due(0)] == [100, 1]
    assert list(room.due(0)) == []
    assert rendered.made == ["2 to 3", "2 to 3 in zh-Hans"]
    assert not any(pipe.frames for _, pipe in joined)


def test_one_whose_outlet_is_full_is_passed_over_and_then_gets_one_frame_for_all() -> None:
    room, _ = room_at(2)
    (slow, slow_pipe), (_, fast_pipe) = join(room, "1-2"), join(room, "1-2")
    slow_pipe.is_full = True
    for upto in range(3, 9):
        show(room, upto)
        write_due(room, now_s=upto)
    assert slow_pipe.frames == []
    assert slow.behind_since_s == 3
    assert fast_pipe.frames == [f"{upto - 1} to {upto}" for upto in range(3, 9)]
    slow_pipe.is_full = False
    for _ in range(2):
        catch_up(room, slow, slow_pipe)
    assert slow_pipe.frames == ["2 to 8"]
    assert slow.behind_since_s == math.inf
    show(room, 9)
    write_due(room)
    assert slow_pipe.frames[1:] == ["8 to 9"] == fast_pipe.frames[-1:]


def test_the_end_is_written_once_to_those_on_level_and_then_to_those_behind() -> None:
    room, _ = room_at(3)
    (slow, slow_pipe), (_, fast_pipe) = join(room, "1-3"), join(room, "1-3")
    slow_pipe.is_full = True
    room.end(LAST)
    for _ in range(2):
        write_due(room)
    assert (slow_pipe.frames, fast_pipe.frames) == ([], ["the end"])
    catch_up(room, slow, slow_pipe)
    _, late_pipe = join(room, "")
    write_due(room)
    assert slow_pipe.frames == late_pipe.frames == ["the end"]


def test_who_has_left_is_not_written_to() -> None:
    room, _ = room_at(2)
    viewer, pipe = join(room, "1-2")
    room.detach(viewer)
    show(room, 3)
    write_due(room)
    assert pipe.frames == []


@settings(deadline=None)
@given(runs(), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=60))
def test_whatever_fills_and_drains_each_outlet_gets_frames_that_fit_its_page(
    run: Run, happenings: list[tuple[int, int]]
) -> None:
    frames: dict[str, tuple[str, Progress]] = {}

    def render(view: RunView, after: str, _language: Language) -> str:
        name = f"{after} to {view.progress.tail}"
        frames[name] = (after, view.progress)
        return name

    room = Room(RunView(progress=Progress.waiting(run.pipeline)), render)
    joined = [join(room, "") for _ in range(3)]
    pages = [Progress.waiting(run.pipeline)] * 3
    read = 0

    def look(which: int) -> None:
        pipe = joined[which][1]
        for frame in pipe.frames:
            after, progress = frames[frame]
            assert after in ("", pages[which].tail)
            pages[which] = progress
        pipe.frames.clear()

    for what, number in [*happenings, (2, 0), (2, 1), (2, 2), (0, len(run.events)), (1, 0)]:
        which = number % 3
        viewer, pipe = joined[which]
        match what:
            case 0:
                room.receive(run.events[max(0, read - 2) : read + number])
                read = max(read, min(len(run.events), read + number))
            case 1:
                room.tick()
                write_due(room)
            case 2:
                pipe.is_full = False
                catch_up(room, viewer, pipe)
            case 3:
                pipe.is_full = True
            case _:
                look(which)
                room.detach(viewer)
                joined[which] = join(room, pages[which].tail)
    for which in range(3):
        look(which)
        assert pages[which] == fold(run.pipeline, run.events)
