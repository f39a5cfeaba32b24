"""The pages and fragments: the list, the form, a project, its panel and its summary."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from initializer.access import Action, allowed
from initializer.catalog.catalog import Template
from initializer.creation import Invalid, ProjectRequest
from initializer.engines.engine import QueueFull
from initializer.errors import InitializerError
from initializer.model.names import is_slug
from initializer.model.usual import usual_range
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import ProjectRow, SlugTaken
from web.actions import offered
from web.forms import form_of, form_values, read_form, slug_values
from web.languages import VARY, language_of
from web.listing import Listing, asked_rows
from web.live_socket import shown_besides, shown_event
from web.preview import preview_of
from web.rendering import Rendering
from web.room import RunView
from web.runs import row_asked, view_of, view_or_interrupted
from web.security import BodyLimit, authorize, check_origin
from web.state import services

__all__ = ["Pages"]

log = structlog.get_logger()


class Pages:
    """Handlers over one rendering. What has one state looks the same in page, fragment and frame."""

    def __init__(
        self,
        rendering: Rendering,
        catalog: Mapping[str, Template],
        *,
        public_url: str,
        has_repository: Callable[[str], bool],
    ) -> None:
        self._rendering = rendering
        self._has_repository = has_repository
        self._catalog = catalog
        self._public_url = public_url

    def routes(self) -> list[Route]:
        """Where they are served."""
        limit = Middleware(BodyLimit)
        packed = [Middleware(GZipMiddleware, minimum_size=1000)]  # a page holds no secret
        return [
            Route("/", self.projects, middleware=packed),
            Route("/projects", self.create, methods=["POST"], middleware=[limit]),
            Route("/projects/new", self.new, middleware=packed),
            Route("/projects/new/slug", self.slug),
            Route("/projects/new/preview", self.preview, middleware=packed),
            Route("/projects/rows", self.rows, middleware=packed),
            Route("/projects/{id}", self.project, middleware=packed),
            Route("/projects/{id}/live", self.frame, middleware=packed),
            Route("/git/{slug}.git", self.repository, middleware=packed),
        ]

    async def projects(self, request: Request) -> Response:
        """The list; with no project at all, the form."""
        authorize(request, Action.LIST)
        listing = Listing.of(request.query_params, self._catalog)
        page = await services(request).projects.find(
            search=listing.search,
            status=listing.status,
            template=listing.template,
            order=listing.order,
            page=listing.page,
        )
        if not page.total and not listing.is_filtered:
            return await self.new(request)
        views = await self._views(request, page.rows)
        templates = list(self._catalog.values())
        return self._page(
            request, "pages/projects.html", page=page, listing=listing, views=views, templates=templates
        )

    async def rows(self, request: Request) -> Response:
        """Rows of the list as they are now, for a list that shows runs that go on."""
        viewer = authorize(request, Action.LIST)
        asked = await services(request).projects.get_all(asked_rows(request.query_params))
        rows = [row for row in asked if allowed(viewer, Action.VIEW, row.project)]
        return _html(self._spoken(request).rows(rows, await self._views(request, rows)))

    async def new(self, request: Request) -> Response:
        """The form; values in the address are filled in, so that a project can be started like another."""
        authorize(request, Action.CREATE)
        return self._page(request, "pages/new.html", **self._form_values(form_of(request.query_params), {}))

    async def slug(self, request: Request) -> Response:
        """What a name becomes and whether it is free, as a fragment."""
        authorize(request, Action.CREATE)
        name = request.query_params.get("name", "")[:200]
        values = slug_values(name, public_url=self._public_url)
        if values["slug"] and not values["slug_problem"]:
            taken = await services(request).projects.get_by_slug(values["slug"])
            if taken is not None:
                values["slug_problem"] = SlugTaken(taken.project.slug).sentence
        return self._page(request, "fragments/slug.html", **values)

    async def preview(self, request: Request) -> Response:
        """The files that the form as it stands would make, as a fragment."""
        viewer = authorize(request, Action.CREATE)
        made = preview_of(form_of(request.query_params), owner=viewer.name, catalog=self._catalog)
        return self._page(request, "fragments/preview.html", preview=made)

    async def repository(self, request: Request) -> Response:
        """What stands at a clone URL that somebody opened in a browser."""
        slug = request.path_params["slug"]
        row = await services(request).projects.get_by_slug(slug)
        authorize(request, Action.CLONE, row.project if row else None)
        if not is_slug(slug) or not self._has_repository(slug):
            raise HTTPException(404, "There is no repository with this address.")
        url = f"{self._public_url}/git/{slug}.git"
        return self._page(request, "pages/repository.html", slug=slug, row=row, url=url)

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
        row = await row_asked(request)
        if row.status.is_final:
            return _html(self._spoken(request).page(row, None, offered=offered(request, row)))
        durations = await services(request).projects.durations(row.project.parameters.template.name)
        view = await view_or_interrupted(request, row)
        page = self._spoken(request).page(
            row, view, offered=offered(request, row), usual_ms=usual_range(durations)
        )
        return _html(page)

    async def frame(self, request: Request) -> Response:
        """The next frame behind event `after`, for a page without a socket; 204 where there is none."""
        row, after, besides = await row_asked(request), shown_event(request), shown_besides(request)
        if row.status.is_final:
            return _html(self._spoken(request).last_frame(row))
        view = await view_of(request, row)
        if after and (after, besides) == (view.progress.tail, view.besides):
            return Response(status_code=HTTPStatus.NO_CONTENT)
        seen = after if view.progress.holds(after) else ""
        return _html(self._spoken(request).frame(row.project, view, after=seen))

    async def _views(self, request: Request, rows: Iterable[ProjectRow]) -> dict[str, RunView]:
        """Where the runs stand that go on, by project."""
        views = {}
        for row in rows:
            if not row.status.is_final:
                try:
                    views[row.project.id] = await view_of(request, row)
                except InitializerError as error:  # one run's journal is no reason to show no list
                    log.warning("run not shown in the list", project=row.project.id, error=str(error))
        return views

    def _form_again(
        self, request: Request, asked: ProjectRequest, problems: Mapping[str, str], status: HTTPStatus
    ) -> Response:
        is_fragment = "hx-request" in request.headers
        template = "fragments/form.html" if is_fragment else "pages/new.html"
        return self._page(request, template, status, **self._form_values(asked, problems))

    def _form_values(self, asked: ProjectRequest, problems: Mapping[str, str]) -> dict[str, Any]:
        return form_values(asked, problems, catalog=self._catalog, public_url=self._public_url)

    def _spoken(self, request: Request) -> Rendering:
        """The rendering in the language of who asks."""
        return self._rendering.speaking(language_of(request))

    def _page(
        self, request: Request, template: str, code: HTTPStatus = HTTPStatus.OK, /, **values: Any
    ) -> Response:
        return _html(self._spoken(request).render(template, **values), code)


def _html(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return HTMLResponse(text, status, headers={"cache-control": "no-store", "vary": f"hx-request, {VARY}"})
