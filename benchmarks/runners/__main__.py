"""What a runner costs by itself, beside others: `python -m benchmarks.runners`.

A run has six steps that do nothing. One process submits runs and waits for their end, one more performs them,
four at once; without workers the first does both. Each side reports when a step begins and when it ends: this
app in 15 events, the others in 12 updates, each awaited. Sides take turns, with processes, Redis and database
anew each time; ratios are medians of the ratios within a round. Processor time is that of both processes and
what they start; statements are counted by PostgreSQL (pg_stat_statements) or SQLite's driver, commands by
Redis, those of scripts too.

Then runs are submitted one after the other to 1, 2 and 4 processes that have nothing else to do, to tell how
long it takes until the first step does something. Those with workers take turns in five rounds as well, whose
runs count as one set: ratios are of its medians. `make bench-runners` installs the others first.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.processes import family_cpu_s
from benchmarks.runners.sides import CONCURRENT, SIDES, WITH_WORKERS, Side
from benchmarks.servers import Servers, open_servers
from harness.hosts import DEATH
from harness.server import plain_environment
from harness.waiting import wait_for

ROOT = Path(__file__).parents[2]
WORKERS = (1, 2, 4)
WARM_RUNS = 5 * CONCURRENT


class Result(msgspec.Struct, kw_only=True):
    """What a round of a side gave; all but the rate is of one run."""

    runs_s: float
    cpu_us: float
    servers_cpu_us: float
    commands: float
    writes: float
    reads: float

    @property
    def wall_us(self) -> float:
        """Microseconds that a run adds to the whole."""
        return 1e6 / self.runs_s


class Said(msgspec.Struct, kw_only=True):
    """What a program that submits runs writes."""

    seconds: float
    submitted: dict[str, int]
    """The moment of each run in nanoseconds."""
    statements: dict[str, int] = {}


class Process:
    """A program and all that it starts, which end with `close`; standard error goes to a file."""

    def __init__(self, program: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self.output = output
        with output.open("ab") as errors:
            self._process = subprocess.Popen(
                [*DEATH, *program],
                cwd=ROOT,
                env=plain_environment(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if "RUNS" in environment else errors,
                stderr=errors,
                start_new_session=True,
                text=True,
            )
        self.pid = self._process.pid

    def says(self, word: str) -> bool:
        """Whether a worker has written a word."""
        self._check(self._process.poll() is None)
        return word in self.output.read_text()

    def read(self) -> str:
        """The next line of one that submits."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._check(bool(line))
        return line

    def go_on(self) -> None:
        """Tell one that submits to do so."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.communicate()

    def _check(self, is_well: bool) -> None:
        if not is_well:
            raise SystemExit(f"{self._process.args} ended:\n{self.output.read_text()[-3000:]}")


class Stage:
    """Rounds of sides on the servers."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self._round = 0

    def measure(self, side: Side, runs: int) -> Result:
        """One round of as many runs as the side can perform."""
        with self._performing(side) as (environment, start_workers):
            workers = start_workers(1) if side.works else []
            with self._submitting(side, environment, warm=WARM_RUNS, runs=runs) as submitting:
                performing = [submitting, *workers]
                url = environment.get("DATABASE_URL", "")
                before = self._counts(performing, url)
                submitting.go_on()
                said = msgspec.json.decode(submitting.read(), type=Said)
                cpu_s, servers_cpu_s, commands, writes, reads = (
                    after - one for after, one in zip(self._counts(performing, url), before, strict=True)
                )
        if not side.has_servers:
            reads = said.statements.pop("SELECT", 0)
            writes = sum(said.statements.values())
        return Result(
            runs_s=runs / said.seconds,
            cpu_us=cpu_s / runs * 1e6,
            servers_cpu_us=servers_cpu_s / runs * 1e6 if side.has_servers else 0,
            commands=commands / runs if side.has_servers else 0,
            writes=writes / runs,
            reads=reads / runs,
        )

    def latencies_ms(self, side: Side, runs: int, pause_ms: int) -> Mapping[int, list[float]]:
        """Milliseconds until each run's first step did something, by the number of workers."""
        found: dict[int, list[float]] = {}
        with self._performing(side) as (environment, start_workers):
            for before, count in zip((0, *WORKERS), WORKERS, strict=False):
                start_workers(count - before)
                warm = WARM_RUNS * count
                with self._submitting(
                    side, environment, warm=warm, runs=runs, pause_ms=pause_ms
                ) as submitting:
                    submitting.go_on()
                    said = msgspec.json.decode(submitting.read(), type=Said)
                lines = Path(environment["NOTED"]).read_text().splitlines()
                noted = {run: int(at) for run, at in map(str.split, lines)}
                found[count] = [(noted[run] - at) / 1e6 for run, at in said.submitted.items()]
        return found

    def _counts(self, performing: Sequence[Process], url: str) -> tuple[float, ...]:
        servers = self.servers
        return (
            sum(family_cpu_s(process.pid) for process in performing),
            family_cpu_s(servers.redis.pid) + family_cpu_s(servers.postgres.pid),
            servers.commands(),
            servers.writes(url),
            servers.reads(url),
        )

    @contextlib.contextmanager
    def _performing(self, side: Side) -> Iterator[tuple[dict[str, str], Callable[[int], Sequence[Process]]]]:
        """Settings for a side on empty servers, and what starts workers with them."""
        self._round += 1
        folder = self.servers.folder / str(self._round)
        folder.mkdir()
        database, url = self.servers.empty(), self.servers.redis.url
        environment = {
            "CONCURRENT": str(CONCURRENT),
            "MAX_CONCURRENT_RUNS": str(CONCURRENT),
            "DATA_DIR": str(folder / "data"),
            "PUBLIC_URL": "http://localhost",
            "NOTED": str(folder / "noted"),
            **({"DATABASE_URL": database, "REDIS_URL": url} if side.has_servers else {}),
            **side.environment,
        }
        with contextlib.ExitStack() as stack:
            started = 0

            def start_workers(count: int) -> Sequence[Process]:
                nonlocal started
                workers = []
                for _ in range(count):
                    started += 1
                    program = [word.replace("{number}", str(started)) for word in side.works]
                    worker = Process(program, environment, folder / f"worker-{started}")
                    stack.callback(worker.close)
                    workers.append(worker)
                for worker in workers:
                    wait_for(lambda worker=worker: worker.says(side.ready), f"{side.title} is ready")
                return workers

            yield environment, start_workers

    @contextlib.contextmanager
    def _submitting(
        self, side: Side, environment: Mapping[str, str], *, warm: int, runs: int, pause_ms: int = 0
    ) -> Iterator[Process]:
        """The process that submits runs, once it has done so with those that warm up."""
        asked = {"WARM": str(warm), "RUNS": str(runs), "PAUSE_MS": str(pause_ms)}
        process = Process(side.submits, {**environment, **asked}, Path(environment["NOTED"] + ".output"))
        try:
            assert process.read() == "READY\n"
            yield process
        finally:
            process.close()


COSTS: Mapping[str, Callable[[Side, Result], float]] = {
    "wall µs a run": lambda _, each: each.wall_us,
    "wall µs an event": lambda side, each: each.wall_us / side.updates,
    "CPU µs a run": lambda _, each: each.cpu_us,
    "CPU µs an event": lambda side, each: each.cpu_us / side.updates,
    "CPU µs of the servers, a run": lambda _, each: each.servers_cpu_us,
    "Redis commands a run": lambda _, each: each.commands,
}


def report_costs(results: Mapping[str, Sequence[Result]]) -> None:
    """A table, the app first; ratios are medians over the rounds."""
    headings = (
        *("side", "runs/s, of the first", "CPU a run, of the first", "runs/s", "events a run", *COSTS),
        *("statements that write", "that read", "what can be read afterwards"),
    )
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    firsts = next(iter(results.values()))
    for name, rounds in results.items():
        side = SIDES[name]

        def median(of: Callable[[Result], float], rounds: Sequence[Result] = rounds) -> float:
            return statistics.median(map(of, rounds))

        def ratio(of: Callable[[Result], float], rounds: Sequence[Result] = rounds) -> float:
            return statistics.median(of(a) / of(b) for a, b in zip(rounds, firsts, strict=True))

        cells = (
            side.title,
            f"{ratio(lambda each: each.runs_s):.2f}",
            f"{ratio(lambda each: each.cpu_us):.2f}",
            f"{median(lambda each: each.runs_s):,.0f}",
            str(side.updates),
            *(f"{median(lambda each, of=of, side=side: of(side, each)):,.0f}" for of in COSTS.values()),
            f"{median(lambda each: each.writes):.1f}",
            f"{median(lambda each: each.reads):.1f}",
            side.keeps,
        )
        print(f"| {' | '.join(cells)} |")


def report_latencies(found: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """A table of both percentiles for each number of processes; ratios are of medians."""
    headings = [
        f"{text} {count}" for count in WORKERS for text in ("p50 of the first,", "p50 ms,", "p99 ms,")
    ]
    print(f"\n| side | {' | '.join(headings)} |\n{'|---' * (1 + len(headings))}|")
    firsts = next(iter(found.values()))
    for name, by_count in found.items():
        cells = [SIDES[name].title]
        for count, each in by_count.items():
            p50, p99 = statistics.median(each), statistics.quantiles(each, n=100)[-1]
            cells += [f"{p50 / statistics.median(firsts[count]):.2f}", f"{p50:.1f}", f"{p99:.1f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--runs", type=int, default=100, help="runs a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=80, help="runs a round of the second table")
    parser.add_argument("--start-rounds", type=int, default=5, help="rounds of it")
    parser.add_argument("--pause-ms", type=int, default=40, help="between those")
    asked = parser.parse_args()
    names = asked.sides.split(",")
    results: dict[str, list[Result]] = defaultdict(list)
    starts: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open_servers() as servers:
        stage = Stage(servers)
        for _ in range(asked.rounds):
            for name in names:
                results[name].append(stage.measure(SIDES[name], asked.runs))
        report_costs(results)
        for _ in range(asked.start_rounds):
            for name in filter(WITH_WORKERS.__contains__, names):
                for count, each in stage.latencies_ms(SIDES[name], asked.starts, asked.pause_ms).items():
                    starts[name][count] += each
    if starts:
        report_latencies(starts)
    print(f"\nLoad average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
