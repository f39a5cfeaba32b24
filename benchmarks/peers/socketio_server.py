"""python-socketio with its Redis manager: a room a project; the worker emits the finished fragment."""

import os
from urllib.parse import parse_qs

import socketio
import uvicorn

manager = socketio.AsyncRedisManager(os.environ["REDIS_URL"])
server = socketio.AsyncServer(async_mode="asgi", client_manager=manager, cors_allowed_origins="*")


@server.event
async def connect(sid: str, environ: dict[str, str]) -> None:
    """Join the room of the project that the address names."""
    await server.enter_room(sid, parse_qs(environ["QUERY_STRING"])["project"][0])


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server),
        port=int(os.environ["PORT"]),
        log_level="warning",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
    )
