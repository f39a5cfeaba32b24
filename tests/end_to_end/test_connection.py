"""The live page whose connection is not what it should be: it says so, and shows each line once."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect
from test_watching import check_log, wait_until_it_stands_still
from websockets.sync.client import connect

from harness.browser import Visitors, mark, state_at_the_end, was_reloaded
from harness.gate import Gate
from harness.proxy import Relay
from harness.server import ServerProcess, StartServer
from harness.waiting import wait_for

SILENCE_MS = 15_000
REFUSING = "window.WebSocket = class extends WebSocket { constructor() { throw new Error('refused'); } };"


class SocketBlocker(Relay):
    """A proxy of the kind that lets pages through, and no WebSocket while `blocks` is set."""

    blocks = True

    def _pump(self, source: socket.socket, sink: socket.socket, *, is_answer: bool = False) -> None:
        if self.blocks and not is_answer:
            with contextlib.suppress(OSError):
                if b"upgrade: websocket" in source.recv(65536, socket.MSG_PEEK).lower():
                    source.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    source.shutdown(socket.SHUT_RDWR)
        super()._pump(source, sink, is_answer=is_answer)


@pytest.fixture
def held_server(start_server: StartServer, gate: Gate) -> ServerProcess:
    """A server whose runs stand still in setup_gitops until the gate releases them."""
    gate.hold("setup_gitops")
    return start_server(path=gate.path)


@pytest.fixture
def relay(held_server: ServerProcess) -> Iterator[Relay]:
    with Relay(held_server.port) as relay:
        yield relay


IS_OPEN = """
() => document.getElementById("live")?._htmx?.ws?.connection?.socket?.readyState === WebSocket.OPEN
"""


def open_held(server: ServerProcess, visitors: Visitors, url: str, name: str) -> tuple[str, Page]:
    """A page of a run that stands still, with the page's clock in the test's hands, and a mark."""
    project = server.create(name, template="static-site")
    page = visitors.open("about:blank")
    page.clock.install()
    page.goto(f"{url}/projects/{project}")
    wait_until_it_stands_still(server, page, project)
    mark(page)
    return project, page


def banner(page: Page, text: str) -> None:
    expect(page.locator("#connection")).to_contain_text(text)


def test_a_lost_connection_is_told_with_the_attempts_and_can_be_retried_at_once(
    held_server: ServerProcess, relay: Relay, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    _, page = open_held(held_server, visitors, relay.url, "Retried")
    expect(page.locator("#connection > *")).to_have_count(1)  # nothing is said while all is well
    relay.go_down()
    banner(page, "Connection lost.")
    banner(page, "Reconnecting, attempt 3.")
    relay.come_back()
    page.get_by_role("button", name="Retry now").click()
    banner(page, "Connected again.")
    page.clock.run_for(5_000)
    expect(page.locator("#connection")).to_have_text("")
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    expect(page.locator("#connection")).to_have_count(0)


def test_a_frozen_server_is_noticed_by_its_silence(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    project, page = open_held(held_server, visitors, held_server.url, "Frozen")
    assert held_server._process is not None
    os.kill(held_server._process.pid, signal.SIGSTOP)
    try:
        page.clock.run_for(SILENCE_MS + 2_000)
        banner(page, "Connection lost.")
    finally:
        os.kill(held_server._process.pid, signal.SIGCONT)
    page.clock.run_for(SILENCE_MS)
    expect(page.locator("#connection")).not_to_contain_text("lost")
    check_log(held_server, page, project)
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"


def test_a_frozen_server_is_noticed_though_the_clock_was_set_back(
    held_server: ServerProcess, visitors: Visitors
) -> None:
    visitors.allow_lost_connections()
    _, page = open_held(held_server, visitors, held_server.url, "Set back")
    os.kill(held_server.pid, signal.SIGSTOP)
    try:
        page.clock.set_system_time(page.evaluate("Date.now()") / 1000 - 3_600)  # in seconds
        page.clock.run_for(SILENCE_MS + 2_000)
        banner(page, "Connection lost.")
    finally:
        os.kill(held_server.pid, signal.SIGCONT)
    page.clock.run_for(SILENCE_MS)
    expect(page.locator("#connection")).not_to_contain_text("lost")


def test_an_idle_socket_is_kept_by_the_servers_beat(held_server: ServerProcess) -> None:
    project = held_server.create("Idle")
    held_server.wait_for_event(project, type="progress", step="setup_gitops")
    after = held_server.events(project)[-1]["id"]
    url = f"ws{held_server.url.removeprefix('http')}/projects/{project}/live?after={after}"
    with connect(url) as viewer:
        assert viewer.recv(timeout=10) == "{}"  # at once: the page knows that it is through
        assert viewer.recv(timeout=10) == "{}"  # and after 5 s


def test_where_sockets_are_blocked_the_page_asks_and_goes_back_to_its_socket_when_it_can(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    visitors.allow("Error during WebSocket handshake")
    gate.hold("push_template")
    with SocketBlocker(held_server.port) as blocker:
        project = held_server.create("Blocked", template="static-site")
        page = visitors.open(f"{blocker.url}/projects/{project}")
        mark(page)
        banner(page, "Live updates do not get through here.")
        banner(page, "This page asks every 2 seconds instead.")
        gate.release("push_template")
        wait_until_it_stands_still(held_server, page, project)
        assert check_log(held_server, page, project) > 20
        expect(page.locator('details[data-step="setup_gitops"]')).to_have_attribute("open", "")

        blocker.blocks = False
        page.get_by_role("button", name="Retry now").click()
        banner(page, "Connected again.")
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url) if "/live?" in request.url else None)
        gate.release("setup_gitops")
        assert state_at_the_end(page) == "active"
        assert not was_reloaded(page)
        assert not requests, "it still asks"


def test_a_page_that_only_asks_sees_the_end(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    visitors.allow("Error during WebSocket handshake")
    with SocketBlocker(held_server.port) as blocker:
        project = held_server.create("Asking")
        page = visitors.open(f"{blocker.url}/projects/{project}")
        wait_until_it_stands_still(held_server, page, project)
        mark(page)
        banner(page, "Live updates do not get through")
        gate.release("setup_gitops")
        assert state_at_the_end(page) == "active"
        assert not was_reloaded(page)
        expect(page).to_have_title("Ready · Asking")
        expect(page.locator("#connection")).to_have_count(0)


def test_an_answer_that_comes_after_the_socket_is_back_doubles_nothing(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    visitors.allow("Error during WebSocket handshake")
    gate.hold("push_template")
    with SocketBlocker(held_server.port) as blocker:
        project = held_server.create("Late answer", template="static-site")
        page = visitors.open(f"{blocker.url}/projects/{project}")
        banner(page, "Live updates do not get through")
        kept: list[Route] = []

        def keep(route: Route) -> None:
            kept.append(route)

        page.route("**/live?after=*", keep)
        page.wait_for_event("request", lambda request: "/live?after=" in request.url)
        gate.release("push_template")
        held_server.wait_for_event(project, type="progress", step="setup_gitops")
        blocker.blocks = False
        page.get_by_role("button", name="Retry now").click()
        banner(page, "Connected again.")
        for route in kept:
            route.continue_()
        wait_until_it_stands_still(held_server, page, project)
        page.unroute("**/live?after=*")
        page.wait_for_load_state("networkidle")
        check_log(held_server, page, project)


def test_a_question_that_is_never_answered_is_asked_again(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    visitors.allow("Error during WebSocket handshake")
    gate.hold("push_template")
    with SocketBlocker(held_server.port) as blocker:
        project = held_server.create("Unanswered", template="static-site")
        page = visitors.open(f"{blocker.url}/projects/{project}")
        banner(page, "Live updates do not get through")
        kept: list[Route] = []

        def never_answer(route: Route) -> None:
            kept.append(route)

        page.route("**/live?after=*", never_answer)
        page.wait_for_event("request", lambda request: "/live?after=" in request.url)
        page.wait_for_event("request", lambda request: "/live?after=" in request.url)
        banner(page, "Connection lost.")
        page.unroute("**/live?after=*")
        gate.release("push_template")
        wait_until_it_stands_still(held_server, page, project)
        assert len(kept) == 2
        assert check_log(held_server, page, project) > 20


def test_offline_is_told_and_online_reconnects_at_once(
    held_server: ServerProcess, relay: Relay, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    visitors.allow("ERR_INTERNET_DISCONNECTED")
    _, page = open_held(held_server, visitors, relay.url, "Offline")
    page.clock.pause_at(page.evaluate("Date.now()") + 1_000)  # no attempt comes by itself from here on
    relay.go_down()
    page.context.set_offline(True)
    banner(page, "You are offline.")
    relay.come_back()
    page.context.set_offline(False)
    page.clock.run_for(100)
    expect(page.locator("#connection")).not_to_contain_text("offline")
    page.clock.resume()
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)


def test_after_sleep_or_an_hour_in_a_hidden_tab_the_page_is_right(
    held_server: ServerProcess, relay: Relay, visitors: Visitors, gate: Gate
) -> None:
    """While the machine sleeps, no timer runs and the connection dies unheard; then the clock has jumped."""
    visitors.allow_lost_connections()
    gate.hold("push_template")
    project = held_server.create("Slept", template="static-site")
    page = visitors.open("about:blank")
    page.clock.install()
    page.goto(f"{relay.url}/projects/{project}")
    expect(page.locator("#step-push_template-head[data-state=running]")).to_be_visible()
    mark(page)
    page.clock.pause_at(page.evaluate("Date.now()") + 1_000)
    relay.go_down()
    gate.release("push_template")
    held_server.wait_for_event(project, type="progress", step="setup_gitops")
    relay.come_back()
    page.clock.fast_forward("01:00:00")  # each timer that was due fires once, as after a wake
    page.clock.resume()
    wait_until_it_stands_still(held_server, page, project)
    assert check_log(held_server, page, project) > 20
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)


def test_back_and_forward_give_a_live_page_again(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    gate.hold("push_template")
    project = held_server.create("Back", template="static-site")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    expect(page.locator("#step-push_template-head[data-state=running]")).to_be_visible()
    page.goto(f"{held_server.url}/livez")
    gate.release("push_template")
    held_server.wait_for_event(project, type="progress", step="setup_gitops")
    page.go_back()
    wait_until_it_stands_still(held_server, page, project)
    check_log(held_server, page, project)
    page.get_by_role("link", name="Projects", exact=True).first.click()  # and by htmx
    expect(page.locator("#list")).to_be_visible()
    page.go_back()
    wait_until_it_stands_still(held_server, page, project)
    check_log(held_server, page, project)
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"


def test_a_slow_network_shows_it_all_in_the_end(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    """By the browser's own emulation: half a second each way, 20 kB a second."""
    gate.hold("create_repo")
    project = held_server.create("Slow", template="python-service")
    page = visitors.open("about:blank")
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    slow = {"offline": False, "latency": 500, "downloadThroughput": 20_000, "uploadThroughput": 20_000}
    network.send("Network.emulateNetworkConditions", slow)
    page.goto(f"{held_server.url}/projects/{project}")
    gate.release("create_repo")
    wait_until_it_stands_still(held_server, page, project)
    assert check_log(held_server, page, project) > 20
    expect(page.locator("#connection")).to_have_text("")
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"


def test_where_the_browser_refuses_sockets_the_page_asks_at_once(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow("htmx:ws:error")
    gate.hold("push_template")
    project = held_server.create("Refused", template="static-site")
    page = visitors.open("about:blank")
    page.add_init_script(REFUSING)
    page.goto(f"{held_server.url}/projects/{project}")
    banner(page, "Live updates do not get through")
    gate.release("push_template")
    wait_until_it_stands_still(held_server, page, project)
    assert check_log(held_server, page, project) > 20
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"


def test_a_page_that_the_server_turns_away_says_so_and_tries_no_more(
    held_server: ServerProcess, visitors: Visitors
) -> None:
    project = held_server.create("Turned away")
    page = visitors.open("about:blank")
    opened: list[str] = []

    def turn_away(route: WebSocketRoute) -> None:
        opened.append(route.url)
        route.close(code=4403)

    page.clock.install()
    page.route_web_socket("**/live?*", turn_away)
    page.goto(f"{held_server.url}/projects/{project}")
    banner(page, "This page is not live any more. Load it again.")
    page.clock.run_for(60_000)
    assert len(opened) == 1
    expect(page.get_by_role("button", name="Retry now")).to_have_count(0)


@pytest.mark.parametrize(("drawn", "comes_after_ms"), [(0.25, 1_000), (0.5, 2_000), (0.99, 3_960)])
def test_the_pages_of_a_server_that_restarts_come_back_spread_over_some_seconds(
    held_server: ServerProcess, visitors: Visitors, drawn: float, comes_after_ms: int
) -> None:
    visitors.allow_lost_connections()
    routes: list[WebSocketRoute] = []

    def connect_through(route: WebSocketRoute) -> None:
        routes.append(route)
        route.connect_to_server()

    project = held_server.create("Restarted", template="static-site")
    page = visitors.open("about:blank")
    page.add_init_script(f"Math.random = () => {drawn}")
    page.clock.install()
    page.route_web_socket("**/live?*", connect_through)
    page.goto(f"{held_server.url}/projects/{project}")
    wait_until_it_stands_still(held_server, page, project)
    page.clock.pause_at(page.evaluate("Date.now()") + 1_000)
    before = len(routes)
    routes[-1].close(code=1012)
    banner(page, "Reconnecting")
    page.clock.run_for(comes_after_ms - 100)
    page.evaluate("fetch('/livez')")  # so that whatever it has begun is known
    assert len(routes) == before
    page.clock.run_for(200)
    wait_for(lambda: page.evaluate("true") and len(routes) > before, "the page to come back")


def test_a_page_out_of_the_browsers_cache_connects_again(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    """A driven browser keeps no page in its cache, so the test tells the page what it would be told."""
    gate.hold("push_template")
    project = held_server.create("Cached", template="static-site")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    expect(page.locator("#step-push_template-head[data-state=running]")).to_be_visible()
    page.wait_for_function(IS_OPEN)  # else the browser would complain that it was closed too early
    mark(page)
    with page.expect_websocket() as connected:
        page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        gate.release("push_template")
        held_server.wait_for_event(project, type="progress", step="setup_gitops")
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    assert "after=" in connected.value.url
    wait_until_it_stands_still(held_server, page, project)
    assert check_log(held_server, page, project) > 20
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
