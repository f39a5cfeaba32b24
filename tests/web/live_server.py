"""A real server of live sockets in the test's own event loop, and a run that the test writes."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from initializer.engines.inline import InlineEngine
from initializer.journal.memory import MemoryJournal
from initializer.model.events import (
    Completed,
    Event,
    Log,
    Reason,
    Saving,
    Started,
    StepStarted,
)
from initializer.model.progress import Status, fold
from initializer.model.summary import summarise
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from model.runs import PIPELINE, at, project_of
from web.assets import Assets, folder_of
from web.hub import Hub, open_hub
from web.limits import MAX_VIEWERS
from web.live_socket import LiveSocket
from web.rendering import Rendering
from web.shared_frames import SharedFrames

__all__ = ["DEADLINE_S", "RUN", "LiveServer", "open_live_server", "until"]

RUN = "a1"
DEADLINE_S = 10
SMALL_BYTES = 4096
"""What the kernel holds for a connection, or little more: who does not read is stuck soon."""


class HeldJournal(MemoryJournal):
    """A journal whose readings can be made to wait, and that can say that it is away."""

    is_away = False

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def follow(self, run: str, **options: Any) -> AsyncGenerator[list[Event], None]:
        await self.gate.wait()
        async with aclosing(super().follow(run, **options)) as following:
            async for events in following:
                yield events


class LiveServer:
    """Serves one run."""

    def __init__(self, server: uvicorn.Server, port: int, journal: HeldJournal, projects: Projects) -> None:
        self.server, self.port, self.journal, self.projects = server, port, journal, projects
        self.hub: Hub
        self.serving: asyncio.Task[None]
        self.events: list[Event] = []
        self._lines = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/projects/{RUN}/live"

    @property
    def connections(self) -> list[SharedFrames]:
        """The server's side of all sockets."""
        found: set[Any] = self.server.server_state.connections
        return [each for each in found if isinstance(each, SharedFrames)]

    async def say(self, *drafts: Event) -> None:
        tail = self.events[-1].id if self.events else None
        events = [draft.numbered(1, len(self.events) + n) for n, draft in enumerate(drafts, 1)]
        self.events += events
        await self.journal.append(RUN, events, expected_tail=tail)

    async def begin(self) -> None:
        started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
        await self.say(started, StepStarted(at=at(1), step="create_repo"))

    async def log(self, text: str) -> None:
        """One line more."""
        self._lines += 1
        await self.say(Log(at=at(2), step="create_repo", first=self._lines, lines=(text,)))

    async def end(self) -> None:
        await self.say(Saving(at=at(3)))
        summary = summarise(fold(PIPELINE, self.events), completed_at=at(60), digest="d")
        assert await self.projects.finish(RUN, attempt=1, status=Status.ACTIVE, summary=summary, error=None)
        await self.say(Completed(at=at(4)))

    def stop(self) -> None:
        self.server.should_exit = True


@asynccontextmanager
async def open_live_server(
    folder: Path,
    *,
    ws: Any,
    is_compressed: bool = False,
    frames_per_second: int = 1000,
    max_viewers: int = MAX_VIEWERS,
) -> AsyncIterator[LiveServer]:
    """The server at work."""
    rendering = Rendering(folder_of("templates"), Assets(folder_of("static")), now=lambda: at(1000))
    journal = HeldJournal()
    async with open_database(f"sqlite:///{folder}/projects.db") as database:
        projects = Projects(database)
        await projects.add(project_of(RUN), idempotency_key=RUN)

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
            async with open_hub(
                journal=journal,
                projects=projects,
                engine=InlineEngine(),
                rendering=rendering,
                frames_per_second=frames_per_second,
                max_viewers=max_viewers,
            ) as live.hub:
                yield {"services": SimpleNamespace(projects=projects, hub=live.hub)}

        app = Starlette(
            routes=[WebSocketRoute("/projects/{id}/live", LiveSocket(rendering).serve)], lifespan=lifespan
        )
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    ws=ws,
                    ws_per_message_deflate=is_compressed,
                    timeout_graceful_shutdown=1,
                )
            )
            live = LiveServer(server, bound.getsockname()[1], journal, projects)
            live.serving = asyncio.create_task(server._serve(sockets=[bound]))
            await until(lambda: server.started or live.serving.done())
            try:
                yield live
            finally:
                live.stop()
                await live.serving


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
