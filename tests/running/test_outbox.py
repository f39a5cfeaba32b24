import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initializer.model.events import (
    Event,
    Log,
    Progressed,
    Reason,
    Saving,
    Started,
    StepStarted,
    encode_event,
)
from initializer.model.progress import fold
from initializer.running import outbox as module
from initializer.running.outbox import HEAD_LINES, MAX_BATCH_EVENTS, TAIL_LINES, Outbox, Refusal
from model.runs import PIPELINE, Run, at, numbered, runs

STARTED = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)


def progress(step: str, percent: int) -> Progressed:
    return Progressed(at=at(1), step=step, progress=percent, step_progress=percent)


def ids(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events]


def lines_of(events: Sequence[Event]) -> dict[int, str]:
    """Number and text of every line that got through."""
    return {
        event.first + n: line
        for event in events
        if isinstance(event, Log)
        for n, line in enumerate(event.lines)
    }


def dropped_in(events: Sequence[Event]) -> int:
    return sum(event.dropped for event in events if isinstance(event, Log))


def test_events_are_numbered_from_1_in_the_order_in_which_they_are_put() -> None:
    outbox = Outbox(attempt=1)
    outbox.put(STARTED)
    outbox.put(StepStarted(at=at(1), step="a"))
    assert outbox.tail == "1-2"
    assert outbox.batch()[0] is None
    assert ids(outbox.batch()[1]) == ["1-1", "1-2"]


def test_the_numbers_go_on_from_attempt_to_attempt() -> None:
    outbox = Outbox(attempt=2, history=numbered(STARTED, Saving(at=at(1))))
    outbox.put(STARTED)
    assert outbox.batch() == ("1-2", [STARTED.numbered(2, 3)])


def test_of_a_tick_the_lines_become_one_event_and_the_last_progress_counts() -> None:
    outbox = Outbox(attempt=1)
    for n in range(1, 4):
        outbox.log("a", f"line {n}")
        outbox.report(progress("a", n * 10))
    assert outbox.cut(at(2)) == [
        Log(id="1-1", at=at(2), step="a", first=1, lines=("line 1", "line 2", "line 3")),
        progress("a", 30).numbered(1, 2),
    ]
    assert outbox.cut(at(3)) == []


def test_what_waits_is_cut_ahead_of_a_boundary_event() -> None:
    outbox = Outbox(attempt=1)
    outbox.log("a", "line")
    outbox.report(progress("a", 10))
    assert [type(event) for event in outbox.put(Saving(at=at(1)))] == [Log, Progressed, Saving]


def test_lines_are_numbered_within_their_step() -> None:
    outbox = Outbox(attempt=1)
    for step in ("a", "b", "a"):
        outbox.log(step, step)
        outbox.cut(at(1))
    logs = [event for event in outbox.batch()[1] if isinstance(event, Log)]
    assert [(log.step, log.first) for log in logs] == [("a", 1), ("b", 1), ("a", 2)]


def test_line_numbers_go_on_after_a_takeover() -> None:
    first = Outbox(attempt=1)
    first.log("a", "one")
    history = first.cut(at(1))
    second = Outbox(attempt=2, history=history)
    second.log("a", "two")
    (log,) = second.cut(at(2))
    assert isinstance(log, Log)
    assert log.first == 2


def test_a_restart_numbers_the_lines_from_1_again() -> None:
    outbox = Outbox(attempt=2, history=numbered(STARTED, Log(at=at(1), step="a", first=1, lines=("one",))))
    outbox.put(Started(at=at(2), reason=Reason.RESTART, pipeline=PIPELINE))
    outbox.log("a", "one")
    (log,) = outbox.cut(at(3))
    assert isinstance(log, Log)
    assert log.first == 1


def test_of_too_many_lines_in_a_tick_the_first_and_the_last_are_kept_and_the_rest_counted() -> None:
    outbox = Outbox(attempt=1)
    for n in range(1, 10_001):
        outbox.log("a", f"line {n}")
    events = outbox.cut(at(1))
    kept = lines_of(events)
    assert list(kept) == [*range(1, HEAD_LINES + 1), *range(10_001 - TAIL_LINES, 10_001)]
    assert all(text == f"line {number}" for number, text in kept.items())
    assert dropped_in(events) == 10_000 - HEAD_LINES - TAIL_LINES
    assert fold(PIPELINE, events).index == len(events) == 2


def test_over_the_cap_of_a_try_only_the_end_of_a_steps_log_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_CHARACTERS", 1000)
    outbox = Outbox(attempt=1)
    events: list[Event] = []
    for n in range(1, 5001):
        outbox.log("a", f"line {n}")
        if n % 10 == 0:
            events += outbox.cut(at(n))
    events += outbox.end_step("a", at(5001))
    kept = lines_of(events)
    assert list(kept)[-TAIL_LINES:] == list(range(5001 - TAIL_LINES, 5001))
    assert all(text == f"line {number}" for number, text in kept.items())
    assert len(kept) + dropped_in(events) == 5000
    assert sum(map(len, kept.values())) < 1000 + 90 + TAIL_LINES * 9


def test_empty_lines_count_for_the_cap_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_CHARACTERS", 1000)
    outbox = Outbox(attempt=1)
    for n in range(5000):
        outbox.log("a", "")
        if n % 10 == 0:
            outbox.cut(at(n))
    outbox.end_step("a", at(9))
    assert len(lines_of(outbox.batch()[1])) <= 1000 + 10 + TAIL_LINES


def test_a_step_after_the_cap_keeps_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_CHARACTERS", 10)
    outbox = Outbox(attempt=1)
    outbox.log("a", "x" * 20)
    outbox.cut(at(1))
    outbox.log("b", "the only line")
    assert outbox.cut(at(2)) == []
    assert outbox.has_pending
    (log,) = outbox.end_step("b", at(3))
    assert isinstance(log, Log)
    assert (log.first, log.lines, log.dropped) == (1, ("the only line",), 0)
    assert outbox.end_step("b", at(4)) == []


def test_the_cap_counts_what_the_attempts_of_a_try_have_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_CHARACTERS", 10)
    outbox = Outbox(attempt=2, history=numbered(Log(at=at(1), step="a", first=1, lines=("x" * 20,))))
    outbox.log("a", "more")
    assert outbox.cut(at(2)) == []


@pytest.mark.parametrize("reason", [Reason.RETRY, Reason.RESTART])
def test_each_try_has_a_log_of_its_own_up_to_the_cap(monkeypatch: pytest.MonkeyPatch, reason: Reason) -> None:
    monkeypatch.setattr(module, "MAX_LOG_CHARACTERS", 10)
    outbox = Outbox(attempt=2, history=numbered(Log(at=at(1), step="a", first=1, lines=("x" * 20,))))
    outbox.put(Started(at=at(2), reason=reason, pipeline=PIPELINE))
    outbox.log("a", "y" * 20)
    assert lines_of(outbox.cut(at(3)))
    outbox.log("a", "more")
    assert outbox.cut(at(4)) == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 700)), max_size=12), st.integers(50, 40_000))
def test_every_line_gets_through_under_its_true_number_or_is_counted(
    bursts: list[tuple[str, int]], cap: int
) -> None:
    said = {"a": 0, "b": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_LOG_CHARACTERS", cap)
        outbox = Outbox(attempt=1)
        for step, count in bursts:
            for _ in range(count):
                said[step] += 1
                outbox.log(step, str(said[step]))
            outbox.cut(at(1))
        for step in said:
            outbox.end_step(step, at(2))
    _, events = outbox.batch()
    assert ids(events) == [f"1-{n}" for n in range(1, len(events) + 1)]
    for step, count in said.items():
        logs = [event for event in events if isinstance(event, Log) and event.step == step]
        kept = lines_of(logs)
        assert all(str(number) == text for number, text in kept.items())
        assert len(kept) + dropped_in(logs) == count
        assert count == 0 or count in kept


def test_an_event_that_is_no_json_is_refused_and_leaves_no_trace() -> None:
    outbox = Outbox(attempt=1)
    digest = outbox.digest
    with pytest.raises(UnicodeEncodeError):
        outbox.put(StepStarted(at=at(1), step="\ud800"))
    assert (outbox.tail, outbox.digest, outbox.is_unacknowledged) == (None, digest, False)


def test_the_digest_is_a_chain_over_all_events() -> None:
    events = numbered(STARTED, Saving(at=at(1)))
    digest = b""
    for event in events:
        digest = hashlib.blake2b(digest + encode_event(event), digest_size=16).digest()
    outbox = Outbox(attempt=1, history=events[:1])
    outbox.put(Saving(at=at(1)))
    assert outbox.digest == digest


def outbox_with(count: int, *, acknowledged: int, attempt: int = 1) -> Outbox:
    outbox = Outbox(attempt=attempt)
    for second in range(count):
        outbox.put(Saving(at=at(second)))
        if second + 1 == acknowledged:
            outbox.acknowledge(f"{attempt}-{acknowledged}")
    return outbox


def test_what_is_acknowledged_is_not_appended_again() -> None:
    outbox = outbox_with(5, acknowledged=3)
    assert outbox.batch()[0] == "1-3"
    assert ids(outbox.batch()[1]) == ["1-4", "1-5"]
    outbox.acknowledge("1-5")
    assert not outbox.is_unacknowledged
    assert not outbox.has_pending


def batches_of(outbox: Outbox) -> list[list[Event]]:
    """What is appended, one batch behind the other, until nothing waits."""
    batches: list[list[Event]] = []
    while outbox.is_unacknowledged:
        expected, events = outbox.batch()
        assert expected == (batches[-1][-1].id if batches else None)
        batches.append(events)
        outbox.acknowledge(events[-1].id)
    return batches


def test_what_waits_goes_out_in_batches_of_bounded_length() -> None:
    batches = batches_of(outbox_with(2 * MAX_BATCH_EVENTS + 1, acknowledged=0))
    assert [len(batch) for batch in batches] == [MAX_BATCH_EVENTS, MAX_BATCH_EVENTS, 1]
    assert ids([event for batch in batches for event in batch])[-1] == f"1-{2 * MAX_BATCH_EVENTS + 1}"


@given(st.lists(st.integers(1, 150), max_size=12))
def test_a_batch_takes_as_much_log_as_it_may_and_at_least_one_event(lengths: list[int]) -> None:
    outbox = Outbox(attempt=1)
    for length in lengths:
        outbox.log("a", "x" * (length - 1))
        outbox.cut(at(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_BATCH_CHARACTERS", 100)
        batches = batches_of(outbox)
    taken = [[len(line) + 1 for line in lines_of(batch).values()] for batch in batches]
    assert [length for batch in taken for length in batch] == lengths
    assert all(len(batch) == 1 or sum(batch) <= 100 for batch in taken)
    assert all(sum(batch) + following[0] > 100 for batch, following in pairwise(taken))


def test_a_late_acknowledgement_takes_nothing_back() -> None:
    outbox = outbox_with(5, acknowledged=5)
    outbox.acknowledge("1-2")
    assert not outbox.is_unacknowledged


@pytest.mark.parametrize(
    ("tail", "means", "expected", "pending"),
    [
        ("1-5", Refusal.ARRIVED, "1-5", []),
        ("1-4", Refusal.ARRIVED, "1-4", ["1-5"]),
        ("1-2", Refusal.LOST, "1-2", ["1-3", "1-4", "1-5"]),
        (None, Refusal.LOST, None, ["1-1", "1-2", "1-3", "1-4", "1-5"]),
        ("2-4", Refusal.FENCED, "1-3", ["1-4", "1-5"]),
        ("1-6", Refusal.UNKNOWN, "1-3", ["1-4", "1-5"]),
    ],
)
def test_a_refusal_says_what_has_happened(
    tail: str | None, means: Refusal, expected: str | None, pending: list[str]
) -> None:
    outbox = outbox_with(5, acknowledged=3)
    assert outbox.refused(tail) is means
    assert outbox.batch()[0] == expected
    assert ids(outbox.batch()[1]) == pending


def test_an_attempt_before_that_has_written_more_meanwhile_is_unknown() -> None:
    outbox = Outbox(attempt=2, history=numbered(STARTED))
    outbox.put(STARTED)
    assert outbox.refused("1-2") is Refusal.UNKNOWN


def test_a_journal_that_lost_what_the_attempt_before_wrote_is_refilled() -> None:
    outbox = Outbox(attempt=2, history=numbered(STARTED, Saving(at=at(1))))
    outbox.put(STARTED)
    assert outbox.refused("1-1") is Refusal.LOST
    assert ids(outbox.batch()[1]) == ["1-2", "2-3"]


@given(runs())
def test_a_takeover_from_any_point_makes_a_journal_without_holes(run: Run) -> None:
    for count in range(0, len(run.events), 3):
        outbox = Outbox(attempt=9, history=run.events[:count])
        outbox.log("step_1", "more")
        outbox.put(Saving(at=at(99)))
        expected, events = outbox.batch()
        assert expected == (run.events[count - 1].id if count else None)
        assert fold(run.pipeline, [*run.events[:count], *events]).index == count + 2
