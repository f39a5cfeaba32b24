"""What tells Flux or Argo CD to deploy a project: files in the GitOps repository that many projects share."""

from collections.abc import Mapping, Sequence

from initializer.manifests.documents import Document, write_document
from initializer.manifests.kustomize import KUSTOMIZATION, overlay_path
from initializer.manifests.names import environment_name
from initializer.model.parameters import GitOpsTool

__all__ = ["gitops_files", "gitops_path"]

BRANCH = "main"
FLUX_NAMESPACE = "flux-system"
ARGO_CD_NAMESPACE = "argocd"


def gitops_path(slug: str) -> str:
    """The folder of a project in the GitOps repository. No other project's files stand in it."""
    return f"projects/{slug}"


def gitops_files(
    slug: str, environments: Sequence[str], tool: GitOpsTool, repository_url: str
) -> Mapping[str, str]:
    """Path in the GitOps repository -> YAML text, of all files of one project.

    `repository_url` is where the tool fetches the project's own repository from; Flux takes only http, https
    and ssh URLs.
    """
    make = _flux if tool == "flux" else _argo_cd
    files = {
        f"{environment}/{file}": text
        for environment in environments
        for file, text in make(slug, environment, repository_url).items()
    }
    listing = {**KUSTOMIZATION, "resources": sorted(files)}
    files["kustomization.yaml"] = write_document(listing, comment=f"All environments of {slug}.")
    return {f"{gitops_path(slug)}/{file}": text for file, text in sorted(files.items())}


def _flux(slug: str, environment: str, repository_url: str) -> dict[str, str]:
    metadata = _metadata(slug, environment, FLUX_NAMESPACE)
    source: Document = {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": metadata,
        "spec": {"interval": "1m", "url": repository_url, "ref": {"branch": BRANCH}},
    }
    sync: Document = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": metadata,
        "spec": {
            "interval": "10m",
            "retryInterval": "1m",
            "timeout": "3m",
            "path": f"./{overlay_path(environment)}",
            "prune": True,
            "wait": True,
            "sourceRef": {"kind": "GitRepository", "name": metadata["name"]},
        },
    }
    return {"source.yaml": write_document(source), "sync.yaml": write_document(sync)}


def _argo_cd(slug: str, environment: str, repository_url: str) -> dict[str, str]:
    application: Document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": _metadata(slug, environment, ARGO_CD_NAMESPACE),
        "spec": {
            "project": "default",
            "source": {
                "repoURL": repository_url,
                "targetRevision": BRANCH,
                "path": overlay_path(environment),
            },
            "destination": {
                "server": "https://kubernetes.default.svc",
                "namespace": environment_name(slug, environment),
            },
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                "syncOptions": ["CreateNamespace=true", "ServerSideApply=true"],
                "retry": {"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}},
            },
        },
    }
    return {"application.yaml": write_document(application)}


def _metadata(slug: str, environment: str, namespace: str) -> Document:
    labels = {
        "app.kubernetes.io/name": slug,
        "app.kubernetes.io/instance": environment_name(slug, environment),
    }
    return {"name": environment_name(slug, environment), "namespace": namespace, "labels": labels}
