"""Each kind of mistake in a manifest is found, and told in a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initializer.manifests.check import Problem, check_manifests
from initializer.manifests.gitops import gitops_files
from initializer.manifests.kustomize import environment_files

URL = "https://git.example/shop.git"
FILES = {
    **environment_files("shop", ["development", "production"], port=8000),
    **gitops_files("shop", ["development"], "flux", URL),
    "projects/argo/application.yaml": gitops_files("shop", ["dev"], "argocd", URL)[
        "projects/shop/dev/application.yaml"
    ],
}
DEPLOYMENT = "deploy/base/deployment.yaml"
BASE = "deploy/base/kustomization.yaml"
OVERLAY = "deploy/overlays/production/kustomization.yaml"
PATCH = "deploy/overlays/production/replicas.yaml"
SOURCE = "projects/shop/development/source.yaml"
SYNC = "projects/shop/development/sync.yaml"
APPLICATION = "projects/argo/application.yaml"


def sentences(**changes: str) -> list[str]:
    return [str(problem) for problem in check_manifests({**FILES, **changes})]


def test_what_is_generated_has_no_problem() -> None:
    assert sentences() == []


@pytest.mark.parametrize(
    ("path", "old", "new", "sentence"),
    [
        (
            DEPLOYMENT,
            "replicas: 1",
            "replcas: 1",
            "spec has the unknown field replcas; did you mean replicas?",
        ),
        (DEPLOYMENT, "replicas: 1", 'replicas: "1"', "spec.replicas must be a whole number, not text"),
        (
            DEPLOYMENT,
            "    spec:\n",
            "    spac:\n",
            "spec.template has the unknown field spac; did you mean spec?",
        ),
        (DEPLOYMENT, "kind: Deployment", "kind: Deploy", " is of an unknown kind: Deploy of apps/v1"),
        (DEPLOYMENT, "apps/v1", "apps/v1beta1", " is of an unknown kind: Deployment of apps/v1beta1"),
        (DEPLOYMENT, "kind: Deployment\n", "", " has no kind"),
        (DEPLOYMENT, "  name: shop\n", "  labels: {}\n", "metadata lacks name"),
        (DEPLOYMENT, "containerPort: 8000", "name2: x", "lacks containerPort"),
        (
            DEPLOYMENT,
            "  replicas: 1\n",
            "  replicas: 1\n  replicas: 2\n",
            "the key 'replicas' stands there twice",
        ),
        (
            BASE,
            "- service.yaml",
            "- servise.yaml",
            "resources[1] names deploy/base/servise.yaml, which is not",
        ),
        (BASE, "resources:", "resorces:", "has the unknown field resorces; did you mean resources?"),
        (OVERLAY, "../../base", "../../bass", "resources[0] names deploy/bass, which is not there"),
        (OVERLAY, "../../base", "../../../../etc", "names ../etc, which is not there"),
        (
            OVERLAY,
            "path: replicas",
            "path: replica",
            "patches[0] names deploy/overlays/production/replica.yaml",
        ),
        (PATCH, "replicas: 2", "replica: 2", "spec has the unknown field replica; did you mean replicas?"),
        (SOURCE, "interval: 1m", "interval: often", "spec.interval must match"),
        (SOURCE, URL, "git@git.example:shop", "spec.url must match"),
        (SOURCE, "  interval: 1m\n", "", "spec lacks interval"),
        (
            SYNC,
            "kind: GitRepository",
            "kind: GitRepo",
            "spec.sourceRef.kind must be 'OCIRepository', 'GitRep",
        ),
        (SYNC, "  prune: true\n", "", "spec lacks prune"),
        (SYNC, "prune: true", 'prune: "true"', "spec.prune must be true or false, not text"),
        (
            APPLICATION,
            "repoURL",
            "repoUrl",
            "spec.source has the unknown field repoUrl; did you mean repoURL?",
        ),
        (APPLICATION, "  project: default\n", "", "spec lacks project"),
        (
            APPLICATION,
            "prune: true",
            "prune: 1",
            "spec.syncPolicy.automated.prune must be true or false, not a",
        ),
    ],
)
def test_a_mistake_is_found(path: str, old: str, new: str, sentence: str) -> None:
    assert old in FILES[path]
    found = sentences(**{path: FILES[path].replace(old, new, 1)})
    assert any(sentence in each and each.startswith(path) for each in found), found


def test_a_resource_that_is_gone_is_found_where_it_is_named() -> None:
    files = {path: text for path, text in FILES.items() if path != "deploy/base/service.yaml"}
    [problem] = check_manifests(files)
    assert problem == Problem(
        path=BASE,
        document=1,
        location="resources[1]",
        message="names deploy/base/service.yaml, which is not there",
    )


def test_all_missing_fields_of_an_object_are_told_at_once() -> None:
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {}\n"
    assert sentences(**{"deploy/x.yaml": text}) == ["deploy/x.yaml: spec lacks selector and template"]


def test_every_document_of_a_file_is_checked() -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"
    text = f"{namespace}---\n{namespace}---\n{namespace}specs: {{}}\n"
    assert sentences(**{"deploy/x.yaml": text}) == [
        "deploy/x.yaml, document 3 has the unknown field specs; did you mean spec?"
    ]


def test_many_problems_of_one_document_are_counted_not_listed() -> None:
    ports = "".join(f"  - {{port: x{number}}}\n" for number in range(50))
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\nspec:\n  ports:\n{ports}"
    found = sentences(**{"deploy/x.yaml": text})
    assert (len(found), found[-1]) == (21, "deploy/x.yaml has 30 more problems")


@pytest.mark.parametrize("text", ["", "- 1\n", "text", "12", "kind: [1]\napiVersion: {}\n"])
def test_what_is_no_manifest_is_a_problem_in_a_folder_of_manifests_only(text: str) -> None:
    assert len(check_manifests({"deploy/x.yaml": text})) == 1
    assert check_manifests({".github/workflows/ci.yml": text}) == []


def test_yaml_elsewhere_must_be_readable() -> None:
    [problem] = check_manifests({".github/workflows/ci.yml": "a: ["})
    assert str(problem).startswith(".github/workflows/ci.yml is not valid YAML in line 2")


def test_files_that_are_no_yaml_are_left_alone() -> None:
    assert check_manifests({"deploy/README.md": "a: [", "src/app.py": "x = ["}) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(st.sampled_from([DEPLOYMENT, BASE, SOURCE, APPLICATION]), st.text(max_size=12), json_values)
def test_any_value_anywhere_gives_problems_and_never_an_exception(path: str, key: str, value: object) -> None:
    text = FILES[path] + f"{json.dumps(key)}: {json.dumps(value)}\n"
    assert all("\n" not in str(problem) for problem in check_manifests({**FILES, path: text}))
