"""What a process that ended leaves behind."""

from datetime import timedelta

import pytest

from initializer.engines.inline import InlineEngine
from initializer.journal.file import FileJournal
from initializer.running.recovery import recover, retire_left_behind
from running.stage import Stage, nothing, step_of

pytestmark = pytest.mark.anyio


async def test_unfinished_runs_are_claimed_and_wait_in_the_order_of_their_creation(stage: Stage) -> None:
    await stage.add(step_of("first", nothing))
    engine = InlineEngine()
    assert await recover(stage.projects, engine) == 1
    assert engine.position(stage.project.id) == 1
    assert await stage.projects.attempt_of(stage.project.id) == 2


async def test_the_journal_of_a_run_that_was_over_is_retired_by_the_next_process(stage: Stage) -> None:
    journal = stage.journal
    assert isinstance(journal, FileJournal)
    await stage.run(step_of("first", nothing))
    (stage.folder / "journals" / f"{stage.project.id}.expires").unlink()  # it ended before it could retire it
    assert await journal.unretired() == [stage.project.id]
    await retire_left_behind(await journal.unretired(), journal, stage.projects, keep_for=timedelta(days=7))
    assert await journal.unretired() == []


async def test_the_journal_of_a_run_that_goes_on_is_not_retired(stage: Stage) -> None:
    journal = stage.journal
    assert isinstance(journal, FileJournal)
    await stage.add(step_of("first", nothing))
    (stage.folder / "journals" / f"{stage.project.id}.jsonl").touch()
    await retire_left_behind(await journal.unretired(), journal, stage.projects, keep_for=timedelta(days=7))
    assert await journal.unretired() == [stage.project.id]
