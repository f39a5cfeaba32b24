"""A process that leaves: what waits in it, and what runs."""

import asyncio

import pytest

from harness.servers import RedisServer
from initializer.engines.inline import open_inline_engine
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.parts.servers import hand_over
from initializer.projects.projects import ProjectRow
from initializer.redis_client import open_redis
from initializer.running.lease import LeaseState, open_leases
from initializer.steps.step import StepContext
from model.runs import project_of
from running.stage import DEADLINE_S, RUN, Stage, nothing, step_of

pytestmark = pytest.mark.anyio

ANSWER_LIMIT_S = 0.3
WAITING = 20


async def test_a_redis_that_does_not_answer_is_waited_for_once_and_keeps_no_run_going(
    stage: Stage, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initializer.redis_client.ANSWER_LIMIT_S", ANSWER_LIMIT_S)
    begun, is_to_end = asyncio.Event(), asyncio.Event()

    async def stand(context: StepContext) -> None:
        begun.set()
        await is_to_end.wait()

    steps = step_of("first", stand), step_of("second", nothing)
    await stage.add(*steps)
    async with (
        open_redis(redis_server.url) as client,
        open_leases(client, stage.projects, owner="one", lease_s=5) as leases,
    ):
        runner = stage.runner(*steps, leases=leases)
        async with open_inline_engine(runner.run, max_concurrent_runs=1, on_submit=leases.hold) as engine:
            await engine.submit(await stage.row(), reason=Reason.CREATED)
            await begun.wait()
            for number in range(WAITING):
                await engine.submit(row_of(f"w{number}"), reason=Reason.CREATED)
            redis_server.freeze()
            leaving = asyncio.create_task(hand_over(runner, engine, leases, grace_s=DEADLINE_S))
            await asyncio.sleep(0)
            is_to_end.set()
            async with asyncio.timeout(WAITING * ANSWER_LIMIT_S / 2):
                await leaving
    assert await stage.types() == ["started", "step_started", "step_completed"]


async def test_a_run_that_comes_once_its_process_has_begun_to_leave_is_handed_over_at_once(
    stage: Stage, redis_url: str
) -> None:
    """As one whose form was let in before, and whose row was written since."""
    step = step_of("first", nothing)
    async with (
        open_redis(redis_url) as client,
        open_leases(client, stage.projects, owner="one", lease_s=60) as leases,
    ):
        runner = stage.runner(step, leases=leases)
        async with open_inline_engine(
            runner.run, max_concurrent_runs=1, on_submit=leases.hold, pass_on=leases.pass_on
        ) as engine:
            await hand_over(runner, engine, leases, grace_s=DEADLINE_S)
            await stage.add(step)
            await engine.submit(await stage.row(), reason=Reason.CREATED)
            assert engine.position(RUN) is None
            assert await leases.look({RUN: 1}) == {RUN: LeaseState.HANDED_OVER}
    assert await stage.types() == []


def row_of(run: str) -> ProjectRow:
    return ProjectRow(project=project_of(run), status=Status.INITIALIZING, attempt=1)
