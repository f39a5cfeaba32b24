"""The `git` program, as much of it as steps and forges need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from initializer.processes import CommandFailed, RunCommand

__all__ = ["BRANCH", "EMAIL", "GIT_ENVIRONMENT", "IDENTITY", "MINIMUM_GIT", "Commit", "Git", "PushRefused"]

MINIMUM_GIT = (2, 32)
"""The first git that obeys GIT_CONFIG_GLOBAL; an older one would act on the settings of the server's user."""
IDENTITY = "Project Initializer"
EMAIL = "initializer@localhost"
BRANCH = "refs/heads/main"
GIT_ENVIRONMENT = {
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}
"""No setting of the machine or of its user, and no question that nobody would answer."""
_TIMEOUT_S = 60


class PushRefused(CommandFailed):
    """The remote did not take a push: most often the ref was no longer what the pusher had seen."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of which the hash and the named trailers were read."""

    hash: str
    trailers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Git:
    """git in one folder. All of its settings are given here, none are read from the machine or its user.

    `at` is the date of every commit: with the same files and parent, a commit made twice has one hash.
    `receive_pack` is the command that a push starts at the remote, where that is on this machine.
    """

    run: RunCommand
    folder: Path
    at: datetime
    receive_pack: str = "git-receive-pack"

    async def __call__(
        self,
        *arguments: str | Path,
        timeout_s: float = _TIMEOUT_S,
        log_output: bool = False,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """Run `git arguments` and give its standard output. Raises `CommandFailed`."""
        return await self.run(
            ["git", *map(str, arguments)],
            cwd=self.folder,
            env=self._environment(),
            timeout_s=timeout_s,
            log_output=log_output,
            on_line=on_line,
        )

    def in_folder(self, folder: Path) -> Self:
        """The same git in another folder."""
        return replace(self, folder=folder)

    async def clone(self, remote: str, folder: Path, *, options: Sequence[str] = ()) -> Self:
        """Clone `remote` into a new folder; an empty one gives an empty clone."""
        await self("clone", "--quiet", "--template=", "--no-local", *options, "--", remote, folder)
        cloned = self.in_folder(folder)
        if await cloned.head() is None:
            await cloned("symbolic-ref", "HEAD", BRANCH)
        return cloned

    async def clone_part(self, remote: str, folder: Path, part: str) -> Self:
        """Clone the last commit of `remote`, and check out no other folders than `part` and those above it.

        A commit keeps the rest as it is; `part` need not be there yet.
        """
        settings = [f"--config={name}=true" for name in ("core.sparseCheckout", "core.sparseCheckoutCone")]
        cloned = await self.clone(remote, folder, options=["--depth=1", "--no-checkout", *settings])
        await cloned("sparse-checkout", "set", part)
        await cloned("reset", "--quiet", "--hard")
        return cloned

    async def initialise(self, *, is_bare: bool = False) -> None:
        """Make an empty repository on `main` of the folder, without hooks."""
        await self(
            "init", "--quiet", "--template=", "--initial-branch=main", *(["--bare"] if is_bare else [])
        )

    async def configure(self, settings: Mapping[str, str]) -> None:
        """Write settings into the repository's own file."""
        for name, value in settings.items():
            await self("config", name, value)

    async def head(self) -> str | None:
        """The hash of the commit that stands checked out; None where there is none yet."""
        return next(iter((await self("for-each-ref", "--format=%(objectname)", BRANCH)).split()), None)

    async def remote_refs(self, remote: str, *patterns: str) -> dict[str, str]:
        """The hash of each ref that the remote shows and that matches a pattern, by its full name."""
        lines = (await self("ls-remote", "--", remote, *patterns)).splitlines()
        return {name: found for found, _, name in (line.partition("\t") for line in lines)}

    async def commit_all(
        self,
        title: str,
        trailers: Mapping[str, str],
        *,
        paths: Sequence[str] = (".",),
        on_line: Callable[[str], None] | None = None,
    ) -> str | None:
        """Commit all that lies under `paths`, also what .gitignore names; None where nothing changed.

        `on_line` gets a line `add 'path'` or `remove 'path'` for each file.
        """
        await self("add", "--all", "--force", "--verbose", "--", *paths, on_line=on_line)
        if not await self("status", "--porcelain", "--", *paths):
            return None
        options = [f"--trailer={name}: {value}" for name, value in trailers.items()]
        await self("commit", "--quiet", "--no-verify", f"--message={title}", *options)
        return await self.head()

    async def commits(self, *trailers: str) -> list[Commit]:
        """The commits of the current branch, newest first, with the named trailers where they have them."""
        if await self.head() is None:
            return []
        fields = ["%H", *(f"%(trailers:key={name},valueonly,separator=%x2C)" for name in trailers)]
        lines = (await self("log", f"--format={'%x00'.join(fields)}")).splitlines()
        rows = (line.split("\0") for line in lines)
        return [
            Commit(found, {name: value for name, value in zip(trailers, values, strict=True) if value})
            for found, *values in rows
        ]

    async def paths_of(self, commit: str) -> list[str]:
        """The paths that a commit added or changed, sorted."""
        options = ("-r", "-z", "--root", "--no-commit-id", "--name-only")
        return (await self("diff-tree", *options, commit)).split("\0")[:-1]

    async def changes_since(self, commit: str) -> dict[str, str]:
        """What is no longer as it was in that commit: path -> git's letter, D for a file that is gone."""
        fields = (await self("diff", "--name-status", "--no-renames", "-z", commit, "HEAD")).split("\0")
        return dict(zip(fields[1::2], fields[::2], strict=False))

    async def tree(self, folder: str) -> str | None:
        """The hash of all that a folder holds in the commit that stands checked out; None without one."""
        entry = await self("ls-tree", "-d", "HEAD", folder)  # mode, type, hash, path
        return entry.split()[2] if entry else None

    async def push(self, *, old: str | None) -> None:
        """Set the remote's `main` to ours, only if it is `old` (None: absent) at that moment.

        Raises `PushRefused` where it is not, `CommandFailed` where the remote could not be reached.
        """
        try:
            await self(
                "push",
                "--atomic",
                f"--receive-pack={self.receive_pack}",
                f"--force-with-lease={BRANCH}:{old or ''}",
                "origin",
                f"{BRANCH}:{BRANCH}",
            )
        except CommandFailed as error:
            if error.status == 1:  # 128 is a broken connection or repository
                raise PushRefused(error.command, 1, error.last_lines, _why_refused(error)) from error
            raise

    def _environment(self) -> dict[str, str]:
        date = f"{int(self.at.timestamp())} +0000"
        return {
            **GIT_ENVIRONMENT,
            "GIT_CEILING_DIRECTORIES": str(self.folder.parent),  # a repository around the folder is not ours
            "GIT_AUTHOR_NAME": IDENTITY,
            "GIT_AUTHOR_EMAIL": EMAIL,
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_NAME": IDENTITY,
            "GIT_COMMITTER_EMAIL": EMAIL,
            "GIT_COMMITTER_DATE": date,
        }


def _why_refused(error: CommandFailed) -> str:
    """From lines like ` ! [rejected] main -> main (stale info)`."""
    reasons = [line.rpartition("(")[2].rstrip(") ") for line in error.last_lines if line.startswith(" ! [")]
    return f"was refused: {reasons[0]}" if reasons else ""
