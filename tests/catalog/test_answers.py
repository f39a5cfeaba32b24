"""What a template is told is one line each, and names a package that can be imported."""

import keyword
from datetime import UTC, datetime

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
    ],
)
def test_the_package_can_be_imported_and_hides_no_other(slug: str, package: str) -> None:
    assert package_name(slug) == package


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
