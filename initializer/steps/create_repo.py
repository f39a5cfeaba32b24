"""Step 1: an empty repository on the forge, which carries the project's mark."""

from initializer.forges.forge import RepositoryTaken
from initializer.steps.step import Outputs, Step, StepContext

__all__ = ["CreateRepo"]


class CreateRepo(Step):
    """Make the repository, or adopt the one that this project made before."""

    name = "create_repo"
    title = "Create repository"
    weight = 5
    timeout_s = 60

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `clone_url`, `default_branch`."""
        slug, url = context.project.slug, context.forge.clone_url(context.project.slug)
        context.progress(0, f"Looking for a repository named {slug}", substep=("Looking", 0))
        is_new = not await context.forge.has_repository(context.project)
        if is_new:
            context.resource("repository", slug, "planned", url=url)
            context.progress(30, f"Creating the repository {slug}", substep=("Creating", 0))
            await context.before_change()
            try:
                is_new = await context.forge.create_repository(context.project)
            except RepositoryTaken:
                context.resource("repository", slug, "removed")  # the claim: it is somebody else's
                raise
        context.resource("repository", slug, "created" if is_new else "adopted", url=url)
        found = "Created" if is_new else "Found its own"
        context.log(f"{found} repository {slug} on the forge {context.forge.name}")
        context.progress(100, "The repository exists", substep=("Creating", 100))
        return {"clone_url": url, "default_branch": "main"}

    async def undo(self, context: StepContext) -> None:
        """Remove the repository, if it carries this project's mark."""
        slug = context.project.slug
        await context.before_change()
        if await context.forge.remove_repository(context.project):
            context.log(f"Removed the repository {slug}")
        context.resource("repository", slug, "removed")
