"""What the server runs on, if nothing is said of it."""

import json
from pathlib import Path

from harness.server import StartServer

NOTE = """
import asyncio, json, pathlib, uvicorn

start = uvicorn.Server.startup

async def note(server, *args, **options):
    made_of = [type(asyncio.get_running_loop()).__module__, server.config.http_protocol_class.__module__]
    pathlib.Path({path!r}).write_text(json.dumps(made_of))
    await start(server, *args, **options)

uvicorn.Server.startup = note
"""
"""Python imports it at its start (`sitecustomize`): from then on a server notes what it runs on."""


def test_the_loop_is_uvloop_and_http_is_parsed_by_httptools(
    start_server: StartServer, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    (tmp_path / "sitecustomize.py").write_text(NOTE.format(path=str(note)))
    start_server(pythonpath=str(tmp_path))
    assert json.loads(note.read_text()) == ["uvloop", "uvicorn.protocols.http.httptools_impl"]
