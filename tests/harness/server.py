"""The server as people start it: `initializer serve`, in a process and a data folder of its own."""

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx

from harness.forms import filled_form
from harness.hosts import THIS_HOST, Host
from harness.waiting import DEADLINE_S, wait_for

__all__ = ["CLI", "ServerProcess", "StartServer", "at_of", "free_port", "initializer", "plain_environment"]

CLI = Path(sys.executable).with_name("initializer")
FIRST_PORT, LAST_PORT = 12_000, 32_000
"""Below those of outgoing connections on Linux: the port of a killed server stays free for its return."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_port() -> int:
    """A port that nobody listens on, and that no other process of this test run is given."""
    while True:
        port = random.randrange(FIRST_PORT + _WORKER, LAST_PORT, _WORKERS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def plain_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """An environment that holds nothing of the developer's but the path; `settings` are added to it."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **settings}


def initializer(command: str, settings: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end."""
    return subprocess.run(
        [CLI, command],
        env=plain_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


class ServerProcess:
    """One server at a time on one port and one data folder; it can be killed and started again.

    What it logs above "info" counts against the test, unless a text that it holds was allowed.
    """

    program: Sequence[str | Path] = (CLI, "serve")

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, *, host: Host = THIS_HOST
    ) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self.host = host
        self.url = f"http://{'localhost' if host is THIS_HOST else host.address}:{self.port}"
        self.settings = {"DATA_DIR": str(self.data), "PORT": str(self.port), **(settings or {})}
        if host is not THIS_HOST:
            self.settings |= {"HOST": host.address, "TRUST_NETWORK": "1"}
        self._stderr_file = folder / "stderr"
        self._stdout_file = folder / "stdout"
        self._allowed: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, timeout=30)

    # The process

    def start(self) -> Self:
        """Start it, and return when it is ready to serve."""
        process = self.launch()
        wait_for(lambda: process.poll() is not None or self._is_ready(), "the server answers /readyz")
        assert process.poll() is None, f"the server ended at its start:\n{self.stderr}"
        return self

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it, and do not wait."""
        assert self._process is None
        with self._stdout_file.open("ab") as out, self._stderr_file.open("ab") as error:
            self._process = subprocess.Popen(
                [*self.host.enter, *self.program],
                env=plain_environment(self.settings),
                cwd=self._stderr_file.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                start_new_session=True,
            )
        return self._process

    @property
    def pid(self) -> int:
        """The number of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it by kill -9."""
        self._signal(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and give its exit status; negative where a signal ended it."""
        return self._signal(number)

    def restart(self) -> None:
        """Start again what was killed or stopped, on the same port and data."""
        self.client.close()
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.start()

    def close(self) -> None:
        """End it, and hold against the test what it complained of."""
        self.client.close()
        if self._process is not None:
            ended = self._process.poll()
            assert ended is None, f"the server ended by itself with {ended}:\n{self.stderr}"
            self.stop()
        complaints = [line for line in self.complaints() if not any(text in line for text in self._allowed)]
        assert not complaints, "the server complained:\n" + "\n".join(map(_readable, complaints))

    # What it said

    @property
    def stderr(self) -> str:
        """All that it wrote to standard error, of every start."""
        return self._stderr_file.read_text() if self._stderr_file.exists() else ""

    @property
    def stdout(self) -> str:
        """All that it wrote to standard output."""
        return self._stdout_file.read_text() if self._stdout_file.exists() else ""

    def complaints(self) -> list[str]:
        """Records above "info", and whatever else is no record."""
        return [line for line in self.stderr.splitlines() if _level(line) not in ("info", "debug")]

    def allow(self, text: str) -> None:
        """Complaints with this text are expected."""
        self._allowed.append(text)

    # Its projects

    def post(self, values: Mapping[str, Any], **headers: str) -> httpx.Response:
        """Post the form; `values` are laid over one that can be done."""
        form = filled_form(**values)
        return self.client.post("/projects", data=form, headers={"origin": self.url, **headers})

    def create(self, name: str = "Demo", **values: Any) -> str:
        """Create a project as the form does; gives its id."""
        answer = self.post({"name": name, **values})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"].rpartition("/")[2]

    def row(self, project: str) -> dict[str, Any]:
        """The project's row, its JSON decoded."""
        (row,) = self.query("SELECT * FROM projects WHERE id = ?", [project])
        for column in ("parameters", "initialization_summary"):
            row[column] = json.loads(row[column] or "null")
        return row

    def count_rows(self) -> int:
        """How many projects there are."""
        count: int = self.query("SELECT count(*) AS count FROM projects")[0]["count"]
        return count

    def query(self, sql: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The rows that a statement gives, read beside the server."""
        with contextlib.closing(sqlite3.connect(self.data / "projects.db", timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def execute(self, sql: str) -> None:
        """Change rows behind the server's back."""
        with contextlib.closing(sqlite3.connect(self.data / "projects.db", timeout=10)) as connection:
            connection.execute(sql)
            connection.commit()

    def events(self, project: str) -> list[dict[str, Any]]:
        """The events in the project's journal; a line that is being written does not count."""
        try:
            text = (self.data / "journals" / f"{project}.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def wait_for_event(self, project: str, **expected: object) -> dict[str, Any]:
        """The first event with these values, once it is there."""

        def look() -> dict[str, Any] | None:
            matching = (it for it in self.events(project) if expected.items() <= it.items())
            return next(matching, None)

        return wait_for(look, f"an event with {expected}", tell=lambda: self.events(project)[-3:])

    def wait_for_end(self, project: str, *, status: str = "active") -> dict[str, Any]:
        """The project's row, once its run is over and its journal says so.

        It has to be what is expected, "active" if nothing is said.
        """

        def look() -> dict[str, Any] | None:
            row = self.row(project)  # first: a journal may still end with the try before
            if row["initialization_completed_at"] is None:
                return None
            events = self.events(project)
            return row if events and events[-1]["type"] in _FINAL else None

        row = wait_for(look, f"the end of run {project}", tell=lambda: self.events(project)[-3:])
        assert row["status"] == status, row["initialization_error"]
        return row

    def wait_until_retired(self, project: str) -> None:
        """Wait until the process has done with the journal: the last event is there before it is synced."""
        expiry = self.data / "journals" / f"{project}.expires"
        wait_for(expiry.exists, f"the retirement of the journal of {project}")

    @contextlib.contextmanager
    def unreadable(self, *projects: str) -> Iterator[None]:
        """While this lasts, their journals do not answer: a folder stands where each file was.

        Nothing may be appended to them meanwhile.
        """
        files = [self.data / "journals" / f"{project}.jsonl" for project in projects]
        for file in files:
            file.rename(file.with_suffix(".aside"))
            file.mkdir()
        try:
            yield
        finally:
            for file in files:
                file.rmdir()
                file.with_suffix(".aside").rename(file)

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout=DEADLINE_S)
        self._process = None
        return status


StartServer = Callable[..., ServerProcess]
"""Gives a started server; keywords are settings in lower case."""

_FINAL = ("completed", "failed", "cancelled")


def at_of(event: Mapping[str, Any]) -> datetime:
    """When an event happened. As text, a full second does not sort before its parts."""
    return datetime.fromisoformat(event["at"])


def _readable(line: str) -> str:
    """A record with the lines of its stack trace."""
    return line.replace("\\n", "\n")


def _level(line: str) -> str:
    try:
        level: str = json.loads(line)["level"]
    except (ValueError, KeyError, TypeError):
        return "no record"
    return level
