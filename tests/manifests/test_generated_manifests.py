"""Every manifest that can be generated passes the check, and says what it should."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initializer.catalog.catalog import load_catalog
from initializer.manifests.check import check_manifests
from initializer.manifests.documents import read_documents
from initializer.manifests.gitops import gitops_files, gitops_path
from initializer.manifests.kustomize import environment_files, overlay_path
from initializer.model.parameters import GitOpsTool

URL = "http://localhost:8000/git/shop.git"
CHOICES: list[tuple[str, ...]] = [
    ("development", "staging", "production"),
    ("production",),
    ("prod", "on", "1e3", "null", "0", "eu-west-1", "x" * 30),
    (),
]
TOOLS: tuple[GitOpsTool, ...] = ("flux", "argocd")
SLUGS = ["shop", "1e3", "null", "0", "3d-viewer", "y", "x" * 63, "a--b"]


def document(files: Mapping[str, str], path: str) -> Any:
    [found] = read_documents(files[path])
    return found


@pytest.mark.parametrize(("template", "environments", "slug"), [*product(load_catalog(), CHOICES, SLUGS)])
def test_environments_of_every_template_pass(template: str, environments: tuple[str, ...], slug: str) -> None:
    files = environment_files(slug, environments, port=load_catalog()[template].port)
    assert check_manifests(files) == []
    assert {f"{overlay_path(environment)}/kustomization.yaml" for environment in environments} <= set(files)


@pytest.mark.parametrize(("tool", "environments", "slug"), [*product(TOOLS, CHOICES, SLUGS)])
def test_gitops_of_every_tool_passes(tool: GitOpsTool, environments: tuple[str, ...], slug: str) -> None:
    files = gitops_files(slug, environments, tool, URL)
    assert check_manifests(files) == []
    assert all(path.startswith(f"{gitops_path(slug)}/") for path in files)


@settings(max_examples=30)
@given(
    slug=st.from_regex("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    environments=st.lists(
        st.from_regex("[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?", fullmatch=True), max_size=3, unique=True
    ),
    port=st.none() | st.integers(1, 65535),
    tool=st.sampled_from(TOOLS),
)
def test_whatever_is_chosen_passes(
    slug: str, environments: list[str], port: int | None, tool: GitOpsTool
) -> None:
    files = {
        **environment_files(slug, environments, port=port),
        **gitops_files(slug, environments, tool, URL),
    }
    assert check_manifests(files) == []


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = (environment_files("shop", ["production"], port=8000) for _ in range(2))
    assert list(first.items()) == list(second.items())


def test_gitops_points_at_the_overlay_in_the_projects_repository() -> None:
    flux = gitops_files("shop", ["staging"], "flux", URL)
    sync = document(flux, "projects/shop/staging/sync.yaml")["spec"]
    source = document(flux, "projects/shop/staging/source.yaml")
    assert sync["path"] == f"./{overlay_path('staging')}"
    assert (source["spec"]["url"], source["metadata"]["name"]) == (URL, sync["sourceRef"]["name"])
    argo_cd = gitops_files("shop", ["staging"], "argocd", URL)
    application = document(argo_cd, "projects/shop/staging/application.yaml")["spec"]
    assert application["source"]["path"] == overlay_path("staging")
    overlay = environment_files("shop", ["staging"], port=None)
    namespace = document(overlay, "deploy/overlays/staging/kustomization.yaml")["namespace"]
    assert application["destination"]["namespace"] == namespace == "shop-staging"


def test_production_runs_more_than_one_and_others_run_one() -> None:
    files = environment_files("shop", ["development", "production"], port=8000)
    assert document(files, "deploy/overlays/production/replicas.yaml")["spec"]["replicas"] == 2
    assert "deploy/overlays/development/replicas.yaml" not in files


def test_the_container_is_what_the_restricted_pod_security_standard_allows() -> None:
    pod = document(environment_files("shop", [], port=8080), "deploy/base/deployment.yaml")["spec"][
        "template"
    ]
    [container] = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["ports"][0]["containerPort"] == 8080


def test_the_image_of_a_registry_takes_the_place_of_the_slug() -> None:
    files = environment_files("shop", ["staging"], port=8000, image="registry.example/team/shop")
    [image] = document(files, "deploy/overlays/staging/kustomization.yaml")["images"]
    assert (image["name"], image["newName"]) == ("shop", "registry.example/team/shop")
