"""Renders one template: `python -m initializer.catalog.render <template> <destination> <answers file>`.

A process of its own, because Copier changes the working folder and cannot be stopped from outside. It imports
nothing but Copier, to start fast.
"""

import json
import sys
from pathlib import Path

from copier import Settings, run_copy
from copier.errors import CopierError
from jinja2 import TemplateError

__all__ = ["render"]

GIT_FOLDER = ".git"


def render(template: Path, destination: Path, answers: dict[str, str]) -> list[str]:
    """Render the template and give the path of each file made, relative to the destination and sorted.

    No task, migration or extension of the template runs, and no Copier settings of the machine count. Raises
    `FileExistsError` where the destination holds anything but a Git folder: then what was made could
    not be told from what was there.
    """
    if destination.exists() and any(path.name != GIT_FOLDER for path in destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty")
    run_copy(
        str(template),
        destination,
        data=dict(answers),
        settings=Settings(),
        defaults=True,
        overwrite=True,
        quiet=True,
        skip_tasks=True,
        unsafe=False,
    )
    paths = (path.relative_to(destination) for path in destination.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in paths if path.parts[0] != GIT_FOLDER)


def main(arguments: list[str]) -> int:
    """Render what the command line says; the exit code."""
    template, destination, answers_file = (Path(argument).absolute() for argument in arguments)
    try:
        paths = render(template, destination, json.loads(answers_file.read_text(encoding="utf-8")))
    except (CopierError, TemplateError, OSError, ValueError) as error:
        print(f"the template {template.name} could not be rendered: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("\n".join(paths))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
