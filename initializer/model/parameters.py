"""What a run was asked to make. Stands in the row, so that a resumed run needs nothing else."""

from datetime import datetime
from typing import Literal

import msgspec

from initializer.model.pipeline import Pipeline

__all__ = ["GitOpsTool", "Project", "RunParameters", "TemplateRef"]

GitOpsTool = Literal["flux", "argocd"]


class TemplateRef(msgspec.Struct, frozen=True, kw_only=True):
    """A template of the catalog and the version (a content hash) that was chosen."""

    name: str
    version: str


class RunParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of the form, checked; the JSON of `projects.parameters`."""

    description: str = ""
    template: TemplateRef
    forge: str
    environments: tuple[str, ...]
    gitops: GitOpsTool
    pipeline: Pipeline


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """The identity and choices of a project: what steps may know of its row. `created_at` is aware UTC."""

    id: str
    slug: str
    name: str
    owner: str
    created_at: datetime
    parameters: RunParameters
