"""One attempt at a run: performs its steps, and carries what they say to the journal and the row."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog

from initializer.cancellation import is_cancelled
from initializer.errors import InitializerError
from initializer.journal.journal import AppendRefused, Journal, JournalUnavailable
from initializer.model.events import (
    Event,
    EventId,
    Reason,
    Resource,
    Saving,
    StepCompleted,
    StepFailed,
    attempt_of,
    is_final,
)
from initializer.model.execution import Execution
from initializer.model.pace import Pace
from initializer.model.pipeline import StepSpec
from initializer.model.progress import fold
from initializer.model.summary import recall, summarise
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.cancelling import StepTimedOut, end_when_due
from initializer.running.outbox import Outbox, Refusal
from initializer.running.outcome import outcome_of
from initializer.running.ownership import Decision, Ownership, OwnershipLost
from initializer.running.patience import until_answered
from initializer.steps.step import Outputs, Step

__all__ = ["Attempt", "HandedOver", "JournalDiverged"]

TICK_S = 1 / 30
"""What steps say goes to the journal at once, then at most this often."""
SETTLE_LIMIT_S = 10
"""How long the end of a run waits for a journal that does not answer; the row is written all the same."""
LAST_WORDS_LIMIT_S = 2

log = structlog.get_logger()


class JournalDiverged(InitializerError):
    """The journal holds events that this attempt has not seen: begin again from what it holds."""


class HandedOver(InitializerError):
    """The attempt was asked to leave, and did so between two steps."""


PerformStep = Callable[["Attempt", Step], Awaitable[Outputs | None]]


class Attempt:
    """Runs a project's remaining steps, from the events that its journal holds to the row's final status.

    Journals and databases that do not answer are waited for; they never fail a run.
    """

    def __init__(
        self,
        row: ProjectRow,
        *,
        history: Sequence[Event],
        cancelled: asyncio.Event,
        steps: Mapping[str, Step],
        journal: Journal,
        projects: Projects,
        perform_step: PerformStep,
        ownership: Ownership | None = None,
    ) -> None:
        self.project = row.project
        self.attempt = row.attempt
        self.execution = Execution(fold(row.project.parameters.pipeline, history))
        self._row = row
        self._history = history
        self._cancelled = cancelled
        self._outbox = Outbox(attempt=row.attempt, history=history)
        self._ownership = ownership or Ownership(attempt=row.attempt, lease_s=math.inf, now=time.monotonic())
        self._is_leaving = False
        self._is_over = False
        self._is_journal_doubted = False
        self._verifying = asyncio.Lock()  # the step and the writer want the same proof at the same time
        self._steps = steps
        self._journal = journal
        self._projects = projects
        self._perform_step = perform_step
        self._said = asyncio.Event()  # something waits to be appended
        self._pressed = asyncio.Event()  # and is not to wait for the tick
        self._settled = asyncio.Event()  # the journal has all
        self._log = log.bind(project=row.project.id, attempt=row.attempt)

    async def perform(self, reason: Reason) -> None:
        """Run to the end; cancelled, it leaves the run to a successor.

        Raises `OwnershipLost`, `JournalDiverged` and `HandedOver`.
        """
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(), name=f"journal writer of {self.project.id}")
                try:
                    await self._perform(reason)
                finally:
                    self._is_over = True
                    writer.cancel()
                    await asyncio.wait([writer])  # one append at a time
                    await self._append_last_words()
        except ExceptionGroup as errors:
            if is_cancelled():  # which a group hides behind its tasks' errors
                raise asyncio.CancelledError from errors
            raise errors.exceptions[0] from errors

    def leave(self) -> None:
        """Begin no further step; a run that is over is still ended."""
        self._is_leaving = True

    def hear_tail(self, tail: EventId | None) -> None:
        """Hear with which event the journal ended a moment ago.

        Where it has lost what it took, that is added again soon, also where nothing more is said.
        """
        if self._outbox.is_lost_behind(tail):
            self._is_journal_doubted = True
            self._said.set()

    # What steps say: plain calls of microseconds. What is left of a step that has ended is not heard.

    def say_line(self, step: str, line: str) -> None:
        """Take a harmless log line."""
        if not self._is_running(step):
            return
        self._outbox.log(step, line)
        self._said.set()

    def say_progress(self, step: str, percent: int, message: str, substep: tuple[str, int] | None) -> None:
        """Take a step's own percent."""
        if not self._is_running(step):
            return
        self._outbox.report(self.execution.report(step, percent, message, substep, _now()))
        self._said.set()

    def say_resource(self, event: Resource) -> None:
        """Take a word on a resource; it is not merged with others."""
        if self._is_running(event.step):
            self._put(event)

    def _is_running(self, step: str) -> bool:
        current = self.execution.progress.current
        return current is not None and current.spec.name == step

    async def verify_for_step(self, step: str) -> None:
        """`verify`, for a step: one that was left behind may change nothing more, also while the run ends."""
        if self._is_over or not self._is_running(step):
            raise OwnershipLost(f"step {step} of attempt {self.attempt} of run {self.project.id} is over")
        await self.verify()

    async def verify(self) -> None:
        """Make sure that this attempt still owns the run, however long it takes. Raises `OwnershipLost`."""
        async with self._verifying:
            while True:
                asked_at = time.monotonic()
                match self._ownership.decide(now=asked_at):
                    case Decision.PROCEED:
                        return
                    case Decision.STOP:
                        raise OwnershipLost(f"attempt {self.attempt} no longer owns run {self.project.id}")
                    case Decision.VERIFY:
                        attempt = await until_answered(
                            lambda: self._projects.attempt_of(self.project.id), DatabaseUnavailable, self._log
                        )
                        self._ownership.row_read(attempt=attempt or 0, now=asked_at)

    # The run

    async def _perform(self, reason: Reason) -> None:
        reason = true_reason(reason, self._row, self._history)
        self._put(self.execution.start(reason, _now()))
        if reason is Reason.RETRY and self._row.summary is not None:
            for event in recall(self._row.summary, self.execution.progress, _now()):
                self._put(event)
        while (spec := self.execution.next_step) is not None:
            if self._cancelled.is_set():
                self._put(self.execution.cancel(_now()))
            elif self._is_leaving:
                raise HandedOver(f"attempt {self.attempt} left run {self.project.id} before step {spec.name}")
            else:
                await self._step(spec)
        await self._finish()

    async def _step(self, spec: StepSpec) -> None:
        await self.verify()
        self._put(self.execution.start_step(spec, _now()))
        started = time.monotonic()
        outcome = await self._outcome_of(spec)
        duration_ms = round((time.monotonic() - started) * 1000)
        self._advance(self._outbox.end_step(spec.name, _now()))
        is_failed = outcome is not None and outcome[1] is not None
        if outcome is None or (is_failed and self.execution.progress.is_cancelling):
            self._put(self.execution.cancel_step(spec, duration_ms=duration_ms, at=_now()))
            return
        outputs, error = outcome
        if error is None:
            self._put(self.execution.complete_step(spec, duration_ms=duration_ms, outputs=outputs, at=_now()))
        else:
            self._put(self.execution.fail_step(spec, duration_ms=duration_ms, error=error, at=_now()))

    def _say_cancelling(self) -> None:
        self._put(self.execution.cancel(_now()))

    async def _outcome_of(self, spec: StepSpec) -> tuple[Outputs, str | None] | None:
        """The step's outputs, and a sentence if it failed; None where it was cancelled."""
        step = self._steps.get(spec.name)
        if step is None:
            return {}, f"this version has no step called {spec.name}"
        performing = outcome_of(step, partial(self._perform_step, self), self.project.id, self._log)
        try:
            return await end_when_due(
                performing,
                limit_s=step.timeout_s,
                cancelled=self._cancelled,
                on_cancel=self._say_cancelling,
            )
        except StepTimedOut as error:
            return {}, str(error)

    async def _finish(self) -> None:
        """The row is written before the final event: who sees the end finds the summary."""
        self._put(self.execution.save(_now()))
        await self._settle()
        summary = summarise(
            self.execution.progress,
            completed_at=_now(),
            digest=self._outbox.digest.hex(),
            reason=self._row.reason,
            earlier=self._row.summary,
        )
        is_mine = await until_answered(
            lambda: self._projects.finish(
                self.project.id,
                attempt=self.attempt,
                status=self.execution.outcome,
                summary=summary,
                error=self.execution.error,
            ),
            DatabaseUnavailable,
            self._log,
        )
        if not is_mine:
            raise OwnershipLost(f"attempt {self.attempt} no longer owns run {self.project.id}")
        self._log.info("run ended", status=self.execution.outcome.value, events=summary.events)
        self._put(self.execution.finish(_now()))
        await self._settle()

    # The way to the journal

    def _put(self, event: Event) -> None:
        self._advance(self._outbox.put(event))
        self._said.set()
        self._pressed.set()

    def _advance(self, events: Sequence[Event]) -> None:
        for event in events:
            self.execution.advance(event)

    async def _write(self) -> None:
        """Append what is said: the first at once, then at most once a tick."""
        pace = Pace(TICK_S)
        while True:
            await self._said.wait()
            pace.begin(time.monotonic())
            self._said.clear()
            self._pressed.clear()
            self._advance(self._outbox.cut(_now()))
            await until_answered(self._append, JournalUnavailable, self._log)
            if not self._outbox.is_unacknowledged:
                self._settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace.pause_s(time.monotonic())):
                    await self._pressed.wait()

    async def _append(self) -> None:
        if not self._outbox.is_unacknowledged:
            await self._check_journal()
            return
        await self.verify()  # a runner that was stalled past its lease adds nothing more
        expected, events = self._outbox.batch()
        try:
            await self._journal.append(
                self.project.id,
                events,
                expected_tail=expected,
                is_durable=any(map(_is_boundary, events)),
            )
        except AppendRefused as refused:
            await self._refused(refused)
        else:
            self._outbox.acknowledge(events[-1].id)
            if self._outbox.is_unacknowledged:
                self._said.set()
                self._pressed.set()

    async def _check_journal(self) -> None:
        """Have what a journal in doubt has lost appended again."""
        tail = self._outbox.tail
        if not self._is_journal_doubted or tail is None:
            return
        held = await self._journal.read(self.project.id)
        self._is_journal_doubted = False
        found = held[-1].id if held else None
        if found != tail:
            await self._refused(AppendRefused(expected=tail, tail=found))

    async def _refused(self, refused: AppendRefused) -> None:
        refusal = self._outbox.refused(refused.tail)
        say = self._log.info if refusal is Refusal.ARRIVED else self._log.warning
        say("append refused", expected=refused.expected, tail=refused.tail, means=refusal.name)
        match refusal:
            case Refusal.FENCED:
                self._ownership.fenced()
                raise OwnershipLost(f"a newer attempt than {self.attempt} owns run {self.project.id}")
            case Refusal.UNKNOWN:
                raise JournalDiverged(f"the journal of run {self.project.id} ends at {refused.tail}")
            case Refusal.LOST:
                self._ownership.doubted()
                await self.verify()
                self._said.set()
            case Refusal.ARRIVED:
                self._said.set()

    async def _settle(self) -> None:
        """Wait until the journal has all that was said, but not for ever."""
        self._settled.clear()
        self._said.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_LIMIT_S):
                await self._settled.wait()

    @property
    def is_settled(self) -> bool:
        """Whether the journal has all that was said."""
        return not self._outbox.has_pending

    async def settle(self) -> None:
        """Once the writer has ended: append what the journal did not take before.

        Raises `JournalUnavailable`, `OwnershipLost` and `JournalDiverged`.
        """
        while self._outbox.is_unacknowledged:
            await self._append()

    async def _append_last_words(self) -> None:
        """A run that is cut off leaves what it had said to its successor, if the journal takes it at once."""
        if not self._outbox.has_pending or self._ownership.decide(now=time.monotonic()) is Decision.STOP:
            return
        current = self.execution.progress.current
        self._advance(self._outbox.end_step(current.spec.name if current else "", _now()))
        with contextlib.suppress(InitializerError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_LIMIT_S):
                await self.settle()


def true_reason(reason: Reason, row: ProjectRow, history: Sequence[Event]) -> Reason:
    """Why an attempt begins: a takeover of a try that its journal has nothing of yet is that try's start."""
    if reason not in (Reason.TAKEOVER, Reason.HANDOVER):
        return reason
    before = row.summary.attempt if row.summary else 0
    has_begun = any(attempt_of(event.id) > before for event in history)
    return reason if has_begun else row.reason


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _is_boundary(event: Event) -> bool:
    """What should survive a loss of power, and is rare enough to pay a sync for."""
    return isinstance(event, StepCompleted | StepFailed | Saving) or is_final(event)
