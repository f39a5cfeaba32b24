"""What can be done to a run, as buttons and as JSON: cancel, retry, restart."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from initializer.access import Action, allowed
from initializer.control import NotPossible, possible
from initializer.engines.engine import QueueFull
from initializer.projects.projects import ProjectRow
from web.errors import problem, wants_json
from web.languages import VARY, language_of
from web.rendering import Rendering
from web.runs import row_asked
from web.security import MAX_BODY_BYTES, authorize, check_origin, is_json, viewer_of
from web.state import services

__all__ = ["Actions", "offered"]

MAX_ATTEMPT = 2**31 - 1
"""What the column takes."""

Do = Callable[[Request, ProjectRow], Awaitable[ProjectRow]]


def offered(request: Request, row: ProjectRow) -> tuple[Action, ...]:
    """What the state of the run allows to who asks."""
    viewer = viewer_of(request)
    return tuple(action for action in possible(row) if allowed(viewer, action, row.project))


class Actions:
    """Handlers that answer in the way they were asked: the buttons anew, JSON, or the way to the page."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering

    def routes(self) -> list[Route]:
        """Where they are served."""
        limit = [Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)]
        path = "/projects/{id}"
        return [
            Route(f"{path}/actions", self.buttons),
            Route(f"{path}/cancel", self.cancel, methods=["POST"], middleware=limit),
            Route(f"{path}/retry", self.retry, methods=["POST"], middleware=limit),
            Route(f"{path}/restart", self.restart, methods=["POST"], middleware=limit),
        ]

    async def buttons(self, request: Request) -> Response:
        """What can be done now, as a fragment: it differs between viewers, so it is in no frame."""
        return self._buttons(request, await row_asked(request))

    async def cancel(self, request: Request) -> Response:
        """Have the run end."""

        async def cancel(_request: Request, row: ProjectRow) -> ProjectRow:
            return await services(request).control.cancel(row)

        return await self._do(request, Action.CANCEL, cancel)

    async def retry(self, request: Request) -> Response:
        """Another try, from the step that failed or was cancelled."""
        return await self._begin_again(request, Action.RETRY)

    async def restart(self, request: Request) -> Response:
        """Another try, from the first step."""
        return await self._begin_again(request, Action.RESTART)

    async def _begin_again(self, request: Request, action: Action) -> Response:
        async def begin_again(request: Request, row: ProjectRow) -> ProjectRow:
            seen_attempt = await _seen_attempt(request) or row.attempt
            return await services(request).control.begin_again(row, action, seen_attempt=seen_attempt)

        return await self._do(request, action, begin_again)

    async def _do(self, request: Request, action: Action, do: Do) -> Response:
        check_origin(request)
        row = await row_asked(request)
        authorize(request, action, row.project)
        try:
            row = await do(request, row)
        except NotPossible as error:
            return self._refused(request, row, HTTPStatus.CONFLICT, str(error))
        except QueueFull as error:
            return self._refused(request, row, HTTPStatus.SERVICE_UNAVAILABLE, f"Nothing was begun: {error}.")
        url = f"/projects/{row.project.id}"
        if wants_json(request):
            return _json(_record(request, row), HTTPStatus.ACCEPTED)
        if "hx-request" not in request.headers:
            return RedirectResponse(url, HTTPStatus.SEE_OTHER)
        if action is Action.CANCEL:
            return self._buttons(request, row)
        location = {"path": url, "target": "#main", "select": "#main", "swap": "outerHTML show:top"}
        return Response(headers={"hx-location": msgspec.json.encode(location).decode()})

    def _refused(self, request: Request, row: ProjectRow, status: HTTPStatus, sentence: str) -> Response:
        if wants_json(request):
            return problem(status, sentence)
        if "hx-request" in request.headers:
            return self._buttons(request, row, status, problem=sentence)
        raise HTTPException(status, sentence)

    def _buttons(
        self, request: Request, row: ProjectRow, status: HTTPStatus = HTTPStatus.OK, *, problem: str = ""
    ) -> Response:
        rendering = self._rendering.speaking(language_of(request))
        html = rendering.actions(row, offered(request, row), problem=problem)
        return HTMLResponse(html, status, headers={"cache-control": "no-store", "vary": VARY})


class _Asked(msgspec.Struct, frozen=True):
    attempt: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPT)] | None = None


async def _seen_attempt(request: Request) -> int | None:
    """The attempt whose end the person saw, None where that is not said. Raises `HTTPException` 400."""
    try:
        if is_json(request):
            return msgspec.json.decode(await request.body() or b"{}", type=_Asked).attempt
        async with request.form(max_files=0, max_fields=10) as form:
            return msgspec.convert(dict(form), type=_Asked, strict=False).attempt
    except msgspec.DecodeError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "There is no such attempt.") from None


def _record(request: Request, row: ProjectRow) -> dict[str, Any]:
    return {
        "id": row.project.id,
        "slug": row.project.slug,
        "status": row.status,
        "attempt": row.attempt,
        "cancelRequestedAt": row.cancel_requested_at,
        "actions": offered(request, row),
    }


def _json(value: Any, status: HTTPStatus) -> Response:
    return Response(
        msgspec.json.encode(value),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )
