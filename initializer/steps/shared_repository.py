"""A project's own folder in a repository that many runs push to at once."""

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from initializer.forges.forge import GITOPS_SLUG
from initializer.forges.git import BRANCH, Git, PushRefused
from initializer.manifests.gitops import gitops_path
from initializer.model.parameters import Project
from initializer.steps.repository import git_of, trailers
from initializer.steps.step import StepContext, StepError

__all__ = ["MARK_FILE", "change_shared", "clear_folder", "clone_shared", "is_own_folder", "refuse_stranger"]

MARK_FILE = ".initializer-project"
"""Holds the id of the project that a folder belongs to. No GitOps tool reads it: it is no YAML."""
MAX_TRIES = 60
MAX_REFUSALS_UNMOVED = 3
"""A push may lose against one that has not landed yet; refused more often than this, it is not a race."""
MAX_WAIT_S = 2.0
_random = random.SystemRandom()


async def clone_shared(context: StepContext) -> Git:
    """The shared repository in the work folder, without other projects' folders: there may be thousands."""
    remote, clone = context.forge.remote(GITOPS_SLUG), context.work_folder / "gitops"
    return await git_of(context).clone_part(remote, clone, gitops_path(context.project.slug))


async def change_shared(
    context: StepContext, git: Git, *, folder: str, step: str, title: str, change: Callable[[Path], None]
) -> str | None:
    """Apply `change` to the project's folder in a clone of the shared repository, and push it as one commit.

    Where somebody else pushed first, it is done again on top of theirs: each refusal means that another run
    got on, so some tries are enough. Gives the commit's hash, or None where `change` changed nothing.
    Raises what `change` raises, and `PushRefused` after `MAX_TRIES`.
    """
    own = git.folder / folder
    refusals_unmoved = 0  # in a row, without another run having got on
    for tries in range(1, MAX_TRIES + 1):
        old, was_there = await git.head(), own.exists()
        change(own)
        if not was_there and not own.exists():
            return None
        commit = await git.commit_all(title, trailers(context.project, step), paths=[folder])
        if commit is None:
            return None
        await context.before_change()
        try:
            await git.push(old=old)
        except PushRefused as refused:
            await _catch_up(git)
            refusals_unmoved = refusals_unmoved + 1 if await git.head() == old else 0
            if refusals_unmoved == MAX_REFUSALS_UNMOVED or tries == MAX_TRIES:
                raise
            context.log(f"Another run pushed at the same moment (try {tries}): {refused}")
            await asyncio.sleep(_random.uniform(0, min(MAX_WAIT_S, 0.05 * 2**tries)))
        else:
            return commit
    raise AssertionError("unreachable")


def is_own_folder(folder: Path, project: Project) -> bool:
    """Whether the folder exists and carries the project's mark."""
    mark = folder / MARK_FILE
    return (
        not folder.is_symlink() and mark.is_file() and mark.read_text(encoding="utf-8").strip() == project.id
    )


def refuse_stranger(folder: Path, project: Project) -> None:
    """Raise `StepError` where the folder is there and is not the project's."""
    if (folder.exists() or folder.is_symlink()) and not is_own_folder(folder, project):
        raise StepError(
            f"the folder projects/{folder.name} of the GitOps repository was made for another project; "
            "choose another name"
        )


def clear_folder(folder: Path, project: Project) -> None:
    """Remove the folder and all in it, if it is the project's."""
    if is_own_folder(folder, project):
        shutil.rmtree(folder)


async def _catch_up(git: Git) -> None:
    await git("fetch", "--quiet", "--depth=1", "origin", BRANCH)
    await git("reset", "--quiet", "--hard", "FETCH_HEAD")
