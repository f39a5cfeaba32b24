"""Several processes of the app on one PostgreSQL, one Redis and one data folder, and who watches them."""

import contextlib
import itertools
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, LiteralString, TypeVar

import psycopg
import redis
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from harness.hosts import THIS_HOST, Host
from harness.server import CLI, ServerProcess
from harness.servers import PostgresServer, RedisServer
from harness.waiting import DEADLINE_S, wait_for
from initializer.model.events import EventId, attempt_of, index_of
from initializer.running.lease import lease_of

__all__ = ["Cluster", "ClusterProcess", "Watcher", "WorkerProcess", "watching"]

_EVENT = re.compile(r'id="run-header"[^>]*data-event="([0-9-]+)"')
NORMAL_CLOSURE = 1000
ONLINE = "worker online"
"""What a worker says once it takes jobs."""


class ClusterProcess(ServerProcess):
    """One of the processes; rows and events are read from the servers."""

    def __init__(self, folder: Path, cluster: "Cluster", settings: dict[str, str], host: Host) -> None:
        super().__init__(folder, {"DATA_DIR": str(cluster.data), **cluster.settings, **settings}, host=host)
        self.data = cluster.data
        self._cluster = cluster

    def row(self, project: str) -> dict[str, Any]:
        """The project's row."""
        return self._cluster.row(project)

    def count_rows(self) -> int:
        """How many projects there are."""
        return len(self._cluster.rows())

    def events(self, project: str) -> list[dict[str, Any]]:
        """The events in the project's stream."""
        return self._cluster.events(project)

    def freeze(self) -> None:
        """Stop the process in its tracks, not its children."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and do not wait."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait_until_ended(self) -> None:
        """Wait for the end of a process that was asked to end."""
        assert self._process is not None
        self._process.wait(timeout=DEADLINE_S)
        self._process = None


class WorkerProcess(ClusterProcess):
    """A worker: it performs runs of the queue, and serves nothing. It logs when it is ready."""

    program = (CLI, "worker")
    _starts = 0

    def launch(self) -> "subprocess.Popen[bytes]":
        self._starts = self.stderr.count(ONLINE) + 1
        return super().launch()

    def _is_ready(self) -> bool:
        return self.stderr.count(ONLINE) == self._starts


P = TypeVar("P", bound=ClusterProcess)


class Cluster:
    """Starts processes; `settings` are for all of them."""

    def __init__(
        self, folder: Path, postgres: PostgresServer, redis_server: RedisServer, **settings: str
    ) -> None:
        self.data = folder / "data"
        self.redis = redis_server
        self.postgres = postgres
        self._folder = folder
        self._database = postgres.new_database()
        self._connection: psycopg.Connection[Any] | None = None
        self._events = redis.Redis.from_url(redis_server.url, socket_timeout=5)
        self.settings = {
            "DATABASE_URL": self._database,
            "REDIS_URL": redis_server.url,
            "PUBLIC_URL": "http://localhost:8000",
            **settings,
        }
        self._processes: list[ClusterProcess] = []

    def process(self, *, host: Host = THIS_HOST, **settings: str) -> ClusterProcess:
        """Another process that serves, started."""
        return self.start(ClusterProcess, host=host, **settings)

    def worker(self, *, host: Host = THIS_HOST, **settings: str) -> WorkerProcess:
        """Another worker, started. The setting `max_concurrent_runs` is its concurrency."""
        return self.start(WorkerProcess, host=host, **settings)

    def start(self, kind: type[P], *, host: Host = THIS_HOST, **settings: str) -> P:
        """Another process of this kind, started."""
        folder = self._folder / f"process-{len(self._processes) + 1}"
        folder.mkdir()
        made = kind(folder, self, {name.upper(): text for name, text in settings.items()}, host)
        self._processes.append(made)
        made.start()
        return made

    def close(self) -> None:
        """End all processes, and hold against the test what they complained of."""
        self._events.close()
        if self._connection is not None:
            self._connection.close()
        with contextlib.ExitStack() as stack:
            for process in self._processes:
                stack.callback(process.close)

    def sql(self, statement: LiteralString, *values: str) -> Sequence[tuple[Any, ...]]:
        """The rows that the database answers; each `%s` stands for a value."""
        try:
            return self._ask(statement, values)
        except psycopg.OperationalError:  # it was started anew since
            return self._ask(statement, values)

    def row(self, project: str) -> dict[str, Any]:
        """The project's row, its JSON decoded."""
        ((row,),) = self.sql("SELECT row_to_json(projects) FROM projects WHERE id = %s", project)
        return dict(row)

    def rows(self) -> dict[str, dict[str, Any]]:
        """All rows, by the ids of their projects."""
        return {row["id"]: row for (row,) in self.sql("SELECT row_to_json(projects) FROM projects")}

    def _ask(self, statement: LiteralString, values: Sequence[str]) -> Sequence[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._database, autocommit=True, connect_timeout=5)
        cursor = self._connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def events(self, project: str) -> list[dict[str, Any]]:
        """The events in the project's stream; none while Redis does not answer."""
        return [json.loads(entry) for entry in self.entries(project)]

    def entries(self, project: str) -> list[bytes]:
        """The same, as they were written."""
        try:
            entries: Any = self._events.xrange(f"project:{project}:events")
        except redis.RedisError:
            return []
        return [fields[b"event"] for _, fields in entries]

    def lease(self, project: str) -> str:
        """Which attempt and owner live, by the run's lease; nothing if nobody does."""
        value: Any = self._events.get(lease_of(project))
        return (value or b"").decode()


class Watcher:
    """A page that stays open: it comes back, from what it shows, as often as the connection ends early.

    With `others`, one after the other has its turn, as behind a load balancer.
    """

    def __init__(self, server: ServerProcess, project: str, *others: ServerProcess) -> None:
        self._urls = itertools.cycle(
            f"{it.url.replace('http', 'ws')}/projects/{project}/live" for it in (server, *others)
        )
        self._is_closed = threading.Event()
        self._socket: socket.socket | None = None
        self.event: EventId = ""  # the last one shown
        self.events: list[EventId] = []  # all that were shown as the last one
        self.connections = 0
        self.last_frame = ""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> str:
        """The last frame, once the server has closed with 1000.

        What was shown never went back, but where a newer attempt had begun with less, the rest being lost.
        """
        wait_for(lambda: not self._thread.is_alive(), "the end of a watched page", deadline_s=DEADLINE_S)
        for before, after in pairwise(self.events):
            went_on = index_of(after) >= index_of(before) or attempt_of(after) > attempt_of(before)
            assert went_on, f"a page went back from {before} to {after}"
        return self.last_frame

    def cut(self) -> None:
        """Cut the connection, if there is one now; it comes back like after any other end."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop watching."""
        self._is_closed.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._is_closed.is_set():
            try:
                with connect(
                    f"{next(self._urls)}?after={self.event}", max_size=None, open_timeout=5
                ) as connection:
                    self.connections += 1
                    self._socket = connection.socket
                    self._read(connection)
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == NORMAL_CLOSURE:
                    return
            except (OSError, InvalidHandshake, TimeoutError):
                pass
            self._is_closed.wait(0.1)

    def _read(self, connection: Any) -> None:
        while not self._is_closed.is_set():
            with contextlib.suppress(TimeoutError):
                frame = connection.recv(timeout=0.5)
                if frame == "{}":
                    continue  # a sign of life
                self._show(frame)

    def _show(self, frame: str) -> None:
        self.last_frame = frame
        for event in _EVENT.findall(frame):
            self.event = event
            self.events.append(event)


@contextlib.contextmanager
def watching(*watchers: Watcher) -> Iterator[Sequence[Watcher]]:
    """Close them all at the end."""
    try:
        yield watchers
    finally:
        for watcher in watchers:
            watcher.close()
