"""From the form to the clone, as the person who creates a project sees it."""

import re
import threading
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from harness.browser import Visitors, mark, state_at_the_end, was_reloaded
from harness.checkout import clone, commits_of
from harness.forms import filled_form
from harness.server import ServerProcess

STEPS = ["push_template", "create_environments"]
FILES = {
    "python-service": ["pyproject.toml", "Dockerfile", ".github/workflows/ci.yml", "src", "tests"],
    "static-site": ["site/index.html", "Dockerfile", "nginx.conf", "tests"],
    "bare": [],
}
EVERYWHERE = [
    "README.md",
    "LICENSE",
    ".editorconfig",
    ".copier-answers.yml",
    "deploy/base/kustomization.yaml",
]
KINDS = {"flux": ["GitRepository", "Kustomization"], "argocd": ["Application"]}


def fill_form(page: Page, *, name: str, template: str, gitops: str = "flux") -> None:
    page.fill("#name", name)
    page.locator(f'label:has(input[name="template"][value="{template}"])').click()
    page.locator(f'label:has(input[name="gitops"][value="{gitops}"])').click()


def press_create(page: Page) -> None:
    page.get_by_role("button", name="Create project").click()


@pytest.mark.parametrize(
    ("template", "gitops"), [("python-service", "flux"), ("static-site", "argocd"), ("bare", "flux")]
)
def test_a_project_is_created_in_the_form_watched_live_and_cloned(
    server: ServerProcess, visitors: Visitors, tmp_path: Path, template: str, gitops: str
) -> None:
    page = visitors.open(server.url)
    mark(page)
    fill_form(page, name="Shop für alle", template=template, gitops=gitops)
    expect(page.locator("#slug")).to_contain_text("shop-fur-alle.git")
    press_create(page)

    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    assert re.fullmatch(f"{server.url}/projects/[0-9a-f]{{32}}", page.url)
    percents = page.evaluate("recorder.percents")
    assert any(0 < percent < 100 for percent in percents), percents
    assert percents == sorted(percents)
    assert page.title() == "Ready · Shop für alle"
    expect(page.locator("#live")).to_have_count(0)

    url = page.locator("#clone-url").inner_text()
    assert url == f"{server.url}/git/shop-fur-alle.git"
    project = page.url.rpartition("/")[2]
    made = clone(url, tmp_path / "made")
    for name in [*FILES[template], *EVERYWHERE]:
        assert (made / name).exists(), name
    for environment in ("development", "staging", "production"):
        assert (made / "deploy/overlays" / environment / "kustomization.yaml").is_file()
    assert commits_of(made, project) == STEPS
    assert "Shop für alle" in (made / "README.md").read_text()

    gitops_clone = clone(f"{server.url}/git/gitops.git", tmp_path / "gitops")
    manifests = "".join(
        path.read_text() for path in (gitops_clone / "projects/shop-fur-alle").rglob("*.yaml")
    )
    for kind in KINDS[gitops]:
        assert f"kind: {kind}\n" in manifests
    assert url in manifests
    assert commits_of(gitops_clone, project) == ["setup_gitops"]


def test_the_summary_is_there_at_the_same_url_for_who_comes_later(
    server: ServerProcess, visitors: Visitors
) -> None:
    project = server.create("Later")
    server.wait_for_end(project)
    page = visitors.open(f"{server.url}/projects/{project}")
    assert state_at_the_end(page) == "active"
    assert page.locator("#clone-url").inner_text() == f"{server.url}/git/later.git"
    assert page.title() == "Ready · Later"
    assert page.locator("#favicon").get_attribute("href") != visitors.open(server.url).locator(
        "#favicon"
    ).get_attribute("href")


def test_a_double_click_on_create_makes_one_project(server: ServerProcess, visitors: Visitors) -> None:
    page = visitors.open(f"{server.url}/projects/new")
    fill_form(page, name="Twice", template="bare")
    page.get_by_role("button", name="Create project").dblclick()
    assert state_at_the_end(page) == "active"
    assert server.count_rows() == 1


def test_the_same_form_sent_by_many_at_once_makes_one_project_and_leads_all_to_it(
    server: ServerProcess,
) -> None:
    form = filled_form(name="Race")
    answers: list[httpx.Response] = []
    senders = [threading.Thread(target=lambda: answers.append(server.post(form))) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [answer.status_code for answer in answers] == [303] * 8
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert server.count_rows() == 1
    server.wait_for_end(answers[0].headers["location"].rpartition("/")[2])


def test_the_form_comes_back_with_what_was_typed_and_with_the_problem(
    server: ServerProcess, visitors: Visitors
) -> None:
    server.wait_for_end(server.create("Taken"))
    visitors.allow("status of 422")
    page = visitors.open(f"{server.url}/projects/new")
    mark(page)
    fill_form(page, name="Taken!", template="static-site", gitops="argocd")
    page.fill("#description", "What it is for")
    press_create(page)
    expect(page.locator("#name-problem")).to_contain_text("taken already")
    assert page.locator("#name").input_value() == "Taken!"
    assert page.locator("#description").input_value() == "What it is for"
    assert page.locator('input[name="template"][value="static-site"]').is_checked()
    assert page.locator('input[name="gitops"][value="argocd"]').is_checked()
    assert server.count_rows() == 1

    page.fill("#name", "Free")
    press_create(page)
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    assert server.count_rows() == 2


def test_hostile_text_stays_text_in_a_browser(server: ServerProcess, visitors: Visitors) -> None:
    hostile = "<img src=/x onerror=alert(1)> {{7*7}} '\"&amp;"
    page = visitors.open(server.url)
    fill_form(page, name=hostile, template="bare")
    page.fill("#description", f"{hostile} <p hx-get=/ hx-trigger=load>")
    press_create(page)
    assert state_at_the_end(page) == "active"
    assert page.locator("#run h1").inner_text() == hostile
    assert page.title() == f"Ready · {hostile}"
    assert page.locator("img, [hx-trigger=load]").count() == 0
    page.goto(server.url)
    assert page.locator(".project-name").inner_text() == hostile


def test_everything_can_be_done_without_javascript(server: ServerProcess, visitors: Visitors) -> None:
    page = visitors.open(server.url, has_javascript=False)
    fill_form(page, name="Plain", template="bare")
    press_create(page)
    expect(page.locator("#run h1")).to_have_text("Plain")
    assert state_at_the_end(page) == "active"  # the page refreshes itself until then
    assert page.locator("#clone-url").inner_text() == f"{server.url}/git/plain.git"

    page.get_by_role("link", name="Complete log").click()
    assert "create_repo Created repository plain" in page.locator("body").inner_text()

    page.goto(server.url)
    page.locator("#search").fill("pla")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Plain").click()
    assert state_at_the_end(page) == "active"
    page.goto(f"{server.url}/?q=nothing-of-that-name")
    expect(page.locator("#list")).to_contain_text("No project matches")
