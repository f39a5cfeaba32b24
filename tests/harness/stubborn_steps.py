"""The app's own program, with one step, which does not let go when it is to end.

What goes on is its task, or its thread, as `STUBBORN` says. What is changed is so in each process of
`serve --workers` too, which imports this module again.
"""

import asyncio
import contextlib
import os
import time

import initializer.parts.running_parts
import web.app
from initializer.running import cancelling
from initializer.steps.builtin import pipeline_of
from initializer.steps.step import Step, StepContext
from web.cli import main

FOR_EVER_S = 600


class Stubborn(Step):
    """A step whose task goes on, or whose thread does."""

    name, title, weight = "stubborn", "Stubborn", 1
    timeout_s = FOR_EVER_S

    async def run(self, context: StepContext) -> None:
        context.log("begun")
        if os.environ["STUBBORN"] == "thread":
            await asyncio.to_thread(time.sleep, FOR_EVER_S)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(FOR_EVER_S)


STEPS = (Stubborn(),)
initializer.parts.running_parts.BUILTIN_STEPS = STEPS  # type: ignore[attr-defined]
web.app.pipeline_of = lambda: pipeline_of(STEPS)  # type: ignore[attr-defined]
cancelling.STEP_END_LIMIT_S = 1

if __name__ == "__main__":
    main()
