"""What Linux needs so that a group of processes ends with its server, and so that its end can be awaited.

A program is started as `setpriv timeout setpriv program`, from util-linux and coreutils: the kernel signals
`timeout` when its parent is gone, even by kill -9, and `timeout` then kills the process group. `preexec_fn`
could do the first half, but is not safe beside threads. The kernel's signal is tied to the parent's THREAD:
children must be started by a thread that lives as long as they may, the event loop's.
"""

import asyncio
import ctypes
import math
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["bound_to_parent", "end_with_parent", "until_exit", "until_gone"]

BACKSTOP_S = 30
"""How much later than its time limit `timeout` ends a group that nobody looks after any more."""
_PR_SET_PDEATHSIG = 1
DEATH_S = 5.0
"""How long a killed process is waited for; one that hangs in the kernel may take longer."""


def bound_to_parent(command: Sequence[str], timeout_s: float) -> list[str]:
    """The command that runs `command` so that its whole group is killed when our process ends.

    Where the tools are missing (as everywhere but on Linux) it is `command` itself.
    """
    setpriv, timeout = _program("setpriv"), _program("timeout")
    if setpriv is None or timeout is None:
        return list(command)
    backstop_s = str(math.ceil(timeout_s + BACKSTOP_S))
    # SIGALRM tells `timeout` that its own time is up: it kills the whole group, itself included.
    return [
        *(setpriv, "--pdeathsig", "ALRM", "--"),
        *(timeout, "--signal=KILL", backstop_s),
        *(setpriv, "--pdeathsig", "KILL", "--"),
        *command,
    ]


def end_with_parent(parent: int, number: int) -> None:
    """Have this process get a signal when its parent is gone, or now if it is; does nothing but on Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it was gone before the kernel was asked
        os.kill(os.getpid(), number)


async def until_exit(pid: int) -> None:
    """Return when the child has ended; it is left to be reaped."""
    if not hasattr(os, "pidfd_open"):
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = os.pidfd_open(pid)
    try:
        loop.add_reader(descriptor, lambda: None if ended.done() else ended.set_result(None))
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def until_gone(group: int) -> None:
    """Return when nothing of a killed group runs any more: a signal takes a moment to do its work."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DEATH_S):
            while _has_living(group):  # noqa: ASYNC110 - there is no event: these are not our children
                await asyncio.sleep(0.002)


def _has_living(group: int) -> bool:
    """Whether a process of the group runs. A zombie that its parent has not reaped does not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    found = (_state_and_group(folder) for folder in Path("/proc").glob("[0-9]*"))
    return any(its_group == group and state not in "ZX" for state, its_group in found)


def _state_and_group(folder: Path) -> tuple[str, int]:
    """From proc(5): what follows the name, which is in parentheses and may hold anything."""
    try:
        state, _, group, *_ = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return "X", 0
    return state, int(group)


@cache
def _program(name: str) -> str | None:
    return shutil.which(name)
