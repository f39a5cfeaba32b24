"""How the cost of each thing grows with its size: `python -m benchmarks.growth`.

One process of `initializer serve` on a real PostgreSQL and Redis, alone on the first core; four sizes grow:

- **viewers** of one project, 10 to some 10,000: processor time for an event that all are shown, beside what
  the floor of the delivery benchmark takes for it, and to let them in, memory;
- **projects** with a viewer each, as many: the same, and what the process does while nothing happens;
- **events** of a run, 10 to 100,000, every other one a log line: opening its page, and its socket, the page
  of the same run once it has ended, and how long the process answers nobody else meanwhile;
- **log** of a run, 1 kB to 100 MB: its last rows and a search when the log is read for the first time, again,
  the download, memory. Steps cannot write so much (8 Mi characters a run): this is written past them.

What is counted is processor time of the server, which a busy machine changes little; times of the wall are
given where people wait. Each size gets a fresh server. Prints tables, the slopes fitted to the last decade
and a half, and draws them into a folder that `--plots` names.
"""

import argparse
import asyncio
import contextlib
import http.client
import itertools
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import websockets.sync.client as websockets

from benchmarks.delivery.__main__ import Delivery, Result
from benchmarks.delivery.sides import SIDES
from benchmarks.empty_runs import PIPELINE
from benchmarks.growth.plot import Points, plot, slope
from benchmarks.processes import cpu_s, memory_kb
from benchmarks.stage import APP, FIRST_INDEX, STEP, Stage, open_stage, run_id
from initializer.model.events import Event, Failed, Log, Progressed, Reason, Started, StepFailed, StepStarted
from initializer.model.progress import Status, fold
from initializer.model.summary import summarise
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from web.hub import HEARTBEAT_S

SIZES: Mapping[str, Sequence[int]] = {
    "viewers": (10, 30, 100, 300, 1000, 3000, 9900),
    "projects": (10, 30, 100, 300, 1000, 3000, 9900),
    "events": (10, 100, 1000, 3000, 10_000, 30_000, 100_000),
    "log": (1000, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000),
}
"""9,900, not 10,000: the process takes 10,000 connections, pages among them."""
EVENTS_OF_ONE = 3
"""A second, of one project, to however many viewers: what comes seldom finds cold caches, and is dearer."""
EVENTS_OF_MANY = 500
"""A second, of all projects."""
LINE = "Receiving objects: 100% of what there is, and a word that is found: needle {:09}; " + "and so on " * 2
LINES_A_TICK = 10
APPENDED = 1000
"""Events that go to Redis at once."""

Row = dict[str, float]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What grew with one size: by column, and the columns that are drawn, whole costs."""

    title: str
    unit: str
    rows: Mapping[int, Row]
    drawn: Mapping[str, str]

    def points(self, column: str) -> Points:
        """A column, for a plot."""
        return [(size, max(row[column], 1e-3)) for size, row in self.rows.items()]

    def print(self) -> None:
        """As Markdown."""
        columns = list(next(iter(self.rows.values())))
        print(f"\n### {self.title}\n\n| {self.unit} | {' | '.join(columns)} |")
        print("|---" * (len(columns) + 1) + "|")
        for size, row in self.rows.items():
            print(f"| {size:,} | {' | '.join(figure(row[column]) for column in columns)} |")
        slopes = (slope(self.points(c)) if c in self.drawn.values() else None for c in columns)
        print(
            f"| slope | {' | '.join('' if each is None else f'{each:.2f}' for each in slopes)} |", flush=True
        )

    def draw(self) -> str:
        """As SVG."""
        return plot(self.title, self.unit, {name: self.points(column) for name, column in self.drawn.items()})


def figure(value: float) -> str:
    """With three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# Viewers and projects


def viewers_grow(stage: Stage, sizes: Sequence[int], seconds: float) -> Table:
    """One project, more and more viewers."""
    rows: dict[int, Row] = {}
    shapes = [(1, size) for size in sizes]
    sides = (loads(stage, shapes, seconds, side=side) for side in ("app", "floor"))
    for (count, result), (_, floor) in zip(*sides, strict=True):
        each_s, floor_s = (busy_s(one) / one.deliveries for one in (result, floor))
        rows[count] = {
            "ms an event": each_s * count * 1000,
            "µs a delivery": each_s * 1e6,
            "floor, ms an event": floor_s * count * 1000,
            "floor, µs a delivery": floor_s * 1e6,
            "ms until all are in": result.arriving_cpu_s * 1000,
            "ms an arrival": result.arriving_cpu_s / count * 1000,
            "ms a second idle": result.idle * 1000,
            "MB": result.viewers_mb * count / 1000,
            "kB a viewer": result.viewers_mb * 1024 / 1000,
            "not there 10 s after": result.behind,
        }
    names = ("ms an event", "floor, ms an event", "ms until all are in", "ms a second idle", "MB")
    drawn = {name: name for name in names}
    return Table(title="Viewers of one project", unit="viewers", rows=rows, drawn=drawn)


def projects_grow(stage: Stage, sizes: Sequence[int], seconds: float) -> Table:
    """More and more projects, one viewer each."""
    rows: dict[int, Row] = {}
    for count, result in loads(stage, [(size, 1) for size in sizes], seconds):
        each_s = busy_s(result) / max(1, result.reflected)
        rows[count] = {
            "ms an event of each": each_s * count * 1000,
            "µs an event": each_s * 1e6,
            "ms until all are in": result.arriving_cpu_s * 1000,
            "ms an arrival": result.arriving_cpu_s / count * 1000,
            "ms a second idle": result.idle * 1000,
            "MB": result.viewers_mb * count / 1000,
            "kB a project": result.viewers_mb * 1024 / 1000,
            "not there 10 s after": result.behind,
        }
    drawn = {name: name for name in ("ms an event of each", "ms until all are in", "ms a second idle", "MB")}
    return Table(title="Projects with a viewer each", unit="projects", rows=rows, drawn=drawn)


def loads(
    stage: Stage, shapes: Sequence[tuple[int, int]], seconds: float, *, side: str = "app"
) -> Iterator[tuple[int, Result]]:
    """The delivery benchmark with so many projects, and viewers of each; gives the number of all viewers."""
    delivery = Delivery(stage)
    for projects, viewers in shapes:
        stage.add_rows(projects)
        stage.begin_runs()
        rate = EVENTS_OF_ONE if projects == 1 else min(30, EVENTS_OF_MANY / projects)
        plan: dict[str, object] = {
            "projects": projects,
            "viewers": viewers,
            "first": FIRST_INDEX,
            "seconds": seconds,
            "rate": rate,
            "window": 64,
        }
        yield projects * viewers, delivery.measure(SIDES[side], plan, idle_s=HEARTBEAT_S)


def busy_s(result: Result) -> float:
    """Processor time that the events took: without what the process does when there are none."""
    return result.cpu_s - result.idle * result.seconds


# Events and log of one run


def events_grow(stage: Stage, sizes: Sequence[int], _seconds: float) -> Table:
    """A run with more and more events, while it goes on and after its end."""
    rows: dict[int, Row] = {}
    stage.add_rows(2 * len(sizes))
    for number, size in enumerate(sizes):
        going_on, ended = run_id(2 * number), run_id(2 * number + 1)
        stage.begin_runs()
        for run in (going_on, ended):
            append(stage, run, reports(size))
        asyncio.run(end(stage, ended, size))
        with stage.serving(APP, stage.environment()) as (server, port):
            one = Asking(server.pid, port)
            one.ask(f"/projects/{ended}")  # what only the first page costs
            before_kb = memory_kb(server.pid)
            page, page_ms = one.ask(f"/projects/{going_on}")
            memory_mb = (memory_kb(server.pid) - before_kb) / 1024
            socket_ms, (ended_ms, _) = one.open_socket(going_on), one.ask(f"/projects/{ended}")
        with stage.serving(APP, stage.environment()) as (server, port):  # which has not read the run yet
            stall_ms = Asking(server.pid, port).stall_ms(f"/projects/{going_on}")
        rows[size] = {
            "page, CPU ms": page,
            "page, ms": page_ms,
            "others wait ms": stall_ms,
            "socket, CPU ms": socket_ms,
            "ended page, CPU ms": ended_ms,
            "MB": memory_mb,
        }
    drawn = {
        "page, CPU ms": "page, CPU ms",
        "others wait, ms": "others wait ms",
        "socket, CPU ms": "socket, CPU ms",
        "page once ended, CPU ms": "ended page, CPU ms",
        "MB": "MB",
    }
    return Table(title="Events of a run whose page is opened", unit="events", rows=rows, drawn=drawn)


def log_grows(stage: Stage, sizes: Sequence[int], _seconds: float) -> Table:
    """A run with a longer and longer log."""
    rows: dict[int, Row] = {}
    stage.add_rows(1)
    run = run_id(0)
    for size in sizes:
        stage.begin_runs()
        append(stage, run, lines(size))
        path, row = f"/projects/{run}", Row()
        with stage.serving(APP, stage.environment()) as (server, port):
            one = Asking(server.pid, port)
            one.ask("/livez")
            before_kb = memory_kb(server.pid)
            row["page, CPU ms"], _ = one.ask(path)
            row["rows, CPU ms"], row["rows, ms"] = one.ask(f"{path}/log/{STEP}")
            row["again, CPU ms"], _ = one.ask(f"{path}/log/{STEP}")
            row["search, CPU ms"], _ = one.ask(f"{path}/search?q=needle")
            row["download, CPU ms"], _ = one.ask(f"{path}/log?download")
            row["MB"] = (memory_kb(server.pid) - before_kb) / 1024
        with stage.serving(APP, stage.environment()) as (server, port):
            row["others wait ms"] = Asking(server.pid, port).stall_ms(f"{path}/log/{STEP}")
        rows[size] = row
    drawn = {
        "first rows, CPU ms": "rows, CPU ms",
        "search, CPU ms": "search, CPU ms",
        "download, CPU ms": "download, CPU ms",
        "others wait, ms": "others wait ms",
        "MB": "MB",
    }
    return Table(title="Log of a run", unit="bytes", rows=rows, drawn=drawn)


class Asking:
    """One who asks a server, and knows what that cost it."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port = pid, port

    def ask(self, path: str) -> tuple[float, float]:
        """Milliseconds of the server's processor time for an answer, and of the clock."""
        began, began_s = cpu_s(self._pid), time.monotonic()
        self._get(path)
        took_s = time.monotonic() - began_s
        return (cpu_s(self._pid) - began) * 1000, took_s * 1000

    def stall_ms(self, path: str) -> float:
        """The longest that somebody else waited for an answer meanwhile."""
        is_over, waits_s = threading.Event(), [0.0]

        def look() -> None:
            while not is_over.is_set():
                began_s = time.monotonic()
                self._get("/livez")
                waits_s.append(time.monotonic() - began_s)

        other = threading.Thread(target=look)
        other.start()
        try:
            self._get(path)
        finally:
            is_over.set()
            other.join()
        return max(waits_s) * 1000

    def open_socket(self, run: str) -> float:
        """Milliseconds of processor time until a viewer that shows nothing has its first frame."""
        began = cpu_s(self._pid)
        with websockets.connect(
            f"ws://127.0.0.1:{self._port}/projects/{run}/live", max_size=None, compression=None
        ) as socket:
            while "data-event" not in str(socket.recv(timeout=60)):
                pass
            return (cpu_s(self._pid) - began) * 1000

    def _get(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            while answer.read(1 << 20):
                pass
        assert answer.status == 200, f"{path} was answered with {answer.status}"


def append(stage: Stage, run: str, events: Iterator[Event]) -> None:
    """Add events to a run's stream, not all of them at once."""
    while some := list(itertools.islice(events, APPENDED)):
        stage.append(run, some)


def reports(size: int) -> Iterator[Event]:
    """What comes behind the first events of a run that has `size`: reports and log lines in turns."""
    for index in range(FIRST_INDEX, size + 1):
        at, number = datetime.now(UTC), index - FIRST_INDEX
        if number % 2:
            yield Log(id=f"1-{index}", at=at, step=STEP, first=number // 2 + 1, lines=(LINE.format(number),))
        else:
            message = f"Doing part {number}"
            share = number * 100 // size
            yield Progressed(
                id=f"1-{index}", at=at, step=STEP, progress=0, step_progress=share, message=message
            )


def lines(size: int) -> Iterator[Event]:
    """A log of `size` bytes."""
    per_tick = LINES_A_TICK * len(LINE.format(0))
    for tick in range(max(1, size // per_tick)):
        first = tick * LINES_A_TICK + 1
        text = tuple(LINE.format(first + offset) for offset in range(LINES_A_TICK))
        at = datetime.now(UTC)
        yield Log(id=f"1-{FIRST_INDEX + tick}", at=at, step=STEP, first=first, lines=text)


async def end(stage: Stage, run: str, size: int) -> None:
    """Have a run that has `size` events fail: events, summary and row."""
    now = datetime.now(UTC)
    begun = (
        Started(id="1-1", at=now, reason=Reason.CREATED, pipeline=PIPELINE),
        StepStarted(id="1-2", at=now, step=STEP),
    )
    last = (
        StepFailed(id=f"1-{size + 1}", at=now, step=STEP, duration_ms=1, error="it was to fail"),
        Failed(id=f"1-{size + 2}", at=now, step=STEP, error="it was to fail"),
    )
    stage.append(run, last)
    progress = fold(PIPELINE, [*begun, *reports(size), *last])
    summary = summarise(progress, completed_at=now, digest="0")
    async with open_database(stage.postgres_url) as database:
        is_written = await Projects(database).finish(
            run, attempt=1, status=Status.FAILED, summary=summary, error=progress.error
        )
    assert is_written


PARTS: Mapping[str, Callable[[Stage, Sequence[int], float], Table]] = {
    "viewers": viewers_grow,
    "projects": projects_grow,
    "events": events_grow,
    "log": log_grows,
}


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--most", type=int, help="sizes beyond are left out")
    parser.add_argument("--seconds", type=float, default=5, help="of each load of viewers or projects")
    parser.add_argument("--plots", type=Path, help="a folder for the plots, growth-viewers.svg and so on")
    asked = parser.parse_args()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(f"Open files a process: {most_files:,} (`ulimit -Hn`); the server takes half for connections.")
    with open_stage("growth") as stage:
        for part in asked.parts.split(","):
            stage.new_database()
            sizes = [size for size in SIZES[part] if not asked.most or size <= asked.most]
            table = PARTS[part](stage, sizes, asked.seconds)
            table.print()
            if asked.plots:
                (asked.plots / f"growth-{part}.svg").write_text(table.draw())
    print(f"\nLoad average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
