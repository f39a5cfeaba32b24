"""The composition root: settings in, the running app out."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import WebSocketRoute

from initializer.access import Action
from initializer.catalog.catalog import load_catalog
from initializer.control import Control
from initializer.creation import Creation
from initializer.forges.local import FORGE_FOLDER, LocalForge, is_repository, repository_path
from initializer.parts.opening import open_running_parts
from initializer.settings import Settings
from initializer.steps.builtin import pipeline_of
from web.actions import Actions
from web.assets import Assets, folder_of
from web.embedding import Embedding
from web.errors import error_handlers
from web.folds import Folds
from web.git import git_routes
from web.health import health_routes
from web.hub import open_hub
from web.languages import language_routes
from web.limits import max_viewers
from web.live_socket import LiveSocket
from web.logs import Logs
from web.pages import Pages
from web.rendering import Rendering
from web.security import SecurityHeaders, TrustedHosts, authorize, origin_of
from web.state import Services, services
from web.stopping import when_asked_to_end

__all__ = ["create_app"]

log = structlog.get_logger()


def create_app(settings: Settings) -> Starlette:
    """The app, ready to be served; embedded, by the one process that holds the lock on its data folder."""
    assets = Assets(folder_of("static"))
    rendering = Rendering(folder_of("templates"), assets)
    catalog = load_catalog()
    repositories = settings.data_dir / FORGE_FOLDER
    forge = LocalForge(repositories, settings.public_url)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Services]]:
        try:
            async with parts() as opened:
                yield {"services": opened}
        except BaseExceptionGroup:  # a task that the app cannot do without
            log.critical("a part of the app broke off; the process ends", exc_info=True)
            signal.raise_signal(signal.SIGTERM)  # uvicorn would serve on, and start no run
            raise

    @asynccontextmanager
    async def parts() -> AsyncIterator[Services]:
        """Open the parts in the order in which they need each other; what was left unfinished goes on."""
        async with (
            open_running_parts(settings, forge) as running,
            open_hub(
                journal=running.journal,
                projects=running.projects,
                engine=running.engine,
                rendering=rendering,
                frames_per_second=settings.frames_per_second,
                max_viewers=max_viewers(),
            ) as hub,
        ):
            creation = Creation(
                projects=running.projects,
                engine=running.engine,
                catalog=catalog,
                pipeline=pipeline_of(),
                forge=forge.name,
            )
            with when_asked_to_end(running.leave):
                yield Services(
                    projects=running.projects,
                    journal=running.journal,
                    engine=running.engine,
                    creation=creation,
                    control=Control(running.projects, running.engine),
                    hub=hub,
                    folds=Folds(),
                    public_origin=origin_of(settings.public_url),
                )

    return Starlette(
        routes=[
            *Pages(
                rendering,
                catalog,
                public_url=settings.public_url,
                has_repository=lambda slug: is_repository(repository_path(repositories, slug)),
            ).routes(),
            *Actions(rendering).routes(),
            *Embedding(rendering, origins=settings.embed_origins, public_url=settings.public_url).routes(),
            *Logs(rendering).routes(),
            WebSocketRoute("/projects/{id}/live", LiveSocket(rendering).serve),
            *git_routes(repositories, _authorize_clone),
            *assets.routes(),
            *language_routes(),
            *health_routes(),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(TrustedHosts, settings=settings)],
        exception_handlers=error_handlers(rendering),
        lifespan=lifespan,
    )


async def _authorize_clone(request: Request, slug: str) -> None:
    row = await services(request).projects.get_by_slug(slug)
    authorize(request, Action.CLONE, row.project if row else None)
