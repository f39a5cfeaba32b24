"""What people ask of a run, where answers of the database are lost or late."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from initializer.access import Action
from initializer.background import in_background
from initializer.control import Control
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import OpenRun, ProjectRow, Projects
from initializer.redis_client import open_redis
from initializer.running import recovery
from initializer.running.lease import Leases, open_leases
from initializer.running.recovery import Recovery
from initializer.steps.step import StepContext
from model.runs import at
from running.stage import DEADLINE_S, RUN, Stage, nothing, step_of

pytestmark = pytest.mark.anyio

LEASE_S = 5


class ProjectsInTheWay(Projects):
    """The real table behind a connection that loses the first answer to `question`."""

    def __init__(self, projects: Projects, question: str) -> None:
        super().__init__(projects._database)
        self._lost = [question]

    async def request_cancel(self, *args: Any, **values: Any) -> Any:
        answer = await super().request_cancel(*args, **values)
        self._lose("request_cancel")
        return answer

    async def get(self, project_id: str) -> ProjectRow | None:
        row = await super().get(project_id)
        self._lose("get")
        return row

    def _lose(self, question: str) -> None:
        if question in self._lost:
            self._lost.remove(question)
            raise DatabaseUnavailable("the answer was lost")


class LateProjects(Projects):
    """The real table. The look at open rows that first finds a wish to cancel has its answer late."""

    def __init__(self, projects: Projects) -> None:
        super().__init__(projects._database)
        self.has_found, self.may_answer = asyncio.Event(), asyncio.Event()
        self.is_asked_again = asyncio.Event()

    async def open_runs(self) -> Mapping[str, OpenRun]:
        runs = await super().open_runs()
        if self.has_found.is_set():
            self.is_asked_again.set()
        elif any(run.is_cancelled for run in runs.values()):
            self.has_found.set()
            await self.may_answer.wait()
        return runs


class Standing:
    """A run whose first step stands until it is cancelled, in each try anew."""

    def __init__(self, stage: Stage) -> None:
        self.cancelled: dict[int, asyncio.Event] = {}
        """What each attempt was given to hear that it is to end."""
        self._stage = stage
        self._leases: Leases | None = None
        self._begun = asyncio.Semaphore(0)
        self._steps = (step_of("first", self._stand), step_of("second", nothing))

    @asynccontextmanager
    async def engine(self, leases: Leases | None = None) -> AsyncIterator[InlineEngine]:
        """An engine at work that was given the run; with `leases` it is that of one process of many."""
        self._leases = leases
        await self._stage.add(*self._steps)
        async with open_inline_engine(
            self._perform, max_concurrent_runs=1, on_submit=leases.hold if leases else None
        ) as engine:
            await engine.submit(await self._stage.row(), reason=Reason.CREATED)
            yield engine

    async def until_begun(self) -> None:
        """Wait until another try stands in its step."""
        await self._begun.acquire()

    async def _perform(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        self.cancelled[row.attempt] = cancelled
        await self._stage.run(
            *self._steps, attempt=row.attempt, reason=reason, cancelled=cancelled, leases=self._leases
        )

    async def _stand(self, context: StepContext) -> None:
        self._begun.release()
        await asyncio.Event().wait()


async def test_a_wish_to_cancel_whose_answer_was_lost_is_obeyed_when_somebody_presses_again(
    stage: Stage,
) -> None:
    standing = Standing(stage)
    async with asyncio.timeout(DEADLINE_S), standing.engine() as engine:
        control = Control(ProjectsInTheWay(stage.projects, "request_cancel"), engine)
        await standing.until_begun()
        for _ in range(2):
            with suppress(DatabaseUnavailable):
                await control.cancel(await stage.row())
        assert standing.cancelled[1].is_set()
        await engine.until_idle()
    assert (await stage.row()).status is Status.CANCELLED


async def test_a_wish_to_cancel_reaches_its_run_also_where_the_row_cannot_be_read_after_it(
    stage: Stage,
) -> None:
    standing = Standing(stage)
    async with asyncio.timeout(DEADLINE_S), standing.engine() as engine:
        control = Control(ProjectsInTheWay(stage.projects, "get"), engine)
        await standing.until_begun()
        with suppress(DatabaseUnavailable):
            await control.cancel(await stage.row())
        assert standing.cancelled[1].is_set()
        await engine.until_idle()


async def test_a_look_at_open_rows_whose_answer_is_late_cancels_no_later_try(
    stage: Stage, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_S", 0.01)
    standing, late = Standing(stage), LateProjects(stage.projects)
    async with (
        asyncio.timeout(DEADLINE_S),
        open_redis(redis_url) as client,
        open_leases(client, stage.projects, owner="one", lease_s=LEASE_S) as leases,
        standing.engine(leases) as engine,
        in_background(Recovery(late, engine, leases, lease_s=LEASE_S).keep()),
    ):
        control = Control(stage.projects, engine)
        await standing.until_begun()
        await stage.projects.request_cancel(RUN, at=at(1))  # another process was asked for it
        await late.has_found.wait()
        await control.cancel(await stage.row())  # and then this one too
        await engine.until_idle()
        await control.begin_again(await stage.row(), Action.RETRY, seen_attempt=1)
        await standing.until_begun()
        late.may_answer.set()
        await late.is_asked_again.wait()
        assert not standing.cancelled[2].is_set()
        await stage.projects.request_cancel(RUN, at=at(2))
        await standing.cancelled[2].wait()
        await engine.until_idle()
    row = await stage.row()
    assert (row.status, row.attempt, row.cancel_requested_at) == (Status.CANCELLED, 2, at(2))
