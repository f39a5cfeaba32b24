"""How fast events reach viewers, beside what people would use instead: `python -m benchmarks.delivery`.

Each side serves viewers from the same private Redis, alone on the first core; Redis and the load program
(`load.c`, which publishes the events and is all the viewers) share the second. Two shapes, one project with
1,000 viewers (`fan-out`) and 500 projects with one each (`spread`), at 30 events a second and project and at
saturation, where at most `--window` events of a project are under way. Sides take turns, a fresh server each
time; ratios are medians of the ratios within a round.

The app is `initializer serve` on a real PostgreSQL; its events are appended to their streams and published.
The peers' events are only published, all of the same text, and answered with a fragment as long as its frame.
`make bench-delivery` installs the peers first.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import redis

from benchmarks.delivery.sides import HERE, SIDES, Side, fragment
from benchmarks.empty_runs import PIPELINE, project
from benchmarks.processes import cpu_s
from initializer.journal.redis import stream_of
from initializer.model.events import Reason, Started, StepStarted, encode_event
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running.lease import lease_of

sys.path.insert(0, str(HERE.parents[1] / "tests"))
from harness.server import free_port
from harness.servers import PostgresServer, RedisServer, open_postgres

SHAPES = {"fan-out": (1, 1000), "spread": (500, 1)}
MOST_PROJECTS = max(projects for projects, _ in SHAPES.values())
FIRST_INDEX = 3
SERVER_CORE, LOAD_CORE = 0, 1


class Result(msgspec.Struct, kw_only=True):
    """What one round of one side gave."""

    seconds: float
    deliveries: int
    reflected: int
    skipped: int
    behind: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    connecting_s: float
    cpu_s: float = 0
    load_cpu_s: float = 0
    viewers_mb: float = 0
    """Memory that 1,000 viewers take."""

    def rate(self, shape: str) -> float:
        """Deliveries a second where many watch one project, else events a second that their viewers show."""
        return (self.deliveries if shape == "fan-out" else self.reflected) / self.seconds

    @property
    def busy(self) -> float:
        """How busy the server was, 1 for a core."""
        return self.cpu_s / self.seconds

    @property
    def ceiling(self) -> float:
        """Messages a second that the load program takes when it has nothing else to wait for."""
        return self.deliveries / max(self.load_cpu_s, 0.01)

    def cost_us(self, shape: str) -> float:
        """Microseconds of the server for one of what `rate` counts."""
        return self.cpu_s / max(1, self.deliveries if shape == "fan-out" else self.reflected) * 1e6


def pinned(core: int, program: Sequence[str]) -> list[str]:
    """A program on one core, which ends with this one."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *program]


class Stage:
    """The servers that all sides need, and a folder."""

    def __init__(self, folder: Path, redis_server: RedisServer, postgres: PostgresServer) -> None:
        self.folder, self.redis = folder, redis_server
        self.postgres_url = postgres.new_database()
        self.client = redis.Redis.from_url(redis_server.url)
        for name in ("load", "floor"):
            subprocess.run(["gcc", "-O2", "-o", folder / name, HERE / f"{name}.c"], check=True)
        (folder / "frame").write_text(fragment())

    def prepare(self, side: Side) -> None:
        """An empty Redis, and for the app unfinished runs that an owner elsewhere performs."""
        self.client.flushall()
        if not side.is_app:
            return
        now = datetime.now(UTC)
        started = Started(id="1-1", at=now, reason=Reason.CREATED, pipeline=PIPELINE)
        step = StepStarted(id="1-2", at=now, step=PIPELINE.steps[0].name)
        pipeline = self.client.pipeline()
        for number in range(MOST_PROJECTS):
            run = f"p{number:06}"
            pipeline.set(lease_of(run), "1:benchmark", ex=3600)
            for event in (started, step):
                pipeline.xadd(stream_of(run), {"event": encode_event(event)}, id=event.id)
        pipeline.execute()

    @contextlib.contextmanager
    def serving(self, side: Side) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """The side's server, once it takes connections."""
        port = free_port()
        program = list(side.program)
        if program == ["floor"]:
            program = [
                str(self.folder / "floor"),
                str(port),
                str(self.redis.port),
                str(self.folder / "frame"),
            ]
        environment = {
            **os.environ,
            "PORT": str(port),
            "REDIS_URL": self.redis.url,
            "DATABASE_URL": self.postgres_url,
            "PUBLIC_URL": "http://localhost",
            "DATA_DIR": str(self.folder / "data"),
            "LOG_LEVEL": "WARNING",
            **side.environment,
        }
        if not side.is_app:
            del environment["DATABASE_URL"]
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                pinned(SERVER_CORE, program), env=environment, stdout=output, stderr=output
            )
        try:
            until_listening(process, port, self.folder / "output")
            yield process, port
        finally:
            process.kill()
            process.wait()

    def measure(self, side: Side, plan: dict[str, object]) -> Result:
        """One round."""
        (self.folder / "template").write_bytes(side.publishes)
        values = {**plan, "path": side.path, "hello": side.hello, "template": self.folder / "template"}
        (self.folder / "plan").write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        with self.serving(side) as (server, port):
            before_kb = memory_kb(server.pid)
            program = [str(self.folder / "load"), "127.0.0.1", str(port), str(self.redis.port)]
            with subprocess.Popen(
                pinned(LOAD_CORE, [*program, str(self.folder / "plan")]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as load:
                assert load.stdin and load.stdout
                expect(load.stdout.readline(), "READY", self.folder)
                viewers = int(str(plan["projects"])) * int(str(plan["viewers"]))
                viewers_mb = (memory_kb(server.pid) - before_kb) / 1024 / viewers * 1000
                load.stdin.write("\n")
                load.stdin.flush()
                expect(load.stdout.readline(), "START", self.folder)
                began, load_began = cpu_s(server.pid), cpu_s(load.pid)
                expect(load.stdout.readline(), "STOP", self.folder)
                ended, load_ended = cpu_s(server.pid), cpu_s(load.pid)
                result = msgspec.convert(json.loads(load.stdout.readline()), Result)
        result.cpu_s, result.load_cpu_s = ended - began, load_ended - load_began
        result.viewers_mb = viewers_mb
        return result


def expect(line: str, word: str, folder: Path) -> None:
    """The load program goes on, or the reason why not."""
    if not line.startswith(word):
        raise SystemExit(
            f"the load program ended; the server said:\n{(folder / 'output').read_text()[-3000:]}"
        )


def until_listening(process: "subprocess.Popen[bytes]", port: int, output: Path) -> None:
    """Wait until somebody listens on the port."""
    wanted = f":{port:04X}"
    while process.poll() is None:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[1].endswith(wanted) and words[3] == "0A":
                time.sleep(0.3)
                return
        time.sleep(0.05)
    raise SystemExit(f"a server ended with {process.returncode}:\n{output.read_text()[-3000:]}")


def memory_kb(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def add_rows(url: str, count: int) -> None:
    """Rows of unfinished runs."""
    async with open_database(url) as database:
        projects = Projects(database)
        for number in range(count):
            run = msgspec.structs.replace(project(number), id=f"p{number:06}", name="Project 1")
            await projects.add(run, idempotency_key=run.id)


HEADINGS = (
    *("rate, of the first", "CPU each, of the first", "rate", "CPU each, µs", "server busy"),
    *("p50 ms", "p99 ms", "p99.9 ms", "MB/1,000 viewers", "s to connect", "not there 10 s after"),
)


def report(shape: str, rate: float, results: dict[str, list[Result]]) -> None:
    """A table, the app first; ratios are medians over the rounds."""
    unit = "deliveries" if shape == "fan-out" else "events reflected"
    print(f"\n### {shape}, {f'{rate:g} events/s a project' if rate else 'saturation'}; rates are {unit}/s\n")
    print(f"| side | {' | '.join(HEADINGS)} |")
    print("|---" * (1 + len(HEADINGS)) + "|")
    firsts = next(iter(results.values()))
    for name, rounds in results.items():
        print(f"| {SIDES[name].title} | {' | '.join(row(shape, rounds, firsts))} |", flush=True)
    ceiling = max(each.ceiling for rounds in results.values() for each in rounds)
    print(
        f"\nThe load program, publishing included, takes up to {ceiling:,.0f} messages a second of a core; "
        f"load average {os.getloadavg()[0]:.1f}."
    )


def row(shape: str, rounds: Sequence[Result], firsts: Sequence[Result]) -> list[str]:
    """The figures of a side, beside those of the first one in the same rounds."""

    def median(of: Callable[[Result], float]) -> float:
        return statistics.median(map(of, rounds))

    def ratio(of: Callable[[Result], float]) -> float:
        return statistics.median(of(a) / max(1e-9, of(b)) for a, b in zip(rounds, firsts, strict=True))

    return [
        f"{ratio(lambda each: each.rate(shape)):.2f}",
        f"{ratio(lambda each: each.cost_us(shape)):.2f}",
        f"{median(lambda each: each.rate(shape)):,.0f}",
        f"{median(lambda each: each.cost_us(shape)):.2f}",
        f"{median(lambda each: each.busy):.0%}",
        f"{median(lambda each: each.p50_ms):.1f}",
        f"{median(lambda each: each.p99_ms):.1f}",
        f"{median(lambda each: each.p999_ms):.1f}",
        f"{median(lambda each: each.viewers_mb):.0f}",
        f"{median(lambda each: each.connecting_s):.2f}",
        f"{sum(each.behind for each in rounds):,}",
    ]


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--rates", default="30,0", help="events a second and project; 0: saturation")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--window", type=int, default=64)
    asked = parser.parse_args()
    sides = {name: SIDES[name] for name in asked.sides.split(",")}
    os.sched_setaffinity(0, {LOAD_CORE})  # whatever is started without a core of its own shares it
    with tempfile.TemporaryDirectory(prefix="delivery-") as name, open_postgres() as postgres:
        folder = Path(name)
        (folder / "redis").mkdir()
        with RedisServer(folder / "redis", "--save", "", "--appendonly", "no") as redis_server:
            stage = Stage(folder, redis_server, postgres)
            asyncio.run(add_rows(stage.postgres_url, MOST_PROJECTS))
            for shape in asked.shapes.split(","):
                for rate in map(float, asked.rates.split(",")):
                    projects, viewers = SHAPES[shape]
                    plan: dict[str, object] = {
                        "projects": projects,
                        "viewers": viewers,
                        "first": FIRST_INDEX,
                        "seconds": asked.seconds,
                        "rate": rate,
                        "window": asked.window,
                    }
                    results: dict[str, list[Result]] = defaultdict(list)
                    for _ in range(asked.rounds):
                        for key, side in sides.items():
                            stage.prepare(side)
                            results[key].append(stage.measure(side, plan))
                    report(shape, rate, results)


if __name__ == "__main__":
    main()
