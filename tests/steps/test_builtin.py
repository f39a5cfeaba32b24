"""The whole pipeline, over real repositories: run, run again, cut off anywhere."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from real_context import Interrupted, RealContext, make_project

from initializer.catalog.catalog import load_catalog
from initializer.forges.local import LocalForge
from initializer.steps.builtin import BUILTIN_STEPS, PIPELINE_VERSION, pipeline_of
from initializer.steps.step import Step

pytestmark = pytest.mark.anyio

MakeContext = Callable[..., RealContext]
URL = "http://localhost:8000"
PROJECT = make_project(template="bare")
CHANGING = ["create_repo", "push_template", "create_environments", "setup_gitops"]
NAMES = [step.name for step in BUILTIN_STEPS]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def steps_of_commits(repository: Path) -> list[str]:
    """The step that made each commit of `main`, oldest first; empty for a commit without one."""
    trailer = "%(trailers:key=Initializer-Step,valueonly,separator=)"
    return git(repository, "log", "--reverse", f"--format={trailer}", "main").split("\n")[:-1]


def state_of(folder: Path) -> dict[str, str]:
    """Every ref of every repository: deterministic commits make equal states equal."""
    return {path.name: git(path, "for-each-ref") for path in sorted(folder.glob("*.git"))}


async def run_until(context: RealContext, name: str) -> None:
    """Run all steps before the named one."""
    for step in BUILTIN_STEPS[: NAMES.index(name)]:
        await context.perform(step)


async def forge_before(name: str, folder: Path) -> Path:
    """The folder of a forge as the named step finds it."""
    forge = folder / "before"
    forge.mkdir()
    await run_until(RealContext(PROJECT, LocalForge(forge, URL), folder / "run-before"), name)
    return forge


def context_on_copy(forge: Path, folder: Path) -> RealContext:
    shutil.copytree(forge, folder / "forge")
    return RealContext(PROJECT, LocalForge(folder / "forge", URL), folder / "run")


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def step_named(name: str) -> Step:
    return BUILTIN_STEPS[NAMES.index(name)]


def test_the_pipeline_names_the_six_steps_in_order() -> None:
    pipeline = pipeline_of()
    assert pipeline.version == PIPELINE_VERSION == 1
    assert [(spec.name, spec.title) for spec in pipeline.steps] == [
        ("create_repo", "Create repository"),
        ("push_template", "Push template"),
        ("create_environments", "Create environments"),
        ("setup_gitops", "Set up GitOps"),
        ("verify", "Verify"),
        ("finalize", "Finalize"),
    ]
    assert sum(spec.weight for spec in pipeline.steps) > 0


@pytest.mark.parametrize("template", sorted(load_catalog()))
@pytest.mark.parametrize("tool", ["flux", "argocd"])
async def test_every_template_becomes_a_verified_project(
    make_context: MakeContext, tmp_path: Path, template: str, tool: str
) -> None:
    environments = ("development", "staging", "production", "eu-west")
    context = make_context(make_project(template=template, gitops=tool, environments=environments))
    for step in BUILTIN_STEPS:
        context.percents.clear()
        await context.perform(step)
        assert context.percents == sorted(context.percents)
        assert (context.percents[0], context.percents[-1]) == (0, 100)
    assert context.outputs["clone_url"] == "http://localhost:8000/git/shop.git"
    assert context.outputs["gitops_path"] == "projects/shop"
    assert context.outputs["commands"] == ["git clone http://localhost:8000/git/shop.git", "cd shop"]
    assert {(it.kind, it.name): it.state for it in context.resources} == {
        ("repository", "shop"): "created",
        ("branch", "main"): "created",
        **{("environment", name): "created" for name in environments},
        ("gitops", "projects/shop"): "created",
    }
    assert steps_of_commits(tmp_path / "forge" / "shop.git") == ["push_template", "create_environments"]
    assert steps_of_commits(tmp_path / "forge" / "gitops.git") == ["", "setup_gitops"]


async def test_a_second_run_of_each_step_changes_nothing_and_adopts_what_is_there(
    context: RealContext, tmp_path: Path
) -> None:
    for step in BUILTIN_STEPS:
        first = await context.perform(step)
        before = state_of(tmp_path / "forge")
        context.said_resources = [it for it in context.said_resources if it.state != "adopted"]
        said = len(context.said_resources)
        assert await context.perform(step) == first
        assert state_of(tmp_path / "forge") == before
        assert {it.state for it in context.said_resources[said:]} <= {"planned", "adopted"}


@pytest.mark.parametrize("name", CHANGING[1:])  # create_repo is the forge's: tests/forges/test_local.py
async def test_cut_off_after_any_program_and_run_again_a_step_ends_the_same(
    tmp_path: Path, name: str
) -> None:
    before = await forge_before(name, tmp_path)
    whole = context_on_copy(before, tmp_path / "whole")
    await whole.perform(step_named(name))
    last = len(whole.commands)
    for count in {*range(1, last, 3 if name == "push_template" else 2), last - 1, last}:
        context = context_on_copy(before, tmp_path / f"cut-{count}")
        context.interrupt_after = count
        with pytest.raises(Interrupted):
            await context.perform(step_named(name))
        await context.perform(step_named(name))
        assert state_of(tmp_path / f"cut-{count}" / "forge") == state_of(tmp_path / "whole" / "forge")


@pytest.mark.parametrize("name", CHANGING)
async def test_cancelled_at_any_moment_and_run_again_a_step_ends_the_same(tmp_path: Path, name: str) -> None:
    before = await forge_before(name, tmp_path)
    whole = context_on_copy(before, tmp_path / "whole")
    start = time.monotonic()
    await whole.perform(step_named(name))
    whole_s = time.monotonic() - start
    for part in range(1, 5):
        context = context_on_copy(before, tmp_path / f"cut-{part}")
        with suppress(TimeoutError):
            async with asyncio.timeout(whole_s * part / 5):
                await context.perform(step_named(name))
        await context.perform(step_named(name))
        assert state_of(tmp_path / f"cut-{part}" / "forge") == state_of(tmp_path / "whole" / "forge")


async def test_what_verify_and_finalize_read_they_leave_as_it_is(
    context: RealContext, tmp_path: Path
) -> None:
    await run_until(context, "verify")
    before = everything_in(tmp_path / "forge")
    await context.perform(step_named("verify"))
    await context.perform(step_named("finalize"))
    assert everything_in(tmp_path / "forge") == before


@pytest.mark.parametrize("name", CHANGING)
async def test_a_step_that_lost_its_ownership_changes_nothing(tmp_path: Path, name: str) -> None:
    context = context_on_copy(await forge_before(name, tmp_path), tmp_path / "lost")
    before = everything_in(tmp_path / "lost" / "forge")
    context.refuse_change = PermissionError("another attempt owns this run")
    with pytest.raises(PermissionError):
        await context.perform(step_named(name))
    assert everything_in(tmp_path / "lost" / "forge") == before


async def test_undo_of_all_steps_leaves_only_what_others_made(
    make_context: MakeContext, forge: LocalForge, tmp_path: Path
) -> None:
    other, own = make_context(make_project("other", template="bare")), make_context()
    for step in BUILTIN_STEPS:
        await other.perform(step)
        await own.perform(step)
    for _ in range(2):
        for step in reversed(BUILTIN_STEPS):
            await own.take_back(step)
    assert sorted(path.name for path in (tmp_path / "forge").glob("*.git")) == ["gitops.git", "other.git"]
    tree = git(tmp_path / "forge" / "gitops.git", "ls-tree", "-r", "--name-only", "main").split()
    assert {name.split("/")[1] for name in tree if "/" in name} == {"other"}
    assert {(it.kind, it.state) for it in own.resources} >= {("repository", "removed"), ("gitops", "removed")}
    await other.perform(step_named("verify"))
    await other.perform(step_named("finalize"))


async def test_the_code_of_a_template_runs_with_limits(tmp_path: Path) -> None:
    project = make_project(template="python-service")
    context = RealContext(project, LocalForge(tmp_path / "forge", URL), tmp_path / "run")
    for step in BUILTIN_STEPS:
        await context.perform(step)
    assert len(context.limited) == 2, context.limited.keys()  # Copier, and the template's own tests
    for limits in context.limited.values():
        assert None not in (limits.memory_bytes, limits.cpu_s, limits.file_bytes)


async def test_each_step_tells_substeps_and_lines_and_the_changing_ones_name_what_they_make(
    tmp_path: Path,
) -> None:
    context = RealContext(
        make_project(template="bare"), LocalForge(tmp_path / "forge", URL), tmp_path / "run"
    )
    for step in BUILTIN_STEPS:
        context.substeps.clear()
        context.lines.clear()
        resources = len(context.resources)
        await context.perform(step)
        assert context.substeps, step.name
        assert context.substeps[-1][1] == 100, step.name
        assert context.lines, step.name
        assert (len(context.resources) > resources) is (step.name in CHANGING), step.name
