"""The composition root: settings in, the running app out."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import WebSocketRoute

from initializer.access import Action
from initializer.catalog.catalog import load_catalog
from initializer.creation import Creation
from initializer.engines.inline import open_inline_engine
from initializer.forges.local import LocalForge, is_repository, repository_path
from initializer.journal.file import FileJournal
from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running.recovery import recover, retire_left_behind
from initializer.running.runner import Runner
from initializer.settings import Settings
from initializer.steps.builtin import BUILTIN_STEPS, pipeline_of
from web.assets import Assets, folder_of
from web.embedding import Embedding
from web.errors import error_handlers
from web.git import git_routes
from web.health import health_routes
from web.hub import open_hub
from web.live_socket import LiveSocket
from web.logs import Logs
from web.pages import Pages
from web.rendering import Rendering
from web.security import SecurityHeaders, TrustedHosts, authorize
from web.state import Services, services

__all__ = ["create_app"]

WORK_FOLDER, JOURNAL_FOLDER, FORGE_FOLDER = "work", "journals", "repositories"
SWEEP_INTERVAL_S = 3600

log = structlog.get_logger()


def create_app(settings: Settings) -> Starlette:
    """The app, ready to be served by one process that holds the lock on its data folder."""
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
        journal = FileJournal(settings.data_dir / JOURNAL_FOLDER)
        keep_for = timedelta(days=settings.journal_retention_days)
        async with open_database(settings.database_url) as database, _sweeping(journal):
            projects = Projects(database)
            runner = Runner(
                journal=journal,
                projects=projects,
                steps={step.name: step for step in BUILTIN_STEPS},
                forges={forge.name: forge},
                work_folder=settings.data_dir / WORK_FOLDER,
                keep_journal_for=keep_for,
            )
            async with (
                open_inline_engine(runner.run, max_concurrent_runs=settings.max_concurrent_runs) as engine,
                open_hub(journal=journal, projects=projects, engine=engine, rendering=rendering) as hub,
            ):
                await asyncio.to_thread(forge.clear_up)
                left_behind = await journal.unretired()
                await retire_left_behind(left_behind, journal, projects, keep_for=keep_for)
                await recover(projects, engine)
                creation = Creation(
                    projects=projects,
                    engine=engine,
                    catalog=catalog,
                    pipeline=pipeline_of(),
                    forge=forge.name,
                )
                yield Services(projects=projects, journal=journal, engine=engine, creation=creation, hub=hub)

    return Starlette(
        routes=[
            *Pages(
                rendering,
                catalog,
                public_url=settings.public_url,
                has_repository=lambda slug: is_repository(repository_path(repositories, slug)),
            ).routes(),
            *Embedding(rendering, origins=settings.embed_origins, public_url=settings.public_url).routes(),
            *Logs(rendering).routes(),
            WebSocketRoute("/projects/{id}/live", LiveSocket(rendering).serve),
            *git_routes(repositories, _authorize_clone),
            *assets.routes(),
            *health_routes(),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(TrustedHosts, settings=settings)],
        exception_handlers=error_handlers(rendering),
        lifespan=lifespan,
    )


async def _authorize_clone(request: Request, slug: str) -> None:
    row = await services(request).projects.get_by_slug(slug)
    authorize(request, Action.CLONE, row.project if row else None)


@asynccontextmanager
async def _sweeping(journal: FileJournal) -> AsyncIterator[None]:
    """Delete retired journals at start and every hour."""

    async def sweep() -> None:
        while True:
            removed = await journal.remove_retired(datetime.now(UTC))
            if removed:
                log.info("retired journals deleted", count=removed)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async with asyncio.TaskGroup() as group:
        sweeper = group.create_task(sweep())
        try:
            yield
        finally:
            sweeper.cancel()
