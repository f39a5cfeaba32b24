"""What answers in place of the app, as a proxy does, takes nothing from a page."""

import pytest
from playwright.sync_api import Page, Route, expect

from harness.browser import Visitors
from harness.gate import Gate
from harness.server import ServerProcess, StartServer

UNANSWERED = "The server did not answer. Try again in a moment."


@pytest.fixture
def held_server(start_server: StartServer, gate: Gate) -> ServerProcess:
    """A server whose runs stand still in verify until the gate releases them."""
    gate.hold("verify")
    return start_server(path=gate.path)


@pytest.fixture(params=[502, 503])
def status(request: pytest.FixtureRequest, visitors: Visitors) -> int:
    status: int = request.param
    visitors.allow(f"status of {status}")
    return status


def fail(page: Page, status: int, address: str) -> None:
    """Have this address answered once with an error, by somebody else than the app."""

    def answer(route: Route) -> None:
        route.fulfill(status=status, body="<title>Error</title><h1>Error</h1>", content_type="text/html")

    page.route(address, answer, times=1)


def expect_told(page: Page, title: str) -> None:
    expect(page.locator("#notice")).to_have_text(UNANSWERED)
    expect(page).to_have_title(title)


def test_a_search_goes_on_with_the_next_word(
    held_server: ServerProcess, visitors: Visitors, status: int
) -> None:
    project = held_server.create("Found", template="static-site")
    page = visitors.open(held_server.url)
    title = page.title()
    fail(page, status, "**/?*")
    page.get_by_label("Search by name").fill("fou")
    expect_told(page, title)
    expect(page.locator("#list")).to_contain_text("Found")
    page.get_by_label("Search by name").fill("nothing like it")
    expect(page.locator("#list")).not_to_contain_text("Found")

    held_server.wait_for_event(project, type="step_started", step="verify")
    page.goto(f"{held_server.url}/projects/{project}")
    title = page.title()
    fail(page, status, "**/search*")
    query = page.get_by_label("Search the logs of all steps")
    query.fill("push")
    expect_told(page, title)
    query.fill("pushed")
    expect(page.locator("#log-hits")).to_contain_text("Pushed")


def test_an_action_can_be_asked_for_again(
    held_server: ServerProcess, visitors: Visitors, status: int
) -> None:
    project = held_server.create("Ended", template="static-site")
    held_server.wait_for_event(project, type="step_started", step="verify")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    title = page.title()
    fail(page, status, "**/cancel")
    page.get_by_role("button", name="Cancel").click()
    expect_told(page, title)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#run .sentence")).to_contain_text("The run was cancelled")
    expect(page.locator("#notice")).to_have_text("")


def test_a_form_and_a_link_can_be_tried_again(
    held_server: ServerProcess, visitors: Visitors, status: int
) -> None:
    page = visitors.open(held_server.url)
    title = page.title()
    fail(page, status, "**/projects/new")
    page.get_by_role("link", name="New project").first.click()
    expect_told(page, title)
    page.get_by_role("link", name="New project").first.click()
    page.locator("#create").wait_for()
    title = page.title()
    page.get_by_text("Static site").click()
    page.get_by_label("Name", exact=True).fill("Tried twice")
    fail(page, status, "**/projects")
    page.get_by_role("button", name="Create project").click()
    expect_told(page, title)
    page.get_by_role("button", name="Create project").click()
    page.locator("#run").wait_for()
