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
    try:
        await services(request).projects.ping()
    except DatabaseUnavailable as error:
        return JSONResponse({"status": "unavailable", "database": str(error)}, 503)
    return JSONResponse({"status": "ok", "database": "ok"})
