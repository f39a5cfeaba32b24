"""What runs are performed on in these tests: real journal and row, steps of a line."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec

from initializer.background import in_background
from initializer.forges.forge import Forge
from initializer.journal.file import FileJournal
from initializer.journal.journal import Journal
from initializer.model.events import Event, Log, Reason
from initializer.model.parameters import Project
from initializer.model.pipeline import Pipeline, StepSpec
from initializer.model.progress import Progress, fold
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.runner import Runner
from initializer.steps.step import Outputs, Step, StepContext
from model.runs import project_of

__all__ = ["RUN", "RunStep", "Stage", "nothing", "step_of"]

RUN = "a1"
DEADLINE_S = 20

RunStep = Callable[[StepContext], Awaitable[Outputs | None]]


def step_of(step_name: str, run_step: RunStep, *, timeout_s: float = 10, weight: int = 1) -> Step:
    """A step that does what the function does."""

    class FunctionStep(Step):
        name, title = step_name, step_name.capitalize()

        async def run(self, context: StepContext) -> Outputs | None:
            return await run_step(context)

    FunctionStep.weight, FunctionStep.timeout_s = weight, timeout_s
    return FunctionStep()


async def nothing(context: StepContext) -> None:
    """A step that has nothing to do."""


async def no_more() -> None:
    """After its run, its process ends."""


class Stage:
    """One project and what its run leaves."""

    def __init__(self, folder: Path, projects: Projects) -> None:
        self.folder = folder
        self.projects = projects
        self.journal: Journal = FileJournal(folder / "journals")
        self.project: Project = project_of(RUN)

    async def add(self, *steps: Step) -> None:
        """The row of a project whose run has these steps."""
        pipeline = Pipeline(
            version=1,
            steps=tuple(StepSpec(name=it.name, title=it.title, weight=it.weight) for it in steps),
        )
        self.project = project_of(RUN, pipeline=pipeline)
        await self.projects.add(self.project, idempotency_key=RUN)

    async def run(
        self, *steps: Step, attempt: int = 1, reason: Reason = Reason.CREATED, **parts: Any
    ) -> None:
        """Perform the run to its end, then `afterwards`; adds the row for the first attempt."""
        if attempt == 1 and await self.projects.get(RUN) is None:
            await self.add(*steps)
        runner = self.runner(*steps, attempt=attempt, **parts)
        async with asyncio.timeout(DEADLINE_S), in_background(runner.keep_settling()):
            await runner.run(await self._claimed(attempt), reason, parts.get("cancelled") or asyncio.Event())
            await parts.get("afterwards", no_more)()

    def runner(self, *steps: Step, attempt: int = 1, **parts: Any) -> Runner:
        """What performs these steps."""
        return Runner(
            journal=parts.get("journal", self.journal),
            projects=parts.get("projects", self.projects),
            steps={step.name: step for step in steps},
            forges={"local": cast(Forge, object())},
            work_folder=self.folder / f"work-{attempt}",
            keep_journal_for=timedelta(days=7),
            leases=parts.get("leases"),
        )

    async def until_event(self, index: int) -> None:
        """Wait until the journal has the event of that index."""
        async with (
            asyncio.timeout(DEADLINE_S),
            aclosing(self.journal.follow(RUN, after=f"1-{index - 1}")) as following,
        ):
            async for events in following:
                if events:
                    return

    async def _claimed(self, attempt: int) -> ProjectRow:
        """The row as that attempt was given it when it claimed the run."""
        return msgspec.structs.replace(await self.row(), attempt=attempt)

    async def row(self) -> ProjectRow:
        row = await self.projects.get(RUN)
        assert row is not None
        return row

    async def events(self) -> Sequence[Event]:
        """What the journal holds, without a hole."""
        events = await self.journal.read(RUN)
        assert [event.index for event in events] == list(range(1, len(events) + 1))
        return events

    async def types(self) -> list[str]:
        return [str(type(event).__struct_config__.tag) for event in await self.events()]

    async def progress(self) -> Progress:
        return fold(self.project.parameters.pipeline, await self.events())

    async def lines(self) -> list[str]:
        return [line for event in await self.events() if isinstance(event, Log) for line in event.lines]
