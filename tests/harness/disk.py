"""A disk that really fills: a small file system in memory, mounted for as long as a test needs it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

__all__ = ["SmallDisk"]

_SIZE = "16m"
_PIECE_BYTES = 4096
_MOUNT = """
mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted
read -r _  # ends with the test, whatever ends that
umount --lazy "$2"
"""


class SmallDisk:
    """The disk at `folder`, while it is open. Needs root; elsewhere the test is skipped, loudly."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("NOT TESTED: a disk that fills needs root and mount, of the Debian package mount")
        self._folder.mkdir(parents=True)
        self._holder = subprocess.Popen(
            ["sh", "-c", _MOUNT, "sh", _SIZE, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            _, errors = self._holder.communicate()
            pytest.skip(f"NOT TESTED: no disk can be mounted here: {errors.decode().strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    def fill(self) -> None:
        """Leave no room for another byte, but in the last pages of files that are there."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while os.write(descriptor, b"x" * _PIECE_BYTES):
                pass
        except OSError as full:
            assert full.strerror == "No space left on device"
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        """Give back what was filled."""
        self._ballast.unlink()
