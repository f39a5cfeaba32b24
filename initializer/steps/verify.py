"""Step 5: what was made is fetched and checked: files, manifests, the template's own tests."""

from pathlib import Path

from initializer.forges.forge import GITOPS_SLUG
from initializer.forges.git import Git
from initializer.processes import Limits
from initializer.steps import create_environments, setup_gitops
from initializer.steps.files import tree_of
from initializer.steps.repository import clone_project, find_commit, git_of
from initializer.steps.step import Outputs, Step, StepContext, StepError

__all__ = ["Verify"]

TEST_TIMEOUT_S = 120
TEST_LIMITS = Limits(memory_bytes=2 << 30, cpu_s=60, file_bytes=50_000_000, processes=512)


class Verify(Step):
    """Clone, compare, parse, test. It changes nothing outside of its work folder."""

    name = "verify"
    title = "Verify"
    weight = 4
    timeout_s = 240

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `verified`, a mapping of what was checked to how many of it."""
        context.progress(0, "Cloning the repository")
        git = await clone_project(context)
        context.progress(10, "Cloning the GitOps repository")
        gitops = context.work_folder / "gitops"
        await git_of(context).clone(context.forge.remote(GITOPS_SLUG), gitops, is_shallow=True)
        context.progress(20, "Checking that every file is there")
        files = await self._check_files(context, git, gitops)
        context.progress(35, "Checking the manifests")
        manifests = await self._check_manifests(context, git.folder, gitops)
        context.progress(50, "Running the template's own tests")
        await self._run_tests(context, git.folder)
        context.progress(100, "Everything is as it should be")
        return {"verified": {"files": files, "manifests": manifests}}

    async def _check_files(self, context: StepContext, git: Git, gitops: Path) -> int:
        expected = create_environments.expected_files(context)
        check_texts(git.folder, expected, "the repository")
        check_texts(gitops, setup_gitops.expected_files(context), "the GitOps repository")
        commit = await find_commit(git, context.project, "push_template")
        if commit is None:
            raise StepError("the repository does not have the commit of its template")
        names = (await git("ls-tree", "-r", "-z", "--name-only", commit)).split("\0")[:-1]
        check_names(tree_of(git.folder), [*names, *load_expected(context)], "the repository")
        return len(names) + len(expected)
