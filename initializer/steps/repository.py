"""What steps that change a repository share: marks on commits, and how a commit gets there once."""

from collections.abc import Callable

from initializer.forges.git import Git
from initializer.model.parameters import Project
from initializer.steps.step import StepContext, StepError

__all__ = [
    "PROJECT_TRAILER",
    "STEP_TRAILER",
    "clone_project",
    "commit_and_push",
    "count_files",
    "find_commit",
    "git_of",
    "trailers",
]

PROJECT_TRAILER = "Initializer-Project"
STEP_TRAILER = "Initializer-Step"


def git_of(context: StepContext) -> Git:
    """git in the step's work folder; its commits are dated to the project's creation."""
    return Git(
        context.run_command,
        context.work_folder,
        context.project.created_at,
        receive_pack=context.forge.receive_pack,
    )


def trailers(project: Project, step: str) -> dict[str, str]:
    """What a commit says of where it came from."""
    return {PROJECT_TRAILER: project.id, STEP_TRAILER: step}


async def clone_project(context: StepContext) -> Git:
    """A clone of the project's repository, in the work folder."""
    remote = context.forge.remote(context.project.slug)
    return await git_of(context).clone(remote, context.work_folder / "repository")


async def find_commit(git: Git, project: Project, step: str) -> str | None:
    """The commit that this step of this project made earlier, if it is in the clone's branch."""
    wanted = trailers(project, step)
    commits = await git.commits(*wanted)
    return next((commit.hash for commit in commits if commit.trailers == wanted), None)


async def commit_and_push(
    context: StepContext, git: Git, step: str, title: str, *, on_file: Callable[[str], None] | None = None
) -> str:
    """Commit what changed in the clone as this step's one commit and push it, if nobody pushed meanwhile.

    Gives its hash. Raises `PushRefused`, and `StepError` where nothing changed.
    """
    old = await git.head()
    new = await git.commit_all(title, trailers(context.project, step), on_line=on_file)
    if new is None:
        raise StepError(f"there was nothing to commit for “{title}”: the repository has these files already")
    await context.before_change()
    await git.push(old=old)
    context.log(f"Pushed commit {new[:12]}: {title}")
    return new


def count_files(
    context: StepContext, message: str, total: int, *, percents: tuple[int, int]
) -> Callable[[str], None]:
    """What reports each file that git adds as progress, from the first of `percents` to the second."""
    first, last = percents
    count = 0

    def report(line: str) -> None:
        nonlocal count
        if not line.startswith("add "):
            return
        count = min(count + 1, total)
        name = line.removeprefix("add ").strip("'")
        context.log(name)
        done = first + (last - first) * count // total
        context.progress(done, f"{message}: {name}", substep=(message, 100 * count // total))

    return report
