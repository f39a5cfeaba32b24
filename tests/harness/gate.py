"""Holds a run within a step, for as long as a test needs: a `git` that waits before it does its work.

The steps stay real; only their moment is the test's to choose. The environment of children is bare, so the
program knows its folder by heart, and the step by the folder it is started in.
"""

import os
import shutil
from pathlib import Path

__all__ = ["Gate"]

_SCRIPT = """#!/bin/sh
case "$PWD" in
  {repositories}/.unfinished/_shared*) step=setup_gitops ;;
  {repositories}/*) step=create_repo ;;
  {work}/*/*) step=${{PWD#{work}/*/}}; step=${{step%%/*}} ;;
  *) step=none ;;
esac
while [ -e "{holds}/$step" ]; do sleep 0.01; done
exec {git} "$@"
"""


class Gate:
    """Give `path` as the server's PATH. What it holds are steps of all runs of that server."""

    def __init__(self, folder: Path, data: Path) -> None:
        git = shutil.which("git")
        assert git is not None
        self._holds = folder / "holds"
        self._holds.mkdir(parents=True)
        program = folder / "bin" / "git"
        program.parent.mkdir()
        program.write_text(
            _SCRIPT.format(repositories=data / "repositories", work=data / "work", holds=self._holds, git=git)
        )
        program.chmod(0o755)
        self.path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"

    def hold(self, step: str) -> None:
        """Let no git of this step begin."""
        (self._holds / step).touch()

    def release(self, step: str) -> None:
        """Let them go on."""
        (self._holds / step).unlink(missing_ok=True)
