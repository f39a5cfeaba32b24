"""Step 4: what tells Flux or Argo CD to deploy the project, in a repository that all projects share."""

from pathlib import Path

from initializer.forges.forge import GITOPS_SLUG
from initializer.manifests.gitops import gitops_files, gitops_path
from initializer.steps.files import write_files
from initializer.steps.shared_repository import (
    MARK_FILE,
    change_shared,
    clear_folder,
    clone_shared,
    refuse_stranger,
)
from initializer.steps.step import Outputs, Step, StepContext

__all__ = ["SetupGitops"]


class SetupGitops(Step):
    """Write the project's folder of the GitOps repository, push it, again if others were faster."""

    name = "setup_gitops"
    title = "Set up GitOps"
    weight = 16
    timeout_s = 120

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `gitops_url`, `gitops_path`, `gitops_tree` (git's hash of all that the folder holds)."""
        project = context.project
        folder, url = gitops_path(project.slug), context.forge.clone_url(GITOPS_SLUG)
        context.progress(0, "Looking for the GitOps repository", substep=("Looking", 0))
        if not await context.forge.has_shared_repository(GITOPS_SLUG):
            await context.before_change()
            if await context.forge.create_shared_repository(GITOPS_SLUG):
                context.log("Created the GitOps repository that all projects share")
        context.resource("gitops", folder, "planned", url=url)
        files = _files(context)

        def write(own: Path) -> None:
            context.progress(40, f"Writing {len(files)} files to {folder}", substep=("Writing", 0))
            refuse_stranger(own, project)
            clear_folder(own, project)
            write_files(own.parent.parent, files)

        context.progress(20, "Fetching the GitOps repository", substep=("Fetching", 0))
        git = await clone_shared(context)
        title = f"Add {project.slug} for {project.parameters.gitops}"
        commit = await change_shared(context, git, folder=folder, step=self.name, title=title, change=write)
        context.log(f"Pushed commit {commit[:12]}: {title}" if commit else f"{folder} is there already")
        context.resource("gitops", folder, "created" if commit else "adopted", url=url)
        context.progress(100, "GitOps knows the project", substep=("Writing", 100))
        return {"gitops_url": url, "gitops_path": folder, "gitops_tree": await git.tree(folder)}

    async def undo(self, context: StepContext) -> None:
        """Remove the project's folder from the GitOps repository, with a commit; the rest of it stays."""
        project = context.project
        folder = gitops_path(project.slug)

        def clear(own: Path) -> None:
            clear_folder(own, project)

        if await context.forge.has_shared_repository(GITOPS_SLUG):
            git = await clone_shared(context)
            title = f"Remove {project.slug}"
            await change_shared(context, git, folder=folder, step=self.name, title=title, change=clear)
        context.resource("gitops", folder, "removed")


def _files(context: StepContext) -> dict[str, str]:
    """What the project has in the GitOps repository: path -> text."""
    project = context.project
    parameters, url = project.parameters, context.forge.clone_url(project.slug)
    files = gitops_files(project.slug, parameters.environments, parameters.gitops, url)
    return {**files, f"{gitops_path(project.slug)}/{MARK_FILE}": f"{project.id}\n"}
