"""A forge in a folder: bare repositories of this machine, which `web/git.py` serves read-only.

A repository appears whole by one rename, and goes so. Its mark, the ref `refs/initializer/<project id>`, is
written before the rename and hidden from clients: whoever can push can neither see, forge nor remove it.
"""

import asyncio
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from initializer.forges import receive_pack
from initializer.forges.forge import GITOPS_SLUG, ForgeError, RepositoryTaken
from initializer.forges.git import Git
from initializer.model.names import is_slug
from initializer.model.parameters import Project
from initializer.processes import CommandFailed, run_program
from initializer.syncing import sync, sync_tree

__all__ = ["FORGE_FOLDER", "LocalForge", "is_repository", "repository_path"]

FORGE_FOLDER = "repositories"
"""Where in `DATA_DIR` the repositories are."""
MARKS = "refs/initializer"
SETTINGS = {
    # A step that is over survives a loss of power, and so must what it pushed. Git before 2.36 does not know
    # this; its older setting would have a newer git warn everyone who clones.
    "core.fsync": "all",
    "core.hooksPath": "/dev/null",
    "gc.auto": "0",  # a push must not start a gc that outlives it; fresh repositories need none
    "http.receivepack": "false",
    "receive.denyDeletes": "true",
    "receive.denyNonFastForwards": "true",
    "receive.fsckObjects": "true",
    "transfer.hideRefs": MARKS,
}
SHARED_README = """# GitOps

The manifests that clusters follow, one folder for each project under `projects/`. Written by the project
initializer; change a project's own repository rather than this one.
"""
_SHARED_AT = datetime(2026, 1, 1, tzinfo=UTC)
"""The date of a shared repository's first commit: fixed, so that it has the same hash wherever it is made."""
_SHARED_MARK = "_shared"  # no project has this id
_PROJECT_ID = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_UNFINISHED = ".unfinished"
"""A folder that no slug can name; it holds what is not yet, or no longer, a repository."""


def repository_path(folder: Path, slug: str) -> Path:
    """Where the repository of that slug is, always within `folder`. Raises `ForgeError` if it is no slug."""
    if not is_slug(slug):
        raise ForgeError(f"{slug!r} cannot be the name of a repository")
    return folder / f"{slug}.git"


def is_repository(path: Path) -> bool:
    """Whether a repository is there; a symbolic link is none, wherever it points."""
    return not path.is_symlink() and (path / "HEAD").is_file()


class LocalForge:
    """`Forge` in `folder`, which is made where it is missing. `public_url` is where people reach this app."""

    name = "local"
    receive_pack = shlex.join([sys.executable, "-I", "-S", receive_pack.__file__])

    def __init__(self, folder: Path, public_url: str) -> None:
        self._folder = folder.absolute()
        self._public_url = public_url.rstrip("/")

    async def create_repository(self, project: Project) -> bool:
        """See `Forge`. Also raises `ForgeError` for a slug that the forge keeps for itself."""
        if project.slug == GITOPS_SLUG:
            raise ForgeError(f"the name {GITOPS_SLUG} is kept for the repository that all projects share")
        return await self._create(project.slug, _mark(project), project.created_at)

    async def remove_repository(self, project: Project) -> bool:
        """See `Forge`."""
        if not await self.has_repository(project):
            return False
        gone = self._unfinished(_mark(project))
        gone.parent.mkdir(parents=True, exist_ok=True)
        repository_path(self._folder, project.slug).rename(gone)
        await _remove_tree(gone)
        return True

    async def has_repository(self, project: Project) -> bool:
        """See `Forge`."""
        return await self._has_mark(repository_path(self._folder, project.slug), _mark(project))

    async def create_shared_repository(self, slug: str) -> bool:
        """See `Forge`."""
        return await self._create(slug, _SHARED_MARK, _SHARED_AT, readme=SHARED_README)

    async def has_shared_repository(self, slug: str) -> bool:
        """See `Forge`."""
        return await self._has_mark(repository_path(self._folder, slug), _SHARED_MARK)

    def clear_up(self) -> None:
        """Remove what killed processes left: half-made repositories, and locks that nobody will release.

        Only for a process that knows itself alone.
        """
        shutil.rmtree(self._folder / _UNFINISHED, ignore_errors=True)
        for pattern in receive_pack.LOCK_PATTERNS:
            for lock in self._folder.glob(f"*.git/{pattern}"):
                lock.unlink(missing_ok=True)

    def remote(self, slug: str) -> str:
        """See `Forge`: a file URL, so that git uses its transport and not its short cut of linking files."""
        return repository_path(self._folder, slug).as_uri()

    def clone_url(self, slug: str) -> str:
        """See `Forge`."""
        return f"{self._public_url}/git/{repository_path(self._folder, slug).name}"

    async def _create(self, slug: str, mark: str, at: datetime, *, readme: str = "") -> bool:
        path = repository_path(self._folder, slug)
        if await self._is_adopted(path, slug, mark):
            return False
        new = self._unfinished(mark)
        new.mkdir(parents=True)
        try:
            await self._fill(new, mark, at, readme)
            await asyncio.to_thread(sync_tree, new)  # git syncs what it commits, and no settings
            new.rename(path)  # fails where somebody was faster, as a repository is no empty folder
        except (OSError, CommandFailed):
            if await self._is_adopted(path, slug, mark):  # whoever made it has cleared `new` away
                return False
            raise
        finally:
            await _remove_tree(new)
        await asyncio.to_thread(sync, self._folder)
        await self._clear_leftovers(mark)
        return True

    async def _is_adopted(self, path: Path, slug: str, mark: str) -> bool:
        if not _is_something(path):
            return False
        if not await self._has_mark(path, mark):
            raise RepositoryTaken(slug, is_shared=mark == _SHARED_MARK)
        return True

    async def _has_mark(self, path: Path, mark: str) -> bool:
        if not is_repository(path):
            return False
        refs = await self._git(path, _SHARED_AT)("--git-dir=.", "for-each-ref", "--format=%(refname)", MARKS)
        return f"{MARKS}/{mark}" in refs.split()

    async def _fill(self, new: Path, mark: str, at: datetime, readme: str) -> None:
        git = self._git(new, at)
        await git.initialise(is_bare=True)
        await git.configure(SETTINGS)
        if readme:
            await self._commit_readme(git, readme)
        await git("update-ref", f"{MARKS}/{mark}", await _write_blob(git, f"{mark}\n"))

    async def _commit_readme(self, git: Git, readme: str) -> None:
        blob = await _write_blob(git, readme)
        await git("update-index", "--add", "--cacheinfo", f"100644,{blob},README.md")
        tree = (await git("write-tree")).strip()
        commit = (await git("commit-tree", "-m", "Begin the shared repository", tree)).strip()
        await git("update-ref", "refs/heads/main", commit)

    async def _clear_leftovers(self, mark: str) -> None:
        """Remove what the dead or the slower half made under this mark, now that the repository is there."""
        for leftover in (self._folder / _UNFINISHED).glob(f"{mark}.*"):
            await _remove_tree(leftover)

    def _unfinished(self, mark: str) -> Path:
        return self._folder / _UNFINISHED / f"{mark}.{secrets.token_hex(8)}"

    def _git(self, folder: Path, at: datetime) -> Git:
        home = self._folder  # git finds no settings in it: GIT_CONFIG_GLOBAL
        return Git(partial(_run_quietly, home), folder, at)


def _mark(project: Project) -> str:
    if not _PROJECT_ID.fullmatch(project.id):
        raise ForgeError(f"{project.id!r} cannot be the id of a project")
    return project.id


def _is_something(path: Path) -> bool:
    return path.is_symlink() or path.exists()


async def _write_blob(git: Git, text: str) -> str:
    file = git.folder / "blob.unfinished"
    file.write_text(text, encoding="utf-8")
    blob = (await git("hash-object", "-w", "--no-filters", file)).strip()
    file.unlink()
    return blob


async def _remove_tree(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _run_quietly(
    home: Path,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60,
    log_output: bool = False,  # noqa: ARG001 - the interface's; a forge has no log
    on_line: Callable[[str], None] | None = None,
) -> str:
    return await run_program(command, home=home, cwd=cwd, env=env, timeout_s=timeout_s, on_line=on_line)
