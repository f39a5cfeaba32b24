import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from real_context import RealContext, make_project

from initializer.forges.forge import GITOPS_SLUG
from initializer.forges.git import PushRefused
from initializer.forges.local import LocalForge
from initializer.steps import shared_repository
from initializer.steps.setup_gitops import SetupGitops
from initializer.steps.step import StepError

pytestmark = pytest.mark.anyio

MakeContext = Callable[..., RealContext]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("count", [2, 20])
async def test_runs_that_push_at_once_all_succeed_with_one_commit_each(
    make_context: MakeContext, tmp_path: Path, count: int
) -> None:
    contexts = [make_context(make_project(f"shop-{number}")) for number in range(count)]
    await asyncio.gather(*(context.perform(SetupGitops()) for context in contexts))
    shared = tmp_path / "forge" / "gitops.git"
    projects = git(shared, "log", "--format=%(trailers:key=Initializer-Project,valueonly,separator=)", "main")
    assert sorted(projects.split()) == sorted(context.project.id for context in contexts)
    folders = git(shared, "ls-tree", "--name-only", "main:projects").split()
    assert sorted(folders) == sorted(context.project.slug for context in contexts)
    git(shared, "fsck", "--strict")


async def test_the_folder_of_another_project_is_refused_and_never_touched(
    make_context: MakeContext, tmp_path: Path
) -> None:
    await make_context(make_project(project_id="first")).perform(SetupGitops())
    before = git(tmp_path / "forge" / "gitops.git", "for-each-ref")
    context = make_context(make_project(project_id="second", gitops="argocd"))
    with pytest.raises(
        StepError, match=r"projects/shop .* was made for another project; choose another name"
    ):
        await context.perform(SetupGitops())
    await context.take_back(SetupGitops())
    assert git(tmp_path / "forge" / "gitops.git", "for-each-ref") == before


async def test_a_push_that_is_refused_for_ever_ends_with_a_sentence(
    context: RealContext, forge: LocalForge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_repository, "MAX_TRIES", 3)
    await forge.create_shared_repository(GITOPS_SLUG)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-receive").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-receive").chmod(0o755)
    git(tmp_path / "forge" / "gitops.git", "config", "core.hooksPath", str(hooks))
    with pytest.raises(PushRefused, match="git push was refused: pre-receive hook declined"):
        await context.perform(SetupGitops())
    assert sum("Another run pushed" in line for line in context.lines) == 2


async def test_undo_before_anything_was_made_does_nothing(context: RealContext, tmp_path: Path) -> None:
    await context.take_back(SetupGitops())
    assert context.changes == 0
    assert not list((tmp_path / "forge").glob("*.git"))
