from typing import Any

import msgspec
from hypothesis import given

from initializer.model.events import (
    Cancelled,
    Event,
    Log,
    Reason,
    Resource,
    ResourceState,
    Saving,
    Started,
    StepCompleted,
    StepFailed,
    StepSkipped,
    StepStarted,
)
from initializer.model.progress import fold
from initializer.model.summary import FAILURE_LOG_LINES, Summary, summarise
from model.runs import PIPELINE, Run, at, numbered, runs


def summary_after(*drafts: Event) -> dict[str, Any]:
    """The JSON that stands in the row."""
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
    progress = fold(PIPELINE, numbered(started, *drafts))
    summary = summarise(progress, completed_at=at(150), digest="d1")
    return msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(summary)))  # type: ignore[no-any-return]


def begun(step: str) -> StepStarted:
    return StepStarted(at=at(1), step=step)


def done(step: str, duration_ms: int) -> StepCompleted:
    return StepCompleted(at=at(2), step=step, duration_ms=duration_ms)


def test_the_summary_of_a_failed_run_is_the_one_of_the_contract() -> None:
    summary = summary_after(
        begun("create_repo"),
        done("create_repo", 1200),
        begun("push_template"),
        done("push_template", 3400),
        begun("setup_gitops"),
        StepFailed(at=at(6), step="setup_gitops", duration_ms=1000, error="remote rejected the push"),
        Saving(at=at(6)),
    )
    assert summary == {
        "steps": [
            {"step": "create_repo", "title": "Create repo", "status": "completed", "duration": 1200},
            {"step": "push_template", "title": "Push template", "status": "completed", "duration": 3400},
            {
                "step": "setup_gitops",
                "title": "Setup gitops",
                "status": "failed",
                "duration": 1000,
                "error": "remote rejected the push",
            },
        ],
        "totalDuration": 5600,
        "failedStep": "setup_gitops",
        "completedAt": "2026-01-01T10:02:30Z",
        "startedAt": "2026-01-01T10:00:00Z",
        "attempt": 1,
        "outputs": {},
        "resources": [],
        "events": 8,
        "digest": "d1",
        "reason": "created",
        "previousAttempts": [],
    }


def test_a_successful_run_has_no_failed_step_and_all_outputs() -> None:
    steps = [
        StepCompleted(at=at(2), step=spec.name, duration_ms=10, outputs={spec.name: "x"})
        for spec in PIPELINE.steps
    ]
    summary = summary_after(*steps)
    assert summary["failedStep"] is None
    assert summary["outputs"] == {"create_repo": "x", "push_template": "x", "setup_gitops": "x"}
    assert summary["totalDuration"] == 30


def test_a_step_that_was_running_when_the_run_was_cancelled_is_cancelled() -> None:
    before = summary_after(done("create_repo", 5), begun("push_template"), Saving(at=at(3)))
    after = summary_after(
        done("create_repo", 5), begun("push_template"), Cancelled(at=at(3), step="push_template")
    )
    for summary in (before, after):
        assert [step["status"] for step in summary["steps"]] == ["completed", "cancelled"]
        assert summary["failedStep"] is None


def test_a_skipped_step_is_listed_and_took_no_time() -> None:
    (step,) = summary_after(StepSkipped(at=at(1), step="create_repo", message="exists"))["steps"]
    assert (step["status"], step["duration"]) == ("skipped", 0)


def test_a_step_that_never_began_is_not_listed() -> None:
    assert summary_after()["steps"] == []


def test_only_a_failed_step_keeps_its_last_lines() -> None:
    lines = tuple(f"line {n}" for n in range(1, 51))
    summary = summary_after(
        Log(at=at(1), step="create_repo", first=1, lines=lines),
        done("create_repo", 1),
        Log(at=at(1), step="push_template", first=1, lines=lines),
        Log(at=at(1), step="push_template", first=60, lines=("the end",), dropped=9),
        StepFailed(at=at(1), step="push_template", duration_ms=1, error="no"),
    )
    assert "log" not in summary["steps"][0]
    kept = summary["steps"][1]["log"]
    assert kept[-2:] == ["line 50", "the end"]
    assert len(kept) <= FAILURE_LOG_LINES


def test_resources_stand_there_in_their_latest_state_with_the_step_that_made_them() -> None:
    def said(state: ResourceState, url: str = "") -> Resource:
        return Resource(at=at(1), step="create_repo", kind="repository", name="a", url=url, state=state)

    assert summary_after(said("planned"), said("created", "http://x/a"))["resources"] == [
        {"kind": "repository", "name": "a", "url": "http://x/a", "state": "created", "step": "create_repo"}
    ]


@given(runs())
def test_any_summary_comes_back_from_the_row_as_it_was(run: Run) -> None:
    for count in range(len(run.events) + 1):
        summary = summarise(fold(run.pipeline, run.events[:count]), completed_at=at(99), digest="d")
        stored = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(summary)))
        assert msgspec.convert(stored, Summary) == summary
        assert summary.total_duration == sum(step.duration_ms for step in summary.steps)
