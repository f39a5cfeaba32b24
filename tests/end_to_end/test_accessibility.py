"""Every page in every state: axe finds nothing, nothing is cut off, and no request leaves the origin."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from harness.browser import Visitors
from harness.gate import Gate
from harness.server import ServerProcess, StartServer

MAX_PAGE_BYTES = 40_000
LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 320, "height": 640}},
    "zoomed": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},  # 1280 px at 200 %
    "forced": {"forced_colors": "active"},
    "still": {"reduced_motion": "reduce"},
}
SETTLED = """() => Promise.allSettled(document.getAnimations()
  .filter((each) => each.effect.getComputedTiming().iterations === 1).map((each) => each.finished))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Places:
    """The addresses of a server that has a project in each state."""

    def __init__(self, server: ServerProcess, projects: dict[str, str]) -> None:
        self.server = server
        paths = {name: f"/projects/{project}" for name, project in projects.items()}
        self.paths = {
            **paths,
            "list": "/",
            "empty list": "/?q=nothing-of-that-name",
            "form": "/projects/new",
            "unknown": "/projects/unknown",
            "repository": "/git/ready.git",
        }


@pytest.fixture
def places(start_server: StartServer, gate: Gate) -> Iterator[Places]:
    server = start_server(path=gate.path, max_concurrent_runs="1")
    ready = server.create("Ready", template="static-site")
    server.wait_for_end(ready)
    stranger = server.data / "repositories" / "failed.git"
    stranger.mkdir()
    failed = server.create("Failed")
    server.wait_for_end(failed, status="failed")
    gate.hold("push_template")
    running = server.create("A project with quite a long name that has to fit")
    server.wait_for_event(running, type="step_started", step="push_template")
    queued = server.create("Queued")
    yield Places(server, {"ready": ready, "failed": failed, "running": running, "queued": queued})
    gate.release("push_template")
    for project in (running, queued):
        server.wait_for_end(project)


def check(page: Page, what: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{what}:\n{found.generate_report()}"
    assert page.evaluate(OVERFLOW) <= 0, f"{what} scrolls sideways"


def open_details(page: Page) -> None:
    closed = page.locator("details:not([open]) > summary")
    closed.first.wait_for()
    closed.evaluate_all("all => all.forEach((each) => each.click())")


def test_axe_finds_nothing_on_any_page_in_any_state_and_look(places: Places, visitors: Visitors) -> None:
    visitors.allow("status of 404")
    for look, options in LOOKS.items():
        page = visitors.open("about:blank", **options)
        for name, path in places.paths.items():
            page.goto(places.server.url + path)
            expect(page.locator("h1, h2").first).to_be_visible()
            page.evaluate(SETTLED)
            check(page, f"{name}, {look}")
        page.goto(places.server.url + places.paths["running"])
        open_details(page)
        check(page, f"running with all steps open, {look}")
        page.keyboard.press("?")
        check(page, f"help, {look}")
        page.context.close()


def test_the_form_with_problems_and_preview_is_accessible(places: Places, visitors: Visitors) -> None:
    visitors.allow("status of 422")
    page = visitors.open(f"{places.server.url}/projects/new", viewport={"width": 320, "height": 640})
    page.fill("#name", "Ready")
    expect(page.locator("#slug .problem")).to_be_visible()
    page.locator('label:has(input[value="bare"])').click()
    open_details(page)
    check(page, "the preview")
    page.fill("#own-environments", "Not_A_Label")
    page.get_by_role("button", name="Create project").click()
    expect(page.locator("#environments-problem")).to_be_visible()
    check(page, "the form with problems")


def test_a_lost_connection_is_accessible(places: Places, visitors: Visitors) -> None:
    visitors.allow_lost_connections()
    page = visitors.open("about:blank", viewport={"width": 320, "height": 640})
    page.route_web_socket("**/live?*", lambda socket: socket.close(code=1013))
    page.goto(places.server.url + places.paths["running"])
    expect(page.get_by_role("button", name="Retry now")).to_be_visible()
    check(page, "a lost connection")


def test_motion_stops_for_who_wants_none(places: Places, visitors: Visitors) -> None:
    page = visitors.open(places.server.url + places.paths["running"], reduced_motion="reduce")
    expect(page.locator("#step-push_template-head[data-state=running]")).to_be_visible()
    moving = "document.getAnimations().filter((each) => each.effect.getComputedTiming().duration > 1).length"
    assert page.evaluate(moving) == 0


@pytest.mark.parametrize("name", ["list", "form", "running", "ready"])
def test_a_page_is_one_html_one_style_sheet_and_one_deferred_script_and_light(
    places: Places, visitors: Visitors, name: str
) -> None:
    sizes: dict[str, int] = {}
    hosts: set[str] = set()
    finished: list[Callable[[], None]] = []
    page = visitors.open("about:blank")
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("requestfinished", lambda request: finished.append(lambda: _measure(request, sizes)))
    page.goto(places.server.url + places.paths[name])
    page.wait_for_load_state("networkidle")
    for measure in finished:
        measure()
    assert hosts == {urlsplit(places.server.url).netloc}
    kinds = sorted(kind for kind in sizes if not kind.startswith(("fetch", "other", "image", "websocket")))
    assert kinds == ["document", "script", "stylesheet"]
    assert page.locator("script").evaluate_all("all => all.map((each) => each.defer)") == [True]
    total = sum(sizes.values())
    assert total < MAX_PAGE_BYTES, sizes


def _measure(request: "object", sizes: dict[str, int]) -> None:
    measured = request.sizes()  # type: ignore[attr-defined]
    kind = request.resource_type  # type: ignore[attr-defined]
    sizes[kind] = sizes.get(kind, 0) + measured["responseBodySize"] + measured["responseHeadersSize"]
