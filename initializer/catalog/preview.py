"""What a template will make, told without making it: the paths of its files."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import jinja2
import msgspec
from jinja2.sandbox import SandboxedEnvironment

from initializer.catalog.catalog import Template

__all__ = ["preview_paths"]

_SUFFIX = ".jinja"
_PATHS = SandboxedEnvironment()


class _Settings(msgspec.Struct):
    subdirectory: str = msgspec.field(name="_subdirectory")
    exclude: tuple[str, ...] = msgspec.field(name="_exclude")


def preview_paths(template: Template, answers: Mapping[str, str]) -> list[str]:
    """The path of each file that rendering the template with these answers gives, sorted.

    Copier's rules for paths: each is a template itself, its suffix falls off, and one with an empty part
    makes nothing. `tests/catalog/test_preview.py` holds it against what Copier makes.
    """
    made = set()
    for source in _sources(template.folder, template.version):
        parts = [_part(part).render(answers) for part in source.parts]
        if all(parts):
            made.add(PurePosixPath(*parts).as_posix())
    return sorted(made)


@cache
def _part(name: str) -> jinja2.Template:
    """A part of a path, compiled once: the form asks at every pause of typing."""
    return _PATHS.from_string(name.removesuffix(_SUFFIX))


@cache
def _sources(folder: Path, _version: str) -> tuple[PurePosixPath, ...]:
    """The files of a template, relative to what becomes the project; read once a version."""
    settings = msgspec.yaml.decode((folder / "copier.yml").read_bytes(), type=_Settings)
    root = folder / settings.subdirectory
    found = (path.relative_to(root) for path in root.rglob("*") if not path.is_dir())
    return tuple(
        PurePosixPath(path)
        for path in found
        if not any(PurePosixPath(part).match(pattern) for part in path.parts for pattern in settings.exclude)
    )
