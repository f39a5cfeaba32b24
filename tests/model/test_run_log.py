from hypothesis import given
from hypothesis import strategies as st

from initializer.model.events import Event, Log, Reason, Saving, Started
from initializer.model.progress import LogRow
from initializer.model.run_log import RunLog
from model.runs import PIPELINE, at, numbered


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Events of one step, with gaps here and there, and another step's between them."""
    drafts: list[Event] = []
    first = 1
    for count, dropped in draw(
        st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0, 0, 3])), max_size=8)
    ):
        lines = tuple(f"line {first + dropped + offset}" for offset in range(count))
        drafts.append(
            Log(at=at(len(drafts)), step="verify", first=first + dropped, lines=lines, dropped=dropped)
        )
        drafts.append(Log(at=at(len(drafts)), step="other", first=len(drafts) // 2 + 1, lines=("x",)))
        first += dropped + count
    return numbered(*drafts)


def all_rows(events: list[Event]) -> list[LogRow]:
    return [
        row
        for event in events
        if isinstance(event, Log) and event.step == "verify"
        for row in LogRow.of(event)
    ]


@given(logs(), st.integers(1, 4))
def test_read_backwards_in_pieces_no_row_is_missing_or_doubled(events: list[Event], count: int) -> None:
    log, rows = RunLog(events), all_rows(events)
    found: list[LogRow] = []
    number = log.last("verify") + 1
    while piece := log.rows_before("verify", number, count=count):
        assert len(piece) <= count
        found = piece + found
        number = found[0].first
    assert found == rows


@given(logs(), st.integers(2, 4))
def test_read_forwards_in_pieces_no_row_is_missing_or_doubled(events: list[Event], count: int) -> None:
    log, found = RunLog(events), list[LogRow]()
    while piece := log.rows_after("verify", found[-1].number if found else 0, count=count):
        assert len(piece) <= count
        found += piece
    assert found == all_rows(events)


@given(logs(), st.integers(0, 12))
def test_a_log_that_is_extended_is_the_log_of_all_events(events: list[Event], known: int) -> None:
    log = RunLog(events[:known])
    log.extend(events)
    whole = RunLog(events)
    assert (log.tail, log.characters, log.steps) == (whole.tail, whole.characters, whole.steps)
    assert list(log.events()) == list(whole.events())
    assert log.last("verify") == whole.last("verify")


def test_what_is_no_log_is_only_counted() -> None:
    log = RunLog(numbered(Saving(at=at(1))))
    assert (log.tail, log.steps, log.last("verify")) == ("1-1", [], 0)
    assert log.rows_before("verify", 10, count=5) == log.rows_after("verify", 0, count=5) == []


def test_a_restart_counts_lines_from_one_again_and_keeps_the_earlier_ones_for_the_whole_text() -> None:
    events = numbered(
        Log(at=at(1), step="verify", first=1, lines=("a", "b")),
        Started(at=at(2), reason=Reason.RESTART, pipeline=PIPELINE),
        Log(at=at(3), step="verify", first=1, lines=("c",)),
    )
    log = RunLog(events)
    assert [line for event in log.earlier for line in event.lines] == ["a", "b"]
    assert [row.text for row in log.rows_before("verify", 10, count=9)] == ["c"]
