"""A run on a worker, in a browser: on its page, and on Bull Board over the same Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from harness.browser import Visitors, mark, press, state_at_the_end, was_reloaded
from harness.bull_board import open_bull_board
from harness.cluster import Cluster
from harness.gate import Gate
from harness.servers import PostgresServer, RedisServer

OUTSIDE = ("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "was preloaded using link preload")
"""Bull Board asks for a font elsewhere, and says when it has no use for what it loaded."""


@pytest.fixture
def cluster(
    tmp_path: Path, shared_postgres: PostgresServer, redis_server: RedisServer, gate: Gate
) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, shared_postgres, redis_server, ENGINE="bullmq", PATH=gate.path)
    yield cluster
    cluster.close()


def test_from_the_form_to_the_summary_over_a_worker_that_comes_late(
    cluster: Cluster, gate: Gate, visitors: Visitors
) -> None:
    web = cluster.process()
    page = visitors.open(f"{web.url}/projects/new")
    page.fill("#name", "Phoenix")
    page.locator('label:has(input[name="template"][value="bare"])').click()
    page.locator('label:has(input[name="gitops"][value="flux"])').click()
    page.get_by_role("button", name="Create project").click()
    page.wait_for_selector("#run")
    project = page.url.rpartition("/")[2]
    mark(page)
    expect(page.locator("#run")).to_contain_text("Queued: no worker is online")
    gate.hold("push_template")
    cluster.worker()
    web.wait_for_event(project, type="step_started", step="push_template")
    expect(page.locator("#run")).to_contain_text("Push template")
    gate.release("push_template")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)


def test_a_retry_that_waits_for_a_worker_says_so_and_is_seen_to_go_on(
    cluster: Cluster, gate: Gate, visitors: Visitors
) -> None:
    web = cluster.process()
    worker = cluster.worker()
    gate.hold("push_template")
    project = web.create("Phoenix")
    page = visitors.open(f"{web.url}/projects/{project}")
    web.wait_for_event(project, type="step_started", step="push_template")
    press(page, "Cancel")
    assert state_at_the_end(page) == "cancelled"
    worker.stop()
    mark(page)
    press(page, "Retry")
    for watching in (page, visitors.open(page.url)):  # who pressed, and who comes
        expect(watching.locator("#run")).to_have_attribute("data-state", "pending")
        expect(watching.locator("#run-header")).to_contain_text("Queued: no worker is online")
        expect(watching.locator("#step-create_repo-head")).to_contain_text("Done in an earlier try and kept")
    gate.release("push_template")
    worker.restart()
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)


def test_bull_board_shows_runs_as_they_are(
    cluster: Cluster, gate: Gate, visitors: Visitors, redis_server: RedisServer
) -> None:
    for text in OUTSIDE:
        visitors.allow(text)
    web = cluster.process()
    cluster.worker()
    gate.hold("setup_gitops")
    project = web.create("Phoenix")
    web.wait_for_event(project, type="step_started", step="setup_gitops")
    with open_bull_board(redis_url=redis_server.url, public_url=web.url) as board:
        page = visitors.open(f"{board}/queue/projects/{project}-1")
        body = page.locator("body")
        expect(body).to_contain_text("phoenix")
        expect(body).to_contain_text("58%")
        expect(page.get_by_role("link", name="The run's page")).to_have_attribute(
            "href", f"{web.url}/projects/{project}"
        )
        page.get_by_text("Logs", exact=True).click()
        expect(body).to_contain_text("push_template completed in")
        expect(body).to_contain_text("setup_gitops started")
        gate.release("setup_gitops")
        web.wait_for_end(project)
        expect(body).to_contain_text("100%")

        page.goto(f"{board}/queue/projects?status=completed")
        expect(body).to_contain_text("phoenix")
        expect(body).not_to_contain_text("No workers")

        taken = cluster.data / "repositories" / "taken.git"
        taken.mkdir()
        (taken / "HEAD").write_text("ref: refs/heads/main\n")
        failed = web.create("Taken")
        web.wait_for_end(failed, status="failed")
        page.goto(f"{board}/queue/projects?status=failed")
        expect(body).to_contain_text("taken")
        page.goto(f"{board}/queue/projects/{failed}-1")
        page.get_by_text("Error", exact=True).click()
        expect(body).to_contain_text(cluster.row(failed)["initialization_error"])
