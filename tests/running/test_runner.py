import asyncio
import sqlite3
import tracemalloc
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stage import DEADLINE_S, RUN, Stage, nothing, step_of
from structlog.testing import capture_logs

from initializer.journal.file import FileJournal
from initializer.journal.journal import AppendRefused, JournalDamaged, JournalUnavailable
from initializer.journal.memory import MemoryJournal
from initializer.model.events import (
    Event,
    EventId,
    Failed,
    Log,
    Progressed,
    Reason,
    Resource,
    Saving,
    Started,
    StepStarted,
    is_final,
)
from initializer.model.progress import Status
from initializer.model.summary import Summary
from initializer.projects.database import DatabaseUnavailable, open_database
from initializer.projects.projects import ProjectRow, Projects
from initializer.running import attempt as attempt_module
from initializer.running.ending import append_end
from initializer.running.failure import give_up
from initializer.running.recovery import recover
from initializer.steps.step import Outputs, Step, StepContext, StepError
from model.runs import at, numbered, project_of

pytestmark = pytest.mark.anyio


def two_steps() -> tuple[Step, Step]:
    async def first(context: StepContext) -> Outputs:
        context.progress(50, "half way", substep=("part", 10))
        context.log("a line")
        context.resource("repository", "r", "created", url="http://x/r")
        return {"made": "here"}

    async def second(context: StepContext) -> Outputs:
        return {"seen": context.outputs["made"]}

    return step_of("first", first), step_of("second", second)


class JournalInTheWay(FileJournal):
    """A real journal with something between it and its writer."""

    async def append(self, run: str, events: Sequence[Event], **options: Any) -> None:
        await self.before(events)
        await super().append(run, events, **options)
        await self.after(events)

    async def before(self, events: Sequence[Event]) -> None:
        """What happens ahead of an append."""

    async def after(self, events: Sequence[Event]) -> None:
        """What happens before its answer arrives."""


class ProjectsInTheWay(Projects):
    """The real table behind a connection that fails the first `faults` writes of an end."""

    def __init__(self, projects: Projects, *, faults: int, after: bool) -> None:
        super().__init__(projects._database)
        self.faults, self.after = faults, after

    async def finish(self, *args: Any, **values: Any) -> bool:
        fails = self.faults > 0
        self.faults -= 1
        if fails and not self.after:
            raise DatabaseUnavailable("away")
        is_mine = await super().finish(*args, **values)
        if fails:
            raise DatabaseUnavailable("the answer was lost")
        return is_mine


# A run that goes well


async def test_a_run_leaves_its_events_and_its_summary(stage: Stage) -> None:
    await stage.run(*two_steps())
    row = await stage.row()
    assert (row.status, row.error, row.attempt) == (Status.ACTIVE, None, 1)
    assert row.summary is not None
    assert [(step.step, step.status) for step in row.summary.steps] == [
        ("first", "completed"),
        ("second", "completed"),
    ]
    assert row.summary.outputs == {"made": "here", "seen": "here"}
    assert [(it.name, it.state, it.step) for it in row.summary.resources] == [("r", "created", "first")]
    assert await stage.types() == [
        "started",
        "step_started",
        "log",
        "progress",
        "resource",
        "step_completed",
        "step_started",
        "step_completed",
        "saving",
        "completed",
    ]
    assert row.summary.events == len(await stage.events()) - 1


async def test_the_row_is_written_before_the_final_event(stage: Stage) -> None:
    statuses: list[Status] = []

    class Journal(JournalInTheWay):
        async def before(self, events: Sequence[Event]) -> None:
            if any(map(is_final, events)):
                statuses.append((await stage.row()).status)

    await stage.run(*two_steps(), journal=Journal(stage.folder / "journals"))
    assert statuses == [Status.ACTIVE]


async def test_a_run_costs_one_insert_and_one_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def connect_traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    async with open_database(f"sqlite:///{tmp_path}/projects.db") as database:
        monkeypatch.setattr(sqlite3, "connect", connect_traced)
        stage = Stage(tmp_path, Projects(database))
        await stage.add(*two_steps())
        await stage.run(*two_steps())
    # (the looks whether the project is there, and how it stands then, are this test's own)
    sent = [statement.split()[0].upper() for statement in statements]
    assert [verb for verb in sent if verb not in ("BEGIN", "COMMIT", "PRAGMA", "SELECT")] == [
        "INSERT",
        "UPDATE",
    ]
    assert sent.count("SELECT") == 2


async def test_the_work_folder_is_empty_at_the_start_of_a_step_and_gone_at_the_end(stage: Stage) -> None:
    seen: list[tuple[Path, list[Path]]] = []

    async def look(context: StepContext) -> None:
        seen.append((context.work_folder, list(context.work_folder.iterdir())))
        (context.work_folder / "left").write_text("x")

    await stage.run(step_of("first", look), step_of("second", look))
    assert [content for _, content in seen] == [[], []]
    assert not any(folder.exists() for folder, _ in seen)


async def test_the_journal_of_a_run_that_is_over_is_retired(stage: Stage) -> None:
    await stage.run(*two_steps())
    assert isinstance(stage.journal, FileJournal)
    assert await stage.journal.remove_retired(datetime.now(UTC) + timedelta(days=6)) == 0
    assert await stage.journal.remove_retired(datetime.now(UTC) + timedelta(days=8)) == 1


# Steps that fail


async def failed(stage: Stage, *steps: Step) -> str:
    """The sentence of a run that fails at its first step."""
    await stage.run(*steps)
    row = await stage.row()
    assert row.status is Status.FAILED
    assert row.summary is not None
    assert row.summary.failed_step == steps[0].name
    assert [step.status for step in row.summary.steps] == ["failed"]
    assert (await stage.types())[-3:] == ["step_failed", "saving", "failed"]
    assert row.error is not None
    assert "\n" not in row.error
    return row.error


async def test_a_step_error_is_the_sentence_and_the_next_step_does_not_run(stage: Stage) -> None:
    async def refuse(context: StepContext) -> None:
        context.log("the last line")
        raise StepError("remote rejected the push")

    assert await failed(stage, step_of("first", refuse), step_of("second", nothing)) == (
        "First failed: remote rejected the push"
    )
    summary = (await stage.row()).summary
    assert summary is not None
    assert summary.steps[0].log == ("the last line",)


async def test_an_unexpected_error_names_itself_and_where_to_look_and_no_more(stage: Stage) -> None:
    async def break_off(context: StepContext) -> None:
        raise KeyError("secret")

    error = await failed(stage, step_of("first", break_off))
    assert error == f"First failed: an unexpected error (KeyError); see the server's log for {RUN}"


async def test_an_error_in_the_task_group_of_a_step_is_the_sentence_of_the_step(stage: Stage) -> None:
    async def refuse() -> None:
        raise StepError("remote rejected the push")

    async def gather(context: StepContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse())

    assert await failed(stage, step_of("first", gather)) == "First failed: remote rejected the push"


async def test_a_step_that_outlives_its_limit_fails(stage: Stage) -> None:
    async def hang(context: StepContext) -> None:
        await asyncio.Event().wait()

    error = await failed(stage, step_of("first", hang, timeout_s=0.05))
    assert error == "First failed: it did not end within 0.05 s"


async def test_a_timeout_inside_of_a_step_is_not_the_limit_of_the_step(stage: Stage) -> None:
    async def hang(context: StepContext) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    assert "unexpected error (TimeoutError)" in await failed(stage, step_of("first", hang))


async def test_something_cancelled_that_a_step_waited_for_fails_the_step(stage: Stage) -> None:
    async def wait(context: StepContext) -> None:
        waiting = asyncio.ensure_future(asyncio.Event().wait())
        waiting.cancel()
        await waiting

    assert "unexpected error (CancelledError)" in await failed(stage, step_of("first", wait))


async def test_a_step_that_this_version_does_not_have_fails(stage: Stage) -> None:
    await stage.add(step_of("first", nothing), step_of("second", nothing))
    await stage.run(step_of("second", nothing))
    assert (await stage.row()).error == "First failed: this version has no step called first"


@pytest.mark.parametrize("outputs", [{"a": object()}, {"a": {1, 2}, 3j: "b"}, [1]])
async def test_outputs_that_are_no_json_fail_the_step(stage: Stage, outputs: Any) -> None:
    async def give(context: StepContext) -> Outputs:
        return outputs  # type: ignore[no-any-return]

    assert "its outputs are no JSON object" in await failed(stage, step_of("first", give))


async def test_outputs_are_for_the_next_step_what_they_are_for_the_journal(stage: Stage) -> None:
    seen: list[Outputs] = []

    async def give(context: StepContext) -> Outputs:
        return {"at": at(1), "pair": (1, 2), "nan": float("nan"), "broken": "a\x00\ud800"}

    async def look(context: StepContext) -> None:
        seen.append(dict(context.outputs))

    await stage.run(step_of("first", give), step_of("second", look))
    summary = (await stage.row()).summary
    assert summary is not None
    assert seen == [summary.outputs] == [(await stage.progress()).outputs]
    assert seen[0] == {"at": "2026-01-01T10:00:01Z", "pair": [1, 2], "nan": None, "broken": "a\ufffd\ufffd"}


async def test_a_step_that_has_ended_is_not_heard_any_more(stage: Stage) -> None:
    left: list[StepContext] = []

    async def leave(context: StepContext) -> None:
        context.progress(80)
        left.append(context)

    async def look(context: StepContext) -> None:
        left[0].progress(90, "too late")
        left[0].log("too late")

    await stage.run(step_of("first", leave), step_of("second", look))
    assert await stage.lines() == []
    first = (await stage.progress()).step("first")
    assert (first.percent, first.message) == (100, "")


async def test_hostile_text_in_everything_a_step_says_breaks_nothing(stage: Stage) -> None:
    text = "a\ud800\x00\n<b>"

    async def say(context: StepContext) -> None:
        context.log(text)
        context.progress(1, text, substep=(text, 1))
        context.resource(text, text, "created", url=text)
        raise StepError(text)

    await failed(stage, step_of("first", say))
    (resource,) = [event for event in await stage.events() if isinstance(event, Resource)]
    assert resource.name == "a\ufffd\ufffd\ufffd<b>"
    assert await stage.lines() == ["a\ufffd\ufffd", "<b>"]


# Pressure


async def test_a_step_that_floods_its_log_starves_nobody_and_every_line_counts(stage: Stage) -> None:
    turns = 0
    is_over = asyncio.Event()

    async def tick() -> None:
        nonlocal turns
        while not is_over.is_set():
            turns += 1
            await asyncio.sleep(0)

    async def flood(context: StepContext) -> None:
        for number in range(1, 30_001):
            context.log(f"line {number}")
            context.progress(number // 300, f"line {number}")
            if number % 100 == 0:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(tick())
        await stage.run(step_of("first", flood))
        is_over.set()
    assert turns >= 300
    logs = [event for event in await stage.events() if isinstance(event, Log)]
    kept = {log.first + n: line for log in logs for n, line in enumerate(log.lines)}
    assert all(line == f"line {number}" for number, line in kept.items())
    assert len(kept) + sum(log.dropped for log in logs) == 30_000
    assert kept[30_000] == "line 30000"
    assert len(await stage.events()) < 300


async def test_all_that_a_step_says_at_once_is_one_append(stage: Stage) -> None:
    appended: list[list[type[Event]]] = []

    class Noting(JournalInTheWay):
        async def after(self, events: Sequence[Event]) -> None:
            appended.append([type(event) for event in events])

    async def say(context: StepContext) -> None:
        await stage.until_event(2)  # what was said before has gone its way
        context.log("a line")
        context.progress(50)
        context.log("another one")
        context.resource("repository", "r", "created")
        await stage.until_event(5)

    stage.journal = Noting(stage.folder / "journals")
    await stage.run(step_of("first", say))
    assert [Log, Progressed, Resource] in appended


class AbsentJournal(JournalInTheWay):
    """A real journal that can be away; it tells that it was asked meanwhile."""

    is_absent = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.was_asked = asyncio.Event()

    async def before(self, events: Sequence[Event]) -> None:
        if self.is_absent:
            self.was_asked.set()
            raise JournalUnavailable("away")


async def test_of_what_is_said_while_the_journal_is_away_only_log_lines_give_way_and_are_counted(
    stage: Stage,
) -> None:
    journal = AbsentJournal(stage.folder / "journals")
    text = "x" * 1000
    said, held = 20_000, list[int]()

    async def flood(context: StepContext) -> Outputs:
        journal.is_absent = True
        tracemalloc.start()
        try:
            for number in range(1, said + 1):
                context.log(f"{number} {text}")
                context.progress(number * 100 // said, f"line {number}")
                if number % (said // 4) == 0:
                    context.resource("repository", f"r{number}", "created")
                if number % 100 == 0:
                    await asyncio.sleep(0)
            held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        return {"made": "here"}

    async def come_back(context: StepContext) -> None:
        context.log("the next step")
        journal.was_asked.clear()
        async with asyncio.timeout(DEADLINE_S):
            await journal.was_asked.wait()
        journal.is_absent = False

    await stage.run(step_of("first", flood), step_of("second", come_back), journal=journal)
    assert held[0] < said * len(text) / 4
    logs = [it for it in await stage.events() if isinstance(it, Log) and it.step == "first"]
    kept = {log.first + n: line for log in logs for n, line in enumerate(log.lines)}
    assert all(line == f"{number} {text}" for number, line in kept.items())
    assert len(kept) + sum(log.dropped for log in logs) == said
    assert sum(log.dropped for log in logs) > said / 2
    assert kept[said] == f"{said} {text}"
    resources = [it.name for it in await stage.events() if isinstance(it, Resource)]
    assert resources == [f"r{number}" for number in range(said // 4, said + 1, said // 4)]
    reports = [it.message for it in await stage.events() if isinstance(it, Progressed)]
    assert reports[-1] == f"line {said}"
    boundaries = [kind for kind in await stage.types() if kind not in ("log", "progress", "resource")]
    steps = ["step_started", "step_completed"]
    assert boundaries == ["started", *steps, *steps, "saving", "completed"]
    summary = (await stage.row()).summary
    assert summary is not None
    assert summary.outputs == {"made": "here"}


# Runs that are cut off and taken over


async def cut_off(stage: Stage, running: "asyncio.Task[None]", begun: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_run_cut_off_in_a_step_goes_on_in_that_step_with_what_was_made_before(stage: Stage) -> None:
    begun, made = asyncio.Event(), []

    async def make(context: StepContext) -> Outputs:
        made.append(1)
        return {"made": "here"}

    async def hang(context: StepContext) -> None:
        context.progress(60, "nearly")
        context.log("before")
        begun.set()
        await asyncio.Event().wait()

    async def go_on(context: StepContext) -> Outputs:
        context.log("after")
        return {"seen": context.outputs["made"]}

    running = asyncio.create_task(stage.run(step_of("first", make), step_of("second", hang)))
    await cut_off(stage, running, begun)
    assert (await stage.row()).status is Status.INITIALIZING
    left = await stage.progress()
    assert (left.percent, left.status) == (80, Status.INITIALIZING)
    assert await stage.lines() == ["before"]

    await stage.projects.claim(RUN, seen_attempt=1)
    await stage.run(step_of("first", make), step_of("second", go_on), attempt=2, reason=Reason.TAKEOVER)
    row = await stage.row()
    assert (row.status, row.attempt, made) == (Status.ACTIVE, 2, [1])
    assert row.summary is not None
    assert row.summary.outputs == {"made": "here", "seen": "here"}
    assert await stage.lines() == ["before", "after"]
    logs = [event for event in await stage.events() if isinstance(event, Log)]
    assert [log.first for log in logs] == [1, 2]


async def test_last_words_are_kept_when_the_answer_of_an_append_is_cut_off(stage: Stage) -> None:
    begun = asyncio.Event()

    class Journal(JournalInTheWay):
        async def after(self, events: Sequence[Event]) -> None:
            if any(isinstance(event, StepStarted) for event in events) and not begun.is_set():
                begun.set()
                await asyncio.Event().wait()

    async def say(context: StepContext) -> None:
        await begun.wait()
        context.log("the last words")
        await asyncio.Event().wait()

    running = asyncio.create_task(
        stage.run(step_of("first", say), journal=Journal(stage.folder / "journals"))
    )
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
        await asyncio.sleep(0)  # the step is woken, and says it
        await cut_off(stage, running, begun)
    assert await stage.lines() == ["the last words"]


async def test_there_is_one_append_at_a_time_also_when_a_run_is_cut_off(stage: Stage) -> None:
    begun = asyncio.Event()
    at_once: list[int] = []

    class Journal(FileJournal):
        appending = 0

        async def append(self, *args: Any, **options: Any) -> None:
            self.appending += 1
            at_once.append(self.appending)
            try:
                if not begun.is_set():
                    begun.set()
                    await asyncio.Event().wait()
                await super().append(*args, **options)
            finally:
                self.appending -= 1

    running = asyncio.create_task(
        stage.run(step_of("first", nothing_for_ever), journal=Journal(stage.folder / "journals"))
    )
    await cut_off(stage, running, begun)
    assert len(at_once) >= 2
    assert set(at_once) == {1}


async def test_a_failure_that_was_not_saved_any_more_is_saved_by_the_next_attempt(stage: Stage) -> None:
    begun, tries = asyncio.Event(), []

    class Stuck(Projects):
        async def finish(self, *args: Any, **values: Any) -> bool:
            begun.set()
            await asyncio.Event().wait()
            return True

    async def refuse(context: StepContext) -> None:
        tries.append(1)
        raise StepError("no")

    step = step_of("first", refuse)
    running = asyncio.create_task(stage.run(step, projects=Stuck(stage.projects._database)))
    await cut_off(stage, running, begun)
    await stage.projects.claim(RUN, seen_attempt=1)
    await stage.run(step, attempt=2, reason=Reason.TAKEOVER)
    row = await stage.row()
    assert (row.status, row.error, tries) == (Status.FAILED, "First failed: no", [1])


async def test_a_cancellation_is_not_hidden_by_an_error_of_the_journal_at_the_same_time(
    stage: Stage,
) -> None:
    begun = asyncio.Event()

    class Journal(JournalInTheWay):
        async def before(self, events: Sequence[Event]) -> None:
            if any(isinstance(event, StepStarted) for event in events):
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    raise RuntimeError("torn off")

    running = asyncio.create_task(
        stage.run(step_of("first", nothing_for_ever), journal=Journal(stage.folder / "journals"))
    )
    await cut_off(stage, running, begun)
    assert (await stage.row()).status is Status.INITIALIZING


async def nothing_for_ever(context: StepContext) -> None:
    await asyncio.Event().wait()


async def test_recovery_claims_what_is_unfinished_oldest_first(stage: Stage) -> None:
    for second, run in enumerate(["c", "a", "b"]):
        await stage.projects.add(project_of(run, created_at=at(second)), idempotency_key=run)
    submitted: list[tuple[str, int, Reason]] = []

    class Engine:
        async def submit(self, row: ProjectRow, *, reason: Reason) -> None:
            submitted.append((row.project.id, row.attempt, reason))

    engine: Any = Engine()
    assert await recover(stage.projects, engine) == 3
    assert submitted == [(run, 2, Reason.TAKEOVER) for run in "cab"]


# Servers that do not answer, disks that are full


async def test_a_step_that_finds_the_disk_full_says_so_and_leaves_no_trace(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    async def write(context: StepContext) -> None:
        await asyncio.to_thread(Path("/dev/full").write_text, "a file of the step")

    await stage.run(step_of("first", write))
    row = await stage.row()
    assert row.status is Status.FAILED
    assert row.error == "First failed: no space is left on this server's disk; make room there, then retry"
    assert "Traceback" not in "".join(capsys.readouterr())


async def test_a_journal_that_is_away_for_a_while_is_waited_for(stage: Stage) -> None:
    faults = iter(range(12))

    class Journal(JournalInTheWay):
        async def before(self, events: Sequence[Event]) -> None:
            if next(faults, None) is not None:
                raise JournalUnavailable("away")

        async def read(self, run: str, *, after: EventId = "") -> list[Event]:
            if next(faults, 9) < 3:
                raise JournalUnavailable("away")
            return await super().read(run, after=after)

    await stage.run(*two_steps(), journal=Journal(stage.folder / "journals"))
    assert (await stage.row()).status is Status.ACTIVE
    assert (await stage.types())[-1] == "completed"


async def test_a_journal_that_stays_away_does_not_keep_the_row_from_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Journal(JournalInTheWay):
        async def before(self, events: Sequence[Event]) -> None:
            raise JournalUnavailable("away")

    monkeypatch.setattr(attempt_module, "SETTLE_LIMIT_S", 0.05)
    await stage.run(*two_steps(), journal=Journal(stage.folder / "journals"))
    assert (await stage.row()).status is Status.ACTIVE
    assert await stage.events() == []


@pytest.mark.parametrize("after", [False, True])
async def test_an_end_that_could_not_be_written_is_written_again_until_it_is(
    stage: Stage, after: bool
) -> None:
    await stage.run(*two_steps(), projects=ProjectsInTheWay(stage.projects, faults=7, after=after))
    assert (await stage.row()).status is Status.ACTIVE
    assert (await stage.types())[-2:] == ["saving", "completed"]


async def test_an_append_that_arrived_without_an_answer_is_not_made_twice(stage: Stage) -> None:
    class Journal(JournalInTheWay):
        async def after(self, events: Sequence[Event]) -> None:
            if events[-1].index % 2:
                raise JournalUnavailable("the answer was lost")

    with capture_logs() as said:
        await stage.run(*two_steps(), journal=Journal(stage.folder / "journals"))
    assert (await stage.types())[-1] == "completed"
    assert levels_of_refusals(said) == {("ARRIVED", "info")}


async def test_a_journal_that_forgets_is_made_whole_again(stage: Stage) -> None:
    journal = MemoryJournal()

    async def forget(context: StepContext) -> None:
        await stage.until_event(2)
        journal.lose(RUN, after=1)
        context.log("more")

    stage.journal = journal
    with capture_logs() as said:
        await stage.run(step_of("first", forget), step_of("second", forget))
    assert (await stage.types())[-1] == "completed"
    assert (await stage.progress()).status is Status.ACTIVE
    assert levels_of_refusals(said) == {("LOST", "warning")}


def levels_of_refusals(said: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """What was logged of refused appends: nobody need look at one whose events had arrived."""
    return {(it["means"], it["log_level"]) for it in said if it["event"] == "append refused"}


# Runs that belong to another attempt by now


async def test_an_attempt_whose_row_was_claimed_does_not_end_the_run(stage: Stage) -> None:
    async def lose(context: StepContext) -> None:
        await stage.projects.claim(RUN, seen_attempt=1)

    await stage.run(step_of("first", lose))
    row = await stage.row()
    assert (row.status, row.attempt, row.summary) == (Status.INITIALIZING, 2, None)
    assert (await stage.types())[-1] == "saving"


async def test_an_attempt_that_is_fenced_stops_in_the_middle_of_its_step(stage: Stage) -> None:
    async def lose(context: StepContext) -> None:
        await stage.projects.claim(RUN, seen_attempt=1)
        await stage.until_event(2)
        newer = numbered(Saving(at=at(1)), attempt=2, first=3)
        await stage.journal.append(RUN, newer, expected_tail="1-2")
        context.log("too late")
        await asyncio.Event().wait()

    await stage.run(step_of("first", lose), step_of("second", nothing))
    assert (await stage.row()).status is Status.INITIALIZING
    assert (await stage.events())[-1].id == "2-3"
    assert await stage.lines() == []


async def test_an_attempt_that_comes_to_a_newer_ones_journal_adds_nothing(stage: Stage) -> None:
    """It had waited for that, and what it had for a proof lasts a little yet."""
    await stage.add(*two_steps())
    row = await stage.row()
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=stage.project.parameters.pipeline)
    await stage.projects.claim(RUN, seen_attempt=1)
    newer = [started.numbered(1, 1), Saving(at=at(1)).numbered(2, 2)]
    await stage.journal.append(RUN, newer, expected_tail=None)
    await stage.runner(*two_steps()).run(row, Reason.CREATED, asyncio.Event())
    final = msgspec.structs.replace(row, status=Status.FAILED, error="too late")
    await append_end(final, stage.journal)
    assert not await give_up(row, RuntimeError("too late"), journal=stage.journal, projects=stage.projects)
    assert await stage.events() == newer
    assert (await stage.row()).status is Status.INITIALIZING


async def test_an_attempt_that_lost_its_row_does_not_refill_a_journal_that_forgot(stage: Stage) -> None:
    journal = MemoryJournal()

    async def lose(context: StepContext) -> None:
        await stage.until_event(2)
        await stage.projects.claim(RUN, seen_attempt=1)
        journal.lose(RUN)
        context.log("too late")
        await asyncio.Event().wait()

    stage.journal = journal
    await stage.run(step_of("first", lose))
    assert await stage.events() == []
    assert (await stage.row()).status is Status.INITIALIZING


async def test_a_journal_that_got_more_from_the_attempt_before_is_read_again(stage: Stage) -> None:
    await stage.add(*two_steps())
    await stage.projects.claim(RUN, seen_attempt=1)

    class Journal(JournalInTheWay):
        late: Sequence[Event] = numbered(Saving(at=at(1)))

        async def before(self, events: Sequence[Event]) -> None:
            late, self.late = self.late, []
            if late:
                await stage.journal.append(RUN, late, expected_tail=None)

    journal = Journal(stage.folder / "journals")
    await stage.run(*two_steps(), attempt=2, reason=Reason.TAKEOVER, journal=journal)
    assert [event.id for event in await stage.events()][:2] == ["1-1", "2-2"]
    assert (await stage.row()).status is Status.ACTIVE


# Runs that cannot go on


async def given_up(stage: Stage, *steps: Step, **parts: Any) -> str:
    """The sentence of a run that ends `failed` although no step has failed."""
    await stage.run(*(steps or two_steps()), **parts)
    row = await stage.row()
    assert (row.status, row.attempt) == (Status.FAILED, 1)
    assert row.summary is not None
    assert row.summary.failed_step is not None
    assert row.summary.steps[-1].step == row.summary.failed_step
    assert row.error is not None
    return row.error


async def test_a_run_whose_journal_is_damaged_ends_failed(stage: Stage) -> None:
    (stage.folder / "journals" / f"{RUN}.jsonl").write_text("rubbish\n")
    assert "First failed: the journal of run a1 is damaged" in await given_up(stage)


async def test_a_run_that_cannot_go_on_but_is_another_attempts_by_now_is_left_to_it(stage: Stage) -> None:
    await stage.add(*two_steps())
    await stage.projects.claim(RUN, seen_attempt=1)
    (stage.folder / "journals" / f"{RUN}.jsonl").write_text("rubbish\n")
    await stage.run(*two_steps())
    row = await stage.row()
    assert (row.status, row.attempt, row.error) == (Status.INITIALIZING, 2, None)
    assert isinstance(stage.journal, FileJournal)
    assert await stage.journal.remove_retired(datetime.now(UTC) + timedelta(days=8)) == 0


async def test_a_run_whose_journal_has_a_hole_ends_failed(stage: Stage) -> None:
    await stage.journal.append(RUN, numbered(Saving(at=at(1)), first=5), expected_tail=None)
    assert "expected event 1, received 5" in await given_up(stage)


async def test_a_run_whose_journal_breaks_unexpectedly_ends_failed_at_the_step_it_stood_in(
    stage: Stage,
) -> None:
    class Journal(JournalInTheWay):
        is_broken = True

        async def before(self, events: Sequence[Event]) -> None:
            if self.is_broken and any(isinstance(event, Resource) for event in events):
                self.is_broken = False
                raise RuntimeError("a bug")

    async def say(context: StepContext) -> None:
        context.resource("repository", "r", "created")
        await asyncio.Event().wait()

    steps = step_of("first", say), step_of("second", nothing)
    error = await given_up(stage, *steps, journal=Journal(stage.folder / "journals"))
    assert error == f"First failed: an unexpected error (RuntimeError); see the server's log for {RUN}"
    assert (await stage.types())[-3:] == ["step_failed", "saving", "failed"]
    assert (await stage.progress()).status is Status.FAILED


async def test_a_run_that_cannot_go_on_asks_a_journal_that_is_away_until_it_tells_what_was_done(
    stage: Stage,
) -> None:
    class Journal(JournalInTheWay):
        is_broken = False
        faults = 3

        async def before(self, events: Sequence[Event]) -> None:
            if not self.is_broken and any(map(is_start_of_second, events)):
                self.is_broken = True
                raise RuntimeError("a bug")

        async def read(self, run: str, *, after: EventId = "") -> list[Event]:
            if self.is_broken and self.faults:
                self.faults -= 1
                raise JournalUnavailable("away")
            return await super().read(run, after=after)

    def is_start_of_second(event: Event) -> bool:
        return isinstance(event, StepStarted) and event.step == "second"

    first, _ = two_steps()
    journal = Journal(stage.folder / "journals")
    error = await given_up(stage, first, step_of("second", nothing_for_ever), journal=journal)
    assert error == f"Second failed: an unexpected error (RuntimeError); see the server's log for {RUN}"
    summary = (await stage.row()).summary
    assert summary is not None
    assert [it.name for it in summary.resources] == ["r"]
    assert (await stage.types())[-3:] == ["step_failed", "saving", "failed"]


async def test_a_run_whose_journal_never_comes_to_rest_ends_failed(stage: Stage) -> None:
    class Journal(FileJournal):
        async def append(
            self,
            run: str,
            events: Sequence[Event],
            *,
            expected_tail: EventId | None,
            is_durable: bool = False,
        ) -> None:
            raise AppendRefused(expected=expected_tail, tail="1-99")

    assert "the journal of run a1 ends at 1-99" in await given_up(
        stage, journal=Journal(stage.folder / "journals")
    )


async def test_a_run_that_is_over_already_is_not_failed_by_an_error_after_its_end(stage: Stage) -> None:
    class Journal(JournalInTheWay):
        async def before(self, events: Sequence[Event]) -> None:
            if any(map(is_final, events)):
                raise RuntimeError("a bug")

    await stage.run(*two_steps(), journal=Journal(stage.folder / "journals"))
    row = await stage.row()
    assert (row.status, row.error) == (Status.ACTIVE, None)


async def test_the_summary_in_the_row_is_the_one_of_the_journal(stage: Stage) -> None:
    """Plain SQL sees the JSON of the contract."""
    await stage.run(*two_steps())
    with sqlite3.connect(stage.folder / "projects.db") as connection:
        ((stored,),) = connection.execute("select initialization_summary from projects")
    connection.close()
    summary = msgspec.json.decode(stored)
    assert list(summary)[:4] == ["steps", "totalDuration", "failedStep", "completedAt"]
    row = await stage.row()
    assert msgspec.convert(summary, Summary) == row.summary


async def test_a_row_that_has_ended_stays_as_it_is_when_the_journal_breaks_afterwards(stage: Stage) -> None:
    class Breaking(FileJournal):
        async def append(self, run: str, events: Sequence[Event], **how: Any) -> None:
            if isinstance(events[-1], Failed):
                raise JournalDamaged("damaged behind the row")
            await super().append(run, events, **how)

    async def refuse(context: StepContext) -> None:
        raise StepError("the real reason")

    journal = Breaking(stage.folder / "journals")
    await stage.run(step_of("first", nothing), step_of("second", refuse), journal=journal)
    row = await stage.row()
    assert row.error == "Second failed: the real reason"
    assert row.summary is not None
    assert row.summary.failed_step == "second"


async def test_what_is_left_of_a_step_is_not_heard_once_the_step_is_over(stage: Stage) -> None:
    late: list[StepContext] = []

    async def leave(context: StepContext) -> None:
        late.append(context)

    async def speak(context: StepContext) -> None:
        late[0].log("too late")
        late[0].progress(50, "too late")
        late[0].resource("repository", "late", "created")

    await stage.run(step_of("first", leave), step_of("second", speak))
    assert (await stage.progress()).resources == ()
    assert await stage.lines() == []


async def test_a_row_that_was_written_before_its_events_were_taken_gets_its_own_end_in_the_journal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "SETTLE_LIMIT_S", 0.05)

    class Late(FileJournal):
        """Takes nothing until the row is final; then a stalled attempt is faster by one event."""

        is_open = False

        async def append(self, run: str, events: Sequence[Event], **how: Any) -> None:
            if not self.is_open and (await stage.row()).status is not Status.FAILED:
                raise JournalUnavailable("away")
            if not self.is_open:
                self.is_open = True
                stalled = StepStarted(id="1-2", at=at(1), step="first")
                await super().append(run, [stalled], expected_tail="1-1")
            await super().append(run, events, **how)

    async def refuse_once(context: StepContext) -> None:
        if not journal.is_open:
            raise StepError("the real reason")

    step = step_of("first", refuse_once)
    await stage.add(step)
    journal = Late(stage.folder / "journals")
    started = Started(id="1-1", at=at(0), reason=Reason.CREATED, pipeline=stage.project.parameters.pipeline)
    await stage.journal.append(RUN, [started], expected_tail=None)
    await stage.projects.claim(RUN, seen_attempt=1)
    await stage.run(step, attempt=2, reason=Reason.TAKEOVER, journal=journal)
    assert (await stage.row()).error == "First failed: the real reason"
    assert [event.id for event in await stage.events()] == ["1-1", "1-2", "2-3"]
    assert (await stage.types())[-1] == "failed"
