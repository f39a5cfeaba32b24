"""What is compared: for each side a program that serves viewers, and what publishes one event to it.

In paths and commands, `PPPPPP` stands for the number of a project and `NNNNNNNN` for the index of an event.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.stage import APP, Stage

__all__ = ["SIDES", "Side"]

HERE = Path(__file__).parent
PEERS = HERE.parent / "peers"
PEERS_PYTHON = Path(os.environ.get("PEERS_PYTHON", PEERS / ".venv" / "bin" / "python"))

EVENT: dict[str, object] = {
    "type": "progress",
    "id": "1-NNNNNNNN",
    "at": "2026-01-01T10:00:07.120Z",
    "step": "create_repo",
    "progress": 4,
    "step_progress": 25,
    "message": "Pushing file NNNNNNNN",
}
EVENT_JSON = json.dumps(EVENT, separators=(",", ":"))
CHANNEL = "project:pPPPPPP"


def command(*words: str | bytes) -> bytes:
    """A command as Redis takes it."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of those that are compared. `program` gets `PORT` and `REDIS_URL` in its environment."""

    title: str
    program: Sequence[str]
    publishes: bytes
    path: str = "/live/pPPPPPP"
    back: str = ""
    """The path of who comes back, `INDEX` that of the last event it shows; empty: the same."""
    hello: str = ""
    environment: Mapping[str, str] = {}
    is_app: bool = False

    def environment_on(self, stage: Stage) -> Mapping[str, str]:
        """What its program is started with."""
        if self.is_app:
            return stage.environment(**self.environment)
        return {"REDIS_URL": stage.redis.url, **self.environment}


def _python(name: str) -> Sequence[str]:
    return (str(PEERS_PYTHON), str(PEERS / name))


def _node(name: str) -> Sequence[str]:
    return ("node", str(PEERS / name))


def fragment() -> str:
    """What every peer sends for an event: as long as the frame of this app."""
    sys.path.insert(0, str(PEERS))
    from fragment import render  # noqa: PLC0415 - the peers' module, which is no package

    return str(render(EVENT))


_PUBLISH = command("PUBLISH", CHANNEL, EVENT_JSON)
_APPEND = command("XADD", f"{CHANNEL}:events", "1-NNNNNNNN", "event", EVENT_JSON) + _PUBLISH
_EMIT = {
    "method": "emit",
    "event": "frame",
    "data": fragment(),
    "binary": False,
    "namespace": "/",
    "room": "pPPPPPP",
    "skip_sid": None,
    "callback": None,
    "host_id": "worker",
}

SIDES: Mapping[str, Side] = {
    "app": Side(
        title="this app",
        program=APP,
        publishes=_APPEND,
        path="/projects/pPPPPPP/live?after=1-2",
        back="/projects/pPPPPPP/live?after=1-INDEX",
        is_app=True,
    ),
    "app-each": Side(
        title="this app, a frame an event (FRAMES_PER_SECOND=0)",
        program=APP,
        publishes=_APPEND,
        path="/projects/pPPPPPP/live?after=1-2",
        environment={"FRAMES_PER_SECOND": "0"},
        is_app=True,
    ),
    "floor": Side(title="floor: a bare C server", program=("floor",), publishes=_PUBLISH, path="/pPPPPPP"),
    "node": Side(title="Node ws", program=_node("node_ws.js"), publishes=_PUBLISH),
    "node-tick": Side(
        title="Node ws with the same tick",
        program=_node("node_ws.js"),
        publishes=_PUBLISH,
        environment={"TICK_MS": "33"},
    ),
    "bullmq": Side(
        title="BullMQ QueueEvents and ws",
        program=_node("bullmq_ws.js"),
        publishes=command(
            *("XADD", "bull:runs:events", "MAXLEN", "~", "10000", "*", "event", "progress"),
            *("jobId", "pPPPPPP", "data", EVENT_JSON),
        ),
    ),
    "broadcaster": Side(
        title="encode/broadcaster", program=_python("broadcaster_server.py"), publishes=_PUBLISH
    ),
    "socketio": Side(
        title="python-socketio",
        program=_python("socketio_server.py"),
        publishes=command("PUBLISH", "socketio", json.dumps(_EMIT)),
        path="/socket.io/?EIO=4&transport=websocket&project=pPPPPPP",
        hello="40",
    ),
    "channels": Side(
        title="Channels, channels_redis (pub/sub layer)",
        program=_python("channels_server.py"),
        publishes=command(
            "PUBLISH",
            "asgi__group__pPPPPPP",
            msgspec.msgpack.encode({"type": "progress", "event": EVENT}),
        ),
        environment={"LAYER": "pubsub.RedisPubSubChannelLayer"},
    ),
}
