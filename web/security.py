"""What every request and answer passes: hosts and origins that are ours, headers that keep the page ours."""

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from initializer.access import LOCAL_USER, Action, Viewer, allowed
from initializer.model.parameters import Project
from initializer.settings import Settings, is_loopback
from web.state import services

__all__ = [
    "MAX_BODY_BYTES",
    "SECURITY_HEADERS",
    "BodyLimit",
    "SecurityHeaders",
    "TrustedHosts",
    "authorize",
    "check_origin",
    "is_json",
    "is_own_origin",
    "origin_of",
    "viewer_of",
]

MAX_BODY_BYTES = 64 * 1024

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


_OTHER_NAME = PlainTextResponse("This address is not one of this server's names.\n", 400)


class SecurityHeaders:
    """Adds the headers to every answer; that of a handler that broke passes it by, and brings its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class TrustedHosts:
    """Answers only under its own names: a page elsewhere that points a name of its own at this machine
    (DNS rebinding) would otherwise be our own origin.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = {urlsplit(settings.public_url).hostname, settings.host.strip("[]")}
        self._takes_addresses = settings.trust_network
        if settings.trust_network:
            self._names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_known(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _OTHER_NAME(scope, receive, send)
        else:
            await WebSocketClose()(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = _split(f"//{host}").hostname or ""
        return is_loopback(name) or name in self._names or (self._takes_addresses and _is_address(name))


class BodyLimit:
    """Refuses bodies over `MAX_BODY_BYTES`: an announced one unread, another as soon as it is over.

    Starlette's own middleware answers in words of its own, past our pages of errors.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
            raise HTTPException(413)
        size = 0

        async def receive_some() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_some, send)


def origin_of(url: str) -> str:
    """What a browser calls the origin of a page at this address: without the scheme's own port."""
    parts = urlsplit(url)
    own_port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(own_port)}"


def is_own_origin(connection: HTTPConnection) -> bool:
    """Whether the request says that it comes from a page of this server.

    That is one under the name by which the server was asked, or under `PUBLIC_URL`: a proxy may ask by
    another name.
    """
    told = connection.headers.get("origin", "")
    netloc = _split(told).netloc
    is_same_host = bool(netloc) and netloc == connection.headers.get("host")
    return is_same_host or told == services(connection).public_origin


def is_json(request: Request) -> bool:
    """Whether the request brings JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def check_origin(request: Request) -> None:
    """Refuse a change that a page elsewhere asks for. Raises `HTTPException` 403.

    Tools name no origin. A page cannot keep it back, nor send JSON elsewhere without being asked first.
    """
    is_tool = "origin" not in request.headers and is_json(request)
    if not is_tool and not is_own_origin(request):
        raise HTTPException(
            403, "This request does not come from a page of this server, so nothing was done."
        )


def viewer_of(connection: HTTPConnection) -> Viewer:
    """Who asks."""
    del connection  # the session comes with accounts
    return LOCAL_USER


def authorize(connection: HTTPConnection, action: Action, project: Project | None = None) -> Viewer:
    """Who asks, if they may. Raises `HTTPException` 403."""
    viewer = viewer_of(connection)
    if not allowed(viewer, action, project):
        raise HTTPException(403, "You may not do this.")
    return viewer


def _is_address(name: str) -> bool:
    """Whether a host is an IP address, which nobody can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _split(url: str) -> SplitResult:
    """The parts of an address that a client sent; none of what is no address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts
