"""Step 5: what was made is fetched and checked: files, manifests, the template's own tests."""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from initializer.catalog.catalog import find_template
from initializer.forges.git import Git
from initializer.manifests.check import MANIFEST_FOLDERS, check_manifests
from initializer.manifests.gitops import gitops_path
from initializer.processes import CommandFailed, Limits
from initializer.steps.create_environments import CreateEnvironments
from initializer.steps.files import read_texts, tree_of
from initializer.steps.push_template import PYTHON_ENVIRONMENT, PushTemplate
from initializer.steps.repository import clone_project, find_commit
from initializer.steps.shared_repository import clone_shared, is_own_folder
from initializer.steps.step import Outputs, Step, StepContext, StepError

__all__ = ["Verify"]

TEST_TIMEOUT_S = 120
TEST_LIMITS = Limits(memory_bytes=2 << 30, cpu_s=60, file_bytes=50_000_000, processes=4096)
MAX_NAMED_PROBLEMS = 3


class Verify(Step):
    """Clone, compare, parse, test. It changes nothing outside of its work folder."""

    name = "verify"
    title = "Verify"
    weight = 27
    timeout_s = 240

    async def run(self, context: StepContext) -> Outputs:
        """Outputs: `verified`, how many `files` and `manifests` were checked and whether `tests` ran."""
        context.progress(0, "Cloning the repository", substep=("Cloning", 0))
        git = await clone_project(context)
        context.progress(10, "Cloning the GitOps repository", substep=("Cloning", 50))
        gitops = await clone_shared(context)
        own_folder = gitops.folder / gitops_path(context.project.slug)
        context.progress(20, "Checking that every file is there", substep=("Files", 0))
        files = await self._check_template(context, git) + await self._check_environments(context, git)
        files += await self._check_gitops(context, gitops, own_folder)
        context.log(f"All {files} files are there")
        context.progress(35, "Checking the manifests", substep=("Manifests", 0))
        manifests = await self._check_manifests(context, git.folder, "the repository", MANIFEST_FOLDERS)
        manifests += await self._check_manifests(context, own_folder, "the GitOps repository", ("",))
        context.progress(50, "Running the template's own tests", substep=("Tests", 0))
        has_tests = await self._run_tests(context, git.folder)
        context.progress(100, "Everything is as it should be", substep=("Tests", 100))
        return {"verified": {"files": files, "manifests": manifests, "tests": has_tests}}

    async def _check_template(self, context: StepContext, git: Git) -> int:
        commit = await find_commit(git, context.project, PushTemplate.name)
        if commit is None:
            raise StepError("the repository does not have the commit of its template")
        missing = [path for path, letter in (await git.changes_since(commit)).items() if letter == "D"]
        if missing:
            raise StepError(f"the repository lacks {_listed(missing)} of its template")
        return len(await git.paths_of(commit))

    async def _check_environments(self, context: StepContext, git: Git) -> int:
        """By what was committed, not by what this version would write: the run may have begun before it."""
        commit = await find_commit(git, context.project, CreateEnvironments.name)
        if commit is None:
            raise StepError("the repository does not have the commit of its environments")
        paths, changes = await git.paths_of(commit), await git.changes_since(commit)
        missing = [path for path in paths if changes.get(path) == "D"]
        if missing:
            raise StepError(f"the repository lacks {_listed(missing)}")
        other = [path for path in paths if path in changes]
        if other:
            raise StepError(f"the repository has other text in {_listed(other)} than this run wrote")
        return len(paths)

    async def _check_gitops(self, context: StepContext, git: Git, own: Path) -> int:
        """By the hash that was left there; a run that an older version began may know of none."""
        folder = gitops_path(context.project.slug)
        tree = await git.tree(folder)
        if not is_own_folder(own, context.project) or tree != context.outputs.get("gitops_tree", tree):
            raise StepError(
                f"the folder {folder} of the GitOps repository is not as this run left it; "
                "restart the run to write it anew"
            )
        return len(await asyncio.to_thread(tree_of, own))

    async def _check_manifests(
        self, context: StepContext, folder: Path, where: str, strict_folders: Iterable[str]
    ) -> int:
        tree = await asyncio.to_thread(tree_of, folder)
        names = [name for name in tree if name.endswith((".yaml", ".yml"))]
        texts = read_texts(folder, names)
        problems = await asyncio.to_thread(check_manifests, texts, folders=strict_folders)
        for problem in problems:
            context.log(f"In {where}, {problem}")
        if problems:
            named = "; ".join(map(str, problems[:MAX_NAMED_PROBLEMS]))
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise StepError(f"{count} in the manifests of {where}: {named}")
        context.log(f"Checked {len(names)} YAML files of {where}")
        return len(names)

    async def _run_tests(self, context: StepContext, folder: Path) -> bool:
        """Run what the template says its tests are, with limits and nothing of the server's."""
        template = find_template(context.project.parameters.template.name)
        command = template.command_for_tests(sys.executable)
        if not command:
            context.log(f"The template {template.name} brings no tests")
            return False
        context.log(f"Running {' '.join(template.command_for_tests('python'))}")
        temporary = context.work_folder / "tmp"
        temporary.mkdir()
        try:
            await context.run_command(
                command,
                cwd=folder,
                env={**PYTHON_ENVIRONMENT, "TMPDIR": str(temporary)},
                timeout_s=TEST_TIMEOUT_S,
                limits=TEST_LIMITS,
            )
        except CommandFailed as error:
            raise StepError(f"the template's own tests failed: {error}") from error
        return True


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED_PROBLEMS])
    return f"{shown} and {len(names) - MAX_NAMED_PROBLEMS} more" if len(names) > MAX_NAMED_PROBLEMS else shown
