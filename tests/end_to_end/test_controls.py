"""Cancel, retry and restart, as people press them and as tools ask for them."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from harness.browser import Visitors, mark, press, state_at_the_end, was_reloaded
from harness.checkout import commits_of, git
from harness.gate import Gate
from harness.server import ServerProcess, StartServer
from harness.waiting import wait_for


@pytest.fixture
def held_server(start_server: StartServer, gate: Gate) -> ServerProcess:
    """One run at a time, which stands still in setup_gitops until the gate releases it."""
    gate.hold("setup_gitops")
    return start_server(path=gate.path, max_concurrent_runs="1")


def expect_buttons(page: Page, *names: str) -> None:
    expect(page.locator("#actions button")).to_have_text(list(names))


def started(server: ServerProcess, project: str) -> list[str]:
    return [event["reason"] for event in server.events(project) if event["type"] == "started"]


def steps(server: ServerProcess, project: str) -> list[tuple[str, str]]:
    summary = server.row(project)["initialization_summary"]
    return [(step["step"], step["status"]) for step in summary["steps"]]


def put_a_strangers_repository(server: ServerProcess) -> Path:
    folder = server.data / "repositories" / "gitops.git"
    folder.mkdir(parents=True)
    git("init", "--quiet", "--bare", ".", folder=folder)
    return folder


def remove(folder: Path) -> None:
    folder.rename(folder.parent.parent / "removed.git")


def test_a_running_step_is_cancelled_with_its_children_and_every_page_sees_it(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    project = held_server.create("Halted")
    url = f"{held_server.url}/projects/{project}"
    page, other = visitors.open(url), visitors.open(url)
    mark(other)
    held_server.wait_for_event(project, type="step_started", step="setup_gitops")
    children = wait_for(gate.held, "git is held")
    expect_buttons(other, "Cancel")
    press(page, "Cancel")
    assert [state_at_the_end(each) for each in (page, other)] == ["cancelled"] * 2
    assert not was_reloaded(other)
    for each in (page, other):
        expect_buttons(each, "Retry", "Restart")
        expect(each).to_have_title("Cancelled · Halted")
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the children are gone")
    row = held_server.wait_for_end(project, status="cancelled")
    assert row["initialization_error"] is None
    assert steps(held_server, project)[-1] == ("setup_gitops", "cancelled")
    types = [event["type"] for event in held_server.events(project)]
    assert types[-4:] == ["cancelling", "step_cancelled", "saving", "cancelled"]


def test_a_waiting_run_is_cancelled_at_once(held_server: ServerProcess, visitors: Visitors) -> None:
    running, waiting = held_server.create("First"), held_server.create("Second")
    page = visitors.open(f"{held_server.url}/projects/{waiting}")
    expect(page.locator(".now-line")).to_have_text("Waiting: number 1 in line")
    press(page, "Cancel")
    assert state_at_the_end(page) == "cancelled"
    assert steps(held_server, waiting) == []
    assert held_server.row(running)["status"] == "initializing"


def test_a_wish_to_cancel_outlives_the_process_that_was_to_obey_it(
    held_server: ServerProcess, visitors: Visitors
) -> None:
    project = held_server.create("Survivor")
    held_server.wait_for_event(project, type="step_started", step="setup_gitops")
    held_server.kill()
    held_server.execute("UPDATE projects SET cancel_requested_at = '2026-01-01 10:00:00.000000'")
    held_server.restart()
    held_server.wait_for_end(project, status="cancelled")
    assert started(held_server, project) == ["created", "takeover"]


def test_a_failed_run_is_retried_from_the_failed_step_and_its_first_try_stays_readable(
    server: ServerProcess, visitors: Visitors
) -> None:
    stranger = put_a_strangers_repository(server)
    project = server.create("Second Chance")
    page = visitors.open(f"{server.url}/projects/{project}")
    assert state_at_the_end(page) == "failed"
    first = server.row(project)
    remove(stranger)
    mark(page)
    press(page, "Retry")
    expect(page.locator("#run")).to_have_attribute("data-state", "active")
    assert not was_reloaded(page)
    expect_buttons(page)
    row = server.wait_for_end(project)
    assert (row["attempt"], row["initialization_error"], row["reason"]) == (2, None, "retry")
    summary = row["initialization_summary"]
    kept = [step["step"] for step in summary["steps"] if step.get("kept")]
    assert kept == ["create_repo", "push_template", "create_environments"]
    (earlier,) = summary["previousAttempts"]
    assert earlier["failedStep"] == "setup_gitops"
    assert {**earlier, "previousAttempts": []} == first["initialization_summary"]
    expect(page.locator(".tries summary")).to_contain_text("Failed at “Set up GitOps”")
    page.locator(".tries summary").click()
    expect(page.locator(".tries")).to_contain_text(first["initialization_summary"]["steps"][-1]["error"])
    assert commits_of(server.data / "repositories" / "second-chance.git", project) == [
        "push_template",
        "create_environments",
    ]


def test_a_cancelled_run_is_restarted_from_the_first_step_and_makes_nothing_twice(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    project = held_server.create("Again")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    held_server.wait_for_event(project, type="step_started", step="setup_gitops")
    press(page, "Cancel")
    assert state_at_the_end(page) == "cancelled"
    press(page, "Restart")
    expect(page.locator("#tries-before")).to_contain_text("Cancelled after")
    gate.release("setup_gitops")
    expect(page.locator("#run")).to_have_attribute("data-state", "active")
    expect(page.locator("#tries-before")).to_have_count(0)
    expect(page.locator(".tries")).to_have_count(1)
    row = held_server.wait_for_end(project)
    assert started(held_server, project) == ["created", "restart"]
    assert not [step for step in row["initialization_summary"]["steps"] if step.get("kept")]
    repository = held_server.data / "repositories" / "again.git"
    assert commits_of(repository, project) == ["push_template", "create_environments"]


def test_a_retry_needs_no_journal(server: ServerProcess) -> None:
    stranger = put_a_strangers_repository(server)
    project = server.create("Forgotten")
    server.wait_for_end(project, status="failed")
    server.wait_until_retired(project)
    remove(stranger)
    for path in (server.data / "journals").glob(f"{project}.*"):
        path.unlink()
    answer = server.client.post(
        f"/projects/{project}/retry", json={"attempt": 1}, headers={"accept": "application/json"}
    )
    assert (answer.status_code, answer.json()["attempt"]) == (202, 2)
    row = server.wait_for_end(project)
    assert server.events(project)[0]["id"] == "2-1"
    summary = row["initialization_summary"]
    assert summary["outputs"]["clone_url"].endswith("/git/forgotten.git")
    assert {"repository", "branch", "environment", "gitops"} <= {it["kind"] for it in summary["resources"]}
    assert len(summary["previousAttempts"]) == 1


def test_what_the_state_does_not_allow_is_refused_and_said(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    project = held_server.create("Strict")
    held_server.wait_for_event(project, type="step_started", step="setup_gitops")

    def ask(what: str, **body: int) -> tuple[int, str]:
        answer = held_server.client.post(
            f"/projects/{project}/{what}", json=body, headers={"accept": "application/json"}
        )
        assert answer.headers["content-type"] == (
            "application/problem+json" if answer.is_error else "application/json"
        )
        return answer.status_code, str(answer.json().get("detail") or answer.json()["actions"])

    assert ask("retry") == (409, "The run is still under way; cancel it first.")
    page = visitors.open(f"{held_server.url}/projects/{project}")
    expect_buttons(page, "Cancel")
    gate.release("setup_gitops")
    held_server.wait_for_end(project)
    assert ask("cancel") == (409, "The run has ended already, so there is nothing to cancel.")
    assert ask("restart") == (409, "The project is ready, so there is nothing to do again.")
    assert held_server.client.post(f"/projects/{project}/cancel").status_code == 403
    for wrong in ({"attempt": 0}, {"attempt": "x"}, {"attempt": 2**31}, []):
        answer = held_server.client.post(f"/projects/{project}/retry", json=wrong)
        assert answer.status_code == 400


def test_two_people_who_press_at_once_begin_one_try(server: ServerProcess, visitors: Visitors) -> None:
    put_a_strangers_repository(server)
    project = server.create("Both")
    pages = [visitors.open(f"{server.url}/projects/{project}") for _ in range(2)]
    assert [state_at_the_end(page) for page in pages] == ["failed"] * 2
    press(pages[0], "Retry")
    press(pages[1], "Restart")  # of the first try's end, which is another try's beginning by now
    wait_for(lambda: server.row(project)["status"] == "failed", "the end of the second try")
    assert server.row(project)["attempt"] == 2
    assert started(server, project) == ["created", "retry"]


def test_without_javascript_a_run_is_cancelled_and_retried_too(
    held_server: ServerProcess, visitors: Visitors, gate: Gate
) -> None:
    project = held_server.create("Plain")
    held_server.wait_for_event(project, type="step_started", step="setup_gitops")
    page = visitors.open(f"{held_server.url}/projects/{project}", has_javascript=False)
    press(page, "Cancel")
    held_server.wait_for_end(project, status="cancelled")
    page.goto(page.url)
    gate.release("setup_gitops")
    press(page, "Retry")
    held_server.wait_for_end(project)
    page.goto(page.url)
    expect(page.locator("#run")).to_have_attribute("data-state", "active")
