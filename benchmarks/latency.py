"""From an event to the browser: `python -m benchmarks.latency`.

One process serves the app's own socket, hub and page over a journal on disk; it also appends progress and
log events at a steady rate and stamps each with the wall clock of this machine. A WebSocket client and a page
in headless Chromium note when they have each event: the client when the text has come, the page when the
DOM shows its index (a MutationObserver). So the figures hold journal, hub, tick, rendering, socket, and in
the page htmx's swap. Events of one tick share a frame; the tick is part of what is measured.
"""

import argparse
import asyncio
import re
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
import websockets
from playwright.async_api import Page, async_playwright
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from benchmarks.empty_runs import PIPELINE, project
from initializer.creation import Creation
from initializer.engines.inline import open_inline_engine
from initializer.journal.file import FileJournal
from initializer.logs import configure_logging
from initializer.model.events import Event, Log, Progressed, Reason, Started, StepStarted
from initializer.model.parameters import Project
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from web.assets import Assets, folder_of
from web.hub import open_hub
from web.live_socket import LiveSocket
from web.pages import Pages
from web.rendering import Rendering
from web.state import Services

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
STEP = PIPELINE.steps[0].name

OBSERVE = """() => {
  window.seen = [];
  const look = () => {
    const index = Number(document.getElementById("run-header").dataset.event.split("-")[1]);
    if (window.seen.at(-1)?.[0] !== index) {
      window.seen.push([index, performance.timeOrigin + performance.now()]);
    }
  };
  const everything = {subtree: true, childList: true, attributes: true};
  new MutationObserver(look).observe(document.getElementById("main"), everything);
}"""


@asynccontextmanager
async def served(folder: Path, journal: FileJournal, run: Project) -> AsyncIterator[str]:
    """The base URL of the app's live page, with one unfinished run."""
    rendering = Rendering(folder_of("templates"), Assets(folder_of("static")))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Services]]:
        async def never(*_: object, **__: object) -> None:
            """No run is started here: the benchmark itself is the writer."""

        async with open_database(f"sqlite:///{folder}/projects.db") as database:
            projects = Projects(database)
            await projects.add(run, idempotency_key=run.id)
            async with (
                open_inline_engine(never, max_concurrent_runs=1) as engine,
                open_hub(journal=journal, projects=projects, engine=engine, rendering=rendering) as hub,
            ):
                creation = Creation(
                    projects=projects, engine=engine, catalog={}, pipeline=PIPELINE, forge="local"
                )
                yield {
                    "services": Services(
                        projects=projects, journal=journal, engine=engine, creation=creation, hub=hub
                    )
                }

    app = Starlette(
        routes=[
            *Pages(rendering, {}, public_url="http://localhost", has_repository=lambda _: False).routes(),
            WebSocketRoute("/projects/{id}/live", LiveSocket(rendering).serve),
            *rendering.assets.routes(),
        ],
        lifespan=lifespan,
    )
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, ws="websockets-sansio", ws_per_message_deflate=False)
        )
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        await serving


async def write(journal: FileJournal, run: str, *, count: int, rate: float) -> dict[int, float]:
    """Append `count` ticks of a progress and a log line; gives the wall-clock second of each index."""
    sent: dict[int, float] = {}
    tail = "1-2"
    for number in range(count):
        index = int(tail.partition("-")[2])
        events: list[Event] = [
            Log(
                id=f"1-{index + 1}",
                at=datetime.now(UTC),
                step=STEP,
                first=number + 1,
                lines=(f"line {number}",),
            ),
            Progressed(
                id=f"1-{index + 2}",
                at=datetime.now(UTC),
                step=STEP,
                progress=0,
                step_progress=min(99, number * 100 // count),
                message=f"Doing part {number}",
            ),
        ]
        now = time.time()
        sent |= {event.index: now for event in events}
        await journal.append(run, events, expected_tail=tail)
        tail = events[-1].id
        await asyncio.sleep(1 / rate)
    return sent


async def watch(url: str, run: str, until: int) -> dict[int, float]:
    """When a WebSocket client had each index."""
    seen: dict[int, float] = {}
    async with websockets.connect(f"{url.replace('http', 'ws')}/projects/{run}/live?after=") as viewer:
        async for text in viewer:
            found = re.search(r'data-event="\d+-(\d+)"', str(text))
            if found:
                seen[int(found[1])] = time.time()
                if int(found[1]) >= until:
                    return seen
    return seen


async def read_page(page: Page, until: int) -> dict[int, float]:
    """When the page's DOM showed each index."""
    await page.wait_for_function(f"() => window.seen.at(-1)?.[0] >= {until}")
    return {int(index): at / 1000 for index, at in await page.evaluate("() => window.seen")}


def delays_ms(sent: dict[int, float], seen: dict[int, float]) -> list[float]:
    """For each event the time until it, or one after it in the same frame, was there."""
    delays, arrivals = [], sorted(seen.items())
    for index, at in sent.items():
        arrived = next((when for shown, when in arrivals if shown >= index), None)
        if arrived is not None:
            delays.append((arrived - at) * 1000)
    return delays


def row(title: str, delays: list[float]) -> str:
    """A row of the table."""
    cuts = statistics.quantiles(delays, n=100)
    return f"| {title} | {statistics.median(delays):.1f} | {cuts[94]:.1f} | {cuts[98]:.1f} | {len(delays)} |"


async def measure(count: int, rate: float) -> None:
    """Measure once and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal, run = FileJournal(folder / "journals"), project(1)
        start = [
            Started(id="1-1", at=datetime.now(UTC), reason=Reason.CREATED, pipeline=PIPELINE),
            StepStarted(id="1-2", at=datetime.now(UTC), step=STEP),
        ]
        await journal.append(run.id, start, expected_tail=None)
        async with served(folder, journal, run) as url, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
            page = await browser.new_page()
            await page.goto(f"{url}/projects/{run.id}")
            await page.evaluate(OBSERVE)
            until = 2 + 2 * count
            async with asyncio.TaskGroup() as group:
                viewer = group.create_task(watch(url, run.id, until))
                writer = group.create_task(write(journal, run.id, count=count, rate=rate))
                reader = group.create_task(read_page(page, until))
            await browser.close()
            print("| event to | p50 ms | p95 ms | p99 ms | events |\n|---|---|---|---|---|")
            print(row("WebSocket client", delays_ms(writer.result(), viewer.result())))
            print(row("DOM in Chromium", delays_ms(writer.result(), reader.result())))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=600, help="ticks of two events each")
    parser.add_argument("--rate", type=float, default=20, help="ticks a second")
    asked = parser.parse_args()
    configure_logging("WARNING")
    asyncio.run(measure(asked.ticks, asked.rate))


if __name__ == "__main__":
    main()
