"""Runs that are cancelled, and tries that begin again: what the journal and the row say of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from initializer.journal.file import FileJournal
from initializer.journal.journal import JournalUnavailable
from initializer.model.events import Event, Reason, Saving, Started, StepCompleted, StepStarted
from initializer.model.progress import Status
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running import attempt as attempt_module
from initializer.running import cancelling
from initializer.running import runner as runner_module
from initializer.running.ownership import OwnershipLost
from initializer.steps.step import Outputs, Step, StepContext, StepError
from model.runs import at
from running.stage import DEADLINE_S, RUN, Stage, nothing, step_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_database(f"sqlite:///{tmp_path}/projects.db") as database:
        yield Stage(tmp_path, Projects(database))


class Failing:
    """Fails until it is mended; counts how often each step ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.is_mended = self.is_unlucky = False

    def steps(self) -> list[Step]:
        return [step_of("first", self.make), step_of("second", self.fail), step_of("third", nothing)]

    async def make(self, context: StepContext) -> Outputs:
        self.ran.append("first")
        if self.is_unlucky:
            raise StepError("no luck")
        context.resource("repository", "made", "created")
        return {"made": "yes"}

    async def fail(self, context: StepContext) -> Outputs:
        self.ran.append("second")
        if not self.is_mended:
            raise StepError("not yet")
        return {"seen": context.outputs["made"]}


async def begin_again(stage: Stage, reason: Reason) -> int:
    row = await stage.row()
    begun = await stage.projects.begin_again(RUN, seen_attempt=row.attempt, reason=reason)
    assert begun is not None
    return begun.attempt


async def test_a_step_that_is_cancelled_ends_and_no_other_begins(stage: Stage) -> None:
    cancelled, ended = asyncio.Event(), []

    async def stand(context: StepContext) -> None:
        context.log("standing")
        cancelled.set()
        try:
            await asyncio.Event().wait()
        finally:
            context.log("letting go")
            ended.append(True)

    await stage.run(step_of("first", stand), step_of("second", nothing), cancelled=cancelled)
    row = await stage.row()
    assert (row.status, row.error, ended) == (Status.CANCELLED, None, [True])
    assert row.summary is not None
    assert [(step.step, step.status) for step in row.summary.steps] == [("first", "cancelled")]
    assert await stage.lines() == ["standing", "letting go"]


async def test_a_run_that_is_cancelled_before_it_begins_runs_nothing(stage: Stage) -> None:
    cancelled = asyncio.Event()
    cancelled.set()
    failing = Failing()
    await stage.run(*failing.steps(), cancelled=cancelled)
    assert (await stage.row()).status is Status.CANCELLED
    assert failing.ran == []
    assert await stage.types() == ["started", "cancelling", "saving", "cancelled"]


async def test_a_step_that_fails_because_it_is_cancelled_was_cancelled(stage: Stage) -> None:
    cancelled = asyncio.Event()

    async def stand(context: StepContext) -> None:
        cancelled.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise StepError("git was killed") from None

    await stage.run(step_of("first", stand), cancelled=cancelled)
    assert (await stage.row()).status is Status.CANCELLED


async def test_a_cancel_that_comes_while_the_last_step_ends_changes_nothing(stage: Stage) -> None:
    cancelled = asyncio.Event()

    async def end(context: StepContext) -> Outputs:
        cancelled.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return {"made": "all the same"}
        return {}

    await stage.run(step_of("first", end), cancelled=cancelled)
    row = await stage.row()
    assert row.status is Status.ACTIVE
    assert row.summary is not None
    assert row.summary.outputs == {"made": "all the same"}


class Deaf:
    """A step that goes on as if nobody had asked it to end; when it is over, it would change something."""

    def __init__(self) -> None:
        self.begun, self.over = asyncio.Event(), asyncio.Event()
        self.refused: list[OwnershipLost] = []

    async def run(self, context: StepContext) -> None:
        self.begun.set()
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                continue
        try:
            await context.before_change()
        except OwnershipLost as lost:
            self.refused.append(lost)
        context.log("too late")

    async def end(self) -> None:
        """Have it end, left behind as it is."""
        left = list(cancelling._left_behind)
        assert len(left) == 1
        self.over.set()
        await asyncio.wait(left)
        assert not cancelling._left_behind


@pytest.fixture
async def deaf(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deaf]:
    monkeypatch.setattr(cancelling, "STEP_END_LIMIT_S", 0.05)
    deaf = Deaf()
    yield deaf
    deaf.over.set()  # else the loop would wait for it


async def test_a_step_that_ignores_its_cancellation_is_left_behind_and_may_change_nothing_more(
    stage: Stage, deaf: Deaf
) -> None:
    await stage.run(step_of("first", deaf.run), cancelled=deaf.begun)
    assert (await stage.row()).status is Status.CANCELLED
    await deaf.end()
    assert len(deaf.refused) == 1
    assert await stage.lines() == []


async def test_a_step_that_does_not_end_at_its_time_limit_is_left_behind_likewise(
    stage: Stage, deaf: Deaf
) -> None:
    await stage.run(step_of("first", deaf.run, timeout_s=0.05), step_of("second", nothing))
    row = await stage.row()
    assert (row.status, row.error) == (Status.FAILED, "First failed: it did not end within 0.05 s")
    assert await stage.types() == ["started", "step_started", "step_failed", "saving", "failed"]
    await deaf.end()
    assert len(deaf.refused) == 1
    assert await stage.lines() == []


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_step_that_was_left_behind_may_change_nothing_while_its_run_is_still_being_ended(
    stage: Stage, deaf: Deaf, is_cancelled: bool
) -> None:
    class Slow(Projects):
        async def finish(self, *args: Any, **values: Any) -> bool:
            await deaf.end()
            return await super().finish(*args, **values)

    step = step_of("first", deaf.run, timeout_s=10 if is_cancelled else 0.05)
    cancelled = deaf.begun if is_cancelled else None
    await stage.run(step, cancelled=cancelled, projects=Slow(stage.projects._database))
    assert (await stage.row()).status is (Status.CANCELLED if is_cancelled else Status.FAILED)
    assert len(deaf.refused) == 1


async def test_a_retry_runs_what_failed_and_what_follows_with_the_outputs_of_the_rest(
    stage: Stage,
) -> None:
    failing = Failing()
    await stage.run(*failing.steps())
    failing.is_mended = True
    await stage.run(*failing.steps(), attempt=await begin_again(stage, Reason.RETRY), reason=Reason.RETRY)
    row = await stage.row()
    assert failing.ran == ["first", "second", "second"]
    assert row.summary is not None
    assert row.summary.outputs == {"made": "yes", "seen": "yes"}
    assert [step.kept for step in row.summary.steps] == [True, False, False]
    assert (row.summary.reason, len(row.summary.previous_attempts)) == (Reason.RETRY, 1)
    assert row.summary.previous_attempts[0].failed_step == "second"


@pytest.mark.parametrize("reason", [Reason.RETRY, Reason.RESTART])
@pytest.mark.parametrize("is_journal_gone", [False, True])
async def test_a_try_whose_process_died_before_it_began_is_begun_by_the_takeover(
    stage: Stage, reason: Reason, is_journal_gone: bool
) -> None:
    failing = Failing()
    await stage.run(*failing.steps())
    failing.is_mended = True
    await begin_again(stage, reason)
    if is_journal_gone:
        (stage.folder / "journals" / f"{RUN}.jsonl").unlink()
    assert await stage.projects.claim(RUN, seen_attempt=2) is not None
    await stage.run(*failing.steps(), attempt=3, reason=Reason.TAKEOVER)
    row = await stage.row()
    assert row.status is Status.ACTIVE
    first = ["first", "second"]
    assert failing.ran == ([*first, "second"] if reason is Reason.RETRY else first + first)
    begun = [event for event in await stage.events() if isinstance(event, Started)][-1]
    assert (begun.id.partition("-")[0], begun.reason) == ("3", reason)
    assert row.summary is not None
    assert [it.name for it in row.summary.resources] == ["made"]


async def test_a_takeover_of_a_try_that_had_begun_goes_on_with_it(stage: Stage) -> None:
    failing = Failing()
    await stage.run(*failing.steps())
    attempt = await begin_again(stage, Reason.RESTART)
    started = msgspec.structs.replace(
        Started(
            at=(await stage.row()).project.created_at,
            reason=Reason.RESTART,
            pipeline=stage.project.parameters.pipeline,
        ),
        id=f"{attempt}-{len(await stage.events()) + 1}",
    )
    await stage.journal.append(RUN, [started], expected_tail=(await stage.events())[-1].id)
    await stage.projects.claim(RUN, seen_attempt=attempt)
    failing.is_mended = True
    await stage.run(*failing.steps(), attempt=attempt + 1, reason=Reason.TAKEOVER)
    assert failing.ran == ["first", "second"] * 2
    reasons = [event.reason for event in await stage.events() if isinstance(event, Started)]
    assert reasons == [Reason.CREATED, Reason.RESTART, Reason.TAKEOVER]


async def test_of_many_tries_the_last_ones_are_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initializer.model.summary.MAX_EARLIER_TRIES", 3)
    failing = Failing()
    await stage.run(*failing.steps())
    for _ in range(5):
        await stage.run(*failing.steps(), attempt=await begin_again(stage, Reason.RETRY), reason=Reason.RETRY)
    row = await stage.row()
    assert row.summary is not None
    assert [it.attempt for it in row.summary.previous_attempts] == [3, 4, 5]
    assert all(not it.previous_attempts for it in row.summary.previous_attempts)


async def test_a_try_that_cannot_go_on_fails_as_the_one_before_did(
    stage: Stage,
) -> None:
    failing = Failing()
    await stage.run(*failing.steps())

    class Breaking(FileJournal):
        faults = iter([RuntimeError("a bug"), RuntimeError("a bug")])

        async def append(self, run: str, events: Sequence[Event], **how: Any) -> None:
            for fault in self.faults:
                raise fault
            await super().append(run, events, **how)

    attempt = await begin_again(stage, Reason.RETRY)
    journal = Breaking(stage.folder / "journals")
    await stage.run(*failing.steps(), attempt=attempt, reason=Reason.RETRY, journal=journal)
    row = await stage.row()
    assert (row.status, row.attempt) == (Status.FAILED, 2)
    assert row.summary is not None
    assert [step.kept for step in row.summary.steps] == [True, False]
    assert len(row.summary.previous_attempts) == 1


async def test_a_retry_keeps_what_was_done_while_the_journal_was_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "SETTLE_LIMIT_S", 0.1)
    monkeypatch.setattr(attempt_module, "LAST_WORDS_LIMIT_S", 0.1)
    failing, journal = Failing(), AwayAtTimes(stage.folder / "journals")
    stage.journal = journal

    async def make(context: StepContext) -> Outputs:
        await stage.until_event(2)
        journal.is_gone = True
        return await failing.make(context)

    await stage.run(step_of("first", make), *failing.steps()[1:])
    assert (await stage.row()).status is Status.FAILED
    journal.is_gone, failing.is_mended = False, True
    assert (await stage.types())[-1] == "step_started"  # what followed is lost with the process
    attempt = await begin_again(stage, Reason.RETRY)
    await stage.run(*failing.steps(), attempt=attempt, reason=Reason.RETRY)
    row = await stage.row()
    assert (row.status, failing.ran) == (Status.ACTIVE, ["first", "second", "second"])
    assert row.summary is not None
    assert row.summary.outputs == {"made": "yes", "seen": "yes"}
    assert [step.kept for step in row.summary.steps] == [True, False, False]
    assert [it.name for it in row.summary.resources] == ["made"]


async def test_what_a_try_could_not_say_before_the_next_one_began_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "SETTLE_LIMIT_S", 0.1)
    monkeypatch.setattr(attempt_module, "LAST_WORDS_LIMIT_S", 0.1)
    monkeypatch.setattr(runner_module, "SETTLE_PAUSE_S", 0.05)
    stage.journal = journal = AwayAtTimes(stage.folder / "journals")

    async def fail(context: StepContext) -> None:
        await stage.until_event(2)
        journal.is_gone = True
        raise StepError("no luck")

    async def begin_the_next() -> None:
        await begin_again(stage, Reason.RETRY)
        begun = Started(at=at(9), reason=Reason.RETRY, pipeline=stage.project.parameters.pipeline)
        await FileJournal.append(journal, RUN, [begun.numbered(2, 3)], expected_tail="1-2")
        journal.is_gone = False
        async with asyncio.timeout(DEADLINE_S):
            while not any(it["event"] == "last events given up" for it in said):  # noqa: ASYNC110 - a log
                await asyncio.sleep(0.01)

    with capture_logs() as said:
        await stage.run(step_of("first", fail), afterwards=begin_the_next)
    assert await stage.types() == ["started", "step_started", "started"]
    assert await journal.unretired() == [RUN]


class AwayAtTimes(FileJournal):
    """A journal that does not answer while it `is_gone`."""

    is_gone = False

    async def append(self, run: str, events: Sequence[Event], **how: Any) -> None:
        self._check()
        await super().append(run, events, **how)

    async def read(self, run: str, **how: Any) -> list[Event]:
        self._check()
        return await super().read(run, **how)

    async def retire(self, run: str, **how: Any) -> None:
        self._check()
        await super().retire(run, **how)

    def _check(self) -> None:
        if self.is_gone:
            raise JournalUnavailable("gone")


async def test_processes_that_died_in_an_earlier_try_are_not_held_against_a_retry(stage: Stage) -> None:
    """Found by the model: such a run was taken over for ever."""
    failing = Failing()
    await stage.add(*failing.steps())
    pipeline = stage.project.parameters.pipeline
    deaths: list[Event] = []
    for attempt, reason in ((1, Reason.CREATED), (2, Reason.TAKEOVER)):
        for draft in (
            Started(at=at(1), reason=reason, pipeline=pipeline),
            StepStarted(at=at(1), step="first"),
        ):
            deaths.append(draft.numbered(attempt, len(deaths) + 1))
    await stage.journal.append(RUN, deaths, expected_tail=None)
    for seen in (1, 2):
        await stage.projects.claim(RUN, seen_attempt=seen)
    failing.is_unlucky = True
    leases: Any = NoLeases()
    await stage.run(*failing.steps(), attempt=3, reason=Reason.TAKEOVER)
    assert (await stage.row()).status is Status.FAILED
    failing.is_unlucky, failing.is_mended = False, True
    await begin_again(stage, Reason.RETRY)
    await stage.projects.claim(RUN, seen_attempt=4)
    await stage.run(*failing.steps(), attempt=5, reason=Reason.TAKEOVER, leases=leases)
    assert (await stage.row()).status is Status.ACTIVE


@pytest.mark.parametrize("has_got_on", [False, True])
async def test_the_third_takeover_within_one_step_fails_the_run_there(stage: Stage, has_got_on: bool) -> None:
    failing = Failing()
    failing.is_mended = True
    await stage.add(*failing.steps())
    pipeline = stage.project.parameters.pipeline
    told: list[Event] = []
    for attempt, reason in ((1, Reason.CREATED), (2, Reason.TAKEOVER), (3, Reason.TAKEOVER)):
        drafts: list[Event] = [Started(at=at(1), reason=reason, pipeline=pipeline)]
        if attempt < 3 or not has_got_on:
            drafts.append(StepStarted(at=at(1), step="first"))
        if attempt == 2 and has_got_on:
            drafts.append(StepCompleted(at=at(2), step="first", duration_ms=1, outputs={"made": "yes"}))
        told += [draft.numbered(attempt, len(told) + n) for n, draft in enumerate(drafts, 1)]
    await stage.journal.append(RUN, told, expected_tail=None)
    for seen in (1, 2, 3):
        await stage.projects.claim(RUN, seen_attempt=seen)
    leases: Any = NoLeases()
    await stage.run(*failing.steps(), attempt=4, reason=Reason.TAKEOVER, leases=leases)
    row = await stage.row()
    if has_got_on:
        assert (row.status, failing.ran) == (Status.ACTIVE, ["second"])
    else:
        assert (row.status, failing.ran) == (Status.FAILED, [])
        assert row.error == "First failed: the worker stopped three times here"


HANDED_OVER, DIED = Reason.HANDOVER, Reason.TAKEOVER


@pytest.mark.parametrize(
    ("reasons", "status"),
    [
        ((HANDED_OVER, HANDED_OVER, HANDED_OVER), Status.ACTIVE),
        ((HANDED_OVER, HANDED_OVER, DIED), Status.ACTIVE),
        ((DIED, DIED, DIED), Status.FAILED),
    ],
)
async def test_a_run_that_was_handed_over_three_times_within_one_step_goes_on(
    stage: Stage, reasons: Sequence[Reason], status: Status
) -> None:
    """A deploy may meet a long step again and again; that is not held against it."""
    began = asyncio.Event()

    async def last_long(_: StepContext) -> None:
        began.set()
        await asyncio.Event().wait()

    leases: Any = NoLeases()
    await stage.add(step_of("first", last_long))
    for attempt, reason in enumerate((Reason.CREATED, *reasons[:-1]), 1):
        begins = stage.run(step_of("first", last_long), attempt=attempt, reason=reason, leases=leases)
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            running = group.create_task(begins)
            await began.wait()
            began.clear()
            running.cancel()
        assert await stage.projects.claim(RUN, seen_attempt=attempt) is not None
    assert leases.dropped == [(attempt, True) for attempt in (1, 2, 3)]
    await stage.run(step_of("first", nothing), attempt=4, reason=reasons[-1], leases=leases)
    assert (await stage.row()).status is status
    begun = [event for event in await stage.events() if isinstance(event, Started)][1:]
    assert {event.reason for event in begun} == {Reason.TAKEOVER}
    told = [reason is HANDED_OVER for reason in reasons]
    assert [event.handed_over for event in begun] == told[: len(begun)]


async def test_the_third_takeover_of_a_run_that_is_only_to_be_saved_saves_it(stage: Stage) -> None:
    steps = (step_of("first", nothing), step_of("second", nothing))
    await stage.add(*steps)
    pipeline = stage.project.parameters.pipeline
    told: list[Event] = []
    for attempt, reason in ((1, Reason.CREATED), (2, Reason.TAKEOVER), (3, Reason.TAKEOVER)):
        drafts: list[Event] = [Started(at=at(1), reason=reason, pipeline=pipeline)]
        if attempt == 1:
            for step in steps:
                drafts += [
                    StepStarted(at=at(1), step=step.name),
                    StepCompleted(at=at(2), step=step.name, duration_ms=1),
                ]
        drafts.append(Saving(at=at(3)))
        told += [draft.numbered(attempt, len(told) + n) for n, draft in enumerate(drafts, 1)]
    await stage.journal.append(RUN, told, expected_tail=None)
    for seen in (1, 2, 3):
        await stage.projects.claim(RUN, seen_attempt=seen)
    leases: Any = NoLeases()
    await stage.run(*steps, attempt=4, reason=Reason.TAKEOVER, leases=leases)
    assert (await stage.row()).status is Status.ACTIVE


async def test_a_first_try_that_was_handed_over_while_it_waited_is_no_takeover(stage: Stage) -> None:
    await stage.add(step_of("first", nothing))
    assert await stage.projects.claim(RUN, seen_attempt=1) is not None
    await stage.run(step_of("first", nothing), attempt=2, reason=Reason.TAKEOVER)
    begun = (await stage.events())[0]
    assert isinstance(begun, Started)
    assert (begun.id, begun.reason) == ("2-1", Reason.CREATED)


async def test_a_run_that_breaks_off_is_let_go_so_that_another_process_takes_it_up(stage: Stage) -> None:
    class Breaking(Projects):
        async def finish(self, *_: Any, **__: Any) -> bool:
            raise RuntimeError("can't start new thread")

    leases = NoLeases()
    with pytest.raises(ExceptionGroup) as raised:
        await stage.run(step_of("first", nothing), leases=leases, projects=Breaking(stage.projects._database))
    assert raised.group_contains(RuntimeError)
    assert leases.dropped == [(1, False)]  # no word of a good order: three of these end it


class NoLeases:
    """Leases that prove everything."""

    on_tail = None

    def __init__(self) -> None:
        self.dropped: list[tuple[int, bool]] = []
        """The attempts whose leases were let go, and whether they were handed over."""

    def hold(self, run: str, attempt: int, **_: object) -> None:
        """There is nothing to prove."""

    async def drop(self, run: str, attempt: int, *, is_handed_over: bool = False) -> None:
        self.dropped.append((attempt, is_handed_over))


async def test_each_try_has_a_name_of_its_own_also_beyond_those_that_are_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initializer.model.summary.MAX_EARLIER_TRIES", 2)
    failing = Failing()
    await stage.run(*failing.steps())
    ended, begun = [(await stage.row()).try_id], []
    for _ in range(4):
        attempt = await begin_again(stage, Reason.RETRY)
        begun.append((await stage.row()).try_id)
        await stage.run(*failing.steps(), attempt=attempt, reason=Reason.RETRY)
        ended.append((await stage.row()).try_id)
    assert ended == [1, 2, 3, 4, 5]
    assert begun == ended[1:]
