"""The pages and fragments: the list, the form, a project, its panel, its summary and its log."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from initializer.access import Action
from initializer.catalog.catalog import Template
from initializer.creation import Invalid, ProjectRequest
from initializer.engines.engine import QueueFull
from initializer.model.events import Log
from initializer.model.progress import Status, fold
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow
from web.forms import empty_form, form_values, read_form, slug_values
from web.live_socket import shown_index
from web.rendering import Rendering
from web.room import RunView
from web.security import MAX_BODY_BYTES, authorize, check_origin
from web.state import services

__all__ = ["Pages"]

MAX_PAGE = 100_000


class Pages:
    """Handlers over one rendering. What has one state looks the same in page, fragment and frame."""

    def __init__(self, rendering: Rendering, catalog: Mapping[str, Template], *, public_url: str) -> None:
        self._rendering = rendering
        self._catalog = catalog
        self._public_url = public_url

    def routes(self) -> list[Route]:
        """Where they are served."""
        limit = Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
        return [
            Route("/", self.projects),
            Route("/projects", self.create, methods=["POST"], middleware=[limit]),
            Route("/projects/new", self.new),
            Route("/projects/new/slug", self.slug),
            Route("/projects/{id}", self.project),
            Route("/projects/{id}/live", self.frame),
            Route("/projects/{id}/progress", self.progress),
            Route("/projects/{id}/summary", self.summary),
            Route("/projects/{id}/log", self.log),
        ]

    async def projects(self, request: Request) -> Response:
        """The list; with no project at all, the form."""
        authorize(request, Action.LIST)
        search = request.query_params.get("q", "").strip()[:63]
        status = _status(request.query_params.get("status", ""))
        number = _page_number(request.query_params.get("page", "1"))
        page = await services(request).projects.find(search=search, status=status, page=number)
        if not page.total and not search and status is None:
            return await self.new(request)

        def page_url(number: int) -> str:
            asked = {"q": search, "status": status or "", "page": str(number)}
            return "/?" + urlencode({name: value for name, value in asked.items() if value})

        return self._page("pages/projects.html", page=page, search=search, state=status, page_url=page_url)

    async def new(self, request: Request) -> Response:
        """The form."""
        authorize(request, Action.CREATE)
        return self._page("pages/new.html", **self._form_values(empty_form(), {}))

    async def slug(self, request: Request) -> Response:
        """What a name becomes, as a fragment."""
        authorize(request, Action.CREATE)
        name = request.query_params.get("name", "")[:200]
        return self._page("fragments/slug.html", **slug_values(name, public_url=self._public_url))

    async def create(self, request: Request) -> Response:
        """Create a project; the form again where that cannot be done."""
        viewer = authorize(request, Action.CREATE)
        check_origin(request)
        asked = await read_form(request)
        try:
            project_id = await services(request).creation.create(asked, owner=viewer.name)
        except Invalid as invalid:
            return self._form_again(request, asked, invalid.problems, HTTPStatus.UNPROCESSABLE_ENTITY)
        except (QueueFull, DatabaseUnavailable) as error:
            problem = {"form": f"Nothing was created: {error}."}
            return self._form_again(request, asked, problem, HTTPStatus.SERVICE_UNAVAILABLE)
        url = f"/projects/{project_id}"
        if "hx-request" in request.headers:
            location = {"path": url, "target": "#main", "select": "#main", "swap": "outerHTML show:top"}
            return Response(headers={"hx-location": msgspec.json.encode(location).decode()})
        return RedirectResponse(url, HTTPStatus.SEE_OTHER)

    async def project(self, request: Request) -> Response:
        """A project's page: the panel while its run lasts, then the summary."""
        row = await self._row(request)
        view = None if row.status.is_final else await self._view(request, row)
        return _html(self._rendering.page(row, view))

    async def frame(self, request: Request) -> Response:
        """The next frame behind event `after`, for a page whose socket does not get through; 204 without one."""
        row, after = await self._row(request), shown_index(request)
        if row.status.is_final:
            return _html(self._rendering.last_frame(row))
        view = await self._view(request, row)
        if 0 < view.progress.index == after:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        if after > view.progress.index:
            after = 0
        return _html(self._rendering.frame(row.project, view, after=after))

    async def progress(self, request: Request) -> Response:
        """The live panel as a fragment, also after the end."""
        row = await self._row(request)
        return _html(self._rendering.panel(row.project, await self._view(request, row)))

    async def summary(self, request: Request) -> Response:
        """The summary as a fragment; the panel while the run lasts."""
        row = await self._row(request)
        if not row.status.is_final:
            return await self.progress(request)
        return _html(self._rendering.summary(row))

    async def log(self, request: Request) -> Response:
        """Every log line of the run as text, also while it lasts."""
        row = await self._row(request)
        events = await services(request).journal.read(row.project.id)
        lines = (_log_text(event) for event in events if isinstance(event, Log))
        return StreamingResponse(lines, media_type="text/plain; charset=utf-8")

    async def _row(self, request: Request) -> ProjectRow:
        row = await services(request).projects.get(request.path_params["id"])
        if row is None:
            raise HTTPException(404, "There is no project with this address.")
        authorize(request, Action.VIEW, row.project)
        return row

    async def _view(self, request: Request, row: ProjectRow) -> RunView:
        parts = services(request)
        events = await parts.journal.read(row.project.id)
        progress = fold(row.project.parameters.pipeline, events)
        position = None if progress.index else parts.engine.position(row.project.id)
        return RunView(progress=progress, position=position)

    def _form_again(
        self, request: Request, asked: ProjectRequest, problems: Mapping[str, str], status: HTTPStatus
    ) -> Response:
        is_fragment = "hx-request" in request.headers
        template = "fragments/form.html" if is_fragment else "pages/new.html"
        return self._page(template, status, **self._form_values(asked, problems))

    def _form_values(self, asked: ProjectRequest, problems: Mapping[str, str]) -> dict[str, Any]:
        return form_values(asked, problems, catalog=self._catalog, public_url=self._public_url)

    def _page(self, template: str, code: HTTPStatus = HTTPStatus.OK, /, **values: Any) -> Response:
        return _html(self._rendering.render(template, **values), code)


def _html(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return HTMLResponse(text, status, headers={"cache-control": "no-store", "vary": "hx-request"})


def _status(text: str) -> Status | None:
    try:
        return Status(text) if text else None
    except ValueError:
        raise HTTPException(400, "There is no such state.") from None


def _page_number(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PAGE:
        return int(text)
    raise HTTPException(400, "There is no such page.")


def _log_text(event: Log) -> str:
    dropped = (
        f"{event.at.isoformat()} {event.step} … {event.dropped} lines dropped\n" if event.dropped else ""
    )
    return dropped + "".join(f"{event.at.isoformat()} {event.step} {line}\n" for line in event.lines)
