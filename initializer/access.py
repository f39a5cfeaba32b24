"""Who asks, and what they may do. Every page, fragment, socket, log and repository asks here."""

from enum import StrEnum

import msgspec

from initializer.model.parameters import Project

__all__ = ["LOCAL_USER", "Action", "Viewer", "allowed"]


class Action(StrEnum):
    """What can be done with projects."""

    CREATE = "create"
    LIST = "list"
    VIEW = "view"
    CLONE = "clone"
    CANCEL = "cancel"
    RETRY = "retry"
    RESTART = "restart"


class Viewer(msgspec.Struct, frozen=True):
    """The person or tool behind a request."""

    name: str


LOCAL_USER = Viewer("local")
"""The one user, as long as there are no accounts: whoever can reach the app."""


def allowed(viewer: Viewer, action: Action, project: Project | None = None) -> bool:
    """Whether the viewer may do this, with this project where the action is about one."""
    del action, project  # the rules come with accounts
    return viewer == LOCAL_USER
