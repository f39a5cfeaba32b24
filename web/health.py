"""Whether the process lives, and whether it can do its work."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from initializer.projects.database import DatabaseUnavailable
from web.state import services

__all__ = ["health_routes"]


def health_routes() -> list[Route]:
    """`/livez` and `/readyz`."""
    return [Route("/livez", _live), Route("/readyz", _ready)]


async def _live(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    """Whether the database and the journal answer; the engine is in this process."""
    parts = services(request)
    found = {"database": "ok", "journal": "away" if parts.journal.is_away else "ok"}
    try:
        await parts.projects.ping()
    except DatabaseUnavailable as error:
        found["database"] = str(error)
    is_ready = set(found.values()) == {"ok"}
    return JSONResponse({"status": "ok" if is_ready else "unavailable", **found}, 200 if is_ready else 503)
