"""The socket of a live page: what came after the page, then frames, then the end."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import NoReturn

import structlog
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from initializer.access import Action, allowed
from initializer.model.events import EventId
from initializer.projects.database import DatabaseUnavailable
from web.hub import HEARTBEAT, HEARTBEAT_S, STUCK_LIMIT_S
from web.languages import language_of
from web.open_room import WatchBroken
from web.rendering import Rendering
from web.security import is_own_origin, viewer_of
from web.shared_frames import encode_text, outlet_of
from web.state import services

__all__ = ["LiveSocket", "shown_besides", "shown_event"]

NORMAL, FORBIDDEN, NOT_FOUND, TRY_AGAIN = 1000, 4403, 4404, 1013

_EVENT_ID = re.compile(r"[0-9]{1,9}-[0-9]{1,16}")

log = structlog.get_logger()


class LiveSocket:
    """`WS /projects/{id}/live?after=&besides=`.

    It refuses by closing codes; a refused handshake tells nothing.
    """

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one viewer until the run ends or the viewer leaves, or have the hub do that."""
        await websocket.accept()
        with suppress(WebSocketDisconnect, TimeoutError):  # gone, or stuck
            code = await self._serve(websocket)
            if code is not None:
                async with asyncio.timeout(STUCK_LIMIT_S):
                    await websocket.close(code)

    async def _serve(self, websocket: WebSocket) -> int | None:
        """Send all there is; gives the code to close with, None where the hub will."""
        if "origin" in websocket.headers and not is_own_origin(websocket):
            return FORBIDDEN
        try:
            row = await services(websocket).projects.get(websocket.path_params["id"])
        except DatabaseUnavailable as error:
            log.warning("viewer sent away", error=str(error))
            return TRY_AGAIN
        if row is None:
            return NOT_FOUND
        if not allowed(viewer_of(websocket), Action.VIEW, row.project):
            return FORBIDDEN
        if row.status.is_final:
            await websocket.send_text(self._rendering.speaking(language_of(websocket)).last_frame(row))
            return NORMAL
        hub, language = services(websocket).hub, language_of(websocket)
        after, besides = shown_event(websocket), shown_besides(websocket)
        if hub.is_full:
            return TRY_AGAIN
        outlet = outlet_of(websocket)
        if outlet is not None:
            outlet.write(encode_text(HEARTBEAT))  # so that the page knows at once that it is through
            await hub.deliver(row, outlet, after=after, besides=besides, language=language)
            return None
        try:
            async with hub.join(row, after=after, besides=besides, language=language) as frames:
                await _send_until_gone(websocket, frames)
        except WatchBroken:
            return TRY_AGAIN
        return NORMAL


async def _send_until_gone(websocket: WebSocket, frames: AsyncGenerator[str, None]) -> None:
    """Send frames to their end. Raises `WebSocketDisconnect` as soon as the viewer leaves."""
    sending = asyncio.create_task(_send_all(websocket, frames))
    tasks = (sending, asyncio.create_task(_until_gone(websocket)), asyncio.create_task(_beat(websocket)))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await (sending if sending.done() else done.pop())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _send_all(websocket: WebSocket, frames: AsyncGenerator[str, None]) -> None:
    async with aclosing(frames):
        async for frame in frames:
            await _send(websocket, frame)


async def _beat(websocket: WebSocket) -> None:
    """Say that the server lives: at once, so that the page knows it is through, and then in an even beat."""
    while True:
        await _send(websocket, HEARTBEAT)
        await asyncio.sleep(HEARTBEAT_S)


async def _send(websocket: WebSocket, text: str) -> None:
    """Send a message. Raises `TimeoutError` where the viewer takes nothing for long."""
    async with asyncio.timeout(STUCK_LIMIT_S):
        await websocket.send_text(text)


async def _until_gone(websocket: WebSocket) -> NoReturn:
    """Viewers have nothing to say: read and forget, until the disconnect."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


def shown_event(connection: HTTPConnection) -> EventId:
    """The event up to which the page shows the run (`after`); anything that cannot be one counts as none."""
    text = connection.query_params.get("after", "")
    return text if _EVENT_ID.fullmatch(text) else ""


def shown_besides(connection: HTTPConnection) -> str:
    """What the page shows that no event has told (`besides`); what cannot be is unlike all that there is."""
    return connection.query_params.get("besides", "")
