"""The style sheet and the script: each one file for the browser, put together from its parts at start.

One deferred script, because htmx and its extension race as two (a connector that htmx sees first stays dead).
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

__all__ = ["Assets", "folder_of"]

STYLES = ("tokens", "base", "site", "keys", "form", "list", "run", "log", "summary")
VENDORED = ("htmx-4.0.1.min", "hx-ws-4.0.1.min")
SCRIPTS = (
    "live",
    "clock",
    "steps",
    "spoken",
    "times",
    "keys",
    "copy",
    "log",
    "log_options",
    "log_search",
    "navigation",
)
STATES = ("idle", "pending", "initializing", "active", "failed", "cancelled")
_FOREVER = "public, max-age=31536000, immutable"

_COMMENTS = re.compile(r"^\s*//.*|/\*(?:[^*]|\*(?!/))*\*/", re.MULTILINE)


def folder_of(name: str) -> Path:
    """`templates`, `static` or `locales`: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


class Assets:
    """The files of a page, each under a name with its own hash, so that browsers keep them for ever."""

    def __init__(self, static: Path) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        styles = "".join(_lean((static / f"css/{name}.css").read_text()) for name in STYLES)
        vendored = [(static / f"vendor/{name}.js").read_text() for name in VENDORED]
        scripts = "\n;".join(
            [*vendored, *(_lean((static / f"js/{name}.js").read_text()) for name in SCRIPTS)]
        )
        self.css = self._add("app", "css", styles.encode(), "text/css")
        self.js = self._add("app", "js", scripts.encode(), "text/javascript")
        self._favicons: Mapping[str, str] = {
            state: self._add(state, "svg", (static / f"favicons/{state}.svg").read_bytes(), "image/svg+xml")
            for state in STATES
        }

    def favicon(self, state: str) -> str:
        """The address of the icon of a state."""
        return self._favicons[state]

    def routes(self) -> list[Route]:
        """Where they are served."""
        return [Route("/static/{name}", self._serve), Route("/favicon.ico", self._serve_icon)]

    def _add(self, stem: str, suffix: str, content: bytes, media_type: str) -> str:
        name = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{suffix}"
        self._files[name] = (gzip.compress(content, mtime=0), media_type)
        return f"/static/{name}"

    async def _serve_icon(self, _request: Request) -> Response:
        """The icon of what has no page around it, such as a log: browsers ask for it by this name."""
        return RedirectResponse(self.favicon("idle"))

    async def _serve(self, request: Request) -> Response:
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        packed, media_type = found
        headers = {"cache-control": _FOREVER, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=media_type, headers={**headers, "content-encoding": "gzip"})
        return Response(gzip.decompress(packed), media_type=media_type, headers=headers)


def _lean(text: str) -> str:
    """Our own files without indentation and most comments: nobody reads them where this goes."""
    return "\n".join(line.strip() for line in _COMMENTS.sub("", text).splitlines() if line.strip())
