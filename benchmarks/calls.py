"""What a step's words cost it: `python -m benchmarks.calls`.

A step of a real run, with the journal on disk, calls `context.progress` and `context.log` many times and
notes how long that took.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks.empty_runs import project, until_over
from initializer.engines.inline import open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.file import FileJournal
from initializer.logs import configure_logging
from initializer.model.events import Reason
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running.runner import Runner
from initializer.steps.step import Step, StepContext

NAMES = ("create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize")
Rounds = dict[str, list[float]]


def talking_step(step_name: str, calls: int, rounds: Rounds) -> Step:
    """A step that talks, and notes the microseconds of a call."""

    class Talking(Step):
        name, title = step_name, step_name

        async def run(self, context: StepContext) -> None:
            def progress(number: int) -> None:
                context.progress(number * 100 // calls, "Pushing template files", substep=("push", 40))

            def log(number: int) -> None:
                context.log(f"Receiving objects: {number} of {calls}")

            for what, call in (("progress()", progress), ("log()", log)):
                rounds[what].append(self._us_of(call))
                await asyncio.sleep(0.05)

        def _us_of(self, call: Callable[[int], None]) -> float:
            began = time.perf_counter()
            for number in range(calls):
                call(number)
            return (time.perf_counter() - began) / calls * 1e6

    return Talking()


async def measure(folder: Path, calls: int) -> Rounds:
    """One run."""
    rounds: Rounds = defaultdict(list)
    journal, run = FileJournal(folder / "journals"), project(1)
    async with open_database(f"sqlite:///{folder}/projects.db") as database:
        projects = Projects(database)
        runner = Runner(
            journal=journal,
            projects=projects,
            steps={name: talking_step(name, calls, rounds) for name in NAMES},
            forges={"local": LocalForge(folder / "repositories", "http://localhost")},
            work_folder=folder / "work",
            keep_journal_for=timedelta(days=1),
        )
        async with open_inline_engine(runner.run, max_concurrent_runs=1) as engine:
            await projects.add(run, idempotency_key=run.id)
            row = await projects.get(run.id)
            assert row is not None
            await engine.submit(row, reason=Reason.CREATED)
            await until_over(journal, run.id)
    return rounds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="calls a step")
    asked = parser.parse_args()
    configure_logging("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        rounds = asyncio.run(measure(Path(folder), asked.calls))
    print("| call | median µs | min | max |\n|---|---|---|---|")
    for what, each in rounds.items():
        print(f"| `{what}` | {statistics.median(each):.1f} | {min(each):.1f} | {max(each):.1f} |")


if __name__ == "__main__":
    main()
