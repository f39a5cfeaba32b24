"""Git as the person uses it who has just got a project."""

import subprocess
from pathlib import Path

__all__ = ["clone", "commits_of", "git"]

_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}


def git(*arguments: str | Path, folder: Path) -> str:
    """The standard output of git in a folder."""
    answer = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=folder,
        env={**_ENVIRONMENT, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def clone(url: str, folder: Path) -> Path:
    """A clone of the URL in a new folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    git("clone", "--quiet", url, folder, folder=folder.parent)
    return folder


def commits_of(repository: Path, project: str) -> list[str]:
    """The step of each commit of `main` that says it was made for the project, oldest first."""
    form = "%(trailers:key=Initializer-Project,valueonly,separator=%x2C) "
    form += "%(trailers:key=Initializer-Step,valueonly,separator=%x2C)"
    lines = git("log", "--reverse", f"--format={form}", "main", folder=repository).splitlines()
    return [step for found, _, step in (line.partition(" ") for line in lines) if found == project]
