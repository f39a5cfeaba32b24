"""Faults that `verify` and `finalize` must find, each made by hand in what was right before."""

from collections.abc import Callable
from pathlib import Path

import pytest
from real_context import RealContext, make_project

from initializer.forges.git import Git
from initializer.forges.local import LocalForge
from initializer.steps import create_environments, setup_gitops
from initializer.steps.builtin import BUILTIN_STEPS
from initializer.steps.create_repo import CreateRepo
from initializer.steps.finalize import Finalize
from initializer.steps.push_template import PushTemplate
from initializer.steps.repository import git_of
from initializer.steps.setup_gitops import SetupGitops
from initializer.steps.shared_repository import MARK_FILE
from initializer.steps.step import StepError
from initializer.steps.verify import Verify

pytestmark = pytest.mark.anyio


@pytest.fixture
async def made(make_context: Callable[..., RealContext]) -> RealContext:
    """A project that was made and is right."""
    context = make_context(make_project(template="bare"))
    for step in BUILTIN_STEPS[:4]:
        await context.perform(step)
    return context


async def change(context: RealContext, slug: str, edit: Callable[[Path], object]) -> None:
    """Commit and push an edit of a repository, as a person would."""
    context.empty_work_folder()
    git: Git = await git_of(context).clone(context.forge.remote(slug), context.work_folder / "hand")
    old = await git.head()
    edit(git.folder)
    await git.commit_all("By hand", {})
    await git.push(old=old)


@pytest.mark.parametrize(
    ("slug", "file", "text", "sentence"),
    [
        ("shop", "README.md", None, r"the repository lacks README\.md of its template"),
        ("shop", "deploy/base/kustomization.yaml", None, r"the repository lacks deploy/base/kust"),
        ("shop", "deploy/base/kustomization.yaml", "a: 1", r"has other text in deploy/base/kust"),
        ("shop", "deploy/overlays/production/kustomization.yaml", "a: 1", "other text in deploy/overlays/pr"),
        ("shop", "deploy/base/more.yaml", "kind: Nonesuch\napiVersion: v1", "unknown kind: Nonesuch of v1"),
        ("shop", "notes.yaml", "a: [", r"1 problem in the manifests of the repository: notes\.yaml"),
        ("gitops", "projects/shop/kustomization.yaml", None, "the folder projects/shop of the GitOps rep"),
        ("gitops", "projects/shop/.initializer-project", "x", "is not as this run left it; restart the run"),
    ],
)
async def test_what_is_not_as_the_run_made_it_is_named(
    made: RealContext, slug: str, file: str, text: str | None, sentence: str
) -> None:
    def edit(folder: Path) -> None:
        if text is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(text)

    await change(made, slug, edit)
    with pytest.raises(StepError, match=sentence):
        await made.perform(Verify())


@pytest.mark.parametrize("knows_the_tree", [True, False])
async def test_a_run_is_judged_by_what_it_committed_not_by_what_this_version_would_write(
    made: RealContext, monkeypatch: pytest.MonkeyPatch, *, knows_the_tree: bool
) -> None:
    for module, name in ((create_environments, "environment_files"), (setup_gitops, "gitops_files")):
        monkeypatch.setattr(module, name, lambda *_, **__: {"other.yaml": "a: 1"})
    if not knows_the_tree:  # as where `setup_gitops` ran before there was such an output
        made.outputs.pop("gitops_tree")
    await made.perform(Verify())


async def test_a_run_is_verified_under_another_address_than_it_began_under(
    made: RealContext, tmp_path: Path
) -> None:
    made.forge = LocalForge(tmp_path / "forge", "http://localhost:9000")
    await made.perform(Verify())


async def test_a_run_that_knows_no_tree_has_its_mark_and_its_manifests_checked(made: RealContext) -> None:
    made.outputs.pop("gitops_tree")
    unknown = "kind: X\napiVersion: v1"
    await change(made, "gitops", lambda folder: (folder / "projects/shop/more.yaml").write_text(unknown))
    with pytest.raises(StepError, match="unknown kind: X of v1"):
        await made.perform(Verify())
    await change(made, "gitops", lambda folder: (folder / "projects/shop" / MARK_FILE).unlink())
    with pytest.raises(StepError, match="is not as this run left it"):
        await made.perform(Verify())


async def test_a_repository_without_the_commit_of_its_environments_is_found(
    make_context: Callable[..., RealContext],
) -> None:
    context = make_context(make_project(template="bare"))
    for step in (CreateRepo(), PushTemplate(), SetupGitops()):
        await context.perform(step)
    with pytest.raises(StepError, match="the repository does not have the commit of its environments"):
        await context.perform(Verify())


async def test_a_link_that_leaves_the_repository_is_refused(made: RealContext) -> None:
    await change(made, "shop", lambda folder: (folder / "out").symlink_to("/etc/hostname"))
    with pytest.raises(StepError, match="the file out is a link that points out of its repository"):
        await made.perform(Verify())


async def test_tests_that_fail_are_reported_with_their_output_in_the_log(
    make_context: Callable[..., RealContext],
) -> None:
    context = make_context(make_project(template="python-service"))
    for step in BUILTIN_STEPS[:4]:
        await context.perform(step)
    broken = "import os, sys, unittest\n\nclass Broken(unittest.TestCase):\n    def test_it(self):\n"
    broken += "        print(sorted(os.environ))\n        self.fail('broken on purpose')\n"
    await change(context, "shop", lambda folder: (folder / "tests" / "test_broken.py").write_text(broken))
    with pytest.raises(StepError, match=r"the template's own tests failed: .* exit status 1: FAILED"):
        await context.perform(Verify())
    assert any("broken on purpose" in line for line in context.lines)
    (environment,) = [line for line in context.lines if "'HOME'" in line]
    assert set(eval(environment)) == {  # noqa: S307 - what the line above printed
        "HOME",
        "LANG",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONNOUSERSITE",
        "PYTHONUTF8",
        "TMPDIR",
    }


@pytest.mark.parametrize(
    ("slug", "folder", "sentence"),
    [
        ("shop", "deploy/overlays/production", "the environment production, which this run made, is gone"),
        ("gitops", "projects/shop", "the gitops projects/shop, which this run made, is gone"),
    ],
)
async def test_finalize_finds_what_is_gone(made: RealContext, slug: str, folder: str, sentence: str) -> None:
    def edit(root: Path) -> None:
        for path in (root / folder).rglob("*"):
            if path.is_file():
                path.unlink()

    await change(made, slug, edit)
    with pytest.raises(StepError, match=sentence):
        await made.perform(Finalize())


async def test_finalize_finds_a_repository_that_is_gone_or_anothers(
    made: RealContext, forge: LocalForge
) -> None:
    await forge.remove_repository(made.project)
    with pytest.raises(StepError, match="the repository shop, which this run made, is gone"):
        await made.perform(Finalize())
    await forge.create_repository(make_project(project_id="other"))
    with pytest.raises(StepError, match="the repository shop, which this run made, is gone"):
        await made.perform(Finalize())


async def test_finalize_passes_over_what_it_cannot_look_for(made: RealContext) -> None:
    made.resource("wiki", "shop", "created")
    await made.perform(Finalize())
    assert "The wiki shop was made by another step, so it was not looked for" in made.lines
