from collections.abc import Iterator

import msgspec
import pytest

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
    attempt_of,
    decode_event,
    encode_event,
    index_of,
    is_final,
)
from model.runs import HOSTILE, PIPELINE, START, numbered


def one_of_each_type() -> Iterator[Event]:
    yield Started(at=START, reason=Reason.TAKEOVER, pipeline=PIPELINE)
    yield StepStarted(at=START, step="create_repo")
    yield Progressed(
        at=START,
        step="create_repo",
        progress=45,
        step_progress=80,
        message="Pushing",
        substep=Substep(name="push_files", progress=80),
    )
    yield Progressed(at=START, step="create_repo", progress=0, step_progress=0)
    yield Log(at=START, step="create_repo", first=7, lines=HOSTILE, dropped=3)
    yield Resource(at=START, step="create_repo", kind="repository", name="x", url="http://x", state="created")
    yield StepCompleted(at=START, step="create_repo", duration_ms=1200, outputs={"a": [1, {"b": None}]})
    yield StepFailed(at=START, step="create_repo", duration_ms=1, error="remote rejected the push")
    yield StepCancelled(at=START, step="create_repo", duration_ms=1)
    yield StepSkipped(at=START, step="create_repo", message="nothing to do")
    yield Cancelling(at=START)
    yield Saving(at=START)
    yield Completed(at=START)
    yield Failed(at=START, step="create_repo", error="remote rejected the push")
    yield Cancelled(at=START, step="create_repo")
    yield Cancelled(at=START)


@pytest.mark.parametrize("event", numbered(*one_of_each_type()), ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_json_as_it_was(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


def test_the_sample_covers_every_type_that_can_be_decoded() -> None:
    types = {kind for kind in Event.__subclasses__() if kind is not UnknownEvent}
    assert {type(event) for event in one_of_each_type()} == types


def test_the_json_of_an_event_is_the_one_that_outsiders_know() -> None:
    event = Progressed(
        at=START,
        step="push_template",
        progress=45,
        step_progress=90,
        message="Pushing template files",
        substep=Substep(name="push_files", progress=80),
    ).numbered(1, 17)
    assert msgspec.json.decode(encode_event(event)) == {
        "id": "1-17",
        "type": "progress",
        "at": "2026-01-01T10:00:00Z",
        "step": "push_template",
        "progress": 45,
        "step_progress": 90,
        "message": "Pushing template files",
        "substep": {"name": "push_files", "progress": 80},
    }


def test_a_duration_is_called_duration() -> None:
    completed = encode_event(StepCompleted(at=START, step="x", duration_ms=12).numbered(1, 1))
    assert msgspec.json.decode(completed)["duration"] == 12


def test_an_event_of_an_unknown_type_survives_byte_for_byte() -> None:
    raw = b'{ "type":"weather","id":"2-9", "at":"2026-01-01T10:00:00Z","is":{"\\u0041":[1.0,  null]}}'
    event = decode_event(raw)
    assert isinstance(event, UnknownEvent)
    assert (event.id, event.index, event.at) == ("2-9", 9, START)
    assert encode_event(event) == raw


def test_an_event_that_calls_itself_unknown_is_unknown() -> None:
    raw = b'{"type":"unknown","id":"1-1","at":"2026-01-01T10:00:00Z"}'
    assert encode_event(decode_event(raw)) == raw


def test_unknown_keys_are_ignored() -> None:
    raw = b'{"type":"saving","id":"1-1","at":"2026-01-01T10:00:00Z","colour":"red"}'
    assert decode_event(raw) == Saving(id="1-1", at=START)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"progress","id":"1-1","at":"2026-01-01T10:00:00Z","step":7}',
        b'{"type":"resource","id":"1-1","at":"2026-01-01T10:00:00Z","step":"x","kind":"k","name":"n","state":"odd"}',
        b'{"type":"weather","at":"2026-01-01T10:00:00Z"}',
        b'{"id":"1-1"}',
        b"[]",
        b"{",
        b"",
        b'{"type":"saving","id":"1-1","at":"\xff"}',
    ],
)
def test_what_is_no_event_raises(raw: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode_event(raw)


def test_an_id_names_the_attempt_and_the_index() -> None:
    event = Saving(at=START).numbered(12, 345)
    assert event.id == "12-345"
    assert (attempt_of(event.id), index_of(event.id), event.index) == (12, 345, 345)


def test_a_draft_has_no_place_yet() -> None:
    assert Saving(at=START).index == attempt_of("") == index_of("") == 0


def test_three_types_end_a_run() -> None:
    final = {type(event) for event in one_of_each_type() if is_final(event)}
    assert final == {Completed, Failed, Cancelled}
