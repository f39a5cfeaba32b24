"""The socket of a live page: what came after the page, then frames, then the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from initializer.access import Action, allowed
from initializer.projects.database import DatabaseUnavailable
from web.hub import WatchBroken
from web.rendering import Rendering
from web.security import is_own_origin, viewer_of
from web.state import services

__all__ = ["LiveSocket"]

NORMAL, FORBIDDEN, NOT_FOUND, TRY_AGAIN = 1000, 4403, 4404, 1013
MAX_INDEX_DIGITS = 16

log = structlog.get_logger()


class LiveSocket:
    """`WS /projects/{id}/live?after=`. It refuses by closing codes; a refused handshake tells nothing."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one viewer until the run ends or the viewer leaves."""
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            await websocket.close(await self._serve(websocket))

    async def _serve(self, websocket: WebSocket) -> int:
        """Send all there is; gives the code to close with."""
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
            await websocket.send_text(self._rendering.last_frame(row))
            return NORMAL
        try:
            async with services(websocket).hub.join(row, after=_after(websocket)) as frames:
                await _send_until_gone(websocket, frames)
        except WatchBroken:
            return TRY_AGAIN
        return NORMAL


async def _send_until_gone(websocket: WebSocket, frames: AsyncIterator[str]) -> None:
    """Send frames to their end. Raises `WebSocketDisconnect` as soon as the viewer leaves."""
    leaving = asyncio.create_task(_until_gone(websocket))
    sending = asyncio.create_task(_send_all(websocket, frames))
    try:
        await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
        await (sending if sending.done() else leaving)
    finally:
        leaving.cancel()
        sending.cancel()
        await asyncio.wait((leaving, sending))


async def _send_all(websocket: WebSocket, frames: AsyncIterator[str]) -> None:
    async for frame in frames:
        await websocket.send_text(frame)


async def _until_gone(websocket: WebSocket) -> None:
    """Viewers have nothing to say: read and forget, until the disconnect."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


def _after(websocket: WebSocket) -> int:
    """The index that the page shows; anything that cannot be one counts as none."""
    text = websocket.query_params.get("after", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < MAX_INDEX_DIGITS else 0
