"""Errors as pages, or as problems for programs: one table from what happened to a status."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ExceptionHandler

from initializer.errors import InitializerError
from initializer.journal.journal import JournalUnavailable
from initializer.projects.database import DatabaseDamaged, DatabaseFull, DatabaseUnavailable
from web.languages import VARY, language_of
from web.rendering import Rendering
from web.security import SECURITY_HEADERS
from web.sentences import N_

__all__ = ["error_handlers", "problem", "wants_json"]

_STATUSES: dict[type[InitializerError], HTTPStatus] = {
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    JournalUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
_SENTENCES = {
    HTTPStatus.NOT_FOUND: N_("There is no page with this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: N_("This address does not take such a request."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: N_("The request is larger than this server takes."),
}
_UNAVAILABLE = N_("The server cannot answer right now; try again in a moment.")
_DAMAGED = N_(
    "The database of this server is damaged. As soon as its operator has put a sound copy in its place, "
    "everything goes on by itself."
)

_FULL = N_(
    "The disk of this server is full. As soon as its operator has made room, everything goes on by itself."
)

log = structlog.get_logger()


def error_handlers(rendering: Rendering) -> dict[type[Exception] | int, ExceptionHandler]:
    """Handlers for Starlette: what was raised becomes a page, or a problem, with one readable sentence."""

    def page(
        request: Request, status: HTTPStatus, sentence: str, headers: dict[str, str] | None = None
    ) -> Response:
        if wants_json(request):
            return problem(status, sentence, headers)
        told = rendering.speaking(language_of(request))
        say = told.words.say
        html = told.render("pages/error.html", title=say(status.phrase), sentence=say(sentence))
        return HTMLResponse(html, status, headers={**SECURITY_HEADERS, "vary": VARY, **(headers or {})})

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        sentence = (
            error.detail if error.detail != status.phrase else _SENTENCES.get(status, status.description)
        )
        return page(request, status, sentence, dict(error.headers or {}))

    async def unavailable(request: Request, error: Exception) -> Response:
        log.warning("request failed", path=request.url.path, error=str(error))
        status = next(status for fault, status in _STATUSES.items() if isinstance(error, fault))
        return page(request, status, _sentence(error))

    async def left(request: Request, _error: Exception) -> Response:
        log.info("client left", path=request.url.path)
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it

    async def broken(request: Request, _error: Exception) -> Response:
        log.error("request broke", path=request.url.path)
        sentence = N_("Something went wrong here; the server's log has the details.")
        return page(request, HTTPStatus.INTERNAL_SERVER_ERROR, sentence)

    handlers: dict[type[Exception] | int, ExceptionHandler] = {
        HTTPException: refused,
        ClientDisconnect: left,
        Exception: broken,
    }
    return handlers | dict.fromkeys(_STATUSES, unavailable)


def wants_json(request: Request) -> bool:
    """Whether it is a program that asks."""
    return "application/json" in request.headers.get("accept", "")


def problem(status: HTTPStatus, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as RFC 9457 has it."""
    value = {"title": status.phrase, "status": status.value, "detail": sentence}
    return Response(
        msgspec.json.encode(value),
        status,
        media_type="application/problem+json",
        headers={**SECURITY_HEADERS, "cache-control": "no-store", **(headers or {})},
    )


def _sentence(error: Exception) -> str:
    match error:
        case DatabaseFull():
            return _FULL
        case DatabaseDamaged():
            return _DAMAGED
        case _:
            return _UNAVAILABLE
