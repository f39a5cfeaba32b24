"""Child programs: no shell, no terminal, a bare environment, limits, and an end that is always reached."""

import asyncio
import errno
import os
import re
import resource
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from initializer.errors import InitializerError
from initializer.lines import LineSplitter
from initializer.process_groups import bound_to_parent, until_exit, until_gone

__all__ = ["Child", "CommandFailed", "CommandTimedOut", "Limits", "RunCommand", "open_child", "run_program"]

GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
STDOUT_BYTES = 4_000_000
LAST_LINES = 20
_READ_BYTES = 64 * 1024
_LINES_PER_TURN = 500
"""How many lines are handed on before the event loop gets its turn: at most some milliseconds of work."""
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
_NO_ROOM_PAUSE_S = 0.2
_DRAIN_S = 5.0
"""How long output is read after the end, where a process that left the group holds the pipe open."""


class CommandFailed(InitializerError):
    """A program exited with anything but 0. `status` is negative where a signal ended it."""

    def __init__(
        self, command: Sequence[str], status: int | None, last_lines: Sequence[str], what: str = ""
    ) -> None:
        self.command, self.status, self.last_lines = tuple(command), status, tuple(last_lines)
        super().__init__(_without_secrets(f"{_title(command)} {what or _what_happened(status, last_lines)}"))


class CommandTimedOut(CommandFailed):
    """A program outlived its limit and was ended; `status` is None."""

    def __init__(self, command: Sequence[str], timeout_s: float, last_lines: Sequence[str]) -> None:
        super().__init__(command, None, last_lines, f"did not end within {timeout_s:g} s and was stopped")
        self.timeout_s = timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use; each process of it, except `processes`, which the kernel counts per user.

    The kernel does not hold root to `processes`. None is no limit.
    """

    memory_bytes: int | None = None  # address space
    cpu_s: int | None = None
    file_bytes: int | None = None  # size of each file written
    processes: int | None = None

    def options(self) -> list[str]:
        """As options of prlimit, none above what the system grants this process: only root may raise that."""
        limits = (
            ("as", resource.RLIMIT_AS, self.memory_bytes),
            ("cpu", resource.RLIMIT_CPU, self.cpu_s),
            ("fsize", resource.RLIMIT_FSIZE, self.file_bytes),
            ("nproc", resource.RLIMIT_NPROC, self.processes),
        )
        return [f"--{name}={_granted(kind, value)}" for name, kind, value in limits if value is not None]


class RunCommand(Protocol):
    """How a program is run: `StepContext.run_command`, or `run_program` with some choices already made."""

    async def __call__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
        log_output: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """The standard output. Raises `CommandFailed`."""


class Child:
    """A running program. `stdout` and `stderr` pause the program while nobody reads them."""

    def __init__(self, command: Sequence[str], popen: "subprocess.Popen[bytes]") -> None:
        self.command, self.pid = tuple(command), popen.pid
        self.stdout = asyncio.StreamReader(limit=_READ_BYTES)
        self.stderr = asyncio.StreamReader(limit=_READ_BYTES)
        self._popen = popen
        self._transports: list[asyncio.ReadTransport] = []

    async def wait(self) -> int:
        """The exit status, once it has ended; what it left running in its group is killed."""
        if self._popen.returncode is None:
            await until_exit(self.pid)
            # Before it is reaped: until then nobody else can get this group number.
            self.signal(signal.SIGKILL)
            self._popen.wait()
        await until_gone(self.pid)
        return self._popen.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, if the program has not been reaped."""
        if self._popen.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for reader, pipe in ((self.stdout, self._popen.stdout), (self.stderr, self._popen.stderr)):
            protocol = asyncio.StreamReaderProtocol(reader)
            assert pipe is not None
            source = _handed_over(pipe, loop)
            transport, _ = await loop.connect_read_pipe(lambda it=protocol: it, source)  # type: ignore[misc]
            self._transports.append(transport)

    async def _end(self) -> None:
        """End the group and reap it. A cancellation meanwhile ends the grace and travels on afterwards."""
        ending = asyncio.create_task(self._end_with_grace())
        is_cancelled = False
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                is_cancelled = True
                self.signal(signal.SIGKILL)
        self._close()
        ending.result()
        if is_cancelled:
            raise asyncio.CancelledError

    async def _end_with_grace(self) -> None:
        if self._popen.returncode is not None:
            await until_gone(self.pid)
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(GRACE_S):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    def _close(self) -> None:
        for transport in self._transports:
            transport.close()
        for pipe in (self._popen.stdout, self._popen.stderr)[len(self._transports) :]:
            if pipe is not None:
                pipe.close()


def _handed_over(pipe: IO[bytes], loop: asyncio.AbstractEventLoop) -> IO[bytes]:
    """The pipe for a transport, which then closes it.

    uvloop (0.23, `handles/handle.pyx`) closes a pipe's descriptor and then its file object as well: between
    the two a thread may have opened another file of that number, and loses it. So it gets a file object that
    closes nothing.
    """
    if not type(loop).__module__.startswith("uvloop"):
        return pipe
    descriptor = os.dup(pipe.fileno())
    pipe.close()
    return open(descriptor, "rb", buffering=0, closefd=False)  # libuv closes it


@asynccontextmanager
async def open_child(
    command: Sequence[str],
    *,
    home: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60,
    limits: Limits | None = None,
    stdin: IO[bytes] | None = None,
) -> AsyncIterator[Child]:
    """A program that runs within the block, and whose group is ended and reaped when the block is left.

    It sees PATH, LANG, HOME and `env`, nothing of the server's environment. The caller keeps the time limit;
    `timeout_s` only bounds how long the child can outlive a server that was killed at the wrong moment.
    Raises `CommandFailed` where there is no such program.
    """
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        **(env or {}),
    }
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise CommandFailed(command, None, (), "could not be started: there is no such program")
    started = bound_to_parent(_with_limits(command, limits), timeout_s)
    child = Child(command, await _started(started, cwd or home, environment, stdin))
    try:
        await child._connect()
        yield child
    finally:
        await child._end()


async def run_program(
    command: Sequence[str],
    *,
    home: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60,
    limits: Limits | None = None,
    on_line: Callable[[str], None] | None = None,
    stdout_bytes: int = STDOUT_BYTES,
) -> str:
    """Run a program to its end and give its standard output, cut after `stdout_bytes`.

    `on_line` gets each line of both streams as it comes (cut, decoded: `LineSplitter`). Raises
    `CommandFailed`, `CommandTimedOut`; by then, as on cancellation, its whole group is gone.
    """
    output = bytearray()
    last_lines: deque[str] = deque(maxlen=LAST_LINES)

    def keep(data: bytes) -> None:
        output.extend(data[: max(0, stdout_bytes - len(output))])

    async def pump(reader: asyncio.StreamReader, on_data: Callable[[bytes], None] | None) -> None:
        splitter = LineSplitter()
        lines_of_turn = 0
        while data := await reader.read(_READ_BYTES):
            if on_data is not None:
                on_data(data)
            for line in splitter.feed(data):
                hand_on(line, is_error=on_data is None)
                lines_of_turn += 1
                if lines_of_turn % _LINES_PER_TURN == 0:
                    await asyncio.sleep(0)
        for line in splitter.end():
            hand_on(line, is_error=on_data is None)

    def hand_on(line: str, *, is_error: bool) -> None:
        if is_error:
            last_lines.append(line)
        if on_line is not None:
            on_line(line)

    limit = asyncio.timeout(timeout_s)
    try:
        async with (
            open_child(command, home=home, cwd=cwd, env=env, timeout_s=timeout_s, limits=limits) as child,
            limit,
            asyncio.TaskGroup() as group,
        ):
            pumps = [
                group.create_task(pump(child.stdout, keep)),
                group.create_task(pump(child.stderr, None)),
            ]
            status = await child.wait()
            await asyncio.wait(pumps, timeout=_DRAIN_S)
            for task in pumps:
                task.cancel()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CommandTimedOut(command, timeout_s, last_lines) from error
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # what `on_line` raised
    if status != 0:
        raise CommandFailed(command, status, last_lines)
    return output.decode(errors="replace")


async def _started(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: IO[bytes] | None
) -> "subprocess.Popen[bytes]":
    """Start as soon as the machine has room: a full table of files or processes is no fault of the step's.

    The caller's time limit bounds the wait. Between the start and the return nothing can be cancelled.
    """
    while True:
        try:
            return _start(command, cwd, env, stdin)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
        await asyncio.sleep(_NO_ROOM_PAUSE_S)


def _start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: IO[bytes] | None
) -> "subprocess.Popen[bytes]":
    """Start at once, without an await in which a cancellation could lose the child."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )


def _granted(kind: int, value: int) -> int:
    _, hard = resource.getrlimit(kind)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _with_limits(command: Sequence[str], limits: Limits | None) -> list[str]:
    options = limits.options() if limits else []
    if options and (prlimit := shutil.which("prlimit")):
        return [prlimit, "--core=0", *options, "--", *command]
    return list(command)


def _title(command: Sequence[str]) -> str:
    """The program and its first plain word: never an option, an address or a path."""
    program = Path(command[0]).name
    word = next((it for it in command[1:] if re.fullmatch(r"[a-z][a-z-]*", it)), "")
    return f"{program} {word}".rstrip()


def _what_happened(status: int | None, last_lines: Sequence[str]) -> str:
    reason = next((line.strip() for line in reversed(last_lines) if line.strip()), "")
    ended = f"was ended by signal {-status}" if status and status < 0 else f"ended with exit status {status}"
    return f"{ended}: {reason}" if reason else ended


def _without_secrets(text: str) -> str:
    """Without the credentials that a URL may carry."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)
