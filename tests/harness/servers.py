"""Private database servers of the tests: free ports, temporary folders, and no life beyond pytest's.

A kernel signal ends them with the test runner's main thread (`setpriv --pdeathsig`), whatever ends that.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from harness.hosts import DEATH, THIS_HOST, Host
from harness.server import free_port
from harness.waiting import wait_for

__all__ = ["PostgresServer", "RedisServer", "open_postgres", "strace_program"]

DEBIAN_PACKAGES = {
    "redis-server": "redis-server",
    "initdb": "postgresql",
    "strace": "strace",
    "openssl": "openssl",
}
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def redis_program() -> str:
    """The redis-server program; skips the test, loudly, where there is none."""
    return _found("redis-server", shutil.which("redis-server"))


def strace_program() -> str:
    """The strace program; skips the test, loudly, where there is none."""
    return _found("strace", shutil.which("strace"))


def postgres_program(name: str) -> str:
    """A program of PostgreSQL, from PATH or Debian's folders; skips the test, loudly, where there is none."""
    in_debian = sorted(_DEBIAN_POSTGRES.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return _found(name, shutil.which(name) or (str(in_debian[-1]) if in_debian else None))


def _found(name: str, program: str | None) -> str:
    if program is None:
        package = DEBIAN_PACKAGES.get(name, "postgresql")
        pytest.skip(f"NOT TESTED: {name} is missing. Install it, for example with: apt-get install {package}")
    return program


class _Server:
    """A program that listens on one port, and can be killed, frozen and started again."""

    def __init__(self, folder: Path, host: Host) -> None:
        self.folder = folder
        self.host = host
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> Self:
        """Start it, and return when it answers."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*self.host.enter, *self._command()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = self._process
        try:
            wait_for(lambda: process.poll() is not None or self._answers(), f"an answer on port {self.port}")
            assert process.poll() is None, (self.folder / "output").read_text()
        except BaseException:
            self.kill()
            raise
        return self

    @property
    def pid(self) -> int:
        """The number of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it by kill -9, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay, answers do not come."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class RedisServer(_Server):
    """A Redis that writes everything to its append-only file at once, if nothing else is asked for."""

    def __init__(self, folder: Path, *options: str, host: Host = THIS_HOST) -> None:
        super().__init__(folder, host)
        self._options = options or ("--appendonly", "yes", "--appendfsync", "always", "--save", "3600 1")
        self.url = f"redis://{host.address}:{self.port}/0"

    def ask(self, *words: str) -> bytes:
        """The raw answer to a command."""
        with socket.create_connection((self.host.address, self.port), timeout=5) as connection:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return connection.recv(65536)

    def pause_writes(self) -> None:
        """Leave every writer waiting, until it is killed: a minute at most."""
        assert self.ask("CLIENT", "PAUSE", "60000", "WRITE") == b"+OK\r\n"

    def backup(self) -> Path:
        """A copy of all it holds now, to come back with later."""
        copy = self.folder.with_name(f"{self.folder.name}-backup")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Put a copy in the place of its data, while it is not running."""
        assert self._process is None
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)

    def wipe(self) -> None:
        """Forget everything, while it is not running."""
        assert self._process is None
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def _command(self) -> Sequence[str]:
        return (
            *(*DEATH, redis_program(), "--port", str(self.port), "--bind", self.host.address),
            *("--protected-mode", "no"),
            *("--dir", str(self.folder), "--daemonize", "no", *self._options),
        )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("PING") == b"+PONG\r\n"
        return False


class PostgresServer(_Server):
    """A PostgreSQL for tests: nothing is synced, which a kill -9 of it survives all the same."""

    _SETTINGS = {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "unix_socket_directories": "",
        "max_connections": "100",
        "shared_buffers": "32MB",
        "dynamic_shared_memory_type": "mmap",
    }

    def __init__(self, folder: Path, host: Host = THIS_HOST) -> None:
        super().__init__(folder, host)
        self._data = folder / "data"
        self._databases = 0
        self._as_owner = _as_postgres(folder)
        self._make()

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://postgres@{self.host.address}:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of a database that is empty."""
        self._databases += 1
        name = f"test{self._databases}"
        self.sql(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def sql(self, statement: str, *, database: str = "postgres") -> str:
        """What psql answers to a statement, one line a row."""
        answer = subprocess.run(
            [postgres_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    @property
    def certificate(self) -> Path:
        """What it shows on encrypted connections; nobody else has signed it."""
        return self._data / "server.crt"

    def encrypt(self) -> None:
        """Have it take encrypted connections too, from its next start on."""
        subprocess.run(
            [
                *self._as_owner,
                *(postgres_program("openssl"), "req", "-x509", "-nodes", "-subj", "/CN=test"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-addext", f"subjectAltName=IP:{self.host.address}"),
                *("-keyout", str(self._data / "server.key"), "-out", str(self.certificate)),
            ],
            check=True,
            cwd=self.folder,
            capture_output=True,
        )
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\n")

    def stop(self) -> None:
        """End it at once but in order: open connections are cut."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)
        self._process = None

    def _make(self) -> None:
        subprocess.run(
            [
                *self._as_owner,
                *(postgres_program("initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust"),
                *("--no-sync", "--encoding=UTF8", "--locale=C"),
            ],
            check=True,
            cwd=self.folder,
            capture_output=True,
        )
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")

    def _command(self) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in self._SETTINGS.items()]
        # The kernel forgets the death signal where the user changes, so it is asked for after that.
        return (
            *(*self._as_owner, *DEATH, postgres_program("postgres")),
            *("-D", str(self._data), "-p", str(self.port), "-h", self.host.address, *settings),
        )

    def _answers(self) -> bool:
        program = [postgres_program("pg_isready"), "-q", "-h", self.host.address, "-p", str(self.port)]
        return subprocess.run(program, check=False, timeout=10).returncode == 0


def _as_postgres(folder: Path) -> Sequence[str]:
    """The words before a program of PostgreSQL, which refuses to work for root."""
    if os.geteuid() != 0:
        return ()
    shutil.chown(folder, "postgres", "postgres")
    return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


@contextlib.contextmanager
def open_postgres(host: Host = THIS_HOST, *, is_encrypted: bool = False) -> Iterator[PostgresServer]:
    """A running PostgreSQL, in a folder beside those of pytest: its user may not enter them."""
    postgres_program("initdb")
    with tempfile.TemporaryDirectory(prefix="test-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), host)
        if is_encrypted:
            server.encrypt()
        with server:
            yield server
