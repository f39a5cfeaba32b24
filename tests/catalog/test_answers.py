"""What a template is told is one line each, and names a package that can be imported."""

import ast
import keyword
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initializer.catalog.answers import one_line, package_name, template_answers


@pytest.mark.parametrize(
    ("slug", "package"),
    [
        ("shop", "shop"),
        ("web-shop", "web_shop"),
        ("3d-viewer", "app_3d_viewer"),
        ("class", "app_class"),
        ("match", "app_match"),
        ("json", "app_json"),
        ("asyncio", "app_asyncio"),
        ("starlette", "app_starlette"),
        ("tests", "app_tests"),
        ("typing-extensions", "app_typing_extensions"),
        ("websockets", "app_websockets"),
    ],
)
def test_the_package_can_be_imported_and_hides_no_other(slug: str, package: str) -> None:
    assert package_name(slug) == package


def test_the_package_hides_nothing_that_what_the_service_requires_tries_to_import() -> None:
    required = {"anyio", "click", "h11", "idna", "starlette", "typing_extensions", "uvicorn"}
    tried = required | {name for package in required for name in imports_of(package)}
    assert {"httptools", "uvloop", "websockets", "yaml"} <= tried
    slugs = {name.replace("_", "-") for name in tried if not name.startswith("_")}
    assert [slug for slug in sorted(slugs) if not package_name(slug).startswith("app_")] == []


def imports_of(package: str) -> Iterator[str]:
    """What any module of an installed package names in an import, also where it bears that it is missing."""
    spec = find_spec(package)
    assert spec is not None
    folders = spec.submodule_search_locations
    for file in Path(folders[0]).rglob("*.py") if folders else [Path(str(spec.origin))]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


@given(st.from_regex("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_every_slug_has_a_package(slug: str) -> None:
    assert package_name(slug).isidentifier()
    assert not keyword.iskeyword(package_name(slug))


@given(st.text())
def test_every_text_becomes_one_line_and_stays_so(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert "\x00" not in line
    assert one_line(line) == line
    line.encode()


def test_emoji_and_other_scripts_are_kept_and_hidden_text_is_not() -> None:
    assert one_line(" Größe \n 日本 👩\u200d💻\t") == "Größe 日本 👩\u200d💻"
    assert one_line("a\u202eb\x00c\ud800d") == "a b c d"


def test_what_is_empty_gets_a_name_that_is_not() -> None:
    answers = template_answers(
        name="\n",
        slug="shop",
        description="",
        owner="",
        created_at=datetime(2026, 11, 24, tzinfo=UTC),
        template_version="1",
    )
    assert (answers["name"], answers["owner"], answers["year"]) == ("shop", "The authors", "2026")
