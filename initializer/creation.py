"""Creating a project: what a form or a client asked for, checked, written and handed to the engine."""

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from initializer.catalog.catalog import Template
from initializer.engines.engine import Engine
from initializer.errors import InitializerError
from initializer.model.events import Reason
from initializer.model.names import (
    ENVIRONMENT_RULE,
    MAX_NAME_CHARACTERS,
    NAME_RULE,
    RESERVED_SLUGS,
    is_environment,
    slug_of,
)
from initializer.model.parameters import GitOpsTool, Project, RunParameters, TemplateRef
from initializer.model.pipeline import Pipeline
from initializer.model.progress import Status
from initializer.model.text import is_storable
from initializer.projects.projects import KeyUsed, ProjectRow, Projects, SlugTaken

__all__ = ["Creation", "Invalid", "ProjectRequest"]

MAX_DESCRIPTION_CHARACTERS = 200
MAX_ENVIRONMENTS = 10
_KEY = re.compile("[A-Za-z0-9_-]{16,64}")


class ProjectRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks for, as it came. `key` makes a repeated request the same request."""

    name: str = ""
    description: str = ""
    template: str = ""
    environments: tuple[str, ...] = ()
    gitops: str = ""
    key: str = ""


class Invalid(InitializerError):
    """A request that cannot be done; `problems` has a sentence for each field."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = dict(problems)


class Creation:
    """Makes projects out of requests, for the one pipeline and forge that there are."""

    def __init__(
        self,
        *,
        projects: Projects,
        engine: Engine,
        catalog: Mapping[str, Template],
        pipeline: Pipeline,
        forge: str,
    ) -> None:
        self._projects = projects
        self._engine = engine
        self._catalog = catalog
        self._pipeline = pipeline
        self._forge = forge

    async def create(self, request: ProjectRequest, *, owner: str) -> str:
        """Write and start the project; gives its id. The same key again gives the same project.

        Raises `Invalid`, `QueueFull` and `DatabaseUnavailable`.
        """
        problems = self.problems(request)
        if problems:
            raise Invalid(problems)
        self._engine.check_room()
        project = Project(
            id=uuid.uuid4().hex,
            slug=slug_of(request.name),
            name=request.name.strip(),
            owner=owner,
            created_at=datetime.now(UTC),  # to the microsecond: runs that waited go on in this order
            parameters=self._parameters(request),
        )
        try:
            created = await self._projects.add(
                project, idempotency_key=request.key, is_owned=self._engine.owns_runs
            )
        except SlugTaken as taken:
            raise Invalid({"name": taken.sentence}) from taken
        except KeyUsed as used:
            problem = (
                f"This form has made the project {used.slug} already; load it again to make another one."
            )
            raise Invalid({"key": problem}) from used
        if created == project.id:
            is_owned = self._engine.owns_runs
            status = Status.INITIALIZING if is_owned else Status.PENDING
            row = ProjectRow(project=project, status=status, attempt=int(is_owned))
            await self._engine.submit(row, reason=Reason.CREATED)
        return created

    def problems(self, request: ProjectRequest) -> dict[str, str]:
        """What is wrong with a request, a sentence for each field; empty where it can be done."""
        found = {
            "name": name_problem(request.name),
            "description": _description_problem(request.description),
            "template": "" if request.template in self._catalog else "Choose one of the templates.",
            "environments": _environments_problem(request.environments),
            "gitops": "" if request.gitops in ("flux", "argocd") else "Choose Flux or Argo CD.",
            "key": "" if _KEY.fullmatch(request.key) else "The form is incomplete; load it again.",
        }
        return {field: problem for field, problem in found.items() if problem}

    def _parameters(self, request: ProjectRequest) -> RunParameters:
        template = self._catalog[request.template]
        return RunParameters(
            description=request.description.strip(),
            template=TemplateRef(name=template.name, version=template.version),
            forge=self._forge,
            environments=request.environments,
            gitops=msgspec.convert(request.gitops, type=GitOpsTool),
            pipeline=self._pipeline,
        )


def name_problem(name: str) -> str:
    """What is wrong with a name, in a sentence; empty where nothing is. Whether it is free is not asked."""
    name = name.strip()
    slug = slug_of(name)
    if not name:
        return "Give the project a name."
    if len(name) > MAX_NAME_CHARACTERS or not slug:
        return f"A name has {NAME_RULE}"
    if not _is_one_line(name):
        return "The name holds a control character; type it again."
    if slug in RESERVED_SLUGS:
        return f"{slug} is reserved for the platform itself; choose another name."
    return ""


def _description_problem(description: str) -> str:
    if len(description.strip()) > MAX_DESCRIPTION_CHARACTERS:
        return f"A description has at most {MAX_DESCRIPTION_CHARACTERS} characters."
    if not _is_one_line(description):
        return "A description is one line of text."
    return ""


def _is_one_line(text: str) -> bool:
    """Whether it is text that somebody typed: no controls, no escapes, nothing that was no UTF-8 (U+FFFD)."""
    return is_storable(text) and not set("\n\r\t\x1b\ufffd").intersection(text)


def _environments_problem(environments: tuple[str, ...]) -> str:
    if not environments:
        return "Choose at least one environment."
    if len(environments) > MAX_ENVIRONMENTS:
        return f"A project has at most {MAX_ENVIRONMENTS} environments."
    if len(set(environments)) < len(environments):
        return "Name each environment once."
    wrong = next((name for name in environments if not is_environment(name)), None)
    if wrong is not None:
        return f"An environment's name has {ENVIRONMENT_RULE}"
    return ""
