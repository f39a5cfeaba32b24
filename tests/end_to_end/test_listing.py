"""The list of projects: filters in the address, and rows that follow their runs."""

from playwright.sync_api import Page, expect

from harness.browser import Visitors, mark, was_reloaded
from harness.gate import Gate
from harness.server import ServerProcess, StartServer


def names(page: Page) -> list[str]:
    return page.locator(".project-name").all_inner_texts()


def test_search_filters_and_order_stand_in_the_address(server: ServerProcess, visitors: Visitors) -> None:
    for name, template in (("Beta", "bare"), ("alpha", "static-site"), ("Gamma", "bare")):
        server.wait_for_end(server.create(name, template=template))
    page = visitors.open(server.url)
    mark(page)
    assert names(page) == ["Gamma", "alpha", "Beta"]
    page.get_by_label("Sort by").select_option("name")
    expect(page).to_have_url(f"{server.url}/?sort=name")
    assert names(page) == ["alpha", "Beta", "Gamma"]
    page.get_by_label("Template").select_option("bare")
    expect(page).to_have_url(f"{server.url}/?template=bare&sort=name")
    assert names(page) == ["Beta", "Gamma"]
    page.get_by_label("Search by name").press_sequentially("gam")
    expect(page).to_have_url(f"{server.url}/?q=gam&template=bare&sort=name")
    assert names(page) == ["Gamma"]
    assert not was_reloaded(page)
    page.reload()
    assert names(page) == ["Gamma"]
    expect(page.get_by_label("Template")).to_have_value("bare")
    expect(page.get_by_label("Sort by")).to_have_value("name")
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#list")).to_contain_text("No project matches")
    page.get_by_role("link", name="Show all projects").click()
    expect(page).to_have_url(f"{server.url}/")
    expect(page.locator(".project-name")).to_have_count(3)


def test_pages_keep_the_filters(server: ServerProcess, visitors: Visitors) -> None:
    made = [server.create(f"Many {number:02}") for number in range(21)]
    page = visitors.open(f"{server.url}/?q=many&sort=name")
    expect(page.locator(".pages")).to_contain_text("21 projects · page 1 of 2")
    page.get_by_role("link", name="Next").click()
    expect(page).to_have_url(f"{server.url}/?q=many&sort=name&page=2")
    assert names(page) == ["Many 20"]
    page.get_by_role("link", name="Previous").click()
    expect(page).to_have_url(f"{server.url}/?q=many&sort=name")
    for project in made:
        server.wait_for_end(project)


def test_rows_follow_their_runs_and_the_asking_stops(
    start_server: StartServer, visitors: Visitors, gate: Gate
) -> None:
    gate.hold("setup_gitops")
    server = start_server(path=gate.path, max_concurrent_runs="1")
    first, second = server.create("First"), server.create("Second")
    server.wait_for_event(first, type="progress", step="setup_gitops")
    page = visitors.open(server.url)
    mark(page)
    badge = page.locator(f"#project-{first} .badge")
    expect(badge).to_have_attribute("data-state", "initializing")
    percent = server.events(first)[-1]["progress"]
    expect(badge).to_contain_text(f"{percent}%")
    expect(page.locator(f"#project-{second} .badge")).to_contain_text("Queued, number 1")
    page.locator(f"#project-{second} a").focus()
    gate.release("setup_gitops")
    for project in (first, second):
        expect(page.locator(f"#project-{project} .badge")).to_have_attribute("data-state", "active")
    assert page.evaluate("document.activeElement.closest('li').id") == f"project-{second}"
    expect(page.locator("#rows-poll")).to_have_count(0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2_500)  # longer than it waits between two questions
    assert not asked
    assert not was_reloaded(page)


def test_a_list_follows_its_runs_again_after_their_journals_did_not_answer(
    start_server: StartServer, visitors: Visitors, gate: Gate
) -> None:
    gate.hold("setup_gitops")
    server = start_server(path=gate.path)
    server.allow("run not shown in the list")
    project = server.create("Missed")
    server.wait_for_event(project, type="progress", step="setup_gitops")
    before = visitors.open(server.url)
    percent = f"#project-{project} .badge-percent"
    expect(before.locator(percent)).to_have_count(1)
    with server.unreadable(project):
        expect(before.locator(percent)).to_have_count(0)
        during = visitors.open(server.url)
        expect(during.locator(percent)).to_have_count(0)
    for page in (before, during):
        expect(page.locator(percent)).to_have_count(1)
    gate.release("setup_gitops")
    for page in (before, during):
        expect(page.locator(f"#project-{project} .badge")).to_have_attribute("data-state", "active")


def test_addresses_that_ask_for_nothing_there_is_are_refused(server: ServerProcess) -> None:
    for query in ("template=none", "sort=size", "status=odd", "page=0", "page=x"):
        assert server.client.get(f"/?{query}").status_code == 400, query
    assert server.client.get("/projects/rows").text.count("hx-partial") == 2  # it may stop asking


def test_an_unknown_project_gives_a_page_with_the_search(server: ServerProcess, visitors: Visitors) -> None:
    server.wait_for_end(server.create("Known"))
    visitors.allow("status of 404")
    page = visitors.open(f"{server.url}/projects/unknown")
    page.keyboard.press("/")
    page.keyboard.type("know")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Known")).to_be_visible()


def test_the_list_works_without_javascript(server: ServerProcess, visitors: Visitors) -> None:
    for name, template in (("Beta", "bare"), ("alpha", "static-site"), ("Gamma", "bare")):
        server.wait_for_end(server.create(name, template=template))
    page = visitors.open(server.url, has_javascript=False)
    page.get_by_label("Template").select_option("bare")
    page.get_by_label("Sort by").select_option("name")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".project-name")).to_have_text(["Beta", "Gamma"])
    expect(page.locator("time").first).to_contain_text("UTC")
    expect(
        page.get_by_role("button", name="Keyboard shortcuts")
    ).to_be_hidden()  # what needs a script is not shown
    page.get_by_role("link", name="Gamma").click()
    expect(page.locator("#clone-url")).to_be_visible()
    expect(page.get_by_role("button", name="Copy the clone URL")).to_be_hidden()
