"""What a push starts at a repository of this machine: `git receive-pack`, one at a time, past dead locks.

A git that is killed in mid-write leaves lock files behind, of which every later push would fail. So a push
holds the file `pushing`, which the kernel gives free with the last process of that push: whoever gets it
knows that no other push is under way. A lock that is there all the same is a dead git's, or of one that
somebody runs by hand, and that one holds it for a moment only.

A program of its own, started without the packages of this app: it costs each push some 20 ms.
"""

import fcntl
import os
import sys
import time
from pathlib import Path

__all__ = ["LOCK_PATTERNS", "main", "remove_dead_locks"]

LOCK_PATTERNS = ("*.lock", "refs/**/*.lock")
"""Where git has its locks in a bare repository."""
MOMENT_S = 3.0
"""How long a lock has to stand unchanged to be a dead git's."""
_HELD = "pushing"
_PROGRAM = "git-receive-pack"


def main(repository: Path) -> None:
    """Become `git receive-pack`, once nobody else pushes to the repository."""
    if repository.is_dir():
        descriptor = os.open(repository / _HELD, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.set_inheritable(descriptor, True)  # held as long as git, and what it starts, lives
        remove_dead_locks(repository)
    os.execvp(_PROGRAM, [_PROGRAM, str(repository)])  # noqa: S606 - git found it so, too


def remove_dead_locks(repository: Path) -> None:
    """Remove git's locks that stand there for a moment and are still the same."""
    seen = _locks(repository)
    if not seen:
        return
    time.sleep(MOMENT_S)
    for path, identity in _locks(repository).items():
        if seen.get(path) == identity:
            path.unlink(missing_ok=True)


def _locks(repository: Path) -> dict[Path, tuple[int, int]]:
    """Each lock and what tells it from another of the same name."""
    found = {}
    for path in (it for pattern in LOCK_PATTERNS for it in repository.glob(pattern)):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = status.st_ino, status.st_mtime_ns
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
