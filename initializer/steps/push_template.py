"""Step 2: the template, rendered for the project, as the first commit of its repository."""

from pathlib import Path

from initializer.catalog.catalog import load_catalog
from initializer.processes import Limits
from initializer.steps.repository import clone_project, find_commit
from initializer.steps.step import Outputs, Step, StepContext, StepError

__all__ = ["PushTemplate"]

RENDER_TIMEOUT_S = 60
RENDER_LIMITS = Limits(memory_bytes=1 << 30, cpu_s=30, file_bytes=20_000_000)


class PushTemplate(Step):
    """Render the template in a child process, commit what it gave, push it to `main`."""

    name = "push_template"
    title = "Push template"
    weight = 4
    timeout_s = 180

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `template`, `template_commit`."""
        project, reference = context.project, context.project.parameters.template
        context.progress(0, "Looking at the repository")
        git = await clone_project(context)
        commit = await find_commit(git, project, self.name)
        if commit is not None:
            context.log(f"The template was pushed before, as commit {commit[:12]}")
            context.resource("branch", "main", "adopted", url=context.forge.clone_url(project.slug))
        elif await git.head() is not None:
            raise StepError(
                f"the repository {project.slug} has commits already that this project did not make"
            )
        else:
            commit = await self._push(context, git.folder)
        context.progress(100, "The template is pushed")
        return {"template": reference.name, "template_commit": commit}

    async def _push(self, context: StepContext, clone: Path) -> str:
        project = context.project
        template = load_catalog().get(project.parameters.template)
        rendered = context.work_folder / "rendered"
        await self._render(context, template, rendered)
