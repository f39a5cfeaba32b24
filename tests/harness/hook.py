"""Holds a push in the middle of its write: git has its locks then, and has not moved the branch."""

from pathlib import Path

from harness.checkout import git

__all__ = ["PushHook"]

_SCRIPT = """#!/bin/sh
[ "$1" = prepared ] || exit 0
touch "{folder}/holding"
while [ -e "{folder}/hold" ]; do sleep 0.01; done
"""


class PushHook:
    """In a bare repository, from now on. `folder` is its own."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        (folder / "hold").touch()
        script = folder / "reference-transaction"
        script.write_text(_SCRIPT.format(folder=folder))
        script.chmod(0o755)
        git("config", "core.hooksPath", folder, folder=repository)

    @property
    def is_holding(self) -> bool:
        """Whether a push has come to be held."""
        return (self._folder / "holding").exists()

    def release(self) -> None:
        """Let it go on, and hold no other."""
        (self._folder / "hold").unlink()
