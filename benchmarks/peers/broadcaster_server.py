"""encode/broadcaster as its README has it: each socket subscribes to its project's channel."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from broadcaster import Broadcast
from fragment import render
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

broadcast = Broadcast(os.environ["REDIS_URL"])


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Connected to Redis."""
    async with broadcast:
        yield


async def live(websocket: WebSocket) -> None:
    """One viewer."""
    await websocket.accept()
    async with broadcast.subscribe(channel=f"project:{websocket.path_params['project']}") as subscriber:
        async for event in subscriber:
            await websocket.send_text(render(json.loads(event.message)))


app = Starlette(routes=[WebSocketRoute("/live/{project}", live)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(os.environ["PORT"]),
        log_level="warning",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
    )
