"""The live page in a real browser: `python -m benchmarks.browser`.

`initializer serve` on a real Redis and PostgreSQL. This program is the run's writer, which appends with the
app's own journal, and holds the sockets of the other viewers. In headless Chromium a MutationObserver notes
when the DOM shows an event's index. Two parts:

- **live**: `--rate` ticks a second, each a report and a log line, while others watch; from the append to each
  viewer and to the DOM, and the processor time of the page's main thread (`Performance.getMetrics`).
- **an hour, time-lapsed**: as many ticks as an hour has at that rate, as fast as the page takes them: the
  next `BATCH` are appended when the DOM shows the last. At each checkpoint, after a forced collection, the
  size of the JavaScript heap, the nodes and listeners that the page holds, and the memory of its process and
  of the server. Where it takes longer than `--minutes` it ends at the checkpoint, and says so.
"""

import argparse
import asyncio
import base64
import os
import re
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from playwright.async_api import Browser, CDPSession, Page, async_playwright

from benchmarks.processes import cpu_s, memory_kb
from benchmarks.stage import APP, FIRST_INDEX, STEP, Stage, open_stage, run_id
from initializer.journal.redis import RedisJournal, open_redis_journal
from initializer.model.events import Event, Log, Progressed
from initializer.redis_client import open_redis

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
HOUR_S = 3600
BATCH = 100
CHECKPOINTS = 10
LAPSE_FRAMES_PER_SECOND = "1000"
"""So that hardly two ticks share a frame: a frame is what may leave something behind in the page."""
RUN = run_id(0)
HEARTBEAT = b"\x81\x02{}"
_EVENT = re.compile(rb'data-event="\d+-(\d+)"')

OBSERVE = """() => {
  window.seen = [];
  window.shown = window.framesShown = 0;
  let wanted = null;
  const look = () => {
    const index = Number(document.getElementById("run-header").dataset.event.split("-")[1]);
    if (window.shown === index) return;
    window.shown = index;
    window.framesShown += 1;
    if (window.isNoting) window.seen.push([index, performance.timeOrigin + performance.now()]);
    if (wanted && index >= wanted.index) wanted.resolve();
  };
  window.until = (index) => new Promise((resolve) => {
    wanted = {index, resolve};
    if (window.shown >= index) resolve();
  });
  const everything = {subtree: true, childList: true, attributes: true};
  new MutationObserver(look).observe(document.getElementById("main"), everything);
  look();
}"""


class Writer:
    """The run's owner: appends a report and a log line a tick, and knows when it did."""

    def __init__(self, journal: RedisJournal) -> None:
        self._journal = journal
        self._tail = f"1-{FIRST_INDEX - 1}"
        self._ticks = 0
        self.sent_at_s: dict[int, float] = {}
        """By the wall clock, which the browser reads too; of each index that was written."""

    @property
    def index(self) -> int:
        """That of the last event."""
        return FIRST_INDEX - 1 + 2 * self._ticks

    async def tick(self) -> None:
        """Append what one tick has."""
        index, at = self.index, datetime.now(UTC)
        self._ticks += 1
        line, share = f"Receiving objects: part {self._ticks} of many", self._ticks // 1000 % 100
        events: list[Event] = [
            Progressed(
                id=f"1-{index + 1}",
                at=at,
                step=STEP,
                progress=0,
                step_progress=share,
                message=f"Doing part {self._ticks}",
            ),
            Log(id=f"1-{index + 2}", at=at, step=STEP, first=self._ticks, lines=(line,)),
        ]
        self.sent_at_s |= dict.fromkeys((index + 1, index + 2), time.time())
        await self._journal.append(RUN, events, expected_tail=self._tail)
        self._tail = events[-1].id

    async def live(self, rate: float, seconds: float) -> None:
        """Tick at an even rate."""
        began = time.monotonic()
        for number in range(1, round(rate * seconds) + 1):
            await self.tick()
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))


class Viewer(asyncio.Protocol):
    """One of the others: reads, and looks for the last event in what it reads."""

    def __init__(self, writer: Writer, delays_ms: list[float], index: int) -> None:
        self._writer, self._delays_ms = writer, delays_ms
        self.index = index
        self.is_there = asyncio.Event()
        """Set when it hears from the server: it is in the room then, or about to be let in."""
        self._torn = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /projects/{RUN}/live?after=1-{self.index} HTTP/1.1\r\nHost: localhost\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        data = self._torn + data
        if HEARTBEAT in data:
            self.is_there.set()
        now_s = time.time()
        for found in _EVENT.finditer(data):
            for index in range(self.index + 1, int(found[1]) + 1):
                self.index = index
                self._delays_ms.append((now_s - self._writer.sent_at_s[index]) * 1000)
        self._torn = data[-40:]  # an index that two reads share


class Lapse(msgspec.Struct, kw_only=True):
    """What a page holds at a checkpoint, after a forced collection."""

    ticks: int
    frames: int
    heap_mb: float
    nodes: int
    listeners: int
    renderer_mb: float
    server_mb: float


async def metrics_of(devtools: CDPSession) -> dict[str, float]:
    """What Chromium counts of a page."""
    answer = await devtools.send("Performance.getMetrics")
    return {each["name"]: each["value"] for each in answer["metrics"]}


async def renderer_pid(browser: Browser) -> int:
    """The process that draws the page: the largest of its kind, another may stand by."""
    answer = await (await browser.new_browser_cdp_session()).send("SystemInfo.getProcessInfo")
    pids = [each["id"] for each in answer["processInfo"] if each["type"] == "renderer"]
    return max(pids, key=memory_kb)


@asynccontextmanager
async def opened_page(port: int) -> AsyncIterator[tuple[Page, CDPSession, Browser]]:
    """The run's page in a browser, watched."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = await browser.new_page()
        await page.goto(f"http://localhost:{port}/projects/{RUN}")
        await page.evaluate(OBSERVE)
        devtools = await page.context.new_cdp_session(page)
        await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        yield page, devtools, browser
        await browser.close()


async def measure_live(stage: Stage, viewers: int, rate: float, seconds: float) -> None:
    """The first part; prints its tables."""
    with stage.serving(APP, stage.environment()) as (server, port):
        async with written(stage) as writer, opened_page(port) as (page, devtools, _):
            delays_ms: list[float] = []
            others = await connect(port, viewers, writer, delays_ms)
            await page.evaluate("() => { window.isNoting = true; }")
            before, server_cpu_s, began = await metrics_of(devtools), cpu_s(server.pid), time.monotonic()
            await writer.live(rate, seconds)
            await page.evaluate("(index) => window.until(index)", writer.index)
            took_s = time.monotonic() - began
            after, server_cpu_s = await metrics_of(devtools), cpu_s(server.pid) - server_cpu_s
            seen = {index: at / 1000 for index, at in await page.evaluate("() => window.seen")}
            frames = await page.evaluate("() => window.framesShown")
            await until_level(others, writer)
    print(f"\n### {rate:g} ticks a second for {seconds:g} s, with {viewers} others\n")
    print("| event to | p50 ms | p95 ms | p99 ms | max ms | counted |\n|---|---|---|---|---|---|")
    print(row("DOM in Chromium", to_dom_ms(writer.sent_at_s, seen)))
    print(row(f"{viewers} WebSocket clients", delays_ms))
    print("\n| processor time of the page's main thread | of a core | ms a frame |\n|---|---|---|")
    for title, name in (
        ("all its tasks", "TaskDuration"),
        ("of these, script that Chromium counts as such", "ScriptDuration"),
        ("styles", "RecalcStyleDuration"),
        ("layout", "LayoutDuration"),
    ):
        spent_s = after[name] - before[name]
        print(f"| {title} | {spent_s / took_s:.1%} | {spent_s / frames * 1000:.2f} |")
    print(f"\n{frames:,} frames; the server was busy for {server_cpu_s / took_s:.0%} of a core.")


async def measure_lapse(stage: Stage, ticks: int, limit_s: float) -> None:
    """The second part; prints its table."""
    lapses: list[Lapse] = []
    with stage.serving(APP, stage.environment(FRAMES_PER_SECOND=LAPSE_FRAMES_PER_SECOND)) as (server, port):
        async with written(stage) as writer, opened_page(port) as (page, devtools, browser):
            pid, began = await renderer_pid(browser), time.monotonic()
            for checkpoint in range(CHECKPOINTS + 1):
                if time.monotonic() - began > limit_s:
                    print(f"\nCut off after {limit_s / 60:g} minutes.")
                    break
                for _ in range(ticks * (checkpoint > 0) // CHECKPOINTS // BATCH):
                    for _ in range(BATCH):
                        await writer.tick()
                    await page.evaluate("(index) => window.until(index)", writer.index)
                await devtools.send("HeapProfiler.collectGarbage")
                metrics = await metrics_of(devtools)
                lapses.append(
                    Lapse(
                        ticks=(writer.index - FIRST_INDEX + 1) // 2,
                        frames=await page.evaluate("() => window.framesShown"),
                        heap_mb=metrics["JSHeapUsedSize"] / 2**20,
                        nodes=int(metrics["Nodes"]),
                        listeners=int(metrics["JSEventListeners"]),
                        renderer_mb=memory_kb(pid) / 1024,
                        server_mb=memory_kb(server.pid) / 1024,
                    )
                )
            took_s = time.monotonic() - began
    print(f"\n### {lapses[-1].ticks:,} ticks, in {took_s:.0f} s\n")
    headings = ("ticks", "frames", "heap MB", "nodes", "listeners", "renderer MB", "server MB")
    print(f"| {' | '.join(headings)} |\n" + "|---" * len(headings) + "|")
    for each in lapses:
        print(
            f"| {each.ticks:,} | {each.frames:,} | {each.heap_mb:.2f} | {each.nodes:,} | {each.listeners} "
            f"| {each.renderer_mb:.0f} | {each.server_mb:.0f} |"
        )


@asynccontextmanager
async def written(stage: Stage) -> AsyncIterator[Writer]:
    """A writer of a run that has just begun."""
    stage.begin_runs()
    async with open_redis(stage.redis.url) as client, open_redis_journal(client) as journal:
        yield Writer(journal)


async def connect(port: int, count: int, writer: Writer, delays_ms: list[float]) -> Sequence[Viewer]:
    """So many others, when all of them are there: what arrivals cost is measured by `benchmarks.storm`."""
    loop = asyncio.get_running_loop()
    made = [Viewer(writer, delays_ms, writer.index) for _ in range(count)]
    for viewer in made:
        await loop.create_connection(lambda viewer=viewer: viewer, "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(10):
        for viewer in made:
            await viewer.is_there.wait()
    return made


async def until_level(viewers: Sequence[Viewer], writer: Writer) -> None:
    """Raises `TimeoutError` where somebody does not get to the last event."""
    async with asyncio.timeout(10):
        while any(viewer.index < writer.index for viewer in viewers):  # noqa: ASYNC110 - a look at all
            await asyncio.sleep(0.05)


def to_dom_ms(sent_at_s: dict[int, float], seen_at_s: dict[int, float]) -> list[float]:
    """For each event the time until it, or one after it in the same frame, was there."""
    return list(_delays_ms(sent_at_s, seen_at_s))


def _delays_ms(sent_at_s: dict[int, float], seen_at_s: dict[int, float]) -> Iterator[float]:
    events = iter(sorted(sent_at_s))
    index = next(events, None)
    for shown, at_s in sorted(seen_at_s.items()):
        while index is not None and index <= shown:
            yield (at_s - sent_at_s[index]) * 1000
            index = next(events, None)


def row(title: str, delays_ms: Sequence[float]) -> str:
    """A row of the table."""
    cuts = statistics.quantiles(delays_ms, n=100)
    return (
        f"| {title} | {statistics.median(delays_ms):.1f} | {cuts[94]:.1f} | {cuts[98]:.1f} "
        f"| {max(delays_ms):.1f} | {len(delays_ms):,} |"
    )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--viewers", type=int, default=200, help="others that watch")
    parser.add_argument("--rate", type=float, default=30, help="ticks a second")
    parser.add_argument("--seconds", type=float, default=30, help="of the live part; 0: without it")
    parser.add_argument(
        "--lapse", type=int, help="ticks of the time-lapse (an hour at the rate); 0: without it"
    )
    parser.add_argument("--minutes", type=float, default=4, help="how long the time-lapse may take")
    asked = parser.parse_args()
    lapse = round(HOUR_S * asked.rate) if asked.lapse is None else asked.lapse
    with open_stage("browser", is_pinned=False) as stage:
        stage.add_rows(1)
        if asked.seconds:
            asyncio.run(measure_live(stage, asked.viewers, asked.rate, asked.seconds))
        if lapse:
            asyncio.run(measure_lapse(stage, lapse, asked.minutes * 60))
    print(f"\nLoad average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
