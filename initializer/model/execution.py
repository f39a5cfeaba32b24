"""What a run does next, and the events that say so. Decides; neither waits nor writes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from initializer.model.events import (
    Cancelled,
    Cancelling,
    Completed,
    Event,
    Failed,
    Progressed,
    Reason,
    Saving,
    Started,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepStarted,
    Substep,
)
from initializer.model.pipeline import StepSpec, weighted_percent
from initializer.model.progress import Progress, Status, StepStatus, advance

__all__ = ["Execution"]


class Execution:
    """One run in the hands of its runner: the fold of all its events, and the next decision.

    Drafts come from here, are numbered by the outbox, and come back through `advance`, so that the
    runner, the page and the summary see the same list.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._step_percent = 0

    def advance(self, event: Event) -> None:
        """Take in a numbered event."""
        self.progress = advance(self.progress, event)

    @property
    def next_step(self) -> StepSpec | None:
        """The step to run now; None where all are done, one failed, or the run was cancelled."""
        if self.progress.is_cancelling or self.progress.failed is not None:
            return None
        return next((step.spec for step in self.progress.steps if not step.status.is_done), None)

    @property
    def outcome(self) -> Status:
        """What the row will say, once `next_step` is None."""
        if self.progress.failed is not None:
            return Status.FAILED
        if all(step.status.is_done for step in self.progress.steps):
            return Status.ACTIVE
        return Status.CANCELLED

    @property
    def error(self) -> str | None:
        """The one readable sentence of a failed run."""
        failed = self.progress.failed
        return f"{failed.spec.title} failed: {failed.error}" if failed else None

    def start(self, reason: Reason, at: datetime) -> Started:
        """The first event of an attempt."""
        is_handed_over = reason is Reason.HANDOVER
        return Started(
            at=at,
            reason=Reason.TAKEOVER if is_handed_over else reason,
            pipeline=self.progress.pipeline,
            handed_over=is_handed_over,
        )

    def start_step(self, spec: StepSpec, at: datetime) -> StepStarted:
        """A step begins."""
        self._step_percent = 0
        return StepStarted(at=at, step=spec.name)

    def report(
        self, step: str, percent: int, message: str, substep: tuple[str, int] | None, at: datetime
    ) -> Progressed:
        """What a step says of itself, held to 0-100 and to never falling, with the percent of the whole."""
        self._step_percent = max(self._step_percent, _percent(percent))
        whole = weighted_percent(
            (it.spec.weight, self._step_percent if it.spec.name == step else it.percent)
            for it in self.progress.steps
        )
        return Progressed(
            at=at,
            step=step,
            progress=max(self.progress.percent, min(whole, 99)),
            step_progress=self._step_percent,
            message=message,
            substep=Substep(name=substep[0], progress=_percent(substep[1])) if substep else None,
        )

    def complete_step(
        self, spec: StepSpec, *, duration_ms: int, outputs: Mapping[str, Any], at: datetime
    ) -> StepCompleted:
        """A step ended well."""
        return StepCompleted(at=at, step=spec.name, duration_ms=duration_ms, outputs=dict(outputs))

    def fail_step(self, spec: StepSpec, *, duration_ms: int, error: str, at: datetime) -> StepFailed:
        """A step failed, and with it the run."""
        return StepFailed(at=at, step=spec.name, duration_ms=duration_ms, error=error)

    def cancel(self, at: datetime) -> Cancelling:
        """Somebody has cancelled the run, and no step begins any more."""
        return Cancelling(at=at)

    def cancel_step(self, spec: StepSpec, *, duration_ms: int, at: datetime) -> StepCancelled:
        """A step was ended by that."""
        return StepCancelled(at=at, step=spec.name, duration_ms=duration_ms)

    def save(self, at: datetime) -> Saving:
        """The summary is about to be written."""
        return Saving(at=at)

    def finish(self, at: datetime) -> Event:
        """The final event, for after the row was written."""
        match self.outcome:
            case Status.ACTIVE:
                return Completed(at=at)
            case Status.FAILED:
                failed = self.progress.failed
                assert failed is not None  # that is what made it the outcome
                return Failed(at=at, step=failed.spec.name, error=failed.error)
            case _:
                cancelled = (it.spec.name for it in self.progress.steps if it.status is StepStatus.CANCELLED)
                return Cancelled(at=at, step=next(cancelled, ""))


def _percent(value: int) -> int:
    return max(0, min(100, int(value)))
