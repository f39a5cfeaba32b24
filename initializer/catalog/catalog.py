"""The templates a project can start from: what each is, and the command that renders it."""

import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import msgspec

from initializer.errors import InitializerError

__all__ = ["Template", "TemplateUnknown", "find_template", "load_catalog", "render_command"]

TEMPLATES = Path(__file__).parent / "templates"

VERSION_CHARACTERS = 16
_LEFT_BEHIND = {"__pycache__", ".DS_Store"}  # what systems put into folders; no part of a template


class TemplateUnknown(InitializerError):
    """There is no template of that name in this version of the catalog."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no template {name!r}; there are {', '.join(load_catalog())}")
        self.name = name


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """One template, as its `template.yaml` describes it."""

    name: str
    title: str
    description: str  # one sentence
    makes: tuple[str, ...]  # what somebody gets, a phrase each
    port: int | None  # what its container listens on; None without a container
    test_command: tuple[str, ...]  # argument list; empty without tests
    version: str  # changes with any byte of the folder
    folder: Path

    def command_for_tests(self, python: str) -> list[str]:
        """The arguments that run the tests in a project's folder, by that interpreter; none without tests."""
        return [argument.replace("{python}", python) for argument in self.test_command]


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    position: int
    title: str
    description: str
    makes: tuple[str, ...]
    port: int | None
    test_command: tuple[str, ...]


@cache
def load_catalog() -> Mapping[str, Template]:
    """All templates by name, in the order in which they are offered. Read once a process."""
    found = [
        (msgspec.yaml.decode(path.read_bytes(), type=_Description), path.parent)
        for path in TEMPLATES.glob("*/template.yaml")
    ]
    found.sort(key=lambda each: (each[0].position, each[1].name))
    return MappingProxyType({folder.name: _template(description, folder) for description, folder in found})


def find_template(name: str) -> Template:
    """The template of that name. Raises `TemplateUnknown`."""
    template = load_catalog().get(name)
    if template is None:
        raise TemplateUnknown(name)
    return template


def render_command(template: Template, destination: Path, answers_file: Path) -> list[str]:
    """The arguments of the child process that renders the template.

    `answers_file` holds the JSON of `template_answers`; `destination` is empty but for a `.git`, or missing.
    The child prints the path of each file it made, relative to `destination`, one a line and sorted; it exits
    with 1 and a sentence on its standard error where it cannot. It needs about half a second and 100 MiB.
    """
    # -P: what stands in the working folder is never imported.
    module = "initializer.catalog.render"
    return [sys.executable, "-P", "-m", module, str(template.folder), str(destination), str(answers_file)]


def _template(description: _Description, folder: Path) -> Template:
    return Template(
        name=folder.name,
        title=description.title,
        description=description.description,
        makes=description.makes,
        port=description.port,
        test_command=description.test_command,
        version=_version(folder),
        folder=folder,
    )


def _version(folder: Path) -> str:
    """A digest of every file's path and content; lengths keep two files from being taken for one."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not _LEFT_BEHIND.intersection(relative.parts):
            for part in (relative.as_posix().encode(), path.read_bytes()):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
    return digest.hexdigest()[:VERSION_CHARACTERS]
