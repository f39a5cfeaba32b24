"""This app over six steps that do nothing: `python -m benchmarks.runners.app worker`, or `submit`.

Settings are those of the product, and so is everything but the steps. Without workers, who submits performs.
"""

import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec
import uvloop

import initializer.parts.running_parts
from benchmarks.empty_runs import NAMES, counted_statements, empty_step, project, until_over
from benchmarks.runners.sides import PEERS
from initializer.forges.local import FORGE_FOLDER, LocalForge
from initializer.logs import configure_logging
from initializer.model.events import Reason
from initializer.model.progress import Status
from initializer.parts.opening import open_running_parts
from initializer.projects.projects import ProjectRow
from initializer.settings import Settings
from initializer.steps.step import Step, StepContext
from web.cli import main

sys.path.insert(0, str(PEERS))
from first_step import note_start
from submitting import submit_runs


class First(Step):
    """A step that does nothing but note when."""

    name = title = NAMES[0]

    async def run(self, context: StepContext) -> None:
        note_start(context.project.id)


async def submit(settings: Settings) -> None:
    """Submit runs, and perform them where no worker does; wait for their end."""
    forge = LocalForge(settings.data_dir / FORGE_FOLDER, settings.public_url)
    with counted_statements() as statements:
        async with open_running_parts(settings, forge) as parts:
            is_owned = parts.engine.owns_runs
            status = Status.INITIALIZING if is_owned else Status.PENDING

            endings: dict[str, asyncio.Task[None]] = {}

            async def create(run: str) -> None:
                one = msgspec.structs.replace(project(0), id=run, slug=run)
                await parts.projects.add(one, idempotency_key=run, is_owned=is_owned)
                row = ProjectRow(project=one, status=status, attempt=int(is_owned))
                await parts.engine.submit(row, reason=Reason.CREATED)
                endings[run] = asyncio.create_task(until_over(parts.journal, run))

            async def until_all_over(runs: Sequence[str]) -> None:
                await asyncio.gather(*map(endings.pop, runs))

            await submit_runs(
                create, until_all_over, begin=statements.clear, tell=lambda: {"statements": dict(statements)}
            )


if __name__ == "__main__":
    steps = (First(), *map(empty_step, NAMES[1:]))
    initializer.parts.running_parts.BUILTIN_STEPS = steps  # type: ignore[attr-defined]
    if sys.argv[1] == "worker":
        main()
    else:
        configure_logging("INFO")
        uvloop.run(submit(Settings.from_environ(os.environ)))
