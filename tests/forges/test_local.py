import asyncio
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from initializer.forges.forge import Forge, ForgeError, RepositoryTaken
from initializer.forges.local import LocalForge
from initializer.model.parameters import Project, RunParameters, TemplateRef
from initializer.model.pipeline import Pipeline

pytestmark = pytest.mark.anyio


def project(slug: str = "shop", project_id: str = "p1") -> Project:
    parameters = RunParameters(
        template=TemplateRef(name="bare", version="1"),
        forge="local",
        environments=("staging",),
        gitops="flux",
        pipeline=Pipeline(version=1, steps=()),
    )
    at = datetime(2026, 11, 24, tzinfo=UTC)
    return Project(id=project_id, slug=slug, name=slug, owner="", created_at=at, parameters=parameters)


def git(*arguments: object, cwd: Path | None = None) -> str:
    return subprocess.run(
        ["git", *map(str, arguments)], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "forge"


@pytest.fixture
def forge(folder: Path) -> LocalForge:
    return LocalForge(folder, "http://localhost:8000/")


async def test_a_repository_is_made_once_with_main_and_a_hidden_mark(folder: Path, forge: Forge) -> None:
    assert not await forge.has_repository(project())
    assert await forge.create_repository(project())
    assert not await forge.create_repository(project())
    assert await forge.has_repository(project())
    path = folder / "shop.git"
    assert git("symbolic-ref", "HEAD", cwd=path) == "refs/heads/main"
    assert git("cat-file", "-p", "refs/initializer/p1", cwd=path) == "p1"
    assert git("ls-remote", forge.remote("shop")) == ""


async def test_the_clone_url_is_where_people_reach_the_app(forge: Forge) -> None:
    assert forge.clone_url("shop") == "http://localhost:8000/git/shop.git"


async def test_a_strangers_repository_is_refused_and_stays_as_it_is(folder: Path, forge: Forge) -> None:
    await forge.create_repository(project(project_id="other"))
    before = everything_in(folder)
    with pytest.raises(RepositoryTaken, match=r"a repository named shop exists already .* choose another"):
        await forge.create_repository(project())
    assert not await forge.has_repository(project())
    assert not await forge.remove_repository(project())
    assert everything_in(folder) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_whatever_stands_in_the_place_is_refused(
    folder: Path, forge: Forge, kind: str, tmp_path: Path
) -> None:
    await forge.create_repository(project(slug="own"))
    place = folder / "shop.git"
    match kind:
        case "file":
            place.write_text("precious")
        case "folder":
            place.mkdir()
        case "link":
            place.symlink_to(folder / "own.git")
    before = everything_in(folder)
    with pytest.raises(RepositoryTaken):
        await forge.create_repository(project())
    assert not await forge.remove_repository(project())
    assert everything_in(folder) == before


@pytest.mark.parametrize(
    "slug", ["", ".", "..", "../x", "a/b", "A", "-a", "a-", "a.git", "a\n", "x" * 64, "ä"]
)
async def test_what_is_no_slug_names_no_path(folder: Path, forge: Forge, slug: str) -> None:
    for method in (forge.create_repository, forge.has_repository, forge.remove_repository):
        with pytest.raises(ForgeError, match="cannot be the name of a repository"):
            await method(project(slug=slug))
    with pytest.raises(ForgeError):
        forge.remote(slug)
    assert everything_in(folder) == {}


async def test_an_id_that_is_none_is_refused(folder: Path, forge: Forge) -> None:
    for project_id in ("", "../x", "_shared", "a b", "a..b"):
        with pytest.raises(ForgeError, match="cannot be the id of a project"):
            await forge.create_repository(project(project_id=project_id))
    assert everything_in(folder) == {}


async def test_removing_takes_the_own_repository_only_and_can_be_repeated(folder: Path, forge: Forge) -> None:
    await forge.create_repository(project())
    await forge.create_repository(project(slug="other", project_id="p2"))
    assert await forge.remove_repository(project())
    assert not await forge.remove_repository(project())
    assert await forge.has_repository(project(slug="other", project_id="p2"))
    assert names_in(folder) == {".unfinished", "other.git"}
    assert await forge.create_repository(project())


async def test_of_twenty_that_create_at_once_one_makes_it_and_all_agree(folder: Path, forge: Forge) -> None:
    made = await asyncio.gather(*(forge.create_shared_repository("gitops") for _ in range(20)))
    assert made.count(True) == 1
    assert git("log", "--format=%s", "main", cwd=folder / "gitops.git") == "Begin the shared repository"
    assert names_in(folder / ".unfinished") == set()


@pytest.mark.parametrize("count", [2, 20])
async def test_of_attempts_that_create_a_projects_repository_at_once_one_makes_it_and_all_agree(
    folder: Path, forge: Forge, count: int
) -> None:
    made = await asyncio.gather(*(forge.create_repository(project()) for _ in range(count)))
    assert made.count(True) == 1
    assert await forge.has_repository(project())
    git("fsck", "--strict", cwd=folder / "shop.git")
    assert git("config", "transfer.hideRefs", cwd=folder / "shop.git") == "refs/initializer"
    assert names_in(folder / ".unfinished") == set()


async def test_of_two_projects_that_create_at_once_one_gets_the_name(folder: Path, forge: Forge) -> None:
    results = await asyncio.gather(
        *(forge.create_repository(project(project_id=f"p{number}")) for number in range(4)),
        return_exceptions=True,
    )
    assert results.count(True) == 1
    assert sum(isinstance(result, RepositoryTaken) for result in results) == 3


async def test_the_shared_name_is_no_projects(forge: Forge) -> None:
    with pytest.raises(ForgeError, match="kept for the repository that all projects share"):
        await forge.create_repository(project(slug="gitops"))
    await forge.create_repository(project(slug="manifests"))
    with pytest.raises(
        RepositoryTaken, match=r"manifests, which all projects share, is taken .* move it away"
    ):
        await forge.create_shared_repository("manifests")
    assert not await forge.has_shared_repository("manifests")
    assert not await forge.has_shared_repository("gitops")
    await forge.create_shared_repository("gitops")
    assert await forge.has_shared_repository("gitops")


async def test_cut_off_anywhere_a_repository_is_there_whole_or_not_at_all(folder: Path, forge: Forge) -> None:
    start = time.monotonic()
    await forge.create_repository(project())
    whole_s = time.monotonic() - start
    for part in range(20):
        own = project(slug=f"shop-{part}", project_id=f"p{part}")
        with suppress(TimeoutError):
            async with asyncio.timeout(whole_s * part / 20):
                await forge.create_repository(own)
        assert (f"{own.slug}.git" in names_in(folder)) == await forge.has_repository(own)
        await forge.create_repository(own)
        assert await forge.has_repository(own)
    assert names_in(folder / ".unfinished") == set()


async def test_leftovers_of_a_killed_attempt_go_with_the_next_one(folder: Path, forge: Forge) -> None:
    (folder / ".unfinished" / "p1.0123" / "objects").mkdir(parents=True)
    (folder / ".unfinished" / "p2.4567").mkdir()
    await forge.create_repository(project())
    assert names_in(folder / ".unfinished") == {"p2.4567"}


async def test_neither_main_nor_a_mark_can_be_removed_by_a_push(tmp_path: Path, forge: Forge) -> None:
    await forge.create_shared_repository("gitops")
    git("clone", "-q", forge.remote("gitops"), tmp_path / "clone")
    for ref in ("refs/heads/main", "refs/initializer/_shared"):
        with pytest.raises(subprocess.CalledProcessError):
            git("push", "origin", f":{ref}", cwd=tmp_path / "clone")
    assert await forge.has_shared_repository("gitops")


async def test_settings_of_the_servers_user_change_nothing(
    folder: Path, forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[init]\n defaultBranch = trunk\n templateDir = /nonexistent\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    await forge.create_repository(project())
    assert names_in(tmp_path) == {"forge", "home"}
    monkeypatch.delenv("GIT_DIR")
    assert git("symbolic-ref", "HEAD", cwd=folder / "shop.git") == "refs/heads/main"


async def test_what_killed_processes_left_is_cleared_up(folder: Path, forge: LocalForge) -> None:
    await forge.create_repository(project())
    locks = [folder / "shop.git" / name for name in ("config.lock", "refs/heads/main.lock")]
    for lock in locks:
        lock.touch()
    (folder / ".unfinished" / "p2.4567" / "objects").mkdir(parents=True)
    before = everything_in(folder / "shop.git")
    forge.clear_up()
    assert not any(lock.exists() for lock in locks)
    assert not (folder / ".unfinished").exists()
    assert everything_in(folder / "shop.git").keys() == before.keys() - {
        "config.lock",
        "refs/heads/main.lock",
    }


async def test_who_clones_is_not_warned_of_settings_of_the_repository(
    folder: Path, forge: LocalForge, tmp_path: Path
) -> None:
    await forge.create_shared_repository("gitops")
    assert "warning" not in clone_messages(forge.remote("gitops"), tmp_path / "clone")


def clone_messages(remote: str, folder: Path) -> str:
    """What `git clone` tells whoever runs it."""
    return subprocess.run(
        ["git", "clone", remote, str(folder)], check=True, capture_output=True, text=True
    ).stderr
