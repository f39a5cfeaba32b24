"""Pushes to one repository take turns, and go past the locks of a git that was killed."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from harness.hook import PushHook
from harness.waiting import wait_for
from initializer.forges import receive_pack
from initializer.forges.git import Git, PushRefused
from initializer.forges.local import LocalForge, _run_quietly
from initializer.processes import CommandFailed

pytestmark = pytest.mark.anyio

LOCKS = ("HEAD.lock", "packed-refs.lock", "refs/heads/main.lock")
DEADLINE_S = 30


@pytest.fixture
async def repository(tmp_path: Path) -> Path:
    await LocalForge(tmp_path, "http://localhost:8000").create_shared_repository("gitops")
    return tmp_path / "gitops.git"


async def clone_with_commit(repository: Path, name: str) -> tuple[Git, str, str]:
    """A clone, its commit, and the one before that."""
    folder = repository.parent / name
    git = Git(
        partial(_run_quietly, repository.parent),
        repository.parent,
        datetime(2026, 11, 24, tzinfo=UTC),
        receive_pack=LocalForge.receive_pack,
    )
    clone = await git.clone(repository.as_uri(), folder)
    old = await clone.head()
    (folder / name).write_text(name)
    made = await clone.commit_all(f"Add {name}", {})
    assert old and made
    return clone, made, old


async def main_of(repository: Path) -> str:
    git = Git(partial(_run_quietly, repository.parent), repository, datetime.now(UTC))
    return (await git("rev-parse", "refs/heads/main")).strip()


async def test_a_push_goes_past_locks_that_nobody_holds(repository: Path) -> None:
    clone, made, old = await clone_with_commit(repository, "one")
    for lock in LOCKS:
        (repository / lock).touch()
    await clone.push(old=old)
    assert await main_of(repository) == made
    assert not any((repository / lock).exists() for lock in LOCKS)


async def test_a_lock_of_a_git_at_work_is_left_alone(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody works by hand: the lock that was seen has gone, and there is another in its place."""
    dead, alive = (repository / "refs" / "heads" / name for name in ("other.lock", "main.lock"))
    for lock in (dead, alive):
        lock.touch()

    def a_moment_passes(_seconds: float) -> None:
        (repository / "new").touch()
        (repository / "new").replace(alive)

    monkeypatch.setattr(receive_pack.time, "sleep", a_moment_passes)
    receive_pack.remove_dead_locks(repository)
    assert alive.exists()
    assert not dead.exists()


async def test_a_push_waits_for_another_that_is_in_the_middle_of_its_write(
    repository: Path, tmp_path: Path
) -> None:
    first, made, old = await clone_with_commit(repository, "one")
    second, _, _ = await clone_with_commit(repository, "two")
    hook = PushHook(repository, tmp_path / "hook")
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        writing = group.create_task(first.push(old=old))
        await asyncio.to_thread(wait_for, lambda: hook.is_holding, "a push in the middle of its write")
        waiting = group.create_task(refusal_of(second, old))
        await asyncio.to_thread(
            wait_for, lambda: is_waited_for(repository / "pushing"), "a push that waits for the other"
        )
        assert not waiting.done()
        hook.release()
    writing.result()
    assert "stale info" in waiting.result()
    assert await main_of(repository) == made


async def refusal_of(git: Git, old: str) -> str:
    with pytest.raises(PushRefused) as refused:
        await git.push(old=old)
    return str(refused.value)


def is_waited_for(file: Path) -> bool:
    """Whether a process waits for the lock on the file, by proc(5)."""
    inode = str(file.stat().st_ino)
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and line.split()[-3].endswith(f":{inode}") for line in lines)


async def test_a_repository_that_is_not_there_is_told_as_git_does(repository: Path) -> None:
    clone, _, old = await clone_with_commit(repository, "one")
    await asyncio.to_thread(repository.rename, repository.with_name("away"))
    with pytest.raises(CommandFailed) as failed:
        await clone.push(old=old)
    assert failed.value.status == 128
    assert "does not appear to be a git repository" in "\n".join(failed.value.last_lines)
