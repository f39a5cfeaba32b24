"""The app's own program, over steps that are shell scripts: `python script_steps.py serve`, or `worker`.

`STEP_SCRIPTS` names their folder; a file is called `<number>.<step>.sh`.
"""

import os
from pathlib import Path

import initializer.parts.running_parts
import web.app
from initializer.steps.builtin import pipeline_of
from initializer.steps.step import Step, StepContext
from web.cli import main


def step_of(path: Path) -> Step:
    """A step that runs the script."""

    class Script(Step):
        timeout_s = 600

        async def run(self, context: StepContext) -> None:
            await context.run_command(["sh", str(path)], timeout_s=500)

    Script.name = path.name.split(".")[1]
    Script.title = Script.name.capitalize()
    return Script()


if __name__ == "__main__":
    scripts = sorted(
        Path(os.environ["STEP_SCRIPTS"]).iterdir(), key=lambda path: int(path.name.split(".")[0])
    )
    steps = tuple(map(step_of, scripts))
    initializer.parts.running_parts.BUILTIN_STEPS = steps  # type: ignore[attr-defined]
    web.app.pipeline_of = lambda: pipeline_of(steps)  # type: ignore[attr-defined]
    main()
