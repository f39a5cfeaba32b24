"""The product measured on this machine: real runs, journal, hub and sockets; the viewers are this process.

Each report of a step carries the instant it was made, by the clock that all processes of a machine share; a
viewer that receives it knows how long it was under way, the tick included.
"""

import asyncio
import multiprocessing
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import uvicorn
import uvloop
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from initializer.engines.inline import InlineEngine, open_inline_engine
from initializer.forges.local import LocalForge
from initializer.journal.file import FileJournal
from initializer.logs import configure_logging
from initializer.model.events import Reason
from initializer.model.parameters import Project, RunParameters, TemplateRef
from initializer.model.pipeline import Pipeline, StepSpec
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running.runner import Runner
from initializer.steps.step import Step, StepContext
from web.assets import Assets, folder_of
from web.hub import open_hub
from web.live_socket import LiveSocket
from web.rendering import Rendering
from web.shared_frames import SharedFrames

__all__ = ["Load", "bench"]

STEP = "deliver"
_SAID_AT = re.compile(rb'class="now-line">[^<]* (\d+)<')
_CONNECTED_AT_ONCE = 100
_END_LIMIT_S = 30


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the server: `viewers` of each of `projects`, `rate` reports a second and project."""

    projects: int
    viewers: int
    rate: int
    seconds: int


class _Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    delays_ms: list[float]
    missing: int
    """Viewers that did not see the end."""
    server_cpu_s: float
    viewers_cpu_s: float
    memory_mb: float


def bench(load: Load, console: Console) -> bool:
    """Measure and print; False where a viewer did not see the end of its run."""
    figures = uvloop.run(_measure(load, console))
    count, cuts = len(figures.delays_ms), statistics.quantiles(figures.delays_ms or [0, 0], n=1000)
    table = Table(
        title=f"{load.projects} projects, {load.viewers} viewers each, {load.rate} reports/s a project"
    )
    table.add_column("what")
    table.add_column("figure", justify="right")
    for what, figure in (
        ("frames delivered", f"{count:,}"),
        ("frames a second", f"{count / load.seconds:,.0f}"),
        ("report to viewer, p50", f"{statistics.median(figures.delays_ms or [0]):.1f} ms"),
        ("report to viewer, p99", f"{cuts[989]:.1f} ms"),
        ("report to viewer, p99.9", f"{cuts[998]:.1f} ms"),
        ("server, of one core", f"{figures.server_cpu_s / load.seconds:.0%}"),
        ("server, a frame", f"{figures.server_cpu_s / max(1, count) * 1e6:.1f} µs"),
        ("server, memory", f"{figures.memory_mb:.0f} MB"),
        ("viewers (this program), of one core", f"{figures.viewers_cpu_s / load.seconds:.0%}"),
        ("viewers that missed the end", f"{figures.missing:,}"),
    ):
        table.add_row(what, figure)
    console.print(table)
    return figures.missing == 0


async def _measure(load: Load, console: Console) -> _Figures:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with tempfile.TemporaryDirectory(prefix="initializer-bench-") as folder:
        server = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(Path(folder), load, theirs), daemon=True
        )
        server.start()
        theirs.close()
        try:
            port = await asyncio.to_thread(ours.recv)
            return await _watch(load, port, ours, server.pid or 0, console)
        finally:
            server.terminate()
            server.join()


async def _watch(load: Load, port: int, server: Connection, pid: int, console: Console) -> _Figures:
    loop = asyncio.get_running_loop()
    viewers: list[_Viewer] = []
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("Connecting", total=load.projects * load.viewers)
        for number in range(load.projects * load.viewers):
            uri = f"ws://127.0.0.1:{port}/projects/{_run(number % load.projects)}/live"
            viewers.append(_Viewer(uri))
            await loop.create_connection(lambda viewer=viewers[-1]: viewer, "127.0.0.1", port)  # type: ignore[misc]
            if number % _CONNECTED_AT_ONCE == 0:
                bar.update(task, completed=number)
                await asyncio.sleep(0)
        bar.update(task, description="Measuring", total=load.seconds, completed=0)
        server_cpu_s, viewers_cpu_s = _cpu_s(pid), time.process_time()
        server.send("go")
        started = time.monotonic()
        ends = asyncio.gather(*(viewer.ended for viewer in viewers))
        while not ends.done() and time.monotonic() - started < load.seconds + _END_LIMIT_S:
            await asyncio.wait([ends], timeout=0.2)
            bar.update(task, completed=min(load.seconds, time.monotonic() - started))
        ends.cancel()
    return _Figures(
        delays_ms=[delay for viewer in viewers for delay in viewer.delays_ms],
        missing=sum(not viewer.has_seen_end for viewer in viewers),
        server_cpu_s=_cpu_s(pid) - server_cpu_s,
        viewers_cpu_s=time.process_time() - viewers_cpu_s,
        memory_mb=_memory_mb(pid),
    )


class _Viewer(asyncio.Protocol):
    """A page that only looks at the clock."""

    def __init__(self, uri: str) -> None:
        self._protocol = ClientProtocol(parse_uri(uri), max_size=None)
        self.delays_ms: list[float] = []
        self.has_seen_end = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.send_request(self._protocol.connect())
        self._send()

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                found = _SAID_AT.search(event.data)
                if found:
                    self.delays_ms.append((now_ns - int(found[1])) / 1e6)
                self.has_seen_end = self.has_seen_end or b'hx-target="#live"' in event.data
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter here
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)


# The server, in a process of its own


def _serve(folder: Path, load: Load, told: Connection) -> None:
    configure_logging("WARNING")
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as bound:
        app = _app(folder, load, told, bound.getsockname()[1])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, ws=SharedFrames, ws_per_message_deflate=False
        )
        uvicorn.Server(config).run(sockets=[bound])


def _app(folder: Path, load: Load, told: Connection, port: int) -> Starlette:
    rendering = Rendering(folder_of("templates"), Assets(folder_of("static")))
    runs = [_project(number) for number in range(load.projects)]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, SimpleNamespace]]:
        journal = FileJournal(folder / "journals")
        async with open_database(f"sqlite:///{folder}/projects.db") as database:
            projects = Projects(database)
            forge = LocalForge(folder / "repositories", "http://localhost")
            runner = Runner(
                journal=journal,
                projects=projects,
                steps={STEP: _deliver(load)},
                forges={forge.name: forge},
                work_folder=folder / "work",
                keep_journal_for=timedelta(days=1),
            )
            for run in runs:
                await projects.add(run, idempotency_key=run.id)
            async with (
                open_inline_engine(runner.run, max_concurrent_runs=load.projects) as engine,
                open_hub(journal=journal, projects=projects, engine=engine, rendering=rendering) as hub,
                asyncio.TaskGroup() as group,
            ):
                starting = group.create_task(_start(projects, engine, runs, told))
                told.send(port)
                yield {"services": SimpleNamespace(projects=projects, hub=hub)}  # what sockets work with
                starting.cancel()

    return Starlette(
        routes=[WebSocketRoute("/projects/{id}/live", LiveSocket(rendering).serve)], lifespan=lifespan
    )


async def _start(projects: Projects, engine: InlineEngine, runs: list[Project], told: Connection) -> None:
    """Start all runs when the viewers are there."""
    await asyncio.to_thread(told.recv)
    for run in runs:
        row = await projects.get(run.id)
        assert row is not None
        await engine.submit(row, reason=Reason.CREATED)


def _deliver(load: Load) -> Step:
    class Deliver(Step):
        name, title, timeout_s = STEP, "Deliver", load.seconds + _END_LIMIT_S

        async def run(self, context: StepContext) -> None:
            started, count = time.monotonic(), load.rate * load.seconds
            for number in range(count):
                context.progress(number * 100 // count, f"said at {time.monotonic_ns()}")
                await asyncio.sleep(max(0, started + (number + 1) / load.rate - time.monotonic()))

    return Deliver()


_PIPELINE = Pipeline(version=1, steps=(StepSpec(name=STEP, title="Deliver", weight=1),))


def _run(number: int) -> str:
    return f"bench-{number}"


def _project(number: int) -> Project:
    parameters = RunParameters(
        template=TemplateRef(name="bare", version="1"),
        forge="local",
        environments=(),
        gitops="flux",
        pipeline=_PIPELINE,
    )
    return Project(
        id=_run(number),
        slug=_run(number),
        name=f"Bench {number}",
        owner="bench",
        created_at=datetime.now(UTC),
        parameters=parameters,
    )


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used; 0 where the system has no such files."""
    if not sys.platform.startswith("linux"):
        return 0
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    if not sys.platform.startswith("linux"):
        return 0
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
