"""`git clone` over HTTP: the read half of Git's smart protocol, answered by a `git http-backend`.

Two URLs and no more: no file of a repository is served as such, and nothing can be pushed. A client gets a
whole commit or an error: git moves a branch only when all of a push has arrived, and reads it once per fetch.
Protocol: https://git-scm.com/docs/http-protocol and https://git-scm.com/docs/git-http-backend.
"""

import asyncio
import logging
import re
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from initializer.forges.git import GIT_ENVIRONMENT
from initializer.forges.local import is_repository, repository_path
from initializer.model.names import is_slug
from initializer.processes import Child, Limits, open_child

__all__ = ["Authorize", "git_routes"]

Authorize = Callable[[Request, str], Awaitable[None]]
"""Raises what the app answers with where the request may not read the repository of that slug."""

MAX_CHILDREN = 8
MAX_WAITING = 64
WAIT_S = 10.0
"""How long a request waits for one of the `MAX_CHILDREN`, before it is told to come again."""
RETRY_AFTER_S = 5
MAX_BODY_BYTES = 1 << 20
"""What a client wants and has: 50 bytes a ref, so this is some 20,000 of them."""
MAX_INFLATED_BYTES = 8 << 20
BODY_TIMEOUT_S = 30.0
TIMEOUT_S = 300.0
STALL_S = 60.0
"""How long one portion may wait for a client that does not read."""
CHILD_LIMITS = Limits(cpu_s=120)

SERVICE = "git-upload-pack"
REQUEST_TYPE = f"application/x-{SERVICE}-request"
_PORTION_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_PASSED_HEADERS = frozenset({"content-type", "cache-control", "expires", "pragma"})
_PROTOCOL = re.compile("version=[0-2]")

logger = logging.getLogger(__name__)


def git_routes(forge_folder: Path, authorize: Authorize) -> list[Route]:
    """The routes under `/git/` for the repositories of a `LocalForge` in that folder."""
    door = _Door()

    async def advertise(request: Request) -> Response:
        slug = await _allowed_slug(request, forge_folder, authorize)
        if request.query_params.get("service") != SERVICE:
            return PlainTextResponse("This server can be cloned and fetched from, nothing else.\n", 403)
        variables = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/{slug}.git/info/refs"}
        variables["QUERY_STRING"] = f"service={SERVICE}"
        return _BackendResponse(door, forge_folder, {**variables, **_protocol_of(request)})

    async def upload_pack(request: Request) -> Response:
        slug = await _allowed_slug(request, forge_folder, authorize)
        if request.headers.get("content-type") != REQUEST_TYPE:
            raise HTTPException(415)
        body = await _read_body(request)
        variables = {"REQUEST_METHOD": "POST", "PATH_INFO": f"/{slug}.git/{SERVICE}"}
        variables |= {"CONTENT_TYPE": REQUEST_TYPE, "CONTENT_LENGTH": str(len(body))}
        return _BackendResponse(door, forge_folder, {**variables, **_protocol_of(request)}, body)

    return [
        Route("/git/{slug}.git/info/refs", advertise, methods=["GET"]),
        Route(f"/git/{{slug}}.git/{SERVICE}", upload_pack, methods=["POST"]),
    ]


@dataclass(slots=True)
class _Door:
    """Lets a bounded number of children in, and a bounded number of requests wait for them."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CHILDREN))
    waiting: int = 0

    async def enter(self) -> bool:
        """Whether a slot was got; leave by `slots.release()`."""
        if self.slots.locked() and self.waiting >= MAX_WAITING:
            return False
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                return await self.slots.acquire()
        except TimeoutError:
            return False
        finally:
            self.waiting -= 1


class _BackendResponse(Response):
    """What one child answers, in portions, as fast as the client reads; the child ends with the client."""

    def __init__(
        self, door: _Door, folder: Path, variables: Mapping[str, str], request_body: bytes = b""
    ) -> None:
        super().__init__()
        self._door, self._folder, self._request_body = door, folder, request_body
        self._variables = {
            **GIT_ENVIRONMENT,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(folder),
            **variables,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.create_task(self._answer(scope, receive, send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._door.enter():
            busy = PlainTextResponse(
                "Too many clones at once; try again.\n", 503, {"Retry-After": str(RETRY_AFTER_S)}
            )
            await busy(scope, receive, send)
            return
        try:
            with tempfile.TemporaryFile() as body:
                body.write(self._request_body)
                body.seek(0)
                async with (
                    asyncio.timeout(TIMEOUT_S),
                    open_child(
                        ["git", "http-backend"],
                        home=self._folder,
                        env=self._variables,
                        timeout_s=TIMEOUT_S,
                        limits=CHILD_LIMITS,
                        stdin=body,
                    ) as child,
                ):
                    await _relay(child, send)
        finally:
            self._door.slots.release()


async def _allowed_slug(request: Request, folder: Path, authorize: Authorize) -> str:
    slug: str = request.path_params["slug"]
    if not is_slug(slug):
        raise HTTPException(404)
    await authorize(request, slug)
    if not is_repository(repository_path(folder, slug)):
        raise HTTPException(404)
    return slug


def _protocol_of(request: Request) -> dict[str, str]:
    asked = request.headers.get("git-protocol", "")
    return {"GIT_PROTOCOL": asked} if _PROTOCOL.fullmatch(asked) else {}


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for portion in request.stream():
                body += portion
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(413)
    except TimeoutError as error:
        raise HTTPException(408) from error
    match request.headers.get("content-encoding", "identity"):
        case "identity":
            return bytes(body)
        case "gzip" | "x-gzip":
            return _inflate(bytes(body))
        case _:
            raise HTTPException(415)


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise HTTPException(400) from error
    if inflater.unconsumed_tail:
        raise HTTPException(413)
    if not inflater.eof:
        raise HTTPException(400)
    return inflated


async def _relay(child: Child, send: Send) -> None:
    """Send what the child answers. A failure before its header is a 500, one after it ends the connection."""
    complaints = asyncio.create_task(_last_words(child.stderr))
    try:
        status, headers = await _read_header(child)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while portion := await child.stdout.read(_PORTION_BYTES):
            async with asyncio.timeout(STALL_S):
                await send({"type": "http.response.body", "body": portion, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if exit_status := await child.wait():
            logger.warning("git http-backend ended with %d: %s", exit_status, await complaints)
    finally:
        complaints.cancel()
        with suppress(asyncio.CancelledError):
            await complaints


async def _read_header(child: Child) -> tuple[int, list[tuple[bytes, bytes]]]:
    """The CGI header (RFC 3875, 6.2): the status, 200 by default, and the headers that are passed on."""
    status, headers, size = 200, [(b"x-content-type-options", b"nosniff")], 0
    while line := (await child.stdout.readline()).rstrip(b"\r\n"):
        size += len(line)
        if size > _MAX_HEADER_BYTES:
            raise HTTPException(502)
        name, _, value = line.partition(b":")
        if name.lower() == b"status":
            status = int(value.split()[0])
        elif name.decode("latin-1").lower() in _PASSED_HEADERS:
            headers.append((name.lower(), value.strip()))
    if size == 0:
        raise HTTPException(502)
    return status, headers


async def _last_words(reader: asyncio.StreamReader) -> str:
    """Read to the end, so that the child never waits; keep the end of it."""
    kept = b""
    while portion := await reader.read(_PORTION_BYTES):
        kept = (kept + portion)[-2_000:]
    return kept.decode(errors="replace").strip()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
