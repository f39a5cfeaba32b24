"""What a process that ended leaves behind."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from initializer.background import in_background
from initializer.engines.inline import InlineEngine
from initializer.journal.file import FileJournal
from initializer.model.events import Reason
from initializer.projects.projects import OpenRun, Projects
from initializer.projects.schema import projects as table
from initializer.redis_client import open_redis
from initializer.running import recovery
from initializer.running.absence import Sight
from initializer.running.lease import open_leases
from initializer.running.recovery import Recovery, recover, retire_left_behind
from model.runs import project_of
from running.stage import DEADLINE_S, Stage, nothing, step_of

pytestmark = pytest.mark.anyio

LEASE_S = 0.3


async def write_as_newer_version(projects: Projects, run: str) -> None:
    """Have the row hold what this version cannot read."""
    newer = table.update().where(table.c.id == run).values(parameters={"gitops": "newer"})
    await projects._database.execute(newer)


async def test_unfinished_runs_are_claimed_and_wait_in_the_order_of_their_creation(stage: Stage) -> None:
    await stage.add(step_of("first", nothing))
    engine = InlineEngine()
    assert await recover(stage.projects, engine) == 1
    assert engine.position(stage.project.id) == 1
    assert await stage.projects.attempt_of(stage.project.id) == 2


async def test_a_run_of_a_newer_version_is_left_alone_at_a_start_and_the_others_are_claimed(
    stage: Stage,
) -> None:
    await stage.add(step_of("first", nothing))
    await write_as_newer_version(stage.projects, stage.project.id)
    await stage.projects.add(project_of("b2"), idempotency_key="b2")
    assert await recover(stage.projects, InlineEngine()) == 1
    assert await stage.projects.attempt_of(stage.project.id) == 1
    assert await stage.projects.attempt_of("b2") == 2


@pytest.mark.parametrize("has_workers", [False, True])
async def test_a_lost_run_of_a_newer_version_is_looked_at_once_and_left_alone(
    stage: Stage, redis_url: str, monkeypatch: pytest.MonkeyPatch, has_workers: bool
) -> None:
    monkeypatch.setattr(recovery, "LOOK_S", 0.02)
    await stage.add(step_of("first", nothing))
    await write_as_newer_version(stage.projects, stage.project.id)
    async with (
        open_redis(redis_url) as client,
        open_leases(client, stage.projects, owner="one", lease_s=LEASE_S) as leases,
    ):
        engine = InlineEngine(leases.hold)

        async def queue(lost: Sight) -> None:
            row = await stage.projects.get(lost[0])
            assert row is not None
            await engine.submit(row, reason=Reason.TAKEOVER)

        take_up = queue if has_workers else None
        looking = Recovery(stage.projects, engine, leases, lease_s=LEASE_S, take_up=take_up)
        with capture_logs() as said:
            async with in_background(looking.keep()), asyncio.timeout(DEADLINE_S):
                while not looking.is_lost(stage.project.id, 1):  # noqa: ASYNC110 - a look sets no event
                    await asyncio.sleep(0.01)
                await stage.projects.add(project_of("b2"), idempotency_key="b2")  # and is lost much later
                while engine.position("b2") is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert await stage.projects.attempt_of(stage.project.id) == 1
        left = [it for it in said if it["event"] == "run left alone"]
        assert [it["project"] for it in left] == [stage.project.id]


async def test_a_database_that_takes_longer_than_a_lease_delays_a_takeover_and_does_not_prevent_it(
    stage: Stage, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_S", 0.02)
    open_runs = stage.projects.open_runs

    async def open_runs_slowly() -> Mapping[str, OpenRun]:
        await asyncio.sleep(3 * LEASE_S)
        return await open_runs()

    monkeypatch.setattr(stage.projects, "open_runs", open_runs_slowly)
    await stage.add(step_of("first", nothing))
    async with (
        open_redis(redis_url) as client,
        open_leases(client, stage.projects, owner="one", lease_s=LEASE_S) as leases,
    ):
        engine = InlineEngine(leases.hold)
        looking = Recovery(stage.projects, engine, leases, lease_s=LEASE_S)
        async with in_background(looking.keep()), asyncio.timeout(DEADLINE_S):
            while engine.position(stage.project.id) is None:  # noqa: ASYNC110 - a look sets no event
                await asyncio.sleep(0.01)


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
