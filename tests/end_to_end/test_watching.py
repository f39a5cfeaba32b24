"""The live page: nothing lost and nothing twice, whatever happens to it and to its connection."""

import re
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from playwright.sync_api import Page, expect

from harness.browser import Visitors, frames_seen, mark, state_at_the_end, was_reloaded
from harness.gate import Gate
from harness.proxy import Relay
from harness.server import ServerProcess, StartServer, at_of
from harness.waiting import wait_for
from initializer.model.events import decode_event
from initializer.model.parameters import Project
from initializer.model.progress import fold
from web.assets import Assets, folder_of
from web.rendering import Rendering
from web.room import RunView

RENDERING = Rendering(folder_of("templates"), Assets(folder_of("static")))
LINES = "elements => elements.map((element) => [element.value, element.textContent])"


@pytest.fixture
def held_server(start_server: StartServer, gate: Gate) -> ServerProcess:
    """A server whose runs stand still in the middle, in setup_gitops, until the gate releases them."""
    gate.hold("setup_gitops")
    return start_server(path=gate.path)


@pytest.fixture
def relay(held_server: ServerProcess) -> Iterator[Relay]:
    with Relay(held_server.port) as relay:
        yield relay


def panel_after(server: ServerProcess, project: str, index: int) -> str:
    """The panel that the first `index` events of the journal give, rendered anew."""
    row = server.row(project)
    record = {name: row[name] for name in ("id", "slug", "name", "owner", "parameters")}
    value = msgspec.convert({**record, "created_at": row["created_at"] + "+00:00"}, Project)
    lines = (server.data / "journals" / f"{project}.jsonl").read_bytes().splitlines()
    events = [decode_event(line) for line in lines[:index]]
    return RENDERING.panel(value, RunView(progress=fold(value.parameters.pipeline, events)))


def as_lines(html: str) -> list[str]:
    """An element a line, so that a difference can be read."""
    return html.replace("><", ">\n<").splitlines()


def check_frames(server: ServerProcess, page: Page, project: str, *, at_least: int) -> None:
    """Whatever the page has shown is what a fold of the journal up to the same event shows."""
    frames = frames_seen(page)
    frames.pop(0, None)  # shown before the start, with a place in the queue that no journal knows
    assert len(frames) >= at_least, sorted(frames)
    for index, shown in frames.items():
        expected = page.evaluate("recorder.normalText", panel_after(server, project, index))
        assert as_lines(shown) == as_lines(expected), f"after event {index}"


def wait_until_it_stands_still(server: ServerProcess, page: Page, project: str) -> int:
    """Wait until the run is held and the page shows all of its journal; gives the last index."""
    server.wait_for_event(project, type="progress", step="setup_gitops")

    def shown() -> int:
        index = len(server.events(project))
        return index if page.locator("#run-header").get_attribute("data-event") == f"1-{index}" else 0

    return wait_for(shown, "the page shows the whole journal")


def check_log(server: ServerProcess, page: Page, project: str) -> int:
    """The lines on the page are those of the journal, each once; gives how many."""
    count = 0
    logged = [event for event in server.events(project) if event["type"] == "log"]
    for step in {event["step"] for event in logged}:
        expected = [
            [event["first"] + offset, line]
            for event in logged
            if event["step"] == step
            for offset, line in enumerate(event["lines"])
        ]
        assert page.locator(f"#log-{step} > li").evaluate_all(LINES) == expected
        count += len(expected)
    return count


def test_every_frame_of_a_run_shows_what_a_fold_of_the_journal_shows(
    start_server: StartServer, visitors: Visitors, gate: Gate
) -> None:
    gate.hold("create_repo")
    server = start_server(path=gate.path)
    project = server.create("Frames", template="static-site")
    page = visitors.open(f"{server.url}/projects/{project}")
    gate.release("create_repo")
    assert state_at_the_end(page) == "active"
    check_frames(server, page, project, at_least=10)


def test_the_open_page_and_a_fresh_one_show_the_same(held_server: ServerProcess, visitors: Visitors) -> None:
    project = held_server.create("Same", template="static-site")
    url = f"{held_server.url}/projects/{project}"
    page = visitors.open(url)
    index = wait_until_it_stands_still(held_server, page, project)
    live = frames_seen(page)[index]
    fragment = held_server.client.get(f"{url}/progress").text
    assert as_lines(live) == as_lines(page.evaluate("recorder.normalText", fragment))
    whole = held_server.client.get(url).text
    assert as_lines(live) == as_lines(page.evaluate("recorder.normalText", whole))
    assert check_log(held_server, page, project) > 20


def test_a_refresh_in_mid_run_loses_nothing_and_repeats_nothing(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    project = held_server.create("Refreshed", template="static-site")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    held_server.wait_for_event(project, type="step_started", step="push_template")
    page.reload()
    wait_until_it_stands_still(held_server, page, project)
    page.reload()
    wait_until_it_stands_still(held_server, page, project)
    assert check_log(held_server, page, project) > 20
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    check_frames(held_server, page, project, at_least=2)


def cut_often(relay: Relay, server: ServerProcess, project: str) -> None:
    for step in ("create_repo", "push_template", "create_environments", "setup_gitops"):
        server.wait_for_event(project, type="step_started", step=step)
        relay.cut()


def go_down_for_a_while(relay: Relay, server: ServerProcess, project: str) -> None:
    server.wait_for_event(project, type="step_started", step="push_template")
    relay.go_down()
    server.wait_for_event(project, type="step_started", step="setup_gitops")
    relay.come_back()


@pytest.mark.parametrize("disturb", [cut_often, go_down_for_a_while])
def test_a_broken_connection_loses_nothing_and_repeats_nothing(
    held_server: ServerProcess,
    relay: Relay,
    visitors: Visitors,
    gate: Gate,
    disturb: Callable[[Relay, ServerProcess, str], None],
) -> None:
    visitors.allow_lost_connections()
    gate.hold("create_repo")
    project = held_server.create("Cut", template="static-site")
    page = visitors.open(f"{relay.url}/projects/{project}")
    expect(page.locator("#step-create_repo-head[data-state=running]")).to_be_visible()
    mark(page)
    gate.release("create_repo")
    disturb(relay, held_server, project)
    wait_until_it_stands_still(held_server, page, project)
    assert check_log(held_server, page, project) > 20
    expect(page.locator("#connection")).to_have_text("")

    assert relay.cut() > 0
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    check_frames(held_server, page, project, at_least=2)


def test_a_page_says_that_its_connection_is_lost_as_long_as_it_is(
    held_server: ServerProcess, relay: Relay, visitors: Visitors
) -> None:
    visitors.allow_lost_connections()
    project = held_server.create("Lost")
    page = visitors.open(f"{relay.url}/projects/{project}")
    wait_until_it_stands_still(held_server, page, project)
    relay.go_down()
    expect(page.locator("#connection")).to_contain_text("Connection lost")
    expect(page.locator("#connection")).to_be_visible()
    relay.come_back()
    expect(page.locator("#connection")).to_have_text("")


def test_pages_that_come_after_the_end_of_the_journal_get_the_summary(
    held_server: ServerProcess, relay: Relay, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    project = held_server.create("Away")
    page = visitors.open(f"{relay.url}/projects/{project}")
    wait_until_it_stands_still(held_server, page, project)
    mark(page)
    relay.go_down()
    gate.release("setup_gitops")
    held_server.wait_for_end(project)
    relay.come_back()
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)


def test_waiting_runs_show_their_place_and_move_up_live(
    start_server: StartServer, visitors: Visitors, gate: Gate
) -> None:
    gate.hold("create_repo")
    server = start_server(path=gate.path, max_concurrent_runs="1")
    projects = [server.create(f"Number {number}") for number in range(4)]
    server.wait_for_event(projects[0], type="step_started")
    page = visitors.open(f"{server.url}/projects/{projects[3]}")
    mark(page)
    expect(page.locator("#run-header .now")).to_contain_text("number 3 in line")
    expect(page.locator("#run")).to_have_attribute("data-state", "pending")
    gate.release("create_repo")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    said = page.evaluate("recorder.lines")
    places = [int(found[1]) for line in said if (found := re.search(r"number (\d+) in line", line))]
    assert places == [3, 2, 1]
    started = [at_of(server.events(project)[0]) for project in projects]
    ended = [at_of(server.events(project)[-1]) for project in projects]
    assert all(end <= start for end, start in zip(ended, started[1:], strict=False)), (started, ended)


def test_running_times_tick_while_nothing_else_happens_and_whatever_the_wall_clock_says(
    held_server: ServerProcess, visitors: Visitors
) -> None:
    project = held_server.create("Ticking")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    index = wait_until_it_stands_still(held_server, page, project)
    frames = len(frames_seen(page))
    times = page.locator("#run-header [data-elapsed-ms], #step-setup_gitops-head [data-elapsed-ms]")
    page.evaluate("() => { Date.now = () => 0; }")

    def seconds() -> list[int]:
        shown = (text.split(":") for text in times.all_inner_texts())
        return [int(minutes) * 60 + int(seconds) for minutes, seconds in shown]

    since, before = time.monotonic(), seconds()
    assert len(before) == 2
    after = wait_for(
        lambda: [late for late, early in zip(seconds(), before, strict=True) if late >= early + 3],
        "both times have moved on",
        tell=seconds,
    )
    passed_s = time.monotonic() - since
    assert all(late <= early + passed_s + 1 for late, early in zip(after, before, strict=False))
    assert page.locator("#run-header").get_attribute("data-event") == f"1-{index}"
    assert len(frames_seen(page)) == frames


HIDE = """() => {
  Object.defineProperty(document, "hidden", {get: () => true});
  Object.defineProperty(document, "visibilityState", {get: () => "hidden"});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""What a page sees when its tab goes to the background; the browser's own throttle of timers is not in it."""


@pytest.mark.parametrize("is_hidden", [False, True])
def test_the_title_and_the_icon_follow_the_state(
    held_server: ServerProcess, visitors: Visitors, gate: Gate, is_hidden: bool
) -> None:
    project = held_server.create("Titled")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    wait_until_it_stands_still(held_server, page, project)
    if is_hidden:
        page.evaluate(HIDE)
    icon = page.locator("#favicon").get_attribute("href")
    percent = page.locator("#run-progress").get_attribute("value")
    expect(page).to_have_title(f"{percent}% · Titled")
    gate.release("setup_gitops")
    assert state_at_the_end(page) == "active"
    expect(page).to_have_title("Ready · Titled")
    assert page.locator("#favicon").get_attribute("href") != icon
