"""The socket over real connections, where the server takes finished frames and where it does not."""

import asyncio
import gc
import random
import re
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from live_server import DEADLINE_S, RUN, LiveServer, open_live_server, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect as connect_sync
from websockets.uri import parse_uri

from harness.server import StartServer
from initializer.model.events import Log
from initializer.model.parameters import Project
from initializer.settings import Settings
from model.runs import at
from web import hub, live_socket, open_room, shared_frames
from web.rendering import Rendering
from web.room import RunView
from web.shared_frames import WRITE_LIMIT_BYTES, SharedFrames

pytestmark = pytest.mark.anyio

STUCK_VIEWERS = 1000
LONG = "x" * 3900


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


WAYS: dict[str, dict[str, Any]] = {
    "shared": {"ws": SharedFrames},
    "compressed": {"ws": SharedFrames, "is_compressed": True},
    "plain": {"ws": "websockets-sansio"},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """However a server takes frames: finished ones, or as ASGI has it."""
    name: str = request.param
    return name


@pytest.fixture
def options(way: str) -> dict[str, Any]:
    return WAYS[way]


@pytest.fixture
async def server(anyio_backend: object, options: dict[str, Any], tmp_path: Path) -> AsyncIterator[LiveServer]:
    """A server with a run that has begun."""
    async with open_live_server(tmp_path, **options) as live:
        await live.begin()
        yield live


@pytest.fixture
async def shared(anyio_backend: object, tmp_path: Path) -> AsyncIterator[LiveServer]:
    """A server that takes finished frames."""
    async with open_live_server(tmp_path, ws=SharedFrames) as live:
        await live.begin()
        yield live


async def read_until(viewer: ClientConnection, text: str) -> list[str]:
    """The messages up to one that holds a text."""
    messages: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while not messages or text not in messages[-1]:
            messages.append(str(await viewer.recv()))
    return messages


async def read_all(viewer: ClientConnection) -> tuple[list[str], int | None]:
    """All messages to the end, and the code that the server closed with."""
    messages: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionClosed):
            while True:
                messages.append(str(await viewer.recv()))
    return messages, viewer.close_code


async def test_a_viewer_hears_at_once_sees_each_change_and_is_sent_the_end(server: LiveServer) -> None:
    async with connect(server.url) as viewer, connect(f"{server.url}?after=1-2") as other:
        await read_until(viewer, 'hx-target="#run"')
        await server.log("one")
        frame = (await read_until(viewer, ">one<"))[-1]
        assert (await read_until(other, ">one<"))[-1] == frame
        await server.end()
        ends = [await read_all(each) for each in (viewer, other)]
    assert [code for _, code in ends] == [1000, 1000]
    for messages, _ in ends:
        assert "Complete log" in messages[-1]


async def test_who_comes_back_gets_what_is_missing_and_no_more(server: LiveServer) -> None:
    for number in range(3):
        await server.log(f"line {number};")
    async with connect(f"{server.url}?after=1-3") as viewer:
        frame = (await read_until(viewer, "line 2;"))[-1]
    assert "line 1;" in frame
    assert "line 0;" not in frame
    assert 'hx-target="#run"' not in frame


async def test_who_shows_more_than_the_journal_has_sees_nothing_go_back(server: LiveServer) -> None:
    async with connect(f"{server.url}?after=1-4") as viewer, connect(server.url) as other:
        for number in range(4):
            await server.log(f"line {number};")
            await read_until(other, f"line {number};")
        seen = await read_until(viewer, "line 3;")
    assert not any("line 0;" in frame or 'hx-target="#run"' in frame for frame in seen)


async def test_who_shows_more_than_the_journal_will_ever_have_is_shown_that_in_the_end(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_room, "AHEAD_LIMIT_S", 0.01)
    async with connect(f"{server.url}?after=1-99") as viewer:
        await read_until(viewer, 'hx-target="#run"')
        await server.log("one")
        await server.end()
        messages, code = await read_all(viewer)
    assert code == 1000
    assert [index for index, frame in enumerate(messages) if "Complete log" in frame] == [len(messages) - 1]


def what_it_shows(frame: str) -> dict[str, str]:
    """What a page with this frame's header says of itself when it comes back."""
    header = re.search(r'<header id="run-header"[^>]*>', frame)
    assert header
    return dict(re.findall(r'data-(event|besides)="([^"]*)"', header[0]))


async def test_who_was_away_as_the_journal_came_back_is_told_that_by_the_header_alone(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "JOURNAL_CHECK_S", 0.01)
    await server.log("line 0;")
    async with connect(f"{server.url}?after=1-3") as viewer, connect(server.url) as other:
        await read_until(other, "line 0;")
        server.journal.is_away = True
        shown = what_it_shows((await read_until(viewer, "is interrupted"))[-1])
        await read_until(other, "is interrupted")
        server.journal.is_away = False
        await read_until(other, 'hx-target="#run-header"')
        address = f"{server.url}?after={shown['event']}&besides={shown.get('besides', '')}"
        async with connect(address) as back:
            frame = (await read_until(back, 'hx-target="#run-header"'))[-1]
        assert what_it_shows(frame) == {"event": "1-3"}
        assert "is interrupted" not in frame
        assert "line 0;" not in frame
        assert "<li" not in frame


async def test_who_comes_to_an_interruption_is_told_once(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "JOURNAL_CHECK_S", 0.01)
    server.journal.is_away = True
    async with (
        connect(f"{server.url}?after=1-2&besides=interrupted") as aware,
        connect(f"{server.url}?after=1-2") as unaware,
    ):
        shown = what_it_shows((await read_until(unaware, "is interrupted"))[-1])
        assert shown == {"event": "1-2", "besides": "interrupted"}
        server.journal.is_away = False
        await read_until(unaware, 'hx-target="#run-header"')
        await server.log("one;")
        frames = await read_until(aware, "one;")
        assert sum('hx-target="#run-header"' in frame for frame in frames) == 2  # of its end, and of the line
        assert not any("is interrupted" in frame for frame in frames)


async def test_a_heartbeat_comes_at_once_and_in_an_even_beat(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hub, live_socket):
        monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    async with open_live_server(tmp_path, **options) as live:
        await live.begin()
        async with connect(f"{live.url}?after=1-2") as viewer, asyncio.timeout(DEADLINE_S):
            assert [await viewer.recv() for _ in range(3)] == ["{}"] * 3


async def test_each_of_many_hears_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_S", 0.3)
    async with open_live_server(tmp_path, **WAYS["shared"]) as live, AsyncExitStack() as stack:
        await live.begin()
        connections = [connect(f"{live.url}?after=1-2") for _ in range(6 * hub.BEATS + 1)]
        viewers = [await stack.enter_async_context(connection) for connection in connections]
        async with asyncio.timeout(DEADLINE_S):
            for viewer in viewers:
                assert [await viewer.recv() for _ in range(4)] == ["{}"] * 4


async def test_heartbeats_of_many_are_written_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    """In each turn of the event loop, how many frames."""

    class Noting(SharedFrames):
        def write(self, frames: bytes) -> None:
            if not written or written[-1] == 0:
                asyncio.get_running_loop().call_soon(written.append, 0)
                written.append(0)
            written[-1] += 1
            super().write(frames)

    monkeypatch.setattr(hub, "HEARTBEAT_S", 0.3)
    async with open_live_server(tmp_path, ws=Noting) as live, AsyncExitStack() as stack:
        await live.begin()
        many = 6 * hub.BEATS + 1
        for _ in range(many):
            await stack.enter_async_context(connect(f"{live.url}?after=1-2"))
        written.clear()
        await until(lambda: sum(written) >= 3 * many)
    assert max(written) == hub.BEATS


async def test_pings_are_answered_and_what_viewers_say_is_passed_over(server: LiveServer) -> None:
    async with connect(server.url) as viewer:
        for _ in range(50):
            await viewer.send("a viewer has nothing to say")
        async with asyncio.timeout(DEADLINE_S):
            await (await viewer.ping())
        await server.log("still there")
        await read_until(viewer, "still there")


async def test_who_leaves_is_forgotten_and_its_goodbye_is_answered(server: LiveServer) -> None:
    async with connect(server.url) as viewer, connect(server.url) as rude:
        await read_until(viewer, 'id="run"')
        await read_until(rude, 'id="run"')
        await viewer.close(1001)
        assert viewer.close_code == 1001
        rude.transport.abort()
        await until(lambda: not server.hub._rooms)
        await until(lambda: not server.server.server_state.connections)
    assert not server.hub._delivering


async def test_a_server_that_stops_says_that_it_restarts(server: LiveServer) -> None:
    async with connect(server.url) as viewer:
        await read_until(viewer, 'id="run"')
        server.stop()
        _, code = await read_all(viewer)
    assert code == 1012


async def test_a_broken_reader_sends_its_viewers_away_to_come_back(server: LiveServer) -> None:
    async with connect(server.url) as viewer, connect(server.url) as other:
        for each in (viewer, other):
            await read_until(each, 'id="run"')
        server.hub._rooms[RUN].break_off()
        assert [(await read_all(each))[1] for each in (viewer, other)] == [1013, 1013]
    async with connect(server.url) as back:
        await read_until(back, 'id="run"')


async def test_a_frame_that_cannot_be_rendered_sends_its_viewers_away_and_ends_the_reader(
    shared: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[object] = []

    def broken(self: Rendering, project: Project, view: RunView, *, after: str) -> str:
        rendered.append(view)
        raise ValueError(after)

    row = await shared.projects.get(RUN)
    assert row is not None
    async with shared.hub.join(row, after=""), connect(shared.url) as viewer:  # who stays keeps the room open
        await read_until(viewer, 'id="run"')
        reader = shared.hub._rooms[RUN].reader
        with monkeypatch.context() as patch:
            patch.setattr(Rendering, "frame", broken)
            await shared.log("one")
            await until(lambda: bool(rendered))
            await shared.log("two")
            assert (await read_all(viewer))[1] == 1013
            await until(reader.done)
    assert len(rendered) == 1
    async with connect(shared.url) as back:
        await read_until(back, ">two<")


async def test_a_run_that_is_over_and_one_that_is_not_known_are_told(server: LiveServer) -> None:
    await server.end()
    async with connect(server.url) as viewer:
        messages, code = await read_all(viewer)
        assert "Complete log" in messages[-1]
        assert code == 1000
    async with connect(server.url.replace(RUN, "none")) as viewer:
        assert await read_all(viewer) == ([], 4404)


async def test_finished_frames_are_written_where_nothing_is_compressed_and_the_server_takes_them(
    server: LiveServer, way: str
) -> None:
    async with connect(server.url) as viewer:
        await read_until(viewer, 'id="run"')
        assert outlets_are_used(server) == (way == "shared")
        assert is_compressed(viewer) == (way == "compressed")


async def test_each_event_has_a_frame_where_there_is_no_tick(way: str, tmp_path: Path) -> None:
    async with open_live_server(tmp_path, **WAYS[way], frames_per_second=0) as live:
        await live.begin()
        async with connect(f"{live.url}?after=1-2") as viewer:
            await until(lambda: RUN in live.hub._rooms and live.hub._rooms[RUN].room.viewers)
            for number in range(50):
                await live.log(f"line {number};")
            frames = [frame for frame in await read_until(viewer, "line 49;") if frame != "{}"]
            assert len(frames) == 50 if way == "shared" else len(frames) <= 50  # a task may find several
            await live.end()
            assert (await read_all(viewer))[1] == 1000


# Viewers that do not read


class Stuck:
    """A viewer that reads nothing until it is asked to."""

    def __init__(self, live: LiveServer, query: str = "?after=1-2", *, is_compressed: bool = False) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self._socket.connect(("127.0.0.1", live.port))
        self._socket.setblocking(False)
        offered = [ClientPerMessageDeflateFactory()] if is_compressed else None
        self._protocol = ClientProtocol(parse_uri(live.url + query), extensions=offered, max_size=None)
        self._protocol.send_request(self._protocol.connect())
        self._send()
        self.messages: list[str] = []

    @property
    def close_code(self) -> int | None:
        return self._protocol.close_code if self._protocol.close_rcvd or self._protocol.eof_sent else None

    async def read_until(self, text: str | None) -> None:
        """Read to a message that holds a text, or to the end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE_S):
            while text is None or not any(text in message for message in self.messages):
                data = await loop.sock_recv(self._socket, 65536)
                if not data:
                    self._protocol.receive_eof()
                    self._take()
                    return
                self._protocol.receive_data(data)
                self._take()
                self._send()

    async def ping(self, times: int) -> None:
        """Ask for signs of life, and read none."""
        pings = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * times
        await asyncio.get_running_loop().sock_sendall(self._socket, pings)

    def leave(self) -> None:
        """Say goodbye, and read nothing all the same."""
        self._socket.send(Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=True))

    def _take(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.messages.append(bytes(event.data).decode())

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.send(data)

    def close(self) -> None:
        self._socket.close()


def outlets_are_used(live: LiveServer) -> bool:
    return bool(live.hub._delivering)


def is_compressed(viewer: ClientConnection | SyncConnection) -> bool:
    """Whether server and viewer, who offers it, have agreed on `permessage-deflate`."""
    assert viewer.request is not None
    assert "permessage-deflate" in viewer.request.headers["Sec-WebSocket-Extensions"]
    assert viewer.response is not None
    return "permessage-deflate" in viewer.response.headers.get("Sec-WebSocket-Extensions", "")


def is_any_full(live: LiveServer) -> bool:
    return any(connection.is_full for connection in live.connections)


async def fill(live: LiveServer, viewer: ClientConnection) -> None:
    """Say more than a connection holds, compressed or not; a viewer that reads sees it all."""
    number, noise = 0, random.Random(1)
    while not is_any_full(live):
        number += 1
        await live.log(f"{number}:{noise.randbytes(len(LONG) // 2).hex()}")
        await read_until(viewer, f">{number}:")


async def test_who_pings_and_reads_nothing_is_not_answered_without_bound(shared: LiveServer) -> None:
    with closing(Stuck(shared)) as stuck:
        await until(lambda: len(shared.hub._delivering) == 1)
        (connection,) = shared.connections
        async with asyncio.timeout(DEADLINE_S):
            while not connection.is_full:
                await stuck.ping(100)
                await asyncio.sleep(0)
            for _ in range(50):
                await stuck.ping(100)
                await asyncio.sleep(0)
        assert connection.transport.get_write_buffer_size() < 2 * WRITE_LIMIT_BYTES


async def test_one_that_is_stuck_holds_up_nobody_and_gets_one_frame_for_all_that_it_missed(
    shared: LiveServer,
) -> None:
    stuck = Stuck(shared)
    async with connect(f"{shared.url}?after=1-2") as viewer:
        await until(lambda: len(shared.hub._delivering) == 2)
        await fill(shared, viewer)
        for number in range(100):
            await shared.log(f"missed {number};")
            await read_until(viewer, f"missed {number};")
        buffered = [each.transport.get_write_buffer_size() for each in shared.connections]
        assert max(buffered) < WRITE_LIMIT_BYTES + 2 * len(LONG) + 4000
        await stuck.read_until("missed 99;")
        assert sum("missed" in message for message in stuck.messages) == 1
        await shared.log("level again")
        await stuck.read_until("level again")
        await shared.end()
        await stuck.read_until(None)
    assert "Complete log" in stuck.messages[-1]
    assert stuck.close_code == 1000
    stuck.close()


async def test_a_burst_with_a_frame_each_is_written_in_pieces_that_heed_who_is_stuck(tmp_path: Path) -> None:
    async with open_live_server(tmp_path, **WAYS["shared"], frames_per_second=0) as live:
        await live.begin()
        with closing(Stuck(live)) as stuck:
            async with connect(f"{live.url}?after=1-2", max_size=None) as viewer:
                await until(lambda: len(live.hub._delivering) == 2)
                lines = (f"{number}:{LONG}" for number in range(1, 61))
                await live.say(
                    *(
                        Log(at=at(2), step="create_repo", first=n, lines=(line,))
                        for n, line in enumerate(lines, 1)
                    )
                )
                seen = await read_until(viewer, ">60:")
                held = max(each.transport.get_write_buffer_size() for each in live.connections)
                assert held < WRITE_LIMIT_BYTES + open_room.EVENTS_WRITTEN * (len(LONG) + 4000)
                await stuck.read_until(">60:")
                assert len(stuck.messages) < len(seen)


async def test_one_that_is_stuck_at_the_end_still_gets_the_summary(shared: LiveServer) -> None:
    stuck = Stuck(shared)
    async with connect(f"{shared.url}?after=1-2") as viewer:
        await until(lambda: len(shared.hub._delivering) == 2)
        await fill(shared, viewer)
        await shared.end()
        assert (await read_all(viewer))[1] == 1000
    await stuck.read_until(None)
    assert "Complete log" in stuck.messages[-1]
    assert stuck.close_code == 1000
    stuck.close()


async def test_one_that_stays_stuck_is_sent_away_and_in_the_end_cut_off(
    shared: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "STUCK_LIMIT_S", 0.05)
    reads_late, never_reads = Stuck(shared), Stuck(shared)
    async with connect(f"{shared.url}?after=1-2") as viewer:
        await until(lambda: len(shared.hub._delivering) == 3)
        await fill(shared, viewer)
        await until(lambda: sum(each.is_full for each in shared.connections) == 2)
        monkeypatch.setattr(shared_frames, "PARTING_LIMIT_S", 0.5)
        await shared.log("missed")
        await until(lambda: len(shared.hub._delivering) == 1)
        await reads_late.read_until(None)
        assert reads_late.close_code == 1013
        await until(lambda: len(shared.connections) == 1)
        await shared.log("not delayed")
        await read_until(viewer, "not delayed")
    for stuck in (reads_late, never_reads):
        stuck.close()


async def test_a_thousand_that_are_stuck_cost_no_more_than_their_bound(shared: LiveServer) -> None:
    async with AsyncExitStack() as stack:
        stuck = []
        for number in range(STUCK_VIEWERS):
            stuck.append(Stuck(shared))
            stack.callback(stuck[-1].close)
            if number % 50 == 49:
                await until(lambda: len(shared.hub._delivering) == len(stuck))
        viewer = await stack.enter_async_context(connect(f"{shared.url}?after=1-2"))
        await until(lambda: len(shared.hub._delivering) == STUCK_VIEWERS + 1)
        number = 0
        while sum(each.is_full for each in shared.connections) < STUCK_VIEWERS:
            number += 1
            await shared.log(f"{number}:{LONG}")
            await read_until(viewer, f"{number}:x")
        written = sum(each.transport.get_write_buffer_size() for each in shared.connections)
        for later in range(200):
            await shared.log(f"later {later};{LONG}")
            await read_until(viewer, f"later {later};")
        # Less where the kernel has taken some of it since.
        assert sum(each.transport.get_write_buffer_size() for each in shared.connections) <= written
        assert written < STUCK_VIEWERS * (WRITE_LIMIT_BYTES + len(LONG) + 4000)
        assert len(shared.hub._rooms[RUN].room._frames) <= 2


async def test_a_peer_that_breaks_the_protocol_is_refused_and_forgotten(server: LiveServer) -> None:
    async with connect(server.url) as viewer:
        await read_until(viewer, 'id="run"')
        viewer.transport.write(b"\xff" * 20)
        assert (await read_all(viewer))[1] == 1002
    await until(lambda: not server.hub._rooms)


async def test_one_that_leaves_before_it_is_let_in_is_forgotten(server: LiveServer) -> None:
    server.journal.gate.clear()
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        protocol = ClientProtocol(parse_uri(server.url))
        protocol.send_request(protocol.connect())
        writer.writelines(protocol.data_to_send())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=True))
        await reader.read()  # to the end: the server knows that it has left
        writer.close()
    await until(lambda: RUN in server.hub._rooms and server.hub._rooms[RUN].places == 20)
    assert not server.hub._rooms[RUN].is_read
    server.journal.gate.set()
    await until(lambda: not server.hub._rooms)
    assert not server.hub._delivering


async def test_one_that_has_left_is_freed_without_the_collector_of_cycles(shared: LiveServer) -> None:
    gc.disable()
    try:
        async with connect(shared.url) as viewer:
            await read_until(viewer, 'id="run"')
            held = [weakref.ref(it) for each in shared.connections for it in (each, each.conn)]
        await until(lambda: not any(it() for it in held))
    finally:
        gc.enable()


async def test_a_server_that_stops_waits_for_no_viewer_that_is_stuck(
    shared: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_frames, "PARTING_LIMIT_S", 1000)
    monkeypatch.setattr(shared_frames, "SHUTDOWN_PARTING_LIMIT_S", 0.1)
    shared.server.config.timeout_graceful_shutdown = None
    stuck = Stuck(shared)
    async with connect(f"{shared.url}?after=1-2") as viewer:
        await until(lambda: len(shared.hub._delivering) == 2)
        await fill(shared, viewer)
        shared.stop()
        await until(lambda: not shared.connections)
    stuck.close()


@pytest.mark.parametrize("way", ["shared", "compressed"])
async def test_a_server_stops_in_good_order_where_a_viewer_that_has_left_still_has_much_to_take(
    server: LiveServer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_frames, "PARTING_LIMIT_S", 1000)
    monkeypatch.setattr(shared_frames, "SHUTDOWN_PARTING_LIMIT_S", 0.1)
    server.server.config.timeout_graceful_shutdown = None
    with closing(Stuck(server, is_compressed=way == "compressed")) as leaving:
        async with connect(f"{server.url}?after=1-2") as viewer, asyncio.timeout(DEADLINE_S):
            await until(lambda: RUN in server.hub._rooms and len(server.hub._rooms[RUN].room.viewers) == 2)
            assert outlets_are_used(server) == (way == "shared")
            await fill(server, viewer)
            leaving.leave()
            await until(lambda: len(server.hub._rooms[RUN].room.viewers) == 1)
            assert is_any_full(server)
            server.stop()
            await server.serving
            assert server.server.lifespan.shutdown_event.is_set()
            assert (await read_all(viewer))[1] == 1012


async def test_one_too_many_is_sent_away_to_come_back(options: dict[str, Any], tmp_path: Path) -> None:
    async with open_live_server(tmp_path, **options, max_viewers=2) as live:
        await live.begin()
        async with connect(live.url) as viewer:
            async with connect(live.url) as other:
                for each in (viewer, other):
                    await read_until(each, 'id="run"')
                async with connect(live.url) as third:
                    assert await read_all(third) == ([], 1013)
            await until(lambda: not live.hub.is_full)
            async with connect(live.url) as back:
                await read_until(back, 'id="run"')
            await live.log("still there")
            await read_until(viewer, "still there")


async def test_one_that_is_let_in_holds_on_to_no_request(shared: LiveServer) -> None:
    async with connect(shared.url) as viewer:
        await read_until(viewer, 'id="run"')
        await until(lambda: not is_a_request_held())
        await shared.log("still there")
        await read_until(viewer, "still there")


def is_a_request_held() -> bool:
    """Whether a socket's ASGI scope, with all headers, is held, and does not just wait to be collected."""
    gc.collect()
    return any(type(each) is dict and each.get("type") == "websocket" for each in gc.get_objects())


# The server as people start it


@pytest.mark.parametrize("settings", [{}, {"compress_frames": "1"}], ids=["as shipped", "COMPRESS_FRAMES=1"])
def test_messages_are_compressed_where_that_is_asked_for_and_not_as_shipped(
    start_server: StartServer, settings: dict[str, str]
) -> None:
    assert not Settings.from_environ({}).compress_frames
    url = start_server(**settings).url.replace("http", "ws")
    with connect_sync(f"{url}/projects/none/live") as viewer:
        assert is_compressed(viewer) == bool(settings)
