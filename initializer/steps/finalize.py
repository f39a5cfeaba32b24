"""Step 6: everything the run says it made is looked for once more; then what a person needs to go on."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from initializer.forges.forge import GITOPS_SLUG
from initializer.forges.git import Git
from initializer.manifests.gitops import gitops_path
from initializer.manifests.kustomize import overlay_path
from initializer.model.events import Resource
from initializer.steps.repository import clone_project
from initializer.steps.shared_repository import clone_shared, is_own_folder
from initializer.steps.step import Outputs, Step, StepContext, StepError

__all__ = ["Finalize"]


class Finalize(Step):
    """Check each resource, then give links and commands."""

    name = "finalize"
    title = "Finalize"
    weight = 11
    timeout_s = 60

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `clone_url`, `gitops_path`, `commands` (list of text) and `links` (title -> URL)."""
        claimed = [it for it in context.resources if it.state in ("created", "adopted")]
        context.progress(0, "Looking for everything that was made")
        checks = await self._checks(context)
        for count, resource in enumerate(claimed, start=1):
            await self._check(context, resource, checks)
            context.progress(
                20 + 70 * count // len(claimed),
                f"Found the {resource.kind} {resource.name}",
                substep=("Looking", 100 * count // len(claimed)),
            )
        slug = context.project.slug
        url, gitops_url = context.forge.clone_url(slug), context.forge.clone_url(GITOPS_SLUG)
        context.progress(100, "The project is ready")
        return {
            "clone_url": url,
            "gitops_path": gitops_path(slug),
            "commands": [f"git clone {url}", f"cd {slug}"],
            "links": {"Repository": url, "GitOps repository": gitops_url},
        }

    async def _checks(self, context: StepContext) -> Mapping[str, Callable[[str], Awaitable[bool]]]:
        """How the existence of each kind of resource is checked, by its name."""
        project = context.project

        async def has_repository(name: str) -> bool:
            return name == project.slug and await context.forge.has_repository(project)

        if not await has_repository(project.slug):
            raise StepError(f"the repository {project.slug}, which this run made, is gone")
        own = await clone_project(context)
        shared: Git | None = None  # fetched by the first that looks there

        async def has_branch(name: str) -> bool:
            refs = await own.remote_refs("origin", f"refs/heads/{name}")
            return f"refs/heads/{name}" in refs

        async def has_environment(name: str) -> bool:
            return _is_file(own.folder / overlay_path(name) / "kustomization.yaml")

        async def has_gitops_folder(name: str) -> bool:
            nonlocal shared
            shared = shared or await clone_shared(context)
            return is_own_folder(shared.folder / name, project)

        return {
            "repository": has_repository,
            "branch": has_branch,
            "environment": has_environment,
            "gitops": has_gitops_folder,
        }

    async def _check(
        self,
        context: StepContext,
        resource: Resource,
        checks: Mapping[str, Callable[[str], Awaitable[bool]]],
    ) -> None:
        check = checks.get(resource.kind)
        if check is None:
            context.log(
                f"The {resource.kind} {resource.name} was made by another step, so it was not looked for"
            )
        elif await check(resource.name):
            context.log(f"The {resource.kind} {resource.name} is there")
        else:
            raise StepError(f"the {resource.kind} {resource.name}, which this run made, is gone")


def _is_file(path: Path) -> bool:
    return path.is_file()
