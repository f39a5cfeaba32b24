"""Clients that leave before they have said all: no fault of the server's."""

import json
import socket
import struct

from harness.server import ServerProcess
from harness.waiting import DEADLINE_S, wait_for

RESET = struct.pack("ii", 1, 0)
"""As a socket option: closing sends a reset in the place of a farewell."""


def leave_in_the_middle(server: ServerProcess, path: str, media_type: str) -> None:
    """Have the server wait for a body, and be gone."""
    head = [
        f"POST {path} HTTP/1.1",
        f"host: localhost:{server.port}",
        f"origin: {server.url}",
        f"content-type: {media_type}",
        "accept: application/json",
        "content-length: 1000",
        "expect: 100-continue",
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")  # the handler asks for the body


def test_a_client_that_leaves_in_the_middle_of_a_body_is_told_of_and_is_no_fault(
    server: ServerProcess,
) -> None:
    project = server.create("Phoenix")
    server.wait_for_end(project)
    bodies = [
        ("/projects", "application/x-www-form-urlencoded"),
        ("/projects", "multipart/form-data; boundary=x"),
        (f"/projects/{project}/retry", "application/x-www-form-urlencoded"),
        (f"/projects/{project}/retry", "application/json"),
        ("/git/phoenix.git/git-upload-pack", "application/x-git-upload-pack-request"),
    ]
    for path, media_type in bodies:
        leave_in_the_middle(server, path, media_type)
    paths = sorted(path for path, _ in bodies)
    wait_for(lambda: left(server) == paths, "a word on each", deadline_s=10, tell=lambda: server.stderr)
    assert server.complaints() == []
    assert server.count_rows() == 1


def left(server: ServerProcess) -> list[str]:
    """What those had asked for who left."""
    records = [json.loads(line) for line in server.stderr.splitlines() if "client left" in line]
    return sorted(record["path"] for record in records)
