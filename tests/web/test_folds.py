"""Where runs stand for who asks again and again: what is kept, and what is read."""

import pytest
from counted_journal import CountedJournal

from initializer.model.events import Completed, Event, Progressed, Reason, Saving, Started, StepStarted
from initializer.model.progress import Status, fold
from initializer.projects.projects import ProjectRow
from model.runs import PIPELINE, at, numbered, project_of
from web import folds as module
from web.folds import Folds

pytestmark = pytest.mark.anyio

STEP = PIPELINE.steps[0].name


def row_of(number: int) -> ProjectRow:
    project = project_of(f"r{number}", pipeline=PIPELINE)
    return ProjectRow(project=project, status=Status.INITIALIZING, attempt=1)


def said(count: int, *, attempt: int = 1) -> list[Event]:
    """What a run says that is in its first step."""
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
    reports = (Progressed(at=at(n), step=STEP, progress=n, step_progress=n) for n in range(count - 2))
    return numbered(started, StepStarted(at=at(0), step=STEP), *reports, attempt=attempt)


async def test_who_asks_again_reads_only_what_is_new() -> None:
    journal, folds, row, events = CountedJournal(), Folds(), row_of(1), said(9)
    await journal.append("r1", events[:6], expected_tail=None)
    assert await folds.progress(journal, row) == fold(PIPELINE, events[:6])
    await journal.append("r1", events[6:], expected_tail="1-6")
    for _ in range(2):
        assert await folds.progress(journal, row) == fold(PIPELINE, events)
    assert journal.reads == ["", "1-6", "1-9"]


async def test_a_journal_that_was_lost_and_written_anew_is_folded_anew() -> None:
    journal, folds, row = CountedJournal(), Folds(), row_of(1)
    await journal.append("r1", said(6), expected_tail=None)
    await folds.progress(journal, row)
    journal.lose("r1", after=0)
    await journal.append("r1", said(4, attempt=2), expected_tail=None)
    assert await folds.progress(journal, row) == fold(PIPELINE, said(4, attempt=2))


async def test_the_runs_that_were_asked_for_last_are_kept_until_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_FOLDS", 2)
    journal, folds = CountedJournal(), Folds()
    for number in range(1, 4):
        await journal.append(f"r{number}", said(3), expected_tail=None)
    for number in (1, 2, 1, 3, 1, 2):
        await folds.progress(journal, row_of(number))
    assert journal.reads == ["", "", "1-3", "", "1-3", ""]
    ended = numbered(Saving(at=at(9)), Completed(at=at(9)), first=4)
    await journal.append("r1", ended, expected_tail="1-3")
    for _ in range(2):
        assert (await folds.progress(journal, row_of(1))).status is Status.ACTIVE
    assert journal.reads[6:] == ["1-3", ""]
