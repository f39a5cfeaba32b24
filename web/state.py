"""What request handlers work with, made by the lifespan and carried in the request's state."""

from typing import cast

import msgspec
from starlette.requests import HTTPConnection

from initializer.control import Control
from initializer.creation import Creation
from initializer.engines.engine import Engine
from initializer.journal.journal import Journal
from initializer.projects.projects import Projects
from web.folds import Folds
from web.hub import Hub

__all__ = ["Services", "services"]


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the running app."""

    projects: Projects
    journal: Journal
    engine: Engine
    creation: Creation
    control: Control
    hub: Hub
    folds: Folds
    public_origin: str
    """What browsers that reach the app by `PUBLIC_URL` call the origin of its pages."""


def services(connection: HTTPConnection) -> Services:
    """The parts, for the handler of this request or socket."""
    return cast(Services, connection.state.services)
