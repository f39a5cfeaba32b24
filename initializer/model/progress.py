"""The fold: where a run stands, worked out from its events and from nothing else."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from initializer.errors import InitializerError
from initializer.model.events import (
    Cancelled,
    Cancelling,
    Completed,
    Event,
    EventId,
    Failed,
    Log,
    Progressed,
    Reason,
    Resource,
    Saving,
    Started,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepSkipped,
    StepStarted,
    Substep,
    UnknownEvent,
    attempt_of,
    index_of,
)
from initializer.model.pipeline import Pipeline, StepSpec, weighted_percent

__all__ = [
    "LOG_TAIL_ROWS",
    "IndexGap",
    "LogRow",
    "Progress",
    "Status",
    "StepProgress",
    "StepStatus",
    "advance",
    "advance_all",
    "awaiting",
    "fold",
]

LOG_TAIL_ROWS = 100
"""How many of a step's last log rows a progress holds; the journal has them all (`model/run_log.py`)."""


class IndexGap(InitializerError):
    """An event does not follow the one before it."""

    def __init__(self, *, expected: int, received: int) -> None:
        super().__init__(f"expected event {expected}, received {received}")
        self.expected, self.received = expected, received


class Status(StrEnum):
    """The status of a project, in the row and everywhere else."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    ACTIVE = "active"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the run is over; a new attempt may still change that."""
        return self in _FINAL


_FINAL = frozenset({Status.ACTIVE, Status.FAILED, Status.CANCELLED})
_PENDING = Status.PENDING  # Python 3.11 takes longer to find a member than to do all that depends on it


class StepStatus(StrEnum):
    """The status of a step."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def is_done(self) -> bool:
        """Whether the run may go on to the next step."""
        return self in (StepStatus.COMPLETED, StepStatus.SKIPPED)


class LogRow(msgspec.Struct, frozen=True, gc=False):
    """One row of a log: a line with its number, or, where `dropped` is set, how many lines are missing here.

    `index` is that of the event that brought it.
    """

    index: int
    number: int
    at: datetime
    text: str = ""
    dropped: int = 0

    @property
    def first(self) -> int:
        """The number of the first line that this row stands for."""
        return self.number - self.dropped

    @classmethod
    def of(cls, event: Log) -> "list[LogRow]":
        """The rows that an event brings."""
        index, at = event.index, event.at
        gap = [cls(index, event.first, at, dropped=event.dropped)] if event.dropped else []
        return gap + [cls(index, event.first + offset, at, line) for offset, line in enumerate(event.lines)]


class StepProgress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where one step stands. `index` is that of the last event that changed more than its log."""

    spec: StepSpec
    status: StepStatus = StepStatus.PENDING
    percent: int = 0
    message: str = ""
    substep: Substep | None = None
    started_at: datetime | None = None
    duration_ms: int | None = None
    error: str = ""
    is_kept: bool = False
    """Whether it was done in an earlier try already."""
    log: tuple[LogRow, ...] = ()
    log_lines: int = 0
    """Lines logged so far, the dropped ones counted."""
    log_dropped: int = 0
    index: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a run stands after its first `index` events; with none, or `awaiting`, it waits for its start."""

    pipeline: Pipeline
    steps: tuple[StepProgress, ...]
    tail: EventId = ""
    """The id of the last event; empty where there is none."""
    index: int = 0
    attempt: int = 0
    firsts: tuple[EventId, ...] = ()
    """The first event of each attempt."""
    status: Status = Status.PENDING
    cancelling_index: int = 0
    """The index of the event with which the attempt began to end because somebody cancelled it, or 0."""
    is_saving: bool = False
    reason: Reason | None = None
    started_index: int = 0
    """The index of the event with which the attempt began."""
    percent: int = 0
    started_at: datetime | None = None
    updated_at: datetime | None = None
    outputs: dict[str, Any] = {}
    resources: tuple[Resource, ...] = ()
    """The latest word on each (kind, name), in order of first appearance."""
    error: str = ""

    @classmethod
    def waiting(cls, pipeline: Pipeline) -> "Progress":
        """The progress of an empty journal."""
        return cls(pipeline=pipeline, steps=tuple(StepProgress(spec=spec) for spec in pipeline.steps))

    def holds(self, event_id: EventId) -> bool:
        """Whether this is the fold of a list with that event: an index alone may have changed hands."""
        if event_id == self.tail:
            return bool(event_id)
        index = index_of(event_id)
        owners = [attempt_of(first) for first in self.firsts if index_of(first) <= index]
        return index <= self.index and owners[-1:] == [attempt_of(event_id)]

    def lacks(self, event_id: EventId) -> bool:
        """Whether that event has yet to come, or to come again where it was lost."""
        return self.attempt <= attempt_of(event_id) and self.index < index_of(event_id)

    @property
    def is_waiting(self) -> bool:
        """Whether the run, or another try of it, has yet to begin."""
        return self.status is _PENDING

    @property
    def is_cancelling(self) -> bool:
        """Whether somebody has cancelled the run and it is not over yet."""
        return bool(self.cancelling_index) and not self.status.is_final

    @property
    def current(self) -> StepProgress | None:
        """The step that is running."""
        for step in self.steps:
            if step.status is StepStatus.RUNNING:
                return step
        return None

    @property
    def failed(self) -> StepProgress | None:
        """The step that failed."""
        return next((step for step in self.steps if step.status is StepStatus.FAILED), None)

    def step(self, name: str) -> StepProgress:
        """The step of that name. Raises `KeyError`."""
        for step in self.steps:
            if step.spec.name == name:
                return step
        raise KeyError(name)


Changes = dict[str, Any]
"""The new values of a progress's fields, by their names."""


def fold(pipeline: Pipeline, events: Iterable[Event]) -> Progress:
    """Progress after all events of a run, from the first. Raises `IndexGap`."""
    return advance_all(Progress.waiting(pipeline), events)


def awaiting(progress: Progress, reason: Reason) -> Progress:
    """Progress of a run that is over and waits for another try: what that keeps is done, nothing runs.

    It goes on from here as it would from `progress`.
    """
    begun = _begun(progress, progress.index + 1, reason, progress.pipeline)
    return replace(progress, **(begun | {"status": Status.PENDING, "started_at": None}))


def advance(progress: Progress, event: Event) -> Progress:
    """Progress once event has happened. Raises `IndexGap` if an event is missing before it."""
    return advance_all(progress, (event,))


def advance_all(progress: Progress, events: Iterable[Event]) -> Progress:
    """Progress once events have happened, one after the other. Raises `IndexGap` where one is missing.

    A report of which the next one leaves nothing is passed over, which makes many at once cheap.
    """
    last: Event | None = None
    index, attempt = progress.index, ""
    for event in events:
        own_attempt, _, number = event.id.partition("-")  # once for both: the hot path
        received = int(number or 0)
        if received != index + 1:
            raise IndexGap(expected=index + 1, received=received)
        if last is not None and not (own_attempt == attempt and _leaves_nothing_of(event, last)):
            progress = _advance(progress, last, int(attempt or 0), index)
        index, attempt, last = received, own_attempt, event
    return progress if last is None else _advance(progress, last, int(attempt or 0), index)


def _leaves_nothing_of(event: Event, last: Event) -> bool:
    """Whether nothing is left of a report once the next one of the same attempt has come."""
    return (
        type(event) is Progressed
        and type(last) is Progressed
        and event.step == last.step
        and event.step_progress >= last.step_progress  # the percent of the whole never falls
    )


def _advance(progress: Progress, event: Event, attempt: int, index: int) -> Progress:
    if type(event) is Progressed:
        changed = _report(progress, event, index)
    else:
        changed = replace(progress, **_changes(progress, event, index))
    firsts = progress.firsts if attempt == progress.attempt else (*progress.firsts, event.id)
    return replace(changed, tail=event.id, index=index, attempt=attempt, firsts=firsts, updated_at=event.at)


def _changes(progress: Progress, event: Event, index: int) -> Changes:
    """What the event with that index changes; a report is not among them (`_report`)."""
    match event:
        case Log():
            return _log(progress, event)
        case Started(reason=reason, pipeline=pipeline):
            begun = _begun(progress, index, reason, pipeline)
            is_new = reason is not Reason.TAKEOVER or progress.started_at is None
            return begun | {"started_at": event.at} if is_new else begun
        case StepStarted(step=name):
            return _change_step(
                progress,
                name,
                index,
                status=StepStatus.RUNNING,
                started_at=event.at,
                message="",
                substep=None,
                error="",
                is_kept=False,
            )
        case StepCompleted(step=name, duration_ms=duration_ms, outputs=outputs, kept=is_kept):
            changes = _change_step(
                progress,
                name,
                index,
                status=StepStatus.COMPLETED,
                percent=100,
                duration_ms=duration_ms,
                substep=None,
                is_kept=is_kept,
            )
            return changes | {"outputs": {**progress.outputs, **outputs}}
        case StepFailed(step=name, duration_ms=duration_ms, error=error):
            return _change_step(
                progress,
                name,
                index,
                status=StepStatus.FAILED,
                duration_ms=duration_ms,
                error=error,
                substep=None,
            )
        case StepCancelled(step=name, duration_ms=duration_ms):
            return _change_step(
                progress, name, index, status=StepStatus.CANCELLED, duration_ms=duration_ms, substep=None
            )
        case StepSkipped(step=name, message=message):
            return _change_step(
                progress, name, index, status=StepStatus.SKIPPED, percent=100, duration_ms=0, message=message
            )
        case Resource():
            return {"resources": _with_resource(progress.resources, event)}
        case Cancelling():
            return {"cancelling_index": index}
        case Saving():
            return {"is_saving": True}
        case Completed():
            return {"status": Status.ACTIVE, "is_saving": False, "percent": 100}
        case Failed(error=error):
            return {"status": Status.FAILED, "is_saving": False, "error": error}
        case Cancelled(step=name):
            changes = _change_step(progress, name, index, status=StepStatus.CANCELLED, substep=None)
            return changes | {"status": Status.CANCELLED, "is_saving": False}
        case UnknownEvent():
            return {}
        case _:
            raise TypeError(f"no rule for {type(event).__name__}")


def _begun(progress: Progress, index: int, reason: Reason, pipeline: Pipeline) -> Changes:
    """A new attempt keeps what is done, except a restart; the unfinished step begins again from its start.

    A takeover keeps a failure too: to try a failed step again is for people to ask.
    """
    is_anew = reason is Reason.RESTART or not progress.steps
    waiting = Progress.waiting(pipeline)
    steps = waiting.steps if is_anew else progress.steps
    changes: Changes = {
        # One for all that know it.
        "pipeline": progress.pipeline if progress.pipeline == pipeline else pipeline,
        "steps": tuple(_begun_again(step, reason, index=index) for step in steps),
        "status": Status.INITIALIZING,
        "is_saving": False,
        "cancelling_index": 0,
        "reason": reason,
        "started_index": index,
        "error": "",
    }
    if is_anew:
        changes |= {"percent": 0, "outputs": {}}
    return changes


def _begun_again(step: StepProgress, reason: Reason, *, index: int) -> StepProgress:
    if step.status.is_done:
        return replace(step, is_kept=step.is_kept or reason is Reason.RETRY)
    if reason is Reason.TAKEOVER and step.status is StepStatus.FAILED:
        return step
    return StepProgress(
        spec=step.spec, log=step.log, log_lines=step.log_lines, log_dropped=step.log_dropped, index=index
    )


def _report(progress: Progress, event: Progressed, index: int) -> Progress:
    """By far the most frequent event, so not by `_changes`, which takes twice as long."""
    steps, name = progress.steps, event.step
    for place, step in enumerate(steps):
        if step.spec.name == name:
            reported = replace(
                step, index=index, percent=event.step_progress, message=event.message, substep=event.substep
            )
            steps = (*steps[:place], reported, *steps[place + 1 :])
            percent = progress.percent if reported.percent == step.percent else _percent(progress, steps)
            return replace(progress, steps=steps, percent=percent)
    return progress


def _change_step(progress: Progress, name: str, index: int, **changes: Any) -> Changes:
    steps = _with_step(progress.steps, name, index=index, **changes)
    return {"steps": steps, "percent": _percent(progress, steps)}


def _percent(progress: Progress, steps: Sequence[StepProgress]) -> int:
    """The percent of the whole: rounded down, never falling, 100 only at success."""
    percent = weighted_percent([(step.spec.weight, step.percent) for step in steps])
    return max(progress.percent, min(percent, 99))


def _log(progress: Progress, event: Log) -> Changes:
    for step in progress.steps:
        if step.spec.name == event.step:
            log = (*step.log, *LogRow.of(event))[-LOG_TAIL_ROWS:]
            lines = event.first + len(event.lines) - 1
            dropped = step.log_dropped + event.dropped
            steps = _with_step(progress.steps, event.step, log=log, log_lines=lines, log_dropped=dropped)
            return {"steps": steps}
    return {}


def _with_step(steps: tuple[StepProgress, ...], name: str, **changes: Any) -> tuple[StepProgress, ...]:
    for place, step in enumerate(steps):
        if step.spec.name == name:
            return (*steps[:place], replace(step, **changes), *steps[place + 1 :])
    return steps


def _with_resource(resources: tuple[Resource, ...], event: Resource) -> tuple[Resource, ...]:
    key = (event.kind, event.name)
    if any((known.kind, known.name) == key for known in resources):
        return tuple(event if (known.kind, known.name) == key else known for known in resources)
    return (*resources, event)
