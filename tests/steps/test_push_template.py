from collections.abc import Callable

import msgspec
import pytest
from real_context import RealContext, make_project

from initializer.forges.forge import RepositoryTaken
from initializer.forges.local import LocalForge
from initializer.model.parameters import TemplateRef
from initializer.steps.create_environments import CreateEnvironments
from initializer.steps.create_repo import CreateRepo
from initializer.steps.files import tree_of, write_files
from initializer.steps.push_template import PushTemplate
from initializer.steps.repository import git_of
from initializer.steps.step import StepError

pytestmark = pytest.mark.anyio


async def test_each_file_is_told_as_progress_and_in_the_log(context: RealContext) -> None:
    await context.perform(CreateRepo())
    await context.perform(PushTemplate())
    clone = await git_of(context).clone(context.forge.remote("shop"), context.work_folder / "look")
    files = tree_of(clone.folder)
    assert [line for line in context.lines if line in files] == files
    assert [percent for name, percent in context.substeps if name == "Adding files"] == [
        100 * count // len(files) for count in range(1, len(files) + 1)
    ]


async def test_the_commit_tells_project_step_and_date(context: RealContext) -> None:
    await context.perform(CreateRepo())
    outputs = await context.perform(PushTemplate())
    clone = await git_of(context).clone(context.forge.remote("shop"), context.work_folder / "look")
    told = await clone("log", "--format=%H%n%cI%n%B")
    assert told.splitlines() == [
        outputs["template_commit"],
        "2026-11-24T10:00:00+00:00",
        "Start from the template python-service",
        "",
        "Initializer-Project: id-of-shop",
        "Initializer-Step: push_template",
        "",
    ]


async def test_a_repository_with_commits_of_others_is_left_as_it_is(
    make_context: Callable[..., RealContext], context: RealContext
) -> None:
    await context.perform(CreateRepo())
    context.empty_work_folder()
    git = await git_of(context).clone(context.forge.remote("shop"), context.work_folder / "hand")
    (git.folder / "mine").write_text("mine")
    by_hand = await git.commit_all("By hand", {})
    await git.push(old=None)
    with pytest.raises(StepError, match="the repository shop has commits that this project did not make"):
        await context.perform(PushTemplate())
    refs = await git_of(context).remote_refs(context.forge.remote("shop"), "refs/heads/main")
    assert refs == {"refs/heads/main": by_hand}


async def test_a_template_that_changed_meanwhile_is_not_used(
    make_context: Callable[..., RealContext],
) -> None:
    project = make_project()
    old = TemplateRef(name="python-service", version="0" * 16)
    parameters = msgspec.structs.replace(project.parameters, template=old)
    context = make_context(msgspec.structs.replace(project, parameters=parameters))
    await context.perform(CreateRepo())
    with pytest.raises(StepError, match=r"has changed since this .*; create the project under another name"):
        await context.perform(PushTemplate())


async def test_a_strangers_repository_stops_the_run_and_undo_leaves_it(
    make_context: Callable[..., RealContext], forge: LocalForge
) -> None:
    stranger = make_project(project_id="stranger")
    await forge.create_repository(stranger)
    context = make_context()
    with pytest.raises(RepositoryTaken, match="choose another name"):
        await context.perform(CreateRepo())
    await context.take_back(CreateRepo())
    assert await forge.has_repository(stranger)


async def test_files_are_written_within_their_folder_only(context: RealContext) -> None:
    context.empty_work_folder()
    for name in ("../out", "/out", "a/../../out"):
        with pytest.raises(StepError, match="would lie outside of its repository"):
            write_files(context.work_folder, {name: "text"})
    (context.work_folder / "link").symlink_to("..")
    with pytest.raises(StepError, match="would lie outside of its repository"):
        write_files(context.work_folder, {"link/out": "text"})


async def test_the_environments_stand_on_the_template(context: RealContext) -> None:
    for step in (CreateRepo(), PushTemplate(), CreateEnvironments()):
        await context.perform(step)
    clone = await git_of(context).clone(context.forge.remote("shop"), context.work_folder / "look")
    assert (clone.folder / "deploy/overlays/production/kustomization.yaml").is_file()
    assert await clone("log", "--format=%s") == (
        "Add environments: development, production\nStart from the template python-service\n"
    )
