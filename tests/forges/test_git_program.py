import asyncio
import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from initializer.forges.git import EMAIL, IDENTITY, MINIMUM_GIT, Git, PushRefused
from initializer.forges.local import _run_quietly
from initializer.processes import CommandFailed

AT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
TRAILERS = {"Initializer-Project": "p1", "Initializer-Step": "push_template"}


@pytest.fixture
async def origin(tmp_path: Path) -> Git:
    """An empty bare repository."""
    folder = tmp_path / "origin.git"
    folder.mkdir()
    git = Git(partial(_run_quietly, tmp_path), folder, AT)
    await git.initialise(is_bare=True)
    return git


async def clone_of(origin: Git, folder: Path) -> Git:
    return await origin.in_folder(folder.parent).clone(origin.folder.as_uri(), folder)


async def commit(git: Git, name: str, text: str = "text") -> str:
    (git.folder / name).write_text(text)
    made = await git.commit_all(f"Add {name}", TRAILERS)
    assert made is not None
    return made


def test_the_installed_git_is_new_enough() -> None:
    words = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()
    assert tuple(int(part) for part in words[2].split(".")[:2]) >= MINIMUM_GIT


@pytest.mark.anyio
async def test_a_commit_made_twice_has_one_hash_and_the_projects_identity(
    origin: Git, tmp_path: Path
) -> None:
    first, second = [await clone_of(origin, tmp_path / name) for name in ("first", "second")]
    made = await commit(first, "file")
    assert made == await commit(second, "file")
    told = await first("log", "-1", "--format=%an|%ae|%cn|%ce|%aI|%cI")
    at = "2026-11-24T10:00:00+00:00"
    assert told.strip() == f"{IDENTITY}|{EMAIL}|{IDENTITY}|{EMAIL}|{at}|{at}"


@pytest.mark.anyio
async def test_a_repository_around_the_folder_is_not_taken_for_its_own(tmp_path: Path) -> None:
    around = Git(partial(_run_quietly, tmp_path), tmp_path, AT)
    await around.initialise()
    (tmp_path / "folder").mkdir()
    with pytest.raises(CommandFailed):
        await around.in_folder(tmp_path / "folder").configure({"user.name": "somebody"})
    assert "somebody" not in (tmp_path / ".git" / "config").read_text()


@pytest.mark.anyio
async def test_git_asks_nobody_and_sees_nothing_of_the_servers_user(
    origin: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_ASKPASS", "/bin/askpass")
    told = await origin("-c", "alias.told=!env", "told")
    environment = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    assert environment["HOME"] == str(tmp_path)
    assert environment["GIT_AUTHOR_NAME"] == IDENTITY
    assert environment.get("GIT_DIR", ".") != "/elsewhere"
    assert "GIT_ASKPASS" not in environment


@pytest.mark.anyio
async def test_trailers_are_read_back_and_what_has_none_shows_none(origin: Git, tmp_path: Path) -> None:
    git = await clone_of(origin, tmp_path / "clone")
    assert await git.commits(*TRAILERS) == []
    await commit(git, "file")
    (git.folder / "other").write_text("")
    await git.commit_all("By hand", {})
    by_hand, own = await git.commits(*TRAILERS)
    assert (by_hand.trailers, own.trailers) == ({}, TRAILERS)


@pytest.mark.anyio
async def test_files_that_gitignore_names_are_committed_too_and_each_is_told(
    origin: Git, tmp_path: Path
) -> None:
    git = await clone_of(origin, tmp_path / "clone")
    (git.folder / ".gitignore").write_text("*.lock\n")
    (git.folder / "uv.lock").write_text("")
    lines: list[str] = []
    await git.commit_all("All", {}, on_line=lines.append)
    assert lines == ["add '.gitignore'", "add 'uv.lock'"]
    assert (await git("ls-files")).split() == [".gitignore", "uv.lock"]


@pytest.mark.anyio
async def test_nothing_changed_is_no_commit(origin: Git, tmp_path: Path) -> None:
    git = await clone_of(origin, tmp_path / "clone")
    made = await commit(git, "file")
    assert await git.commit_all("Again", {}) is None
    assert await git.head() == made


@pytest.mark.anyio
async def test_a_push_lands_only_on_what_the_pusher_had_seen(origin: Git, tmp_path: Path) -> None:
    fast, slow = [await clone_of(origin, tmp_path / name) for name in ("fast", "slow")]
    landed = await commit(fast, "fast")
    await fast.push(old=None)
    await commit(slow, "slow")
    with pytest.raises(PushRefused, match="git push was refused: stale info"):
        await slow.push(old=None)
    assert await origin.head() == landed
    await fast.push(old=None)  # what landed already is no change


@pytest.mark.anyio
async def test_of_many_pushes_at_once_exactly_one_lands(origin: Git, tmp_path: Path) -> None:
    clones = [await clone_of(origin, tmp_path / f"clone-{number}") for number in range(5)]
    made = [await commit(clone, f"file-{number}") for number, clone in enumerate(clones)]
    results = await asyncio.gather(*(clone.push(old=None) for clone in clones), return_exceptions=True)
    assert [isinstance(result, PushRefused) for result in results].count(True) == 4
    assert await origin.head() == made[results.index(None)]


@pytest.mark.anyio
async def test_remote_refs_are_told_by_name(origin: Git, tmp_path: Path) -> None:
    git = await clone_of(origin, tmp_path / "clone")
    remote = origin.folder.as_uri()
    assert await git.remote_refs(remote, "refs/heads/main") == {}
    made = await commit(git, "file")
    await git.push(old=None)
    assert await git.remote_refs(remote, "refs/heads/main") == {"refs/heads/main": made}


@pytest.mark.anyio
async def test_a_repository_that_is_not_there_is_no_refused_push(origin: Git, tmp_path: Path) -> None:
    git = await clone_of(origin, tmp_path / "clone")
    await commit(git, "file")
    origin.folder.rename(tmp_path / "moved")
    with pytest.raises(CommandFailed) as caught:
        await git.push(old=None)
    assert not isinstance(caught.value, PushRefused)
