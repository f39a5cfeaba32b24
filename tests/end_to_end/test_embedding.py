"""A run on a page of somebody else, by the line of docs/embedding.md: of an allowed origin and of another."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from harness.browser import Visitors, mark, was_reloaded
from harness.gate import Gate
from harness.server import ServerProcess, StartServer, free_port
from harness.waiting import wait_for

PAGE = (Path(__file__).parent / "embedding_page.html").read_text()
HTMX = Path(__file__).parents[2] / "static/vendor/htmx-4.0.1.min.js"


class OtherSite:
    """A server of another origin; it serves `page` and htmx."""

    def __init__(self, port: int) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_script = self.path.endswith(".js")
                body = HTMX.read_bytes() if is_script else site.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/javascript" if is_script else "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.page = ""
        self.url = f"http://localhost:{port}"
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[OtherSite]:
    site = OtherSite(free_port())
    site.start()
    yield site
    site.stop()


def page_for(server: ServerProcess, project: str) -> str:
    return PAGE.replace("APP", server.url).replace("ID", project)


def test_a_page_of_an_allowed_origin_shows_the_run_to_its_end_and_then_asks_no_more(
    start_server: StartServer, visitors: Visitors, gate: Gate, site: OtherSite
) -> None:
    gate.hold("push_template")
    server = start_server(path=gate.path, embed_origins=f"https://elsewhere.example {site.url}")
    project = server.create("Embedded")
    site.page = page_for(server, project)
    page = visitors.open(site.url)
    mark(page)
    expect(page.locator("#step-push_template-head[data-state=running]")).to_be_visible()
    page.locator("#step-verify-head").click()
    gate.release("push_template")
    expect(page.locator("#step-push_template-head[data-state=running]")).to_have_count(0)
    expect(page.locator("#run[data-state=active] .sentence")).to_contain_text("The project is ready.")
    expect(page.locator("#clone-url")).to_have_text(f"{server.url}/git/embedded.git")
    page.locator(".timeline summary").first.click()
    page.get_by_role("link", name="All lines").first.wait_for()
    addresses = page.locator("#run a").evaluate_all("links => links.map((link) => link.href)")
    assert f"{server.url}/projects/{project}/log" in addresses
    for address in addresses:
        assert server.client.get(address).status_code == 200, address
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1_500)  # longer than it waits between two questions
    assert not asked
    assert not was_reloaded(page)
    assert page.evaluate("document.querySelector('img').naturalWidth") > 0


def test_a_fragment_keeps_what_was_opened_and_goes_on_after_an_error(
    start_server: StartServer, visitors: Visitors, gate: Gate, site: OtherSite
) -> None:
    gate.hold("push_template")
    server = start_server(path=gate.path, embed_origins=site.url)
    project = server.create("Embedded")
    server.wait_for_event(project, type="step_started", step="push_template")  # so it is open at first
    site.page = page_for(server, project)
    visitors.allow("status of 502")
    page = visitors.open(site.url)
    page.locator("#step-push_template-head[data-state=running]").click()
    page.locator("#step-verify-head").click()
    answers = iter((502, None, None))
    asked: list[int | None] = []

    def answer(route: Route) -> None:
        asked.append(next(answers, None))
        if asked[-1] is None:
            route.continue_()
        else:
            route.fulfill(
                status=asked[-1], body="<h1>Bad Gateway</h1>", headers={"Access-Control-Allow-Origin": "*"}
            )

    page.route("**/summary*", answer)
    wait_for(lambda: page.evaluate("1") and len(asked) > 3, "an error, and two answers that are none")
    expect(page.locator("#step-push_template details")).not_to_have_attribute("open", "")
    expect(page.locator("#step-verify details")).to_have_attribute("open", "")
    gate.release("push_template")
    expect(page.locator("#run[data-state=active] .sentence")).to_contain_text("The project is ready.")


def test_a_page_of_the_same_origin_needs_no_setting(server: ServerProcess, visitors: Visitors) -> None:
    project = server.create("Inside")
    page = visitors.open("about:blank")
    html = page_for(server, project).replace(f"{server.url}/projects", "/projects")
    page.route("**/inside", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.route("**/htmx.js", lambda route: route.fulfill(path=HTMX))
    page.goto(f"{server.url}/inside")
    expect(page.locator("#run[data-state=active] .sentence")).to_contain_text("The project is ready.")


def test_a_page_of_any_other_origin_may_not_read_it(
    start_server: StartServer, visitors: Visitors, site: OtherSite
) -> None:
    server = start_server(embed_origins="https://elsewhere.example")
    project = server.create("Guarded")
    server.wait_for_end(project)
    for text in ("blocked by CORS", "ERR_FAILED", "htmx:error"):
        visitors.allow(text)
    site.page = page_for(server, project)
    page = visitors.open(site.url)
    page.wait_for_load_state("networkidle")
    expect(page.locator("#run")).to_have_count(0)
    assert page.evaluate("document.querySelector('img').naturalWidth") > 0  # the badge is for everyone


def test_the_fragments_are_those_of_the_page_and_poll_only_where_they_are_told_to(
    start_server: StartServer, gate: Gate
) -> None:
    gate.hold("push_template")
    server = start_server(path=gate.path)
    project = server.create("Same")
    server.wait_for_event(project, type="step_started", step="push_template")
    url = f"/projects/{project}"
    assert "hx-get" not in server.client.get(f"{url}/progress").text
    polling = server.client.get(f"{url}/summary?poll=5").text
    assert f'hx-get="{url}/summary?poll=5" hx-trigger="every 5s"' in polling
    assert "in line" in polling or "Push template" in polling
    badge = server.client.get(f"{url}/badge.svg")
    assert badge.headers["content-type"] == "image/svg+xml"
    assert "%</title>" in badge.text
    for poll in ("0", "x", "-1", "99999", ""):
        assert server.client.get(f"{url}/progress?poll={poll}").status_code == 400
    gate.release("push_template")
    server.wait_for_end(project)
    assert "hx-trigger" not in server.client.get(f"{url}/summary?poll=5").text
    assert "<title>same: ready</title>" in server.client.get(f"{url}/badge.svg").text
