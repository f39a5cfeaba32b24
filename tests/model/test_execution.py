from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from initializer.model.events import (
    Cancelled,
    Cancelling,
    Completed,
    Event,
    Failed,
    Progressed,
    Reason,
    Started,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepStarted,
)
from initializer.model.execution import Execution
from initializer.model.progress import Progress, Status, fold
from model.runs import PIPELINE, Run, at, numbered, pipeline_of, runs

FIRST, SECOND, THIRD = PIPELINE.steps


def execution_after(*drafts: Event) -> Execution:
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
    return Execution(fold(PIPELINE, numbered(started, *drafts)))


def take(execution: Execution, draft: Event) -> None:
    execution.advance(draft.numbered(1, execution.progress.index + 1))


def done(step: str) -> StepCompleted:
    return StepCompleted(at=at(1), step=step, duration_ms=5)


def test_the_steps_are_run_in_order_and_then_the_run_is_active() -> None:
    execution = execution_after()
    for spec in PIPELINE.steps:
        assert execution.next_step == spec
        take(execution, execution.start_step(spec, at(1)))
        assert execution.next_step == spec
        take(execution, execution.complete_step(spec, duration_ms=5, outputs={}, at=at(2)))
    assert execution.next_step is None
    assert (execution.outcome, execution.error) == (Status.ACTIVE, None)
    assert execution.finish(at(3)) == Completed(at=at(3))


def test_a_failed_step_is_the_last_and_its_error_the_sentence_of_the_run() -> None:
    execution = execution_after(done("create_repo"), StepStarted(at=at(1), step="push_template"))
    take(execution, execution.fail_step(SECOND, duration_ms=3, error="no", at=at(2)))
    assert execution.next_step is None
    assert (execution.outcome, execution.error) == (Status.FAILED, "Push template failed: no")
    assert execution.finish(at(3)) == Failed(at=at(3), step="push_template", error="no")


def test_a_cancelled_run_names_the_step_that_was_running() -> None:
    execution = execution_after(
        done("create_repo"),
        StepStarted(at=at(1), step="push_template"),
        Cancelling(at=at(2)),
        StepCancelled(at=at(2), step="push_template", duration_ms=1),
    )
    assert execution.next_step is None
    assert execution.outcome is Status.CANCELLED
    assert execution.finish(at(3)) == Cancelled(at=at(3), step="push_template")


def test_a_cancel_between_steps_names_none() -> None:
    execution = execution_after(done("create_repo"), Cancelling(at=at(2)))
    assert execution.next_step is None
    assert execution.finish(at(3)) == Cancelled(at=at(3), step="")


def test_a_cancel_that_comes_after_the_last_step_changes_nothing() -> None:
    execution = execution_after(*(done(spec.name) for spec in PIPELINE.steps), Cancelling(at=at(9)))
    assert execution.outcome is Status.ACTIVE


def test_a_run_is_resumed_at_the_step_it_stood_in() -> None:
    left = execution_after(done("create_repo"), StepStarted(at=at(1), step="push_template"))
    resumed = Execution(left.progress)
    take(resumed, resumed.start(Reason.TAKEOVER, at(9)))
    assert resumed.next_step == SECOND


def test_a_restart_begins_with_the_first_step() -> None:
    execution = execution_after(
        done("create_repo"), StepFailed(at=at(1), step="push_template", duration_ms=1, error="no")
    )
    take(execution, execution.start(Reason.RESTART, at(9)))
    assert execution.next_step == FIRST


def test_what_a_step_says_of_itself_is_held_to_0_to_100_and_never_falls() -> None:
    execution = execution_after(StepStarted(at=at(1), step="create_repo"))
    said = [execution.report("create_repo", percent, "", None, at(2)) for percent in (-5, 60, 20, 900, 3)]
    assert [event.step_progress for event in said] == [0, 60, 60, 100, 100]


def test_a_substep_may_begin_again() -> None:
    execution = execution_after(StepStarted(at=at(1), step="create_repo"))
    parts = [execution.report("create_repo", 1, "", ("files", n), at(2)).substep for n in (90, 110, 10, -1)]
    assert [part.progress for part in parts if part] == [90, 100, 10, 0]


def test_the_next_step_begins_at_0() -> None:
    execution = execution_after(StepStarted(at=at(1), step="create_repo"))
    take(execution, execution.report("create_repo", 100, "", None, at(2)))
    take(execution, done("create_repo"))
    take(execution, execution.start_step(SECOND, at(3)))
    assert execution.report("push_template", 10, "", None, at(4)).step_progress == 10


def test_a_run_is_not_at_100_percent_before_its_end() -> None:
    execution = Execution(fold(pipeline_of(only=1), ()))
    take(execution, execution.start(Reason.CREATED, at(0)))
    take(execution, execution.start_step(execution.progress.pipeline.steps[0], at(0)))
    assert execution.report("only", 100, "", None, at(1)).progress == 99


@given(runs(), st.lists(st.integers(-10, 120), max_size=12))
def test_the_percent_in_a_report_is_that_of_the_fold_after_it(run: Run, percents: Sequence[int]) -> None:
    """Whatever happened before, and however many reports of one tick were merged into the last."""
    execution = Execution(fold(run.pipeline, run.events))
    take(execution, execution.start(Reason.RETRY, at(99)))
    spec = execution.next_step
    if spec is None:
        return
    take(execution, execution.start_step(spec, at(99)))
    for number, percent in enumerate(percents):
        event: Progressed = execution.report(spec.name, percent, "", None, at(99))
        if number % 3:  # the others are merged
            take(execution, event)
            assert execution.progress.percent == event.progress
            assert execution.progress.step(spec.name).percent == event.step_progress


@given(runs())
def test_any_prefix_of_a_run_can_be_resumed_to_its_end(run: Run) -> None:
    progress = Progress.waiting(run.pipeline)
    for count in range(len(run.events)):
        execution = Execution(fold(run.pipeline, run.events[:count]))
        take(execution, execution.start(Reason.TAKEOVER, at(99)))
        while (spec := execution.next_step) is not None:
            take(execution, execution.start_step(spec, at(99)))
            take(execution, execution.complete_step(spec, duration_ms=1, outputs={}, at=at(99)))
        take(execution, execution.save(at(99)))
        take(execution, execution.finish(at(99)))
        progress = execution.progress
        assert progress.status is execution.outcome
        assert progress.status.is_final
