"""The Kustomize base and overlays that stand in a project's own repository."""

from collections.abc import Mapping, Sequence
from typing import Any

from initializer.manifests.documents import Document, write_document
from initializer.manifests.names import environment_name, resource_name

__all__ = ["HEALTH_PATH", "environment_files", "overlay_path"]

HEALTH_PATH = "/healthz"
"""Where every template with a container answers that it is well."""

FIRST_TAG = "0.1.0"
PRODUCTION = frozenset({"production", "prod"})
PRODUCTION_REPLICAS = 2

BASE = "deploy/base"
KUSTOMIZATION: Document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def overlay_path(environment: str) -> str:
    """The folder of an environment in the project's repository: what GitOps tools are pointed at."""
    return f"deploy/overlays/{environment}"


def environment_files(
    slug: str, environments: Sequence[str], *, port: int | None, image: str = ""
) -> Mapping[str, str]:
    """Path in the project's repository -> YAML text, of the base and one overlay for each environment.

    `port` is the one the template's container listens on; a template without a container has None and gets a
    ConfigMap instead of a workload. `image` is the container's image without its tag, by default the slug.
    """
    name = resource_name(slug)
    base = _config_base(slug, name) if port is None else _workload_base(slug, name, port)
    files = {f"{BASE}/{file}": text for file, text in base.items()}
    for environment in environments:
        overlay = _overlay(slug, name, environment, image=image or slug, has_container=port is not None)
        files |= {f"{overlay_path(environment)}/{file}": text for file, text in overlay.items()}
    return dict(sorted(files.items()))


def _config_base(slug: str, name: str) -> dict[str, str]:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"PROJECT": slug},
    }
    return {
        "configmap.yaml": write_document(
            config, comment="Put the project's own settings and workloads here."
        ),
        "kustomization.yaml": _base_kustomization(slug, ["configmap.yaml"]),
    }


def _workload_base(slug: str, name: str, port: int) -> dict[str, str]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": _selector(slug),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }
    return {
        "deployment.yaml": write_document(_deployment(slug, name, port)),
        "kustomization.yaml": _base_kustomization(slug, ["deployment.yaml", "service.yaml"]),
        "service.yaml": write_document(service),
    }


def _base_kustomization(slug: str, resources: list[str]) -> str:
    labels = {"app.kubernetes.io/name": slug, "app.kubernetes.io/managed-by": "kustomize"}
    kustomization = {**KUSTOMIZATION, "resources": resources, "labels": [{"pairs": labels}]}
    return write_document(kustomization, comment="What all environments have in common.")


def _deployment(slug: str, name: str, port: int) -> Document:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": _selector(slug)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": _selector(slug)},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [_container(slug, name, port)],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def _container(slug: str, name: str, port: int) -> dict[str, Any]:
    """What the Pod Security Standard `restricted` allows; only /tmp can be written to."""
    health = {"httpGet": {"path": HEALTH_PATH, "port": "http"}}
    return {
        "name": "app",
        "image": slug,
        "ports": [{"name": "http", "containerPort": port}],
        "envFrom": [{"configMapRef": {"name": f"{name}-environment"}}],
        "startupProbe": {**health, "periodSeconds": 2, "failureThreshold": 30},
        "readinessProbe": {**health, "periodSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # the container's, not ours
    }


def _overlay(slug: str, name: str, environment: str, *, image: str, has_container: bool) -> dict[str, str]:
    is_production = environment in PRODUCTION and has_container
    namespace = environment_name(slug, environment)
    kustomization = {
        **KUSTOMIZATION,
        "namespace": namespace,
        "resources": ["../../base", "namespace.yaml", *(["disruption.yaml"] if is_production else [])],
        "labels": [{"pairs": {"app.kubernetes.io/instance": namespace}}],
        "configMapGenerator": [{"name": f"{name}-environment", "literals": [f"ENVIRONMENT={environment}"]}],
    }
    if has_container:
        kustomization["images"] = [{"name": slug, "newName": image, "newTag": FIRST_TAG}]
    if is_production:
        kustomization["patches"] = [{"path": "replicas.yaml"}]
    files = {
        "kustomization.yaml": write_document(kustomization, comment=f"What is particular to {environment}."),
        "namespace.yaml": write_document(_namespace(namespace)),
    }
    if is_production:
        files["disruption.yaml"] = write_document(_disruption_budget(slug, name))
        files["replicas.yaml"] = write_document(_replicas(name))
    return files


def _namespace(namespace: str) -> Document:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}


def _disruption_budget(slug: str, name: str) -> Document:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": _selector(slug)}},
    }


def _replicas(name: str) -> Document:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": PRODUCTION_REPLICAS},
    }


def _selector(slug: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": slug}
