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
case " $* " in *" push "*) verb=push ;; *) verb=other ;; esac
if [ $verb = push ] && [ -e "{holds}/push" ]; then touch "{holds}/pushing"; fi
echo $$ >> "{holds}/../held"
while [ -e "{holds}/$step" ] || [ -e "{holds}/$verb" ]; do sleep 0.01; done
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
        """Let no git of this step begin; with "push", no push of whatever step."""
        (self._holds / step).touch()

    def is_pushing(self) -> bool:
        """Whether a push has come to be held."""
        return (self._holds / "pushing").exists()

    def held(self) -> list[int]:
        """The processes that wait here, or did."""
        held = self._holds.parent / "held"
        return [int(number) for number in held.read_text().split()] if held.exists() else []

    def release(self, step: str) -> None:
        """Let them go on."""
        (self._holds / step).unlink(missing_ok=True)
