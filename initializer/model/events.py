"""The events of a run: what a journal holds, one JSON object each (`docs/events.md`).

An event is drafted without an id; the outbox gives it one, `{attempt}-{index}`, when it is appended.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

import msgspec

from initializer.model.pipeline import Pipeline

__all__ = [
    "Cancelled",
    "Cancelling",
    "Completed",
    "Event",
    "EventId",
    "Failed",
    "Log",
    "Progressed",
    "Reason",
    "Resource",
    "ResourceState",
    "Saving",
    "Started",
    "StepCancelled",
    "StepCompleted",
    "StepFailed",
    "StepSkipped",
    "StepStarted",
    "Substep",
    "UnknownEvent",
    "attempt_of",
    "decode_event",
    "decode_events",
    "encode_event",
    "index_of",
    "is_final",
]

EventId = str
"""`{attempt}-{index}`; the index counts from 1 over the whole run, without holes, across attempts."""


class Reason(StrEnum):
    """Why an attempt began."""

    CREATED = "created"
    RETRY = "retry"
    RESTART = "restart"
    TAKEOVER = "takeover"
    HANDOVER = "handover"
    """A takeover from a process that left in good order; events say `takeover` and `handed_over`."""


ResourceState = Literal["planned", "created", "adopted", "removed"]


def index_of(event_id: EventId) -> int:
    """The index in an event id; 0 for the empty id of a draft."""
    return int(event_id.rpartition("-")[2] or 0)


def attempt_of(event_id: EventId) -> int:
    """The attempt in an event id; 0 for the empty id of a draft."""
    return int(event_id.partition("-")[0] or 0)


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag_field="type"):
    """What every event has. `at` is aware UTC; an empty `id` marks a draft.

    Events cannot refer to each other, so the collector of cycles need not look at them; likewise `Progress`.
    """

    id: EventId = ""
    at: datetime

    @property
    def index(self) -> int:
        """The place in the run, from 1; 0 for a draft."""
        return index_of(self.id)

    def numbered(self, attempt: int, index: int) -> Self:
        """This event with its id."""
        return msgspec.structs.replace(self, id=f"{attempt}-{index}")


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """An attempt began; `handed_over` says of a takeover that the process before it left in good order."""

    reason: Reason
    pipeline: Pipeline
    handed_over: bool = False


class StepStarted(Event, frozen=True, kw_only=True, tag="step_started"):
    """A step began, or began again after a takeover or retry."""

    step: str


class Substep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A named part of a step and its own percent."""

    name: str
    progress: int


class Progressed(Event, frozen=True, kw_only=True, tag="progress"):
    """How far a step is. `progress` is the percent of the whole run, `step_progress` that of the step."""

    step: str
    progress: int
    step_progress: int
    message: str = ""
    substep: Substep | None = None


class Log(Event, frozen=True, kw_only=True, tag="log"):
    """Lines of one tick. `first` is the number of the first line within its step, from 1.

    `dropped` lines before the first one were given up; they keep their numbers.
    """

    step: str
    first: int
    lines: tuple[str, ...]
    dropped: int = 0


class Resource(Event, frozen=True, kw_only=True, tag="resource"):
    """Something that exists outside of the run because of it, or is about to."""

    step: str
    kind: str
    name: str
    url: str = ""
    state: ResourceState


class StepCompleted(Event, frozen=True, kw_only=True, tag="step_completed"):
    """A step ended well; `kept` says in an earlier try, whose journal is gone."""

    step: str
    duration_ms: int = msgspec.field(name="duration")
    outputs: dict[str, Any] = {}
    kept: bool = False


class StepFailed(Event, frozen=True, kw_only=True, tag="step_failed"):
    """A step ended with an error, which is one sentence for people."""

    step: str
    duration_ms: int = msgspec.field(name="duration")
    error: str


class StepCancelled(Event, frozen=True, kw_only=True, tag="step_cancelled"):
    """A step was ended because somebody cancelled the run."""

    step: str
    duration_ms: int = msgspec.field(name="duration")


class StepSkipped(Event, frozen=True, kw_only=True, tag="step_skipped"):
    """A step had nothing to do."""

    step: str
    message: str = ""


class Cancelling(Event, frozen=True, kw_only=True, tag="cancelling"):
    """Somebody has cancelled the run: what is running is being ended, and nothing more begins."""


class Saving(Event, frozen=True, kw_only=True, tag="saving"):
    """All steps are over; the summary is being written to the row."""


class Completed(Event, frozen=True, kw_only=True, tag="completed"):
    """The row is `active`."""


class Failed(Event, frozen=True, kw_only=True, tag="failed"):
    """The row is `failed`."""

    step: str
    error: str


class Cancelled(Event, frozen=True, kw_only=True, tag="cancelled"):
    """The row is `cancelled`; `step` is the one that was running."""

    step: str = ""


class UnknownEvent(Event, frozen=True, kw_only=True, tag="unknown"):
    """An event of a type this version does not know: kept as it came, and counted."""

    raw: bytes


KnownEvent = (
    Started
    | StepStarted
    | Progressed
    | Log
    | Resource
    | StepCompleted
    | StepFailed
    | StepCancelled
    | StepSkipped
    | Cancelling
    | Saving
    | Completed
    | Failed
    | Cancelled
)


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    id: EventId
    at: datetime


_FINAL = (Completed, Failed, Cancelled)
_KNOWN_TYPES = frozenset(kind.__struct_config__.tag for kind in KnownEvent.__args__)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(KnownEvent)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def encode_event(event: Event) -> bytes:
    """One line of JSON without a line end; an unknown event as it came."""
    return event.raw if isinstance(event, UnknownEvent) else _encoder.encode(event)


def decode_event(data: bytes) -> Event:
    """The event in one line of JSON. Unknown keys are ignored, unknown types give `UnknownEvent`.

    Raises `msgspec.DecodeError` where it is no event.
    """
    try:
        event: Event = _decoder.decode(data)
    except msgspec.ValidationError:
        envelope = _envelope_decoder.decode(data)
        if envelope.type in _KNOWN_TYPES:
            raise
        return UnknownEvent(id=envelope.id, at=envelope.at, raw=bytes(data))
    return event


def decode_events(lines: Sequence[bytes]) -> list[Event]:
    """The same for many, faster."""
    try:
        return list(map(_decoder.decode, lines))
    except msgspec.ValidationError:  # one that is unknown may be among them
        return [decode_event(line) for line in lines]


def is_final(event: Event) -> bool:
    """Whether the run is over with this event."""
    return isinstance(event, _FINAL)
