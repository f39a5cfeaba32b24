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
from initializer.steps.builtin import BUILTIN_STEPS
from initializer.steps.setup_gitops import SetupGitops
from initializer.steps.step import StepError

pytestmark = pytest.mark.anyio

MakeContext = Callable[..., RealContext]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def change_by_hand(shared: Path, clone: Path, change: Callable[[Path], None]) -> None:
    """Commit and push a change of the folder of all projects."""
    git(shared.parent, "clone", "--quiet", str(shared), str(clone))
    change(clone / "projects")
    git(clone, "add", ".")
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    git(clone, *identity, "commit", "--quiet", "--message=By hand")
    git(clone, "push", "--quiet")


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


async def test_a_run_has_only_its_own_folder_before_it_and_keeps_those_of_all_others(
    make_context: MakeContext, forge: LocalForge, tmp_path: Path
) -> None:
    count = 300
    await forge.create_shared_repository(GITOPS_SLUG)
    shared = tmp_path / "forge" / "gitops.git"

    def add_others(projects: Path) -> None:
        for number in range(count):
            (projects / f"other-{number}").mkdir(parents=True)
            (projects / f"other-{number}" / "source.yaml").write_text(f"number: {number}")

    change_by_hand(shared, tmp_path / "hand", add_others)
    others = git(shared, "ls-tree", "main:projects").splitlines()
    assert len(others) == count

    contexts = [make_context(make_project(f"shop-{number}", template="bare")) for number in range(3)]
    for step in BUILTIN_STEPS:
        await asyncio.gather(*(context.perform(step) for context in contexts))
        if step.name in ("setup_gitops", "verify", "finalize"):
            for context in contexts:
                found = [path.name for path in (context.work_folder / "gitops" / "projects").iterdir()]
                assert found == [context.project.slug]
    assert set(others) <= set(git(shared, "ls-tree", "main:projects").splitlines())
    for context in contexts:
        await context.take_back(SetupGitops())
    assert git(shared, "ls-tree", "main:projects").splitlines() == others


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
async def test_whatever_stands_in_the_projects_place_is_refused(
    context: RealContext, forge: LocalForge, tmp_path: Path, kind: str
) -> None:
    await forge.create_shared_repository(GITOPS_SLUG)
    shared = tmp_path / "forge" / "gitops.git"

    def take_the_place(projects: Path) -> None:
        projects.mkdir()
        match kind:
            case "file":
                (projects / "shop").write_text("precious")
            case "link":
                (projects / "shop").symlink_to("other")
            case "folder":
                (projects / "shop").mkdir()
                (projects / "shop" / "source.yaml").write_text("precious")

    change_by_hand(shared, tmp_path / "hand", take_the_place)
    before = git(shared, "for-each-ref")
    with pytest.raises(StepError, match="was made for another project; choose another name"):
        await context.perform(SetupGitops())
    assert git(shared, "for-each-ref") == before


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
