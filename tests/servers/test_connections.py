"""Connections to the database: no more than was asked for, and none that a client takes along."""

import contextlib
import random
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from harness.cluster import Cluster
from harness.forms import filled_form
from harness.server import ServerProcess
from harness.waiting import DEADLINE_S, wait_for

StartCluster = Callable[..., Cluster]

POOL_SIZE = 12
"""More than a pool has that nobody has set."""
OWN = 2
"""The connections of the test itself: the cluster's, and the one that asks."""


WAITS = "active|Lock"
CONNECTIONS = "SELECT state, wait_event_type FROM pg_stat_activity WHERE datname = current_database()"


def connections(cluster: Cluster) -> list[str]:
    """All connections to the cluster's database: what each does, and what it waits for."""
    name = cluster.settings["DATABASE_URL"].rpartition("/")[2]
    return cluster.postgres.sql(CONNECTIONS, database=name).splitlines()


@pytest.mark.parametrize("engine", ["inline", "bullmq"])
def test_a_process_has_as_many_connections_as_it_was_told_and_no_more(
    start_cluster: StartCluster, engine: str
) -> None:
    cluster = start_cluster(engine=engine, database_pool_size=str(POOL_SIZE))
    web = cluster.process()
    cluster.sql("BEGIN")
    cluster.sql("LOCK TABLE projects")
    with ThreadPoolExecutor(2 * POOL_SIZE) as threads:
        asking = [threads.submit(web.client.get, "/") for _ in range(2 * POOL_SIZE)]
        try:
            wait_for(lambda: connections(cluster).count(WAITS) >= POOL_SIZE, "all that wait for the table")
        finally:
            cluster.sql("ROLLBACK")
        assert {answered.result().status_code for answered in asking} == {200}
    assert len(connections(cluster)) == POOL_SIZE + OWN


class Leaver:
    """A client that never hears the end of an answer."""

    def __init__(self, web: ServerProcess, project: str) -> None:
        self._port = web.port
        path, origin = f"/projects/{project}", f"origin: {web.url}"
        upgrade = (
            "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            f"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{origin}"
        )
        form = urlencode(filled_form(name="Left"), doseq=True)  # one project: each time with the same key
        posted = f"{origin}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {len(form)}"
        self._requests = [
            self._request("GET /"),
            self._request("GET /projects/new/slug?name=Phoenix"),
            self._request(f"GET {path}"),
            self._request(f"GET {path}/live", upgrade),
            self._request("GET /git/phoenix.git/info/refs?service=git-upload-pack"),
            self._request("POST /projects", posted) + form.encode(),
        ]

    def leave(self, number: int) -> None:
        """Ask for one thing or another, and be gone at one moment or another."""
        chance = random.Random(number)
        asked = chance.choice(self._requests)
        with socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            match chance.choice(["asking", "asked", "answered"]):
                case "asking":
                    connection.sendall(asked[: chance.randrange(len(asked))])
                case "asked":
                    connection.sendall(asked)
                    connection.settimeout(chance.uniform(0.001, 0.05))
                    with contextlib.suppress(TimeoutError):
                        connection.recv(1)
                case "answered":
                    connection.sendall(asked)
                    assert connection.recv(1) == b"H"

    def _request(self, line: str, headers: str = "accept: text/html") -> bytes:
        return f"{line} HTTP/1.1\r\nhost: localhost:{self._port}\r\n{headers}\r\n\r\n".encode()


def leave_hundreds_of_times(web: ServerProcess) -> None:
    """And see that whoever stays is answered all the same."""
    project = web.create("Phoenix")
    leaver = Leaver(web, project)
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(leaver.leave, range(400)))
        answers = threads.map(web.client.get, ["/", f"/projects/{project}"] * 15)
        assert {answer.status_code for answer in answers} == {200}
    web.wait_for_end(project)
    web.wait_for_end(web.create("Another"))


def test_hundreds_of_clients_that_leave_in_the_middle_leak_no_connection_to_postgresql(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(database_pool_size="3")
    web = cluster.process()
    leave_hundreds_of_times(web)
    assert len(connections(cluster)) <= 3 + OWN
    wait_for(lambda: "in transaction" not in str(connections(cluster)), "the end of all transactions")


def test_hundreds_of_clients_that_leave_in_the_middle_leak_no_connection_to_sqlite(
    server: ServerProcess,
) -> None:
    leave_hundreds_of_times(server)
    wait_for(lambda: not open_databases(server), "a database that nobody holds open")


def open_databases(web: ServerProcess) -> list[str]:
    """The files of the database that the process holds open, one entry for each time."""
    found = []
    for held in Path(f"/proc/{web.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.append(str(held.readlink()))
    return [name for name in found if "projects.db" in name]
