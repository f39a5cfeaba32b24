"""A Git host as steps see it; one implementation each beside this module."""

from typing import Protocol

from initializer.errors import InitializerError
from initializer.model.parameters import Project

__all__ = ["GITOPS_SLUG", "Forge", "ForgeError", "RepositoryTaken"]

GITOPS_SLUG = "gitops"
"""The repository that all projects share. No project can have this slug."""


class ForgeError(InitializerError):
    """The forge refused or could not do what was asked."""


class RepositoryTaken(ForgeError):
    """A repository of that name exists and does not carry this project's mark, or that of the shared one."""

    def __init__(self, slug: str, *, is_shared: bool = False) -> None:
        if is_shared:
            taken = f"the place of {slug}, which all projects share, is taken"
            sentence = f"{taken} by a repository that was not made here; move it away"
        else:
            taken = f"a repository named {slug} exists already"
            sentence = f"{taken} and was not made by this project; choose another name"
        super().__init__(sentence)
        self.slug = slug


class Forge(Protocol):
    """Where repositories are made. Every method may be called again after a crash and converges."""

    name: str
    receive_pack: str
    """The command that a push starts at the remote, where that is a path; others do not look at it."""

    async def create_repository(self, project: Project) -> bool:
        """Make the project's empty repository with its mark and default branch `main`.

        True where it was made, False where the project's own was there already and is adopted.
        Raises `RepositoryTaken` where a stranger's repository has that name; it is never touched.
        """

    async def remove_repository(self, project: Project) -> bool:
        """Remove the project's repository, only if it carries its mark. False where there is none of it."""

    async def has_repository(self, project: Project) -> bool:
        """Whether the repository exists and carries the project's mark."""

    async def create_shared_repository(self, slug: str) -> bool:
        """Make sure that a repository shared by many projects exists, with a first commit on `main`.

        True where it was made. Raises `RepositoryTaken` where another repository has that name.
        """

    async def has_shared_repository(self, slug: str) -> bool:
        """Whether it exists and carries the mark of a shared one."""

    def remote(self, slug: str) -> str:
        """What `git` is given to clone from and push to, for the runner."""

    def clone_url(self, slug: str) -> str:
        """What people are given to clone from."""
