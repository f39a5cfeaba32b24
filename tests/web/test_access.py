"""Every page, fragment, socket, log and repository asks `allowed`."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from initializer.access import Action, Viewer
from initializer.model.parameters import Project
from initializer.settings import Settings
from model.runs import project_of
from web import live_socket, security
from web.app import create_app

pytestmark = pytest.mark.anyio

OPEN_TO_ALL = {"/livez", "/readyz", "/static/{name}", "/favicon.ico", "/language"}
"""What shows nothing of any project."""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starlette]:
    def refuse(viewer: Viewer, action: Action, project: Project | None = None) -> bool:
        return False

    monkeypatch.setattr(security, "allowed", refuse)
    monkeypatch.setattr(live_socket, "allowed", refuse)
    return create_app(Settings.from_environ({"DATA_DIR": str(tmp_path)}))


async def test_whoever_may_nothing_is_refused_by_every_route_that_shows_or_changes_projects(
    app: Starlette,
) -> None:
    async with app.router.lifespan_context(app) as state:
        await state["services"].projects.add(project_of("a1"), idempotency_key="k")

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            answers = {
                route.path: (await _ask(client, route)).status_code
                for route in app.routes
                if isinstance(route, Route) and route.path not in OPEN_TO_ALL
            }
        codes = {
            route.path: await _closing_code(with_state, _path(route.path))
            for route in app.routes
            if isinstance(route, WebSocketRoute)
        }
    # Outside of the app: an error within would look to it like a part of its own that broke off.
    assert len(answers) > 10
    assert {path: status for path, status in answers.items() if status != 403} == {}
    assert codes == {"/projects/{id}/live": 4403}


async def _ask(client: httpx.AsyncClient, route: Route) -> httpx.Response:
    method = "POST" if "POST" in (route.methods or ()) else "GET"
    query = "?service=git-upload-pack" if route.path.endswith("/info/refs") else "?id=a1"
    return await client.request(
        method, _path(route.path) + query, headers={"origin": "http://localhost:8000"}
    )


def _path(template: str) -> str:
    for name, value in {"id": "a1", "slug": "project-a1", "step": "create_repo"}.items():
        template = template.replace(f"{{{name}}}", value)
    assert "{" not in template
    return template


async def _closing_code(app: ASGIApp, path: str) -> int:
    """The code with which the app closes a socket."""
    codes: list[int] = []

    async def receive() -> Message:
        if not codes:
            return {"type": "websocket.connect"}
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            codes.append(message["code"])

    await app(
        {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost:8000")],
            "subprotocols": [],
            "scheme": "ws",
        },
        receive,
        send,
    )
    return codes[0]
