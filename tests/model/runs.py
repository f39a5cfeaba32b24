"""Runs to test with: a pipeline, projects, and a Hypothesis strategy for everything that a run may say."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st

from initializer.model.events import (
    Cancelled,
    Cancelling,
    Completed,
    Event,
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
    decode_event,
)
from initializer.model.parameters import Project, RunParameters, TemplateRef
from initializer.model.pipeline import Pipeline, StepSpec
from initializer.model.progress import Progress, Status, advance

START = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)
HOSTILE = (
    "plain",
    "Adding files: <a>",  # as a built-in step says it, and so translated
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>\' hx-get="/evil" ',
    "\x1b[31mred\x1b[0m &amp; <b>",
    "</hx-partial></ol></section>{{ 7 * 7 }}",
    "名前 😀 \u202e",
    "",
)


def pipeline_of(**weights: int) -> Pipeline:
    """A pipeline of these steps, their titles made from their names."""
    return Pipeline(
        version=1,
        steps=tuple(
            StepSpec(name=name, title=name.replace("_", " ").capitalize(), weight=weight)
            for name, weight in weights.items()
        ),
    )


PIPELINE = pipeline_of(create_repo=1, push_template=3, setup_gitops=2)


def project_of(
    run: str = "a1", *, slug: str = "", name: str = "", pipeline: Pipeline = PIPELINE, **values: Any
) -> Project:
    return Project(
        id=run,
        slug=slug or f"project-{run}",
        name=name or f"Project {run}",
        owner="local",
        created_at=values.pop("created_at", START),
        parameters=RunParameters(
            template=TemplateRef(name="bare", version="0" * 12),
            forge="local",
            environments=("production",),
            gitops="flux",
            pipeline=pipeline,
            **values,
        ),
    )


def numbered(*drafts: Event, attempt: int = 1, first: int = 1) -> list[Event]:
    """The drafts as events of one attempt."""
    return [draft.numbered(attempt, index) for index, draft in enumerate(drafts, first)]


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


class Run(msgspec.Struct, frozen=True):
    """A legal list of events, and the pipeline of its project."""

    pipeline: Pipeline
    events: Sequence[Event]


@st.composite
def runs(draw: st.DrawFn, *, max_choices: int = 150) -> Run:
    """Any run: several attempts, each step going on, failing, skipped, cut off or cancelled."""
    weights = draw(st.lists(st.integers(0, 20), min_size=1, max_size=4))
    pipeline = pipeline_of(**{f"step_{number}": weight for number, weight in enumerate(weights, 1)})
    count = draw(st.integers(0, max_choices))  # a list without a size would nearly always be short
    choices = draw(st.binary(min_size=count, max_size=count))
    story = _Story(pipeline, choices)
    story.tell()
    return Run(pipeline, story.events)


class _Story:
    """Interprets numbers as what happens next; out of numbers, everything goes well."""

    def __init__(self, pipeline: Pipeline, choices: Sequence[int]) -> None:
        self.events: list[Event] = []
        self._pipeline = pipeline
        self._choices = iter(choices)
        self._attempt = 0
        self._progress = Progress.waiting(pipeline)

    def tell(self) -> None:
        while self._progress.status is not Status.ACTIVE and self._attempt < 5:
            self._attempt += 1
            self._add(Started(at=self._at, reason=self._reason(), pipeline=self._pipeline))
            self._attempt_goes_on()
            if self._progress.status.is_final and self._choose(3) == 0:
                return

    def _attempt_goes_on(self) -> None:
        for step in self._progress.steps:
            if self._progress.failed is not None:
                break
            if not step.status.is_done and not self._step_goes_on(step.spec.name):
                return
        if self._choose(5) == 4:
            return  # the process dies
        self._add(Saving(at=self._at))
        if self._choose(5) == 4:
            return
        failed = self._progress.failed
        if failed is None:
            self._add(Completed(at=self._at))
        else:
            self._add(Failed(at=self._at, step=failed.spec.name, error=failed.error))

    def _step_goes_on(self, step: str) -> bool:
        """Whether the attempt goes on behind it."""
        if self._choose(12) == 11:
            self._add(StepSkipped(at=self._at, step=step, message=self._text()))
            return True
        self._add(StepStarted(at=self._at, step=step))
        while (what := self._choose(10)) not in (0, 9):
            self._say(step, what)
        if what == 0:
            self._add(StepCompleted(at=self._at, step=step, duration_ms=7, outputs={step: self._text()}))
            return True
        match self._choose(3):
            case 0:
                self._add(StepFailed(at=self._at, step=step, duration_ms=5, error=self._text()))
                return True
            case 1:
                self._add(Cancelling(at=self._at))
                self._add(StepCancelled(at=self._at, step=step, duration_ms=3))
                self._add(Saving(at=self._at))
                self._add(Cancelled(at=self._at, step=step))
        return False

    def _say(self, step: str, what: int) -> None:
        match what:
            case 1 | 2 | 3 | 4:
                percent = max(self._choose(101), self._progress.step(step).percent)
                part = Substep(name=self._text(), progress=percent) if what == 4 else None
                draft = Progressed(
                    at=self._at,
                    step=step,
                    progress=0,
                    step_progress=percent,
                    message=self._text(),
                    substep=part,
                )
                after = advance(self._progress, draft.numbered(self._attempt, len(self.events) + 1))
                self._add(msgspec.structs.replace(draft, progress=after.percent))
            case 5 | 6:
                many = 90 if what == 6 else 1
                dropped = self._choose(50) if what == 6 else 0
                lines = tuple(self._text() for _ in range(1 + self._choose(3))) * many
                first = self._progress.step(step).log_lines + dropped + 1
                self._add(Log(at=self._at, step=step, first=first, lines=lines, dropped=dropped))
            case 7:
                self._add(
                    Resource(
                        at=self._at,
                        step=step,
                        kind="repository",
                        name=self._text(),
                        state=("planned", "created", "adopted", "removed")[self._choose(4)],
                    )
                )
            case _:
                self._add_unknown()

    def _add_unknown(self) -> None:
        index = len(self.events) + 1
        raw = msgspec.json.encode(
            {"id": f"{self._attempt}-{index}", "type": "weather", "at": self._at, "is": self._text()}
        )
        event = decode_event(raw)
        assert isinstance(event, UnknownEvent)
        self.events.append(event)
        self._progress = advance(self._progress, event)

    def _add(self, draft: Event) -> None:
        event = draft.numbered(self._attempt, len(self.events) + 1)
        self.events.append(event)
        self._progress = advance(self._progress, event)

    def _reason(self) -> Reason:
        if self._attempt == 1:
            return Reason.CREATED
        if self._progress.status.is_final:
            return (Reason.RETRY, Reason.RESTART)[self._choose(2)]
        return Reason.TAKEOVER

    def _text(self) -> str:
        return HOSTILE[self._choose(len(HOSTILE))]

    def _choose(self, below: int) -> int:
        return next(self._choices, 0) % below

    @property
    def _at(self) -> datetime:
        return at(len(self.events) / 8)
