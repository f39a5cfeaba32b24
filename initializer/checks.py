"""What must be true of this machine before the app starts, one clear sentence a fault."""

import asyncio
import contextlib
import errno
import fcntl
import importlib.util
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import asyncpg
import msgspec

from initializer.errors import InitializerError
from initializer.forges.git import MINIMUM_GIT
from initializer.projects.address import sqlite_file
from initializer.projects.database import has_no_space
from initializer.redis_client import RedisUnfit, examine_redis, open_redis
from initializer.settings import BadSetting, Settings

__all__ = [
    "CheckFailed",
    "Finding",
    "bind",
    "check_database",
    "check_engine",
    "check_git",
    "check_servers",
    "examine",
    "hold_data_folder",
]

MIN_FREE_BYTES = 1_000_000
"""With less on its disk, the app could write no row."""
SERVER_LIMIT_S = 10
"""How long PostgreSQL may take to answer at the start."""


class CheckFailed(InitializerError):
    """Something on this machine is not as the app needs it; the message says what to do."""


def check_git() -> str:
    """The version of the git program. Raises `CheckFailed` where it is missing or too old."""
    program = shutil.which("git")
    if program is None:
        raise CheckFailed("git is not installed: install it, for example with: apt-get install git")
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckFailed(f"git at {program} cannot be started: {error}") from error
    found = re.search(r"\d+(\.\d+)+", answer.stdout)
    version = tuple(map(int, found.group().split(".")[:2])) if found else (0, 0)
    if version < MINIMUM_GIT:
        needed = ".".join(map(str, MINIMUM_GIT))
        raise CheckFailed(
            f"git {found.group() if found else 'of unknown version'} is too old: {needed} is needed"
        )
    return ".".join(map(str, version))


@contextlib.contextmanager
def hold_data_folder(folder: Path, *, is_shared: bool = False) -> Iterator[None]:
    """Hold the lock on the data folder: one process at a time works in it, or several that all share it.

    Raises `CheckFailed` where it cannot be written, its disk is full or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CheckFailed(f"DATA_DIR {folder} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CheckFailed(
            f"DATA_DIR {folder} is in use by another process of this app: stop it, or set another DATA_DIR"
        ) from None
    except OSError as error:  # a network file system without locks
        os.close(descriptor)
        raise CheckFailed(f"DATA_DIR {folder} cannot be locked: {error.strerror}") from error
    try:
        _check_room(folder)
        yield
    finally:
        os.close(descriptor)


def _check_room(folder: Path) -> None:
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < MIN_FREE_BYTES:  # some file systems tell neither
        raise CheckFailed(f"DATA_DIR {folder} is on a disk without space: make room there")


def check_database(url: str) -> None:
    """Raises `CheckFailed` where the SQLite file of `DATABASE_URL` cannot be opened, or is something else."""
    try:
        with contextlib.closing(sqlite3.connect(sqlite_file(url), timeout=5)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        if has_no_space(error):
            raise CheckFailed(f"DATABASE_URL {url} is on a disk without space: make room there") from error
        raise CheckFailed(f"DATABASE_URL {url} cannot be opened: {error}") from error


def bind(settings: Settings) -> socket.socket:
    """A socket bound to `HOST` and `PORT`. Raises `CheckFailed` where that is not to be had."""
    try:
        addresses = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = addresses[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)  # taken for good: two sockets may be bound to one port, but not listen on it
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CheckFailed(
                f"PORT {settings.port} on {settings.host} is in use: stop what uses it, or set another PORT"
            ) from error
        raise CheckFailed(
            f"HOST {settings.host}, PORT {settings.port} cannot be served: {error.strerror or error}"
        ) from error
    return bound


def check_engine(settings: Settings) -> None:
    """Raises `CheckFailed` where the package that `ENGINE` needs is not installed."""
    if settings.has_workers and importlib.util.find_spec("bullmq") is None:
        raise CheckFailed(
            "ENGINE is bullmq, but the package bullmq is not installed: install project-initializer[bullmq], "
            "or what requirements-bullmq.lock names"
        )


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at, in a sentence."""

    is_ok: bool
    sentence: str


def examine(environ: Mapping[str, str]) -> list[Finding]:
    """Everything that a start would check, without starting."""
    findings = [_finding(lambda: f"git {check_git()} is there")]
    try:
        settings = Settings.from_environ(environ)
    except BadSetting as fault:
        return [*findings, Finding(is_ok=False, sentence=str(fault))]
    findings += [_finding(lambda: _examine_data(settings)), _finding(lambda: _examine_port(settings))]
    if settings.is_on_servers:
        findings.append(_finding(lambda: _examine_servers(settings)))
    if settings.has_workers:
        findings.append(_finding(lambda: _examine_engine(settings)))
    return findings


def check_servers(settings: Settings) -> list[str]:
    """What is unwise about PostgreSQL and Redis, a sentence each.

    Raises `CheckFailed` where they cannot be used.
    """
    return asyncio.run(_check_servers(settings))


async def _check_servers(settings: Settings) -> list[str]:
    try:
        connection = await asyncpg.connect(settings.database_url, timeout=SERVER_LIMIT_S)
        await connection.close()
    except FileNotFoundError as error:
        raise CheckFailed("DATABASE_URL names a file in sslrootcert that is not there") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or "it does not answer"
        raise CheckFailed(f"DATABASE_URL names a PostgreSQL that cannot be used: {reason}") from error
    try:
        async with open_redis(settings.redis_url) as client:
            return await examine_redis(client)
    except (RedisUnfit, ValueError) as error:
        raise CheckFailed(str(error)) from error


def _examine_servers(settings: Settings) -> str:
    warnings = check_servers(settings)
    return "; ".join(["PostgreSQL and Redis answer", *warnings])


def _examine_engine(settings: Settings) -> str:
    check_engine(settings)
    return "bullmq is there: runs are performed by `initializer worker`"


def _examine_data(settings: Settings) -> str:
    with hold_data_folder(settings.data_dir, is_shared=settings.is_on_servers):
        if not settings.is_on_servers:
            check_database(settings.database_url)
        return f"DATA_DIR {settings.data_dir} can be written"


def _examine_port(settings: Settings) -> str:
    bind(settings).close()
    return f"PORT {settings.port} on {settings.host} is free"


def _finding(check: Callable[[], str]) -> Finding:
    try:
        return Finding(is_ok=True, sentence=check())
    except CheckFailed as fault:
        return Finding(is_ok=False, sentence=str(fault))
