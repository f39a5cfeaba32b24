"""Where the processes of a test run: on this machine, or on hosts of their own, whose cable can be pulled.

A host is a network namespace of Linux; a bridge in one more connects them all with each other and with the
test. The namespaces have no names: each lives as long as a process that holds it, and those end with pytest,
so that a run that was killed leaves nothing that would be in the way of the next.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pytest

__all__ = ["DEATH", "THIS_HOST", "Host", "Network"]

DEATH = ("setpriv", "--pdeathsig", "KILL")
"""The words before a command that the kernel is to end with the thread that started it."""


@dataclass(frozen=True)
class Host:
    """A network address, and the words before a command that is to run there."""

    address: str
    enter: Sequence[str] = ()
    cable: str = ""


THIS_HOST = Host("127.0.0.1")


class Network:
    """Hosts, while it is open. Needs root and iproute2; elsewhere the test is skipped, loudly."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("NOT TESTED: network namespaces need root and ip, of the Debian package iproute2")
        pid = os.getpid()
        # One of its own for each test process of the machine, or packets would go the wrong way.
        self._net = f"10.{200 + pid // 250 % 50}.{pid % 250}"
        self._cable = f"pi{pid}"
        self._holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._switch = self._namespace()
        _run(*self._switch, "ip", "link", "add", "bridge", "type", "bridge")
        _run(*self._switch, "ip", "link", "set", "bridge", "up")
        self._connect((), self._cable, f"{self._net}.254", "test")
        return self

    def __exit__(self, *_: object) -> None:
        # What the test had in the network goes at once; the kernel clears namespaces away in its own time.
        _run("ip", "link", "del", self._cable)
        for holder in self._holders:
            holder.kill()
            holder.wait()

    def host(self) -> Host:
        """Another host."""
        number = len(self._holders)
        address, cable = f"{self._net}.{number}", f"host{number}"
        enter = self._namespace()
        _run(*enter, "ip", "link", "set", "lo", "up")
        self._connect(enter, "eth0", address, cable)
        return Host(address, enter, cable)

    def pull(self, host: Host) -> None:
        """Drop all packets from and to a host: nobody is told."""
        _run(*self._switch, "ip", "link", "set", host.cable, "nomaster")

    def plug(self, host: Host) -> None:
        """Let them through again."""
        _run(*self._switch, "ip", "link", "set", host.cable, "master", "bridge")

    def _connect(self, enter: Sequence[str], interface: str, address: str, cable: str) -> None:
        switch = str(self._holders[0].pid)
        _run(*enter, *("ip", "link", "add", interface, "type", "veth"), *("peer", cable, "netns", switch))
        _run(*enter, "ip", "addr", "add", f"{address}/24", "dev", interface)
        _run(*enter, "ip", "link", "set", interface, "up")
        _run(*self._switch, "ip", "link", "set", cable, "master", "bridge", "up")

    def _namespace(self) -> Sequence[str]:
        """The words before a command that is to run in a namespace of its own."""
        holder = subprocess.Popen(
            [*DEATH, "unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE
        )
        self._holders.append(holder)
        assert holder.stdout is not None
        with holder.stdout:
            assert holder.stdout.readline() == b"\n"
        return ("nsenter", f"--net=/proc/{holder.pid}/ns/net")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=10)
