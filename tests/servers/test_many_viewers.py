"""Hundreds of pages of one run lose their process at the same moment, and all come back to another."""

import asyncio
import re
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from harness.cluster import Cluster, ClusterProcess
from harness.gate import Gate
from harness.whole import check_whole
from initializer.model.events import EventId, index_of

VIEWERS = 500
DEADLINE_S = 60
NORMAL_CLOSURE = 1000

StartCluster = Callable[..., Cluster]
_EVENT = re.compile(r'id="run-header"[^>]*data-event="([0-9-]+)"')


class Viewer:
    """An open page: which event it shows, and the last frame that it got."""

    def __init__(self) -> None:
        self.event: EventId = ""
        self.indexes: list[int] = []
        self.last_frame = ""
        self.code: int | None = None

    async def watch(self, process: ClusterProcess, project: str, begun: asyncio.Semaphore) -> None:
        """Read until the connection ends; says once that it is through."""
        url = f"{process.url.replace('http', 'ws')}/projects/{project}/live?after={self.event}"
        async with connect(url, compression=None, open_timeout=DEADLINE_S, ping_interval=None) as socket:
            try:
                await self._read(socket, begun)
            except ConnectionClosed as closed:
                self.code = closed.rcvd.code if closed.rcvd else None

    async def _read(self, socket: ClientConnection, begun: asyncio.Semaphore) -> None:
        begun_once = False
        while True:
            frame = str(await socket.recv())
            if frame != "{}":
                self.last_frame = frame
                for self.event in _EVENT.findall(frame):
                    self.indexes.append(index_of(self.event))
            if self.event and not begun_once:
                begun.release()
                begun_once = True


async def until(begun: asyncio.Semaphore) -> None:
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(VIEWERS):
            await begun.acquire()


async def watch_all(
    viewers: list[Viewer], process: ClusterProcess, project: str, then: Callable[[], object]
) -> None:
    """Watch with all of them; once all are through, `then`; ends with the last connection."""
    begun = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for viewer in viewers:
            group.create_task(viewer.watch(process, project, begun))
        await until(begun)
        then()


def test_500_viewers_whose_process_dies_come_back_at_once_and_all_see_the_end(
    start_cluster: StartCluster, gate: Gate
) -> None:
    cluster = start_cluster(path=gate.path)
    running, dying = cluster.process(), cluster.process()
    gate.hold("setup_gitops")
    project = running.create("Phoenix")
    running.wait_for_event(project, type="step_started", step="setup_gitops")
    viewers = [Viewer() for _ in range(VIEWERS)]
    asyncio.run(watch_all(viewers, dying, project, dying.kill))
    seen = {viewer.event for viewer in viewers}
    assert all(viewer.code is None for viewer in viewers)  # cut off, without a word
    asyncio.run(watch_all(viewers, running, project, lambda: gate.release("setup_gitops")))
    assert "" not in seen
    assert {viewer.code for viewer in viewers} == {NORMAL_CLOSURE}
    assert len({viewer.last_frame for viewer in viewers}) == 1
    assert "is ready" in viewers[0].last_frame
    assert all(viewer.indexes == sorted(viewer.indexes) for viewer in viewers)
    running.wait_for_end(project)
    check_whole(cluster, project)
