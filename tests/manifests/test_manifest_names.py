"""Names in a cluster are DNS labels, and no two environments share one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initializer.manifests.names import environment_name, resource_name

SLUGS = st.from_regex("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
ENVIRONMENTS = st.from_regex("[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?", fullmatch=True)


@given(SLUGS, ENVIRONMENTS)
def test_every_environment_has_a_dns_label_that_ends_with_its_name(slug: str, environment: str) -> None:
    name = environment_name(slug, environment)
    assert re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert name.endswith(f"-{environment}")


@given(SLUGS)
def test_every_resource_name_may_name_a_service(slug: str) -> None:
    assert re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", resource_name(slug))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("shop", "eu-production"), ("shop-eu", "production")),
        (("x" * 60 + "abc", "production"), ("x" * 60 + "abd", "production")),
        (("shop", "staging"), ("shop", "production")),
    ],
)
def test_two_environments_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert environment_name(*one) != environment_name(*other)


def test_the_ordinary_name_is_the_one_that_people_expect() -> None:
    assert environment_name("shop", "production") == "shop-production"
    assert (resource_name("shop"), resource_name("3d-viewer")) == ("shop", "app-3d-viewer")
