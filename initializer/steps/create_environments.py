"""Step 3: a Kustomize base and one overlay for each environment, in the project's repository."""

from initializer.catalog.catalog import find_template
from initializer.manifests.kustomize import environment_files
from initializer.steps.files import write_files
from initializer.steps.repository import clone_project, commit_and_push, count_files, find_commit
from initializer.steps.step import Outputs, Step, StepContext

__all__ = ["CreateEnvironments"]


class CreateEnvironments(Step):
    """Write the manifests of all environments, commit them, push them."""

    name = "create_environments"
    title = "Create environments"
    weight = 13
    timeout_s = 60

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `environments`, `environments_commit`."""
        environments = context.project.parameters.environments
        context.progress(0, "Looking at the repository")
        git = await clone_project(context)
        commit = await find_commit(git, context.project, self.name)
        if commit is None:
            for environment in environments:
                context.resource("environment", environment, "planned")
            files = _files(context)
            context.progress(30, f"Writing {len(files)} manifests")
            write_files(git.folder, files)
            title = f"Add environments: {', '.join(environments)}"
            on_file = count_files(context, "Adding manifests", len(files), percents=(40, 60))
            commit = await commit_and_push(context, git, self.name, title, on_file=on_file)
            for environment in environments:
                context.resource("environment", environment, "created")
        else:
            context.log(f"The environments were added before, in commit {commit[:12]}")
            for environment in environments:
                context.resource("environment", environment, "adopted")
        context.progress(100, "The environments are in the repository")
        return {"environments": list(environments), "environments_commit": commit}


def _files(context: StepContext) -> dict[str, str]:
    """What this step gives the repository: path -> text."""
    project = context.project
    template = find_template(project.parameters.template.name)
    return dict(environment_files(project.slug, project.parameters.environments, port=template.port))
