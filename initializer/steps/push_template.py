"""Step 2: the template, rendered for the project, as the first commit of its repository."""

import json
from pathlib import Path

from initializer.catalog.answers import template_answers
from initializer.catalog.catalog import Template, find_template, render_command
from initializer.forges.git import Git
from initializer.model.parameters import Project
from initializer.processes import Limits
from initializer.steps.repository import clone_project, commit_and_push, count_files, find_commit
from initializer.steps.step import Outputs, Step, StepContext, StepError

__all__ = ["PushTemplate"]

RENDER_TIMEOUT_S = 60
RENDER_LIMITS = Limits(memory_bytes=1 << 30, cpu_s=30, file_bytes=20_000_000)
PYTHON_ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


class PushTemplate(Step):
    """Render the template in a child process, commit what it gave, push it to `main`."""

    name = "push_template"
    title = "Push template"
    weight = 58
    timeout_s = 180

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `template`, `template_commit`."""
        project = context.project
        url = context.forge.clone_url(project.slug)
        context.progress(0, "Looking at the repository")
        git = await clone_project(context)
        commit = await find_commit(git, project, self.name)
        if commit is not None:
            context.log(f"The template was pushed before, as commit {commit[:12]}")
            context.resource("branch", "main", "adopted", url=url)
        elif await git.head() is not None:
            raise StepError(f"the repository {project.slug} has commits that this project did not make")
        else:
            context.resource("branch", "main", "planned", url=url)
            commit = await self._push(context, git)
            context.resource("branch", "main", "created", url=url)
        context.progress(100, "The template is pushed")
        return {"template": project.parameters.template.name, "template_commit": commit}

    async def _push(self, context: StepContext, git: Git) -> str:
        template = chosen_template(context.project)
        context.progress(7, f"Rendering the template {template.title}")
        files = await self._render(context, template, git.folder)
        context.log(
            f"Rendered {len(files)} files of the template {template.name}, version {template.version}"
        )
        on_file = count_files(context, "Adding files", len(files), percents=(80, 92))
        title = f"Start from the template {template.name}"
        return await commit_and_push(context, git, self.name, title, on_file=on_file)

    async def _render(self, context: StepContext, template: Template, destination: Path) -> list[str]:
        project = context.project
        answers = context.work_folder / "answers.json"
        _write_answers(answers, project, template)
        output = await context.run_command(
            render_command(template, destination, answers),
            env=PYTHON_ENVIRONMENT,
            timeout_s=RENDER_TIMEOUT_S,
            limits=RENDER_LIMITS,
            log_output=False,
        )
        return output.splitlines()


def chosen_template(project: Project) -> Template:
    """The template that was chosen, in the version that was chosen.

    Raises `TemplateUnknown`, and `StepError` where an upgrade of this app brought another version: a
    repository must not begin as one thing and be verified as another.
    """
    reference = project.parameters.template
    template = find_template(reference.name)
    if template.version != reference.version:
        raise StepError(
            f"the template {template.name} has changed since this project was created; "
            "create the project under another name to start from the new version"
        )
    return template


def _write_answers(file: Path, project: Project, template: Template) -> None:
    answers = template_answers(
        name=project.name,
        slug=project.slug,
        description=project.parameters.description,
        owner=project.owner,
        created_at=project.created_at,
        template_version=template.version,
    )
    file.write_text(json.dumps(dict(answers)), encoding="utf-8")
