"""What other pages show of a run: its panel and its summary as fragments, and a badge (docs/embedding.md)."""

import re
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from web.languages import VARY, language_of
from web.rendering import Rendering
from web.runs import row_asked, view_or_interrupted

__all__ = ["Embedding"]

_FRESH = {"cache-control": "no-store", "vary": VARY}
MIN_POLL_S, MAX_POLL_S = 1, 3600
MAX_DIGITS = 4
_LOCAL_ADDRESS = re.compile('(?<= )(?:href|hx-get|data-url)="(?=/)')
"""What stands before an address of this server. Text holds no quotes: they are escaped."""


class Embedding:
    """Handlers over one rendering. Pages of these origins may read the answers; all may show the badge."""

    def __init__(self, rendering: Rendering, *, origins: Sequence[str], public_url: str) -> None:
        self._rendering = rendering
        self._public_url = public_url
        self._sharing = [
            Middleware(
                CORSMiddleware, allow_origins=origins, allow_headers=["*"], expose_headers=["HX-Reswap"]
            )
        ]

    def routes(self) -> list[Route]:
        """Where they are served."""
        methods = ["GET", "OPTIONS"]  # other origins ask first whether they may
        return [
            Route("/projects/{id}/progress", self.progress, methods=methods, middleware=self._sharing),
            Route("/projects/{id}/summary", self.summary, methods=methods, middleware=self._sharing),
            Route("/projects/{id}/badge.svg", self.badge),
        ]

    async def progress(self, request: Request) -> Response:
        """The live panel as a fragment, also after the end."""
        row = await row_asked(request)
        view = await view_or_interrupted(request, row)
        panel = self._rendering.speaking(language_of(request)).panel(row.project, view)
        return self._fragment(request, panel, is_final=row.status.is_final)

    async def summary(self, request: Request) -> Response:
        """The summary as a fragment; the panel while the run lasts."""
        row = await row_asked(request)
        if not row.status.is_final:
            return await self.progress(request)
        summary = self._rendering.speaking(language_of(request)).summary(row)
        return self._fragment(request, summary, is_final=True)

    async def badge(self, request: Request) -> Response:
        """The state as a picture."""
        row = await row_asked(request)
        view = None if row.status.is_final else await view_or_interrupted(request, row)
        if view is not None and view.is_interrupted:
            view = None
        badge = self._rendering.speaking(language_of(request)).badge(row, view)
        return Response(badge, media_type="image/svg+xml", headers=_FRESH)

    def _fragment(self, request: Request, html: str, *, is_final: bool) -> Response:
        """The fragment; with `poll` in the address, within an element that asks again until the end."""
        interval_s = _poll_interval(request)
        headers = dict(_FRESH)
        if interval_s and is_final:
            headers["hx-reswap"] = "outerHTML"  # what asked is gone, and with it its clock
        elif interval_s:
            url = f"{request.url.path}?{request.url.query}"
            html = self._rendering.polling(html, url=url, interval_s=interval_s)
        if "origin" in request.headers:  # asked by a page of another origin
            html = _LOCAL_ADDRESS.sub(lambda found: found[0] + self._public_url, html)
        return HTMLResponse(html, headers=headers)


def _poll_interval(request: Request) -> int | None:
    """How often the fragment is to ask, in seconds; None where the address does not say so."""
    text = request.query_params.get("poll")
    if text is None:
        return None
    if (
        text.isascii()
        and text.isdigit()
        and len(text) <= MAX_DIGITS
        and MIN_POLL_S <= int(text) <= MAX_POLL_S
    ):
        return int(text)
    raise HTTPException(400, f"poll takes whole seconds from {MIN_POLL_S} to {MAX_POLL_S}.")
