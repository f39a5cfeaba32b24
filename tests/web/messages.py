"""The messages of the pages: all that templates, handlers and steps say in English."""

import ast
from pathlib import Path

from jinja2 import Environment
from jinja2.ext import extract_from_ast

from initializer.catalog.catalog import load_catalog
from initializer.steps.builtin import pipeline_of
from web.sentences import PATTERNS, PLAIN

__all__ = ["all_messages"]

ROOT = Path(__file__).parents[2]
SAYING = {"gettext", "tell", "N_", "HTTPException"}
"""Functions of `web/` whose literal texts are messages."""


def all_messages() -> set[str]:
    return {*_of_templates(), *_of_handlers(), *_of_the_domain(), *PLAIN, *PATTERNS}


def _of_templates() -> set[str]:
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"])  # noqa: S701
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    found = set()
    for path in sorted((ROOT / "templates").rglob("*.*")):
        for _, function, message in extract_from_ast(environment.parse(path.read_text())):
            if function == "pgettext":
                found.add("\x04".join(filter(None, message)))
            else:
                found.add(message if isinstance(message, str) else message[0])
    return {message for message in found if message}


def _of_handlers() -> set[str]:
    found = set()
    for path in (ROOT / "web").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in SAYING:
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str)}
    return found


def _of_the_domain() -> set[str]:
    templates = load_catalog().values()
    kinds = [[each.title, each.description, *each.makes] for each in templates]
    return {text for texts in kinds for text in texts} | {spec.title for spec in pipeline_of().steps}
