import pytest
from hypothesis import given
from hypothesis import strategies as st

from initializer.model.names import RESERVED_SLUGS, is_environment, is_slug, slug_of


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Payments API", "payments-api"),
        ("  --Ünïcode__Straße!! ", "unicode-strasse"),
        ("支付服务", "zhifufuwu"),
        ("🚀", "rocket"),
        ("a" * 62 + " b", "a" * 62),
        ("a" * 100, "a" * 63),
        ("2048", "2048"),
        ("...", ""),
        ("", ""),
    ],
)
def test_the_slug_of_a_name_spells_it_in_ascii(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@given(st.text(max_size=80))
def test_a_slug_is_a_dns_label_or_empty(name: str) -> None:
    slug = slug_of(name)
    assert slug == "" or is_slug(slug)
    assert slug_of(slug) == slug


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a" * 64, "a\n", "ä", "../x", "a.b"])
def test_what_is_no_slug(text: str) -> None:
    assert not is_slug(text)


@pytest.mark.parametrize("text", ["a", "a-b", "0", "a" * 63])
def test_what_is_a_slug(text: str) -> None:
    assert is_slug(text)


def test_what_the_platform_needs_is_reserved_and_could_be_typed() -> None:
    assert {"gitops", "new"} <= RESERVED_SLUGS
    assert all(slug_of(slug) == slug for slug in RESERVED_SLUGS)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("qa", True), ("a" * 30, True), ("a" * 31, False), ("QA", False), ("qa-", False), ("", False)],
)
def test_environments_are_short_dns_labels(text: str, answer: bool) -> None:
    assert is_environment(text) is answer
