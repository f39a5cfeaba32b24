"""Runs a second of an empty pipeline, and the database statements a run costs.

`python -m benchmarks.empty_runs`: six steps that do nothing, the real engine, runner, file journal and
SQLite database. Beside it, in alternating rounds, the same runs with a journal in memory, to tell what the
disk costs.
"""

import argparse
import asyncio
import re
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from initializer.engines.inline import open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.file import FileJournal
from initializer.journal.journal import Journal
from initializer.journal.memory import MemoryJournal
from initializer.logs import configure_logging
from initializer.model.events import Reason, is_final
from initializer.model.parameters import Project, RunParameters, TemplateRef
from initializer.model.pipeline import Pipeline, StepSpec
from initializer.model.progress import Status
from initializer.projects.database import open_database
from initializer.projects.projects import ProjectRow, Projects
from initializer.running.runner import Runner
from initializer.steps.step import Outputs, Step, StepContext


def empty_step(name: str) -> Step:
    """A step that does nothing."""

    class Empty(Step):
        async def run(self, context: StepContext) -> Outputs | None:
            del context

    step = Empty()
    step.name, step.title = name, name
    return step


NAMES = ("create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize")
STEPS = {name: empty_step(name) for name in NAMES}
PIPELINE = Pipeline(version=1, steps=tuple(StepSpec(name=name, title=name, weight=1) for name in NAMES))


def project(number: int) -> Project:
    """A project to run."""
    parameters = RunParameters(
        template=TemplateRef(name="bare", version="1"),
        forge="local",
        environments=("development",),
        gitops="flux",
        pipeline=PIPELINE,
    )
    return Project(
        id=uuid.uuid4().hex,
        slug=f"project-{number}",
        name=f"Project {number}",
        owner="benchmark",
        created_at=datetime.now(UTC),
        parameters=parameters,
    )


async def run_many(folder: Path, journal: Journal, count: int, concurrent: int) -> float:
    """Seconds that `count` runs take, from the first INSERT to the last final event."""
    async with open_database(f"sqlite:///{folder}/projects.db") as database:
        projects = Projects(database)
        runner = Runner(
            journal=journal,
            projects=projects,
            steps=STEPS,
            forges={"local": LocalForge(folder / "repositories", "http://localhost")},
            work_folder=folder / "work",
            keep_journal_for=timedelta(days=1),
        )
        async with open_inline_engine(runner.run, max_concurrent_runs=concurrent) as engine:
            started = time.perf_counter()
            made = [project(number) for number in range(count)]
            for one in made:
                await projects.add(one, idempotency_key=one.id)
                row = ProjectRow(project=one, status=Status.INITIALIZING, attempt=1)
                await engine.submit(row, reason=Reason.CREATED)
            await asyncio.gather(*(until_over(journal, one.id) for one in made))
            return time.perf_counter() - started


async def until_over(journal: Journal, run: str) -> None:
    """Wait for the final event of a run."""
    async for events in journal.follow(run):
        if events and is_final(events[-1]):
            return


@contextmanager
def counted_statements() -> Iterator[Counter[str]]:
    """Counts the statements on the projects table of every SQLite connection opened meanwhile."""
    counts: Counter[str] = Counter()
    connect = sqlite3.connect

    def count(statement: str) -> None:
        verb = re.match(r"\s*(INSERT|UPDATE|SELECT|DELETE)\b.*\bprojects\b", statement, re.DOTALL)
        if verb:
            counts[verb[1]] += 1

    def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)  # type: ignore[call-overload]
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    try:
        yield counts
    finally:
        sqlite3.connect = connect


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="runs a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrent", type=int, default=4)
    asked = parser.parse_args()
    configure_logging("WARNING")

    on_file: list[float] = []
    in_memory: list[float] = []
    with counted_statements() as statements:
        for _ in range(asked.rounds):
            for rates, is_file in ((on_file, True), (in_memory, False)):
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    journal = FileJournal(folder / "journals") if is_file else MemoryJournal()
                    took = asyncio.run(run_many(folder, journal, asked.runs, asked.concurrent))
                    rates.append(asked.runs / took)
    total = asked.runs * asked.rounds * 2
    per_run = ", ".join(f"{count / total:g} {verb}" for verb, count in sorted(statements.items()))
    print("| what | median | min | max |\n|---|---|---|---|")
    for title, rates in (("journal on disk (as shipped)", on_file), ("journal in memory", in_memory)):
        print(
            f"| runs/s, empty pipeline of six steps, {title} | {statistics.median(rates):.0f} "
            f"| {min(rates):.0f} | {max(rates):.0f} |"
        )
    ratio = statistics.median(a / b for a, b in zip(on_file, in_memory, strict=True))
    print(f"| disk / memory | {ratio:.2f} | | |")
    print(f"\nDatabase statements a run: {per_run}")


if __name__ == "__main__":
    main()
