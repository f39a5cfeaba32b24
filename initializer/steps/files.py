"""Files of a work folder: written and read without ever leaving it."""

from collections.abc import Mapping
from pathlib import Path

from initializer.steps.step import StepError

__all__ = ["read_texts", "tree_of", "write_files"]

MAX_TEXT_BYTES = 1_000_000


def tree_of(folder: Path) -> list[str]:
    """The paths of all files under `folder`, relative to it and sorted; `.git` is left out.

    Raises `StepError` for a symbolic link that points out of the folder.
    """
    root = folder.resolve()
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if name.parts[0] == ".git":
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise StepError(f"the file {name} is a link that points out of its repository")
        if path.is_symlink() or path.is_file():
            found.append(name.as_posix())
    return found


def read_texts(folder: Path, names: list[str]) -> dict[str, str]:
    """The text of each named file, invalid bytes replaced, cut at 1,000,000 bytes."""
    texts = {}
    for name in names:
        with (folder / name).open("rb") as file:
            texts[name] = file.read(MAX_TEXT_BYTES + 1).decode(errors="replace")
    return texts


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write text files by their paths relative to `folder`. Raises `StepError` where one would leave it."""
    root = folder.resolve()
    for name, text in files.items():
        path = root / name
        if not path.resolve().is_relative_to(root):
            raise StepError(f"the file {name} would lie outside of its repository")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
