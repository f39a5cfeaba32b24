"""What the form would make, shown before it makes it: a dry run of names and paths, nothing is written."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from initializer.catalog.answers import template_answers
from initializer.catalog.catalog import Template
from initializer.catalog.preview import preview_paths
from initializer.creation import MAX_ENVIRONMENTS, ProjectRequest
from initializer.forges.forge import GITOPS_SLUG
from initializer.manifests.gitops import gitops_files
from initializer.manifests.kustomize import environment_files
from initializer.model.names import is_environment, is_slug, slug_of
from initializer.model.parameters import GitOpsTool
from initializer.steps.shared_repository import MARK_FILE

__all__ = ["Preview", "preview_of"]

STAND_IN = "your-project"
"""The slug of a project that has no name yet."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The files of each part, sorted."""

    template: list[str]
    manifests: list[str]
    gitops: list[str]

    @property
    def total(self) -> int:
        """How many files it is in all."""
        return len(self.template) + len(self.manifests) + len(self.gitops)


def preview_of(asked: ProjectRequest, *, owner: str, catalog: Mapping[str, Template]) -> Preview:
    """What a request would make, as far as it goes; what is wrong in it is left out.

    Without a template that is nothing: a count of the rest would be told as if it were all.
    """
    slug = slug_of(asked.name)
    slug = slug if is_slug(slug) else STAND_IN
    template = catalog.get(asked.template)
    if template is None:
        return Preview(template=[], manifests=[], gitops=[])
    environments = [name for name in asked.environments[:MAX_ENVIRONMENTS] if is_environment(name)]
    answers = template_answers(
        name=asked.name,
        slug=slug,
        description=asked.description,
        owner=owner,
        created_at=datetime.now(UTC),
        template_version=template.version,
    )
    manifests = environment_files(slug, environments, port=template.port) if environments else ()
    return Preview(
        template=sorted(preview_paths(template, answers)),
        manifests=sorted(manifests),
        gitops=_gitops(slug, environments, asked.gitops),
    )


def _gitops(slug: str, environments: list[str], tool: str) -> list[str]:
    if tool not in ("flux", "argocd") or not environments:
        return []
    files = gitops_files(
        slug, environments, msgspec.convert(tool, GitOpsTool), f"http://localhost/{GITOPS_SLUG}"
    )
    return sorted([*files, f"projects/{slug}/{MARK_FILE}"])
