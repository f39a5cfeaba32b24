"""What a template is told of a project: text that is safe in every kind of file it lands in."""

import keyword
import re
import sys
from collections.abc import Mapping
from datetime import datetime

__all__ = ["one_line", "package_name", "template_answers"]

# Controls, lone surrogates, line separators, bidirectional overrides ("Trojan Source", CVE-2021-42574) and
# what is no character at all: no name needs them, and TOML, YAML, JSON or a reader trips over each.
_UNWANTED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)

_TAKEN_PACKAGES = frozenset({
    # What the service requires, directly or not
    "anyio", "click", "exceptiongroup", "h11", "idna", "sniffio", "starlette", "typing_extensions", "uvicorn",
    # What those import where it is there, in any version of Python
    "a2wsgi", "annotationlib", "colorama", "dotenv", "gunicorn", "httptools", "httpx", "httpx2",
    "itsdangerous", "jinja2", "multipart", "opentelemetry", "outcome", "pytest", "python_multipart", "trio",
    "uvloop", "watchfiles", "websockets", "winloop", "wsproto", "yaml", "zttp", "zuvloop",
    # Folders of the template
    "src", "test", "tests",
})  # fmt: skip
"""Names that a project's own package must not have: it would be imported in their place."""


def template_answers(
    *, name: str, slug: str, description: str, owner: str, created_at: datetime, template_version: str
) -> Mapping[str, str]:
    """The answers to a template's questions: text only, each on one line."""
    return {
        "name": one_line(name) or slug,
        "slug": slug,
        "package": package_name(slug),
        "description": one_line(description),
        "owner": one_line(owner) or "The authors",
        "year": str(created_at.year),
        "template_version": template_version,
    }


def package_name(slug: str) -> str:
    """A Python package for the slug: one that can be imported, and that hides no other."""
    name = slug.replace("-", "_")
    is_taken = name in _TAKEN_PACKAGES or name in sys.stdlib_module_names
    is_possible = name.isidentifier() and not keyword.iskeyword(name) and not keyword.issoftkeyword(name)
    return f"app_{name}" if is_taken or not is_possible else name


def one_line(text: str) -> str:
    """The text on one line, every run of white space and unwanted characters being one space."""
    return " ".join(_UNWANTED.sub(" ", text).split())
