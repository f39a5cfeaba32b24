"""Processes that others have started, found by where they work."""

from pathlib import Path

__all__ = ["children_in"]


def children_in(folder: Path) -> list[int]:
    """The processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
        except OSError:
            continue
    return found
