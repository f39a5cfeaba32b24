"""How soon viewers are whole again that lost their connections at once: `python -m benchmarks.storm`.

1,000 viewers watch while events are published; then all connections end at the same moment, and all viewers
come back in the same moment, without the pauses that pages make. Two ways to lose them: `cut`, the network
drops them and the same process takes them back; `kill`, the process is killed with -9 and another one, which
runs beside it on the same core, takes them. Two shapes: all watch one project (`fan-out`), or each one of
their own (`spread`).

A viewer is whole with the first frame after its return that holds an event which it had not seen, none older
than the newest at the moment when it was cut off. This app is asked for what came after the last event that a
viewer shows, and its frame brings it. The peers keep no history: of what was published meanwhile their
viewers see nothing, ever; whole means there that it is connected and has received the next event.

Servers, cores and sides are those of `benchmarks.delivery`; sides take turns, a fresh server each time, and
ratios are medians of the ratios within a round.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.delivery.sides import SIDES, Side
from benchmarks.processes import cpu_s
from benchmarks.stage import FIRST_INDEX, LOAD_CORE, Stage, open_stage, pinned

SHAPES = {"fan-out": "one project", "spread": "a project each"}
WAYS = {"cut": "the connections are cut", "kill": "the process is killed and another takes them"}


class Result(msgspec.Struct, kw_only=True):
    """What one round of one side gave. `missing` viewers were not whole after 10 s."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    missing: int
    refused: int
    cpu_s: float = 0
    """Of the process that takes them back, from the storm until all are whole."""


class Storm:
    """One storm after the other."""

    def __init__(self, stage: Stage, viewers: int, rate: float) -> None:
        self._stage, self._viewers, self._rate = stage, viewers, rate
        self._program = stage.folder / "storm"
        source = Path(__file__).with_name("storm.c")
        subprocess.run(["gcc", "-O2", "-o", self._program, source], check=True)

    def measure(self, side: Side, shape: str, way: str) -> Result:
        """One round."""
        projects, viewers = (1, self._viewers) if shape == "fan-out" else (self._viewers, 1)
        self._stage.begin_runs() if side.is_app else self._stage.client.flushall()
        environment = side.environment_on(self._stage)
        with contextlib.ExitStack() as stack:
            first, port = stack.enter_context(self._stage.serving(side.program, environment))
            second, back_port = first, port
            if way == "kill":
                second, back_port = stack.enter_context(self._stage.serving(side.program, environment))
            plan = self._write_plan(side, projects, viewers)
            ports = [str(each) for each in (port, back_port, self._stage.redis.port)]
            load = stack.enter_context(
                subprocess.Popen(
                    pinned(LOAD_CORE, [str(self._program), "127.0.0.1", *ports, str(plan)]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert load.stdin and load.stdout
            self._stage.expect(load.stdout.readline(), "READY")
            print(file=load.stdin, flush=True)
            self._stage.expect(load.stdout.readline(), "STORM")
            began_s = cpu_s(second.pid)
            print(file=load.stdin, flush=True)
            if way == "kill":
                first.kill()
            self._stage.expect(load.stdout.readline(), "WHOLE")
            took_s = cpu_s(second.pid) - began_s
            result = msgspec.convert(json.loads(load.stdout.readline()), Result)
        result.cpu_s = took_s
        return result

    def _write_plan(self, side: Side, projects: int, viewers: int) -> Path:
        template, plan = self._stage.folder / "template", self._stage.folder / "plan"
        template.write_bytes(side.publishes)
        values: dict[str, object] = {
            "projects": projects,
            "viewers": viewers,
            "first": FIRST_INDEX,
            "seconds": 1,
            "rate": self._rate if projects == 1 else self._rate / 10,
            "path": side.path,
            "back": side.back or side.path,
            "hello": side.hello,
            "template": template,
        }
        plan.write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        return plan


HEADINGS = (
    *("p99, of the first", "CPU, of the first", "p50 ms", "p99 ms", "max ms", "server CPU s"),
    *("dialled again", "not whole after 10 s"),
)


def report(shape: str, way: str, results: dict[str, list[Result]]) -> None:
    """A table, the app first; ratios are medians over the rounds."""
    print(f"\n### {SHAPES[shape]}, {WAYS[way]}\n")
    print(f"| side | {' | '.join(HEADINGS)} |")
    print("|---" * (1 + len(HEADINGS)) + "|")
    firsts = next(iter(results.values()))
    for name, rounds in results.items():
        print(f"| {SIDES[name].title} | {' | '.join(row(rounds, firsts))} |", flush=True)


def row(rounds: Sequence[Result], firsts: Sequence[Result]) -> list[str]:
    """The figures of a side, beside those of the first one in the same rounds."""

    def median(of: Callable[[Result], float]) -> float:
        return statistics.median(map(of, rounds))

    def ratio(of: Callable[[Result], float]) -> float:
        return statistics.median(of(a) / max(1e-9, of(b)) for a, b in zip(rounds, firsts, strict=True))

    return [
        f"{ratio(lambda each: each.p99_ms):.2f}",
        f"{ratio(lambda each: each.cpu_s):.2f}",
        f"{median(lambda each: each.p50_ms):,.0f}",
        f"{median(lambda each: each.p99_ms):,.0f}",
        f"{median(lambda each: each.max_ms):,.0f}",
        f"{median(lambda each: each.cpu_s):.2f}",
        f"{median(lambda each: each.refused):,.0f}",
        f"{sum(each.missing for each in rounds):,}",
    ]


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument(
        "--rate",
        type=float,
        default=30,
        help="events a second of one project; a tenth where each has its own",
    )
    parser.add_argument("--storms", default="fan-out:cut,fan-out:kill,spread:cut")
    parser.add_argument("--sides", default="app,node,broadcaster,socketio")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with open_stage("storm") as stage:
        stage.add_rows(asked.viewers)
        storm = Storm(stage, asked.viewers, asked.rate)
        for each in asked.storms.split(","):
            shape, way = each.split(":")
            results: dict[str, list[Result]] = defaultdict(list)
            for _ in range(asked.rounds):
                for name in asked.sides.split(","):
                    results[name].append(storm.measure(SIDES[name], shape, way))
            report(shape, way, results)
    print(f"\nLoad average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
