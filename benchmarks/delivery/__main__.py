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
import json
import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.delivery.sides import HERE, SIDES, Side, fragment
from benchmarks.processes import cpu_s, memory_kb
from benchmarks.stage import FIRST_INDEX, LOAD_CORE, Stage, free_port, open_stage, pinned

SHAPES = {"fan-out": (1, 1000), "spread": (500, 1)}
MOST_PROJECTS = max(projects for projects, _ in SHAPES.values())


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
    arriving_cpu_s: float = 0
    """Of the server, until all viewers had come and had what there was."""
    idle: float = 0
    """How busy the server was while nothing happened, 1 for a core."""

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


class Delivery:
    """One shape of load after the other, on servers that all sides need."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._folder = stage, stage.folder
        for name in ("load", "floor"):
            subprocess.run(["gcc", "-O2", "-o", self._folder / name, HERE / f"{name}.c"], check=True)
        (self._folder / "frame").write_text(fragment())

    def prepare(self, side: Side) -> None:
        """An empty Redis, and for the app unfinished runs that an owner elsewhere performs."""
        if side.is_app:
            self._stage.begin_runs()
        else:
            self._stage.client.flushall()

    def measure(self, side: Side, plan: dict[str, object], *, idle_s: float = 0) -> Result:
        """One round; with `idle_s` the viewers wait so long before it begins."""
        folder, port = self._folder, free_port()
        (folder / "template").write_bytes(side.publishes)
        values = {**plan, "path": side.path, "hello": side.hello, "template": folder / "template"}
        (folder / "plan").write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        with self._stage.serving(self._program(side, port), side.environment_on(self._stage), port=port) as (
            server,
            _,
        ):
            before_kb, before_s = memory_kb(server.pid), cpu_s(server.pid)
            program = [str(folder / "load"), "127.0.0.1", str(port), str(self._stage.redis.port)]
            with subprocess.Popen(
                pinned(LOAD_CORE, [*program, str(folder / "plan")]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as load:
                assert load.stdin and load.stdout
                self._stage.expect(load.stdout.readline(), "READY")
                viewers = int(str(plan["projects"])) * int(str(plan["viewers"]))
                viewers_mb = (memory_kb(server.pid) - before_kb) / 1024 / viewers * 1000
                arrived_s = cpu_s(server.pid)
                time.sleep(idle_s)
                idled_s = cpu_s(server.pid) - arrived_s
                load.stdin.write("\n")
                load.stdin.flush()
                self._stage.expect(load.stdout.readline(), "START")
                began, load_began = cpu_s(server.pid), cpu_s(load.pid)
                self._stage.expect(load.stdout.readline(), "STOP")
                ended, load_ended = cpu_s(server.pid), cpu_s(load.pid)
                result = msgspec.convert(json.loads(load.stdout.readline()), Result)
        result.cpu_s, result.load_cpu_s = ended - began, load_ended - load_began
        result.viewers_mb, result.arriving_cpu_s = viewers_mb, arrived_s - before_s
        result.idle = idled_s / idle_s if idle_s else 0
        return result

    def _program(self, side: Side, port: int) -> Sequence[str]:
        if side.program != ("floor",):
            return side.program
        return [
            str(self._folder / "floor"),
            str(port),
            str(self._stage.redis.port),
            str(self._folder / "frame"),
        ]


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
    with open_stage("delivery") as stage:
        delivery = Delivery(stage)
        stage.add_rows(MOST_PROJECTS)
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
                        delivery.prepare(side)
                        results[key].append(delivery.measure(side, plan))
                report(shape, rate, results)


if __name__ == "__main__":
    main()
