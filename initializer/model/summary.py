"""The one JSON value that a run leaves in its row (design of the keys: `docs/events.md`)."""

from datetime import datetime
from typing import Any

import msgspec

from initializer.model.events import Event, Reason, Resource, ResourceState, StepCompleted, StepSkipped
from initializer.model.progress import Progress, StepProgress, StepStatus

__all__ = ["FAILURE_LOG_LINES", "StepSummary", "Summary", "SummaryResource", "recall", "summarise"]

MAX_EARLIER_TRIES = 20
"""How many tries before the last one a row keeps; the oldest give way."""
FAILURE_LOG_LINES = 20
"""How many of its last log lines a failed step keeps in the summary, for when the journal is gone."""


class StepSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one step ended. A step that never began is not listed."""

    step: str
    title: str
    status: StepStatus
    duration_ms: int = msgspec.field(name="duration")
    error: str = ""
    kept: bool = False
    """Whether it was done in an earlier try already."""
    log: tuple[str, ...] = ()


class SummaryResource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that exists because of the run."""

    kind: str
    name: str
    url: str = ""
    state: ResourceState
    step: str


class Summary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run, once it is over. Durations are whole milliseconds, times UTC."""

    steps: tuple[StepSummary, ...]
    total_duration: int
    failed_step: str | None
    completed_at: datetime
    started_at: datetime | None
    attempt: int
    outputs: dict[str, Any]
    resources: tuple[SummaryResource, ...]
    events: int
    """How many events the run had when this was written; the final event follows."""
    digest: str
    """Of those events: `running/outbox.py` tells how."""
    reason: Reason = Reason.CREATED
    """Why this try began: it is no takeover."""
    previous_attempts: "tuple[Summary, ...]" = ()
    """How the tries before it ended, the first one first; they have none themselves."""


def summarise(
    progress: Progress,
    *,
    completed_at: datetime,
    digest: str,
    reason: Reason = Reason.CREATED,
    earlier: Summary | None = None,
) -> Summary:
    """The summary of a run whose steps are over. `earlier` is that of the try before this one."""
    failed = progress.failed
    steps = tuple(_step(step) for step in progress.steps if step.status is not StepStatus.PENDING)
    return Summary(
        steps=steps,
        total_duration=sum(step.duration_ms for step in steps),
        failed_step=failed.spec.name if failed else None,
        completed_at=completed_at,
        started_at=progress.started_at,
        attempt=progress.attempt,
        outputs=progress.outputs,
        resources=tuple(map(_resource, progress.resources)),
        events=progress.index,
        digest=digest,
        reason=reason,
        previous_attempts=_tries_upto(earlier) if earlier else (),
    )


def recall(summary: Summary, progress: Progress, at: datetime) -> list[Event]:
    """What a retry has to know of the try before it and no journal tells it; drafts to follow `started`.

    That is all where the journal is gone, and the last of it where it was away when the try ended.
    `progress` is the fold of what the journal has.
    """
    told = {_resource(it) for it in progress.resources}
    known = {step.spec.name for step in progress.steps if step.status.is_done}
    done = [step for step in summary.steps if step.status.is_done and step.step not in known]
    events: list[Event] = [
        Resource(at=at, step=it.step, kind=it.kind, name=it.name, url=it.url, state=it.state)
        for it in summary.resources
        if it not in told
    ]
    for step in done:
        if step.status is StepStatus.SKIPPED:
            events.append(StepSkipped(at=at, step=step.step))
        else:
            outputs = summary.outputs if step is done[-1] else {}
            events.append(
                StepCompleted(at=at, step=step.step, duration_ms=step.duration_ms, outputs=outputs, kept=True)
            )
    return events


def _tries_upto(earlier: Summary) -> tuple[Summary, ...]:
    alone = msgspec.structs.replace(earlier, previous_attempts=())
    return (*earlier.previous_attempts, alone)[-MAX_EARLIER_TRIES:]


def _resource(it: Resource) -> SummaryResource:
    return SummaryResource(kind=it.kind, name=it.name, url=it.url, state=it.state, step=it.step)


def _step(step: StepProgress) -> StepSummary:
    """A step still running when the run is over was cancelled."""
    status = StepStatus.CANCELLED if step.status is StepStatus.RUNNING else step.status
    rows = step.log[-FAILURE_LOG_LINES:] if status is StepStatus.FAILED else ()
    return StepSummary(
        step=step.spec.name,
        title=step.spec.title,
        status=status,
        duration_ms=step.duration_ms or 0,
        error=step.error,
        kept=step.is_kept,
        log=tuple(row.text for row in rows if not row.dropped),
    )
