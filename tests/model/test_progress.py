from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initializer.model.events import (
    Completed,
    Event,
    Failed,
    Log,
    Progressed,
    Reason,
    Resource,
    ResourceState,
    Saving,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    UnknownEvent,
    decode_event,
    encode_event,
)
from initializer.model.progress import (
    LOG_TAIL_ROWS,
    IndexGap,
    LogRow,
    Progress,
    Status,
    StepStatus,
    advance,
    advance_all,
    awaiting,
    fold,
)
from model.runs import PIPELINE, Run, at, numbered, pipeline_of, runs

STARTED = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)


def stages(run: Run) -> list[Progress]:
    """The progress before the first event and after each."""
    progress = [Progress.waiting(run.pipeline)]
    for event in run.events:
        progress.append(advance(progress[-1], event))
    return progress


@given(runs())
def test_a_snapshot_and_the_rest_equal_the_whole(run: Run) -> None:
    whole = fold(run.pipeline, run.events)
    for count, snapshot in enumerate(stages(run)):
        progress = snapshot
        for event in run.events[count:]:
            progress = advance(progress, event)
        assert progress == whole


@given(runs())
def test_the_live_fold_equals_the_fold_of_what_the_journal_gives_back(run: Run) -> None:
    replayed = [decode_event(encode_event(event)) for event in run.events]
    assert fold(run.pipeline, replayed) == fold(run.pipeline, run.events)


@given(runs())
def test_the_percent_never_falls_but_in_a_restart(run: Run) -> None:
    for event, (before, after) in zip(run.events, pairwise(stages(run)), strict=True):
        if isinstance(event, Started) and event.reason is Reason.RESTART:
            assert after.percent == 0
        else:
            assert after.percent >= before.percent


@given(runs())
def test_the_percent_is_100_at_success_and_only_there(run: Run) -> None:
    for progress in stages(run):
        assert (progress.percent == 100) is (progress.status is Status.ACTIVE)


@given(runs())
def test_the_percent_is_the_weighted_one_rounded_down_or_the_highest_before(run: Run) -> None:
    highest = 0
    for event, progress in zip(run.events, stages(run)[1:], strict=True):
        if isinstance(event, Started) and event.reason is Reason.RESTART:
            highest = 0
        weights = [step.spec.weight for step in progress.steps]
        done = sum(step.spec.weight * step.percent for step in progress.steps)
        highest = max(highest, min(99, done // sum(weights) if sum(weights) else 0))
        assert progress.percent == (100 if progress.status is Status.ACTIVE else highest)


@given(runs())
def test_log_tails_are_bounded_and_their_line_numbers_true(run: Run) -> None:
    said: dict[tuple[str, int], str] = {}
    for event, progress in zip(run.events, stages(run)[1:], strict=True):
        if isinstance(event, Started) and event.reason is Reason.RESTART:
            said.clear()
        if isinstance(event, Log):
            said.update({(event.step, event.first + n): line for n, line in enumerate(event.lines)})
        for step in progress.steps:
            assert len(step.log) <= LOG_TAIL_ROWS
            lines = [row for row in step.log if not row.dropped]
            assert all(said[step.spec.name, row.number] == row.text for row in lines)
            counted = sum(1 for name, _ in said if name == step.spec.name)
            assert step.log_lines == counted + step.log_dropped


@given(runs(), st.integers(2, 50))
def test_a_missing_event_is_a_gap(run: Run, index: int) -> None:
    progress = fold(run.pipeline, run.events[: index - 2])
    for event in run.events[index - 1 : index]:
        with pytest.raises(IndexGap) as gap:
            advance(progress, event)
        assert (gap.value.expected, gap.value.received) == (progress.index + 1, event.index)


@given(runs())
def test_the_same_event_twice_is_a_gap(run: Run) -> None:
    with pytest.raises(IndexGap):
        advance(fold(run.pipeline, run.events), run.events[-1])


@given(runs())
def test_an_unknown_event_counts_and_changes_nothing_else(run: Run) -> None:
    for event, (before, after) in zip(run.events, pairwise(stages(run)), strict=True):
        if isinstance(event, UnknownEvent):
            assert after.index == before.index + 1
            assert (after.steps, after.percent, after.status) == (before.steps, before.percent, before.status)


@given(runs())
def test_at_most_one_step_runs_and_no_step_runs_before_those_ahead_are_done(run: Run) -> None:
    for progress in stages(run):
        running = [step for step in progress.steps if step.status is StepStatus.RUNNING]
        assert len(running) <= 1
        for step in running:
            ahead = progress.steps[: progress.steps.index(step)]
            assert all(it.status.is_done for it in ahead)


def progress_after(*drafts: Event) -> Progress:
    return fold(PIPELINE, numbered(STARTED, *drafts))


def test_an_empty_journal_waits() -> None:
    progress = Progress.waiting(PIPELINE)
    assert (progress.status, progress.index, progress.percent) == (Status.PENDING, 0, 0)
    assert progress.current is progress.failed is None


def test_a_run_without_weight_or_steps_is_at_0_until_it_succeeds() -> None:
    for pipeline in (pipeline_of(a=0), pipeline_of()):
        begun = numbered(Started(at=at(0), reason=Reason.CREATED, pipeline=pipeline), Saving(at=at(1)))
        assert fold(pipeline, begun).percent == 0
        assert fold(pipeline, [*begun, *numbered(Completed(at=at(2)), first=3)]).percent == 100


def test_a_takeover_begins_the_unfinished_step_again_and_keeps_its_log_and_the_percent() -> None:
    events = [
        *numbered(
            STARTED,
            StepStarted(at=at(1), step="create_repo"),
            StepCompleted(at=at(2), step="create_repo", duration_ms=1000, outputs={"url": "u"}),
            StepStarted(at=at(3), step="push_template"),
            Log(at=at(4), step="push_template", first=1, lines=("one",)),
        ),
        *numbered(
            Started(at=at(9), reason=Reason.TAKEOVER, pipeline=PIPELINE),
            StepStarted(at=at(10), step="push_template"),
            Log(at=at(11), step="push_template", first=2, lines=("two",)),
            attempt=2,
            first=6,
        ),
    ]
    progress = fold(PIPELINE, events)
    assert progress.step("create_repo").status is StepStatus.COMPLETED
    assert progress.step("push_template").log == (
        LogRow(5, 1, at(4), "one"),
        LogRow(8, 2, at(11), "two"),
    )
    assert progress.step("push_template").started_at == at(10)
    assert (progress.percent, progress.attempt, progress.outputs) == (16, 2, {"url": "u"})
    assert progress.started_at == at(0)


FAILED = (
    StepStarted(at=at(1), step="create_repo"),
    StepFailed(at=at(2), step="create_repo", duration_ms=1000, error="no"),
    Saving(at=at(2)),
)


def test_a_takeover_does_not_try_again_what_had_failed() -> None:
    takeover = Started(at=at(9), reason=Reason.TAKEOVER, pipeline=PIPELINE).numbered(2, 5)
    progress = advance(progress_after(*FAILED), takeover)
    assert progress.failed is not None
    assert progress.failed.error == "no"


def test_a_retry_tries_the_failed_step_again() -> None:
    failed = progress_after(*FAILED, Failed(at=at(3), step="create_repo", error="no"))
    progress = advance(failed, Started(at=at(9), reason=Reason.RETRY, pipeline=PIPELINE).numbered(2, 6))
    assert progress.failed is None
    assert (progress.status, progress.error) == (Status.INITIALIZING, "")
    assert progress.step("create_repo").status is StepStatus.PENDING
    assert progress.started_at == at(9)


@given(runs(), st.sampled_from([Reason.RETRY, Reason.RESTART]))
def test_a_run_that_waits_for_another_try_shows_what_that_keeps_and_goes_on_as_if_it_had_not(
    run: Run, reason: Reason
) -> None:
    for progress in stages(run):
        if not progress.status.is_final:
            continue
        waiting = awaiting(progress, reason)
        assert waiting.is_waiting
        assert (waiting.tail, waiting.error) == (progress.tail, "")
        assert all(step.is_kept or step.status is StepStatus.PENDING for step in waiting.steps)
        draft = Started(at=at(99), reason=reason, pipeline=run.pipeline)
        started = draft.numbered(progress.attempt + 2, progress.index + 1)
        assert advance(waiting, started) == advance(progress, started)


def test_a_resource_keeps_its_place_and_its_latest_state() -> None:
    def said(name: str, state: ResourceState) -> Resource:
        return Resource(at=at(1), step="create_repo", kind="repository", name=name, state=state)

    progress = progress_after(said("a", "planned"), said("b", "planned"), said("a", "created"))
    assert [(it.name, it.state) for it in progress.resources] == [("a", "created"), ("b", "planned")]


def test_dropped_lines_are_one_row_that_says_how_many() -> None:
    progress = progress_after(
        StepStarted(at=at(1), step="create_repo"),
        Log(at=at(1), step="create_repo", first=1, lines=("one",)),
        Log(at=at(1), step="create_repo", first=12, lines=("twelve",), dropped=10),
    )
    step = progress.step("create_repo")
    assert step.log == (
        LogRow(3, 1, at(1), "one"),
        LogRow(4, 12, at(1), dropped=10),
        LogRow(4, 12, at(1), "twelve"),
    )
    assert (step.log_lines, step.log_dropped) == (12, 10)


def test_there_is_no_step_of_another_name() -> None:
    with pytest.raises(KeyError):
        Progress.waiting(PIPELINE).step("other")


@given(runs(), st.lists(st.integers(1, 40), min_size=1))
def test_many_events_at_once_are_what_they_are_one_by_one(run: Run, sizes: list[int]) -> None:
    progress, one_by_one, turn = Progress.waiting(run.pipeline), stages(run), 0
    while progress.index < len(run.events):
        size = sizes[turn % len(sizes)]
        progress = advance_all(progress, run.events[progress.index : progress.index + size])
        assert progress == one_by_one[progress.index]
        turn += 1


@given(st.lists(st.tuples(st.sampled_from(["create_repo", "push_template"]), st.integers(0, 100))))
def test_reports_in_a_row_leave_what_each_of_them_leaves(reports: list[tuple[str, int]]) -> None:
    drafts = [
        Progressed(at=at(n), step=step, progress=0, step_progress=percent, message=str(n))
        for n, (step, percent) in enumerate(reports)
    ]
    events = numbered(STARTED, *drafts)
    one_by_one = Progress.waiting(PIPELINE)
    for event in events:
        one_by_one = advance(one_by_one, event)
    assert advance_all(Progress.waiting(PIPELINE), events) == one_by_one
    with pytest.raises(IndexGap):
        advance_all(Progress.waiting(PIPELINE), [*events, *numbered(STARTED, first=len(events) + 2)])
