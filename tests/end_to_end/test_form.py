"""The form before Create: what it will make, and whether the name is free."""

from pathlib import Path

from playwright.sync_api import expect

from harness.browser import Visitors, state_at_the_end
from harness.checkout import clone
from harness.server import ServerProcess


def test_the_preview_lists_exactly_the_files_that_are_made(
    server: ServerProcess, visitors: Visitors, tmp_path: Path
) -> None:
    without_template = server.client.get("/projects/new/preview?name=x&environments=qa&gitops=flux").text
    assert "<details" not in without_template  # a count of the rest would be told as if it were all
    page = visitors.open(f"{server.url}/projects/new")
    page.fill("#name", "Pre view")
    page.locator('label:has(input[value="python-service"])').click()
    page.locator('label:has(input[value="argocd"])').click()
    page.get_by_label("staging").uncheck()
    page.fill("#own-environments", "qa")
    summary = page.locator("#preview summary")
    expect(summary).to_contain_text("files will be made")
    summary.click()
    expect(page.locator("#preview")).to_contain_text("deploy/overlays/qa/kustomization.yaml")
    expect(page.locator("#preview")).to_contain_text("src/pre_view/app.py")
    page.fill("#description", "The preview stays open")
    page.wait_for_load_state("networkidle")
    paths = set(page.locator("#preview code").all_inner_texts())
    assert not [path for path in paths if "staging" in path]
    assert server.count_rows() == 0
    page.get_by_role("button", name="Create project").click()
    assert state_at_the_end(page) == "active"
    made = set()
    for name, top in (("pre-view", "."), ("gitops", "projects/pre-view")):
        folder = clone(f"{server.url}/git/{name}.git", tmp_path / name)
        found = (path.relative_to(folder) for path in (folder / top).rglob("*") if path.is_file())
        made |= {path.as_posix() for path in found if path.parts[0] != ".git"}
    assert paths == made


def test_a_name_that_is_taken_is_told_while_it_is_typed(server: ServerProcess, visitors: Visitors) -> None:
    server.wait_for_end(server.create("Taken"))
    page = visitors.open(f"{server.url}/projects/new")
    page.locator("#name").press_sequentially("Taken")
    expect(page.locator("#slug .problem")).to_have_text(
        "There is a project called taken already; choose another name."
    )
    page.locator("#name").press_sequentially(" 2")
    expect(page.locator("#slug")).to_contain_text("/git/taken-2.git")
    assert page.evaluate("document.activeElement.id") == "name"


def test_a_failed_project_can_be_created_again_with_the_same_choices(
    server: ServerProcess, visitors: Visitors
) -> None:
    page = visitors.open(
        f"{server.url}/projects/new?template=static-site&gitops=argocd&environments=staging&own_environments=qa"
    )
    assert page.locator('input[value="static-site"]').is_checked()
    assert page.locator('input[value="argocd"]').is_checked()
    assert page.get_by_label("staging").is_checked()
    assert not page.get_by_label("production").is_checked()
    assert page.locator("#own-environments").input_value() == "qa"
    assert page.locator("#name").input_value() == ""
