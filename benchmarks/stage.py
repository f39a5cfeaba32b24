"""What benchmarks of the shipped program stand on: a private Redis and PostgreSQL, and servers on them.

A run is unfinished and owned elsewhere, so that the servers show it and the benchmark itself is its writer.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import redis

from benchmarks.empty_runs import PIPELINE, project
from initializer.journal.redis import stream_of
from initializer.model.events import Event, Reason, Started, StepStarted, encode_event
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running.lease import lease_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from harness.hosts import DEATH
from harness.server import free_port
from harness.servers import PostgresServer, RedisServer, open_postgres

__all__ = [
    "APP",
    "FIRST_INDEX",
    "LOAD_CORE",
    "SERVER_CORE",
    "STEP",
    "Stage",
    "free_port",
    "open_stage",
    "pinned",
    "run_id",
]

APP = (str(Path(sys.executable).with_name("initializer")), "serve")
STEP = PIPELINE.steps[0].name
FIRST_INDEX = 3
"""The index of the first event behind those that a run has begun with."""
SERVER_CORE, LOAD_CORE = 0, 1


def run_id(number: int) -> str:
    """The id of a project, from 0; as long as any other."""
    return f"p{number:06}"


def pinned(core: int, program: Sequence[str]) -> list[str]:
    """A program on one core, which ends with this one."""
    return [*DEATH, "taskset", "-c", str(core), *program]


class Stage:
    """The servers that all sides need, and a folder."""

    def __init__(
        self, folder: Path, redis_server: RedisServer, postgres: PostgresServer, *, is_pinned: bool
    ) -> None:
        self.folder, self.redis, self._is_pinned = folder, redis_server, is_pinned
        self._postgres = postgres
        self.client = redis.Redis.from_url(redis_server.url)
        self.new_database()

    def new_database(self) -> None:
        """An empty database in the place of the one before."""
        self.postgres_url = self._postgres.new_database()
        self._rows = 0

    def add_rows(self, count: int) -> None:
        """Rows of unfinished runs, so that there are `count`: the first ones of `run_id`."""
        asyncio.run(_add_rows(self.postgres_url, range(self._rows, count)))
        self._rows = max(self._rows, count)

    def begin_runs(self) -> None:
        """An empty Redis but for the first events of all runs, and a sign that an owner elsewhere lives.

        A run without such a sign is taken over by the servers, which fail it.
        """
        self.client.flushall()
        now = datetime.now(UTC)
        began = (
            Started(id="1-1", at=now, reason=Reason.CREATED, pipeline=PIPELINE),
            StepStarted(id="1-2", at=now, step=STEP),
        )
        pipeline = self.client.pipeline(transaction=False)
        for number in range(self._rows):
            pipeline.set(lease_of(run_id(number)), "1:benchmark", ex=3600)
            for event in began:
                pipeline.xadd(stream_of(run_id(number)), {"event": encode_event(event)}, id=event.id)
        pipeline.execute()

    def append(self, run: str, events: Iterable[Event]) -> None:
        """Add events to a run's stream; nobody is told."""
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(stream_of(run), {"event": encode_event(event)}, id=event.id)
        pipeline.execute()

    def environment(self, **settings: str) -> dict[str, str]:
        """The app's own, on these servers."""
        return {
            "REDIS_URL": self.redis.url,
            "DATABASE_URL": self.postgres_url,
            "PUBLIC_URL": "http://localhost",
            "DATA_DIR": str(self.folder / "data"),
            "LOG_LEVEL": "WARNING",
            **settings,
        }

    @contextlib.contextmanager
    def serving(
        self, program: Sequence[str], environment: Mapping[str, str], *, port: int = 0
    ) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
        """A server, once it takes connections, alone on its core but for others of this kind."""
        port = port or free_port()
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                pinned(SERVER_CORE, program) if self._is_pinned else [*DEATH, *program],
                env={**os.environ, **environment, "PORT": str(port)},
                stdout=output,
                stderr=output,
            )
        try:
            self._until_listening(process, port)
            yield process, port
        finally:
            process.kill()
            process.wait()

    def expect(self, line: str, word: str) -> None:
        """The load program goes on, or the reason why not. Raises `SystemExit`."""
        if not line.startswith(word):
            raise SystemExit(f"the load program ended; the server said:\n{self._said()}")

    def _until_listening(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        wanted = f":{port:04X}"
        while process.poll() is None:
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                words = line.split()
                if words[1].endswith(wanted) and words[3] == "0A":
                    time.sleep(0.3)
                    return
            time.sleep(0.05)
        raise SystemExit(f"a server ended with {process.returncode}:\n{self._said()}")

    def _said(self) -> str:
        return (self.folder / "output").read_text()[-3000:]


@contextlib.contextmanager
def open_stage(name: str, *, is_pinned: bool = True) -> Iterator[Stage]:
    """Servers of a benchmark; where they are pinned, all but what is served shares the load's core."""
    if is_pinned:
        os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder, open_postgres() as postgres:
        (Path(folder) / "redis").mkdir()
        with RedisServer(Path(folder) / "redis", "--save", "", "--appendonly", "no") as redis_server:
            yield Stage(Path(folder), redis_server, postgres, is_pinned=is_pinned)


async def _add_rows(url: str, numbers: Iterable[int]) -> None:
    async with open_database(url) as database:
        projects = Projects(database)
        for number in numbers:
            run = msgspec.structs.replace(project(number), id=run_id(number), name="Project 1")
            await projects.add(run, idempotency_key=run.id)
