"""What people ask of a run, where answers of the database are lost or late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from initializer.control import Control
from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, Projects
from initializer.steps.step import StepContext
from running.stage import DEADLINE_S, Stage, nothing, step_of

pytestmark = pytest.mark.anyio


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


class Standing:
    """A run whose first step stands until it is let go or cancelled, in each try anew."""

    def __init__(self, stage: Stage) -> None:
        self.cancelled: dict[int, asyncio.Event] = {}
        """What each attempt was given to hear that it is to end."""
        self.let_go = asyncio.Event()
        self._stage = stage
        self._begun = asyncio.Semaphore(0)
        self._steps = (step_of("first", self._stand), step_of("second", nothing))

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[InlineEngine]:
        """An engine at work that was given the run."""
        await self._stage.add(*self._steps)
        async with open_inline_engine(self._perform, max_concurrent_runs=1) as engine:
            await engine.submit(await self._stage.row(), reason=Reason.CREATED)
            yield engine

    async def until_begun(self) -> None:
        """Wait until another try stands in its step."""
        await self._begun.acquire()

    async def _perform(self, row: ProjectRow, reason: Reason, cancelled: asyncio.Event) -> None:
        self.cancelled[row.attempt] = cancelled
        await self._stage.run(*self._steps, attempt=row.attempt, reason=reason, cancelled=cancelled)

    async def _stand(self, context: StepContext) -> None:
        self._begun.release()
        await self.let_go.wait()


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
