"""Where the processes of a test run: on this machine, or on hosts of their own, whose cable can be pulled.

A host is a network namespace of Linux; one bridge connects them all with each other and with the test.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pytest

__all__ = ["THIS_HOST", "Host", "Network"]


@dataclass(frozen=True)
class Host:
    """A network address, and the words before a command that is to run there."""

    address: str
    enter: Sequence[str] = ()
    cable: str = ""


THIS_HOST = Host("127.0.0.1")


class Network:
    """Hosts by name, while it is open. Needs root and iproute2; elsewhere the test is skipped, loudly."""

    _NET = "10.213.77"

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("NOT TESTED: network namespaces need root and ip, of the Debian package iproute2")
        self._prefix = f"pi{os.getpid() % 100_000}"
        self._bridge = f"{self._prefix}b"
        self._namespaces: list[str] = []

    def __enter__(self) -> Self:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._NET}.254/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self._namespaces:
            _ip("netns", "del", namespace)
        _ip("link", "del", self._bridge)

    def host(self) -> Host:
        """Another host."""
        number = len(self._namespaces) + 1
        namespace, cable = f"{self._prefix}-{number}", f"{self._prefix}v{number}"
        address = f"{self._NET}.{number}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", link, "up")
        _ip("link", "set", cable, "master", self._bridge, "up")
        return Host(address, ("ip", "netns", "exec", namespace), cable)

    def pull(self, host: Host) -> None:
        """Drop all packets from and to a host: nobody is told."""
        _ip("link", "set", host.cable, "nomaster")

    def plug(self, host: Host) -> None:
        """Let them through again."""
        _ip("link", "set", host.cable, "master", self._bridge)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
