"""WebSocket frames that are encoded once and written to any number of connections.

ASGI sends a message to one connection: each would encode the same text again, in a task that has to be
woken for it, and that holds on to its request for as long as the connection lasts. `SharedFrames`, for
uvicorn's setting `ws=`, also takes finished frames, and keeps a connection when the app's call has returned;
an app finds that as the `outlet_of` a socket. Under any other server, and where messages are compressed,
there is none, and ASGI is what is left.
"""

import asyncio
from asyncio.transports import BaseTransport
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from web.room import Outlet

__all__ = ["WRITE_LIMIT_BYTES", "SharedFrames", "encode_text", "outlet_of"]

WRITE_LIMIT_BYTES = 64 * 1024
"""What may wait for a connection that takes nothing; one that has more is full."""
PARTING_LIMIT_S = 10
"""How long a connection that is being closed may take; then it is cut off, whatever still waits for it."""
SHUTDOWN_PARTING_LIMIT_S = 2
"""The same when the server stops: whoever takes the runs over waits for it."""

MAX_KEPT_LENGTH = 8192
"""Up to which length frames are so frequent that their headers are kept."""
_EXTENSION = "initializer.outlet"


def encode_text(text: str) -> bytes:
    """A text message as one frame, as a server sends it."""
    data = text.encode()
    if len(data) > MAX_KEPT_LENGTH:
        return Frame(Opcode.TEXT, data).serialize(mask=False)
    return _header(len(data)) + data


@lru_cache(maxsize=MAX_KEPT_LENGTH)
def _header(length: int) -> bytes:
    """What a frame of that many bytes begins with: nothing but the length decides it."""
    return Frame(Opcode.TEXT, bytes(length)).serialize(mask=False)[: -length or None]


def outlet_of(websocket: WebSocket) -> Outlet | None:
    """Where finished frames for this socket go, once it is accepted; None where it takes none."""
    outlet: Outlet | None = websocket.scope.get("extensions", {}).get(_EXTENSION)
    return outlet


class SharedFrames(WebSocketsSansIOProtocol):
    """uvicorn's own protocol, as an `Outlet`; and no peer that stops reading holds its connection open."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_full = False
        self._on_drained: Callable[[], object] = _nothing
        self._on_closed: Callable[[], object] = _nothing
        self._end: _End | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    def write(self, frames: bytes) -> None:
        if self.conn.state is OPEN and not self.disconnected:
            self.transport.write(frames)

    def keep(self, *, on_drained: Callable[[], object], on_closed: Callable[[], object]) -> None:
        self._on_drained, self._on_closed = on_drained, on_closed
        self._end = _End(self.loop)
        while not self.queue.empty():
            self._end.put_nowait(self.queue.get_nowait())
        self.queue = cast(Any, self._end)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def close(self, code: int) -> None:
        if self.conn.state is not OPEN or self.disconnected:
            return
        self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})
        if self.read_paused:  # the peer's own close has to be read
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self._cut_off_later()

    # What uvicorn calls

    async def run_asgi(self) -> None:
        if not self.conn.extensions:
            cast(dict[str, object], self.scope["extensions"])[_EXTENSION] = self
        self.app = partial(self._serve, self.app)
        try:
            await super().run_asgi()
        finally:
            del self.app  # it leads back here

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The app's call, and all the time that a connection is kept for: uvicorn closes it afterwards."""
        try:
            await app(scope, receive, send)
            if self._end is not None:
                del scope, receive, send, self.scope
                self.request.headers.clear()
                self.response.headers.clear()
                await self._end.has_come
        finally:
            self._on_closed()
            self._on_drained = self._on_closed = _nothing

    def send_receive_event_to_app(self) -> None:
        if self._end is None:
            super().send_receive_event_to_app()
        else:
            self.frames.clear()

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)

    def shutdown(self) -> None:
        # Who has said goodbye, and has yet to take what waits, is not told again: uvicorn would raise
        # `InvalidState` out of the stop of the whole server.
        if self.conn.state is OPEN or not self.transport.is_closing():
            super().shutdown()
        if self._cut_off is not None:
            self._cut_off.cancel()
        if not self.disconnected:
            self._cut_off = self.loop.call_later(SHUTDOWN_PARTING_LIMIT_S, self.transport.abort)

    def handle_ping(self) -> None:
        # A peer that asks and asks, and reads nothing, is not answered without bound.
        answer = b"".join(self.conn.data_to_send())
        if not self.is_full:
            self.transport.write(answer)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_full = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_full = False
        self._on_drained()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._cut_off_later()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._cut_off_later()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.parser.close()  # it holds what holds it, and the collector of cycles comes seldom
        if self._cut_off is not None:
            self._cut_off.cancel()

    def _cut_off_later(self) -> None:
        """A transport that is closed waits until all has been sent, to a peer that reads nothing for ever."""
        if self._cut_off is None and not self.disconnected:
            self._cut_off = self.loop.call_later(PARTING_LIMIT_S, self.transport.abort)


class _End:
    """In the place of what the app would read: only that it ends is of interest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.has_come: asyncio.Future[None] = loop.create_future()

    def put_nowait(self, message: Mapping[str, object]) -> None:
        """Take a message that was for the app."""
        if message["type"] == "websocket.disconnect" and not self.has_come.done():
            self.has_come.set_result(None)


def _nothing() -> None:
    """Nobody waits for this connection."""
