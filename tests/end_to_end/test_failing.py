"""A run that fails for real: said plainly on the page, kept in the row, explained in the log."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from harness.browser import Visitors, mark, state_at_the_end, was_reloaded
from harness.checkout import clone, git
from harness.server import ServerProcess


def put_a_strangers_repository(server: ServerProcess) -> None:
    """The GitOps repository's place is taken by one that this app did not make."""
    folder = server.data / "repositories" / "gitops.git"
    folder.mkdir(parents=True)
    git("init", "--quiet", "--bare", ".", folder=folder)


def refuse_every_push(server: ServerProcess) -> None:
    """The GitOps repository refuses pushes by a hook, as a forge with a policy does."""
    server.wait_for_end(server.create("Before"))
    repository = server.data / "repositories" / "gitops.git"
    hook = repository / "policy" / "pre-receive"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\necho 'only on weekdays' >&2\nexit 1\n")
    hook.chmod(0o755)
    git("config", "core.hooksPath", str(hook.parent), folder=repository)


@pytest.mark.parametrize("break_gitops", [put_a_strangers_repository, refuse_every_push])
def test_a_failure_in_setup_gitops_is_said_in_one_sentence_with_what_exists_so_far(
    server: ServerProcess, visitors: Visitors, tmp_path: Path, break_gitops: object
) -> None:
    assert callable(break_gitops)
    break_gitops(server)
    page = visitors.open(f"{server.url}/projects/new")
    mark(page)
    page.fill("#name", "Broken")
    page.locator('label:has(input[value="bare"])').click()
    page.get_by_role("button", name="Create project").click()

    assert state_at_the_end(page) == "failed"
    assert not was_reloaded(page)
    assert page.title() == "Failed · Broken"
    row = server.row(page.url.rpartition("/")[2])
    assert row["status"] == "failed"
    sentence, summary = row["initialization_error"], row["initialization_summary"]
    assert sentence.startswith("Set up GitOps failed: ")
    assert "\n" not in sentence
    assert len(sentence) < 300
    assert summary["failedStep"] == "setup_gitops"
    assert summary["steps"][-1]["step"] == "setup_gitops"
    assert summary["steps"][-1]["status"] == "failed"
    assert sentence.endswith(summary["steps"][-1]["error"])

    expect(page.get_by_role("alert")).to_have_text(sentence)
    made = page.locator(".resources")
    assert made.get_by_role("link", name="broken", exact=True).get_attribute("href") == (
        f"{server.url}/git/broken.git"
    )
    clone(f"{server.url}/git/broken.git", tmp_path / "broken")
    text = page.locator("body").inner_text()
    assert "Traceback" not in page.content()
    assert "Error(" not in text
    assert "Traceback" in server.stderr


def test_a_strangers_repository_is_never_touched(server: ServerProcess) -> None:
    folder = server.data / "repositories" / "mine.git"
    folder.mkdir(parents=True)
    git("init", "--quiet", "--bare", ".", folder=folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    row = server.wait_for_end(server.create("Mine"), status="failed")
    assert row["initialization_summary"]["failedStep"] == "create_repo"
    assert "was not made by this project" in row["initialization_error"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
