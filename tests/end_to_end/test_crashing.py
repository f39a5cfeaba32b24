"""The server dies in the middle of a run and is started again: the run goes on where it stood."""

import random
import signal
import time
from collections import Counter

import pytest
from playwright.sync_api import Page, expect

from harness.browser import Visitors, mark, state_at_the_end, was_reloaded
from harness.checkout import commits_of, git
from harness.children import children_in
from harness.gate import Gate
from harness.server import ServerProcess, StartServer, at_of
from harness.waiting import wait_for

STEPS = ["create_repo", "push_template", "create_environments", "setup_gitops", "verify", "finalize"]


def open_page_of_new_project(
    server: ServerProcess, visitors: Visitors, gate: Gate, *, template: str = "bare"
) -> tuple[Page, str]:
    """A live page and its project's id; the run is held in its first step until the page is connected."""
    visitors.allow_lost_connections()
    gate.hold("create_repo")
    project = server.create("Phoenix", template=template)
    server.wait_for_event(project, type="progress", step="create_repo")
    page = visitors.open(f"{server.url}/projects/{project}")
    expect(page.locator("#step-create_repo-head[data-state=running]")).to_be_visible()
    mark(page)
    return page, project


def check_numbers(server: ServerProcess, project: str) -> None:
    """Indexes 1 to n without a hole or a double, attempts that only grow."""
    ids = [tuple(map(int, event["id"].split("-"))) for event in server.events(project)]
    assert [index for _, index in ids] == list(range(1, len(ids) + 1))
    attempts = [attempt for attempt, _ in ids]
    assert attempts == sorted(attempts)


def check_journal(server: ServerProcess, project: str) -> None:
    """Numbers as they must be, each step ended once, a percent that never falls, lines numbered on."""
    check_numbers(server, project)
    events = server.events(project)
    ended = Counter(event["step"] for event in events if event["type"] == "step_completed")
    assert ended == Counter(STEPS)
    percents = [event["progress"] for event in events if event["type"] == "progress"]
    assert percents == sorted(percents)
    for step in STEPS:
        expected = 1
        for event in events:
            if event["type"] == "log" and event["step"] == step:
                assert event["first"] == expected + event.get("dropped", 0)
                expected = event["first"] + len(event["lines"])


def check_resources(server: ServerProcess, project: str) -> None:
    """Each thing exists once, and nothing unfinished lies about."""
    repositories = server.data / "repositories"
    assert {path.name for path in repositories.glob("*.git")} == {"phoenix.git", "gitops.git"}
    assert commits_of(repositories / "phoenix.git", project) == ["push_template", "create_environments"]
    assert git("rev-list", "--count", "main", folder=repositories / "phoenix.git").strip() == "2"
    assert commits_of(repositories / "gitops.git", project) == ["setup_gitops"]
    folders = git("ls-tree", "--name-only", "main", "projects/", folder=repositories / "gitops.git")
    assert folders.split() == ["projects/phoenix"]
    for repository in repositories.glob("*.git"):
        git("fsck", "--strict", folder=repository)
    assert not list(repositories.glob(".unfinished/*"))
    assert not list((server.data / "work").iterdir())


def check_row(server: ServerProcess, project: str) -> None:
    row = server.row(project)
    assert row["status"] == "active"
    assert [step["step"] for step in row["initialization_summary"]["steps"]] == STEPS
    assert {step["status"] for step in row["initialization_summary"]["steps"]} == {"completed"}
    resources = [(it["kind"], it["name"]) for it in row["initialization_summary"]["resources"]]
    assert len(resources) == len(set(resources))
    assert row["initialization_summary"]["events"] == len(server.events(project)) - 1


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_in_any_step_is_survived_and_seen_by_the_open_page_without_a_reload(
    start_server: StartServer, visitors: Visitors, gate: Gate, step: str
) -> None:
    server = start_server(path=gate.path)
    page, project = open_page_of_new_project(server, visitors, gate)
    gate.release("create_repo")
    server.wait_for_event(project, type="step_started", step=step)
    time.sleep(random.Random(step).uniform(0, 0.06))  # the moment of a crash is nobody's choice
    server.kill()
    wait_for(lambda: not children_in(server.data), "the end of the dead server's children")
    assert server.events(project)[-1]["type"] != "completed", "the kill came too late to prove anything"
    server.restart()
    server.wait_for_end(project)

    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    check_journal(server, project)
    check_resources(server, project)
    check_row(server, project)
    started = [it["reason"] for it in server.events(project) if it["type"] == "started"]
    assert started == ["created", "takeover"]


def wait_for_more_events(server: ServerProcess, project: str, count: int) -> None:
    wanted = len(server.events(project)) + count

    def look() -> bool:
        events = server.events(project)
        return len(events) >= wanted or events[-1]["type"] == "completed"

    wait_for(look, f"{count} more events")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_survives_one_kill_9_after_the_other(
    start_server: StartServer, visitors: Visitors, gate: Gate, seed: int
) -> None:
    server = start_server(path=gate.path)
    chance = random.Random(seed)
    page, project = open_page_of_new_project(server, visitors, gate)
    gate.release("create_repo")
    for _ in range(5):
        wait_for_more_events(server, project, chance.randint(1, 12))
        server.kill()
        server.restart()
    server.wait_for_end(project)
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    check_journal(server, project)
    check_resources(server, project)
    check_row(server, project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_server_goes_on_from_the_step_it_stood_in(
    start_server: StartServer, visitors: Visitors, gate: Gate, number: signal.Signals
) -> None:
    server = start_server(path=gate.path)
    page, project = open_page_of_new_project(server, visitors, gate)
    gate.hold("setup_gitops")
    gate.release("create_repo")
    server.wait_for_event(project, type="step_started", step="setup_gitops")
    expect(page.locator("#step-setup_gitops-head[data-state=running]")).to_be_visible()
    asked_at = time.monotonic()
    status = server.stop(number)
    assert time.monotonic() - asked_at < 10
    assert status in (0, 128 + number, -number)
    assert "Abort" not in server.stderr + server.stdout
    assert "Traceback" not in server.stderr
    assert not children_in(server.data)
    assert server.row(project)["status"] == "initializing"
    gate.release("setup_gitops")
    server.restart()
    server.wait_for_end(project)

    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    second = [it for it in server.events(project) if it["id"].startswith("2-")]
    assert second[0]["type"] == "started"
    assert [it["step"] for it in second if it["type"] == "step_started"] == [
        "setup_gitops",
        "verify",
        "finalize",
    ]
    check_journal(server, project)
    check_resources(server, project)
    check_row(server, project)


def test_runs_that_wait_keep_their_order_over_a_kill_9(
    start_server: StartServer, visitors: Visitors, gate: Gate
) -> None:
    visitors.allow_lost_connections()
    gate.hold("create_repo")
    server = start_server(path=gate.path, max_concurrent_runs="2")
    projects = [server.create(f"Number {number}") for number in range(9)]
    for project in projects[:2]:
        server.wait_for_event(project, type="step_started")
    page = visitors.open(f"{server.url}/projects/{projects[-1]}")
    expect(page.locator("#run-header .now")).to_contain_text("number 7 in line")
    mark(page)
    server.kill()
    server.restart()
    for project in projects[:2]:
        server.wait_for_event(project, type="started", reason="takeover")
    expect(page.locator("#connection p")).to_have_text("")
    for place, project in enumerate(projects[2:], start=1):
        assert f"number {place} in line" in server.client.get(f"/projects/{project}/progress").text
    expect(page.locator("#run-header .now")).to_contain_text("number 7 in line")

    gate.release("create_repo")
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
    for project in projects:
        server.wait_for_end(project)
        check_numbers(server, project)
    begun = [at_of(server.wait_for_event(project, type="started", id="2-1")) for project in projects[2:]]
    assert begun == sorted(begun)


def test_a_server_that_was_killed_leaves_its_data_folder_free(server: ServerProcess) -> None:
    project = server.create("First")
    server.kill()
    server.restart()
    assert server.wait_for_end(project)["attempt"] == 2
