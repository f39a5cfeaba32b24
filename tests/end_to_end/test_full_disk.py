"""The disk fills under a running server: people are told, the app lives, and goes on once there is room."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from test_connection import SocketBlocker, banner
from test_watching import check_log as check_lines
from test_watching import wait_until_it_stands_still

from harness.browser import Visitors, mark, press, state_at_the_end, until_live, was_reloaded
from harness.disk import SmallDisk
from harness.gate import Gate
from harness.proxy import Relay
from harness.server import ServerProcess, StartServer, free_port, initializer
from harness.waiting import wait_for
from harness.whole import STEPS, check_told

FULL = "The disk of this server is full."
COUNT_ENDS = """
    CREATE TRIGGER count_ends AFTER UPDATE ON projects WHEN NEW.initialization_summary IS NOT NULL
        BEGIN INSERT INTO ends VALUES (NEW.id); END;
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """The disk of the data folder. A test names it before the server, which it outlives."""
    with SmallDisk(tmp_path / "data") as disk:
        yield disk


def check_log(server: ServerProcess) -> None:
    """What was logged of the full disk: a sentence each time, and at least once."""
    records = [json.loads(line) for line in server.complaints()]
    assert records
    for record in records:
        assert record["level"] == "warning", record
        assert "no space" in record["error"], record
        assert "exception" not in record, record
        server.allow(record["event"])


def until_database_is_closed(folder: Path) -> None:
    """Wait until nobody has it open: who has could still read on a full disk."""
    wait_for(lambda: not list(folder.glob("*-shm")), "nobody has the database open")


def check_calm(server: ServerProcess) -> None:
    """While it tries again and again, the processor is left alone."""
    pauses, began, used = server.stderr.count("trying again"), time.monotonic(), cpu_s(server.pid)
    wait_for(lambda: server.stderr.count("trying again") >= pauses + 3, "three more tries")
    assert (cpu_s(server.pid) - used) / (time.monotonic() - began) < 0.2


def cpu_s(pid: int) -> float:
    """How many seconds a process has computed, by proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_whole(server: ServerProcess, project: str) -> None:
    """Journal, row, page and log say the same of a project that is ready."""
    events = server.events(project)
    check_told(events, server.row(project), STEPS)
    assert events[-1]["type"] == "completed"
    assert "clone" in server.client.get(f"/projects/{project}/summary").text


def test_a_form_sent_while_the_disk_is_full_is_kept_and_works_once_there_is_room(
    disk: SmallDisk, start_server: StartServer, visitors: Visitors
) -> None:
    server = start_server()
    visitors.allow("503")
    before = server.create("Before")
    server.wait_for_end(before)
    page = visitors.open(f"{server.url}/projects/new")
    page.fill("#name", "Phoenix")
    page.fill("#description", "typed by hand")
    page.check("input[name=template][value=bare]")
    disk.fill()

    press(page, "Create project")
    told = page.get_by_text("Nothing was created: no space is left on the disk of the database")
    expect(told).to_be_visible()
    expect(page.locator("#name")).to_have_value("Phoenix")
    expect(page.locator("#description")).to_have_value("typed by hand")
    expect(page.locator("input[name=template][value=bare]")).to_be_checked()
    disk.make_room()
    assert server.count_rows() == 1
    assert not (server.data / "repositories" / "phoenix.git").exists()

    press(page, "Create project")
    assert state_at_the_end(page) == "active"
    assert server.count_rows() == 2
    check_whole(server, page.url.rpartition("/")[2])
    server.allow("no space is left")  # the name's own look whether it is free


def test_while_the_disk_is_full_every_answer_is_a_sentence(
    disk: SmallDisk, start_server: StartServer
) -> None:
    server = start_server()
    project = server.create("Phoenix")
    server.wait_for_end(project)
    until_database_is_closed(server.data)
    disk.fill()

    for path in ("/", f"/projects/{project}"):
        answer = server.client.get(path)
        assert answer.status_code == 503
        assert FULL in answer.text
    assert "此服务器的磁盘已满" in server.client.get("/", headers={"accept-language": "zh"}).text
    assert "腾出空间" in server.post({"name": "Full"}, **{"accept-language": "zh"}).text
    asked = {"origin": server.url, "accept": "application/json"}
    problem = server.client.post(f"/projects/{project}/restart", headers=asked)
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["status"] == problem.status_code == 503
    assert problem.json()["detail"].startswith(FULL)
    assert server.client.get("/livez").status_code == 200
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert "no space" in ready.json()["database"]
    check_log(server)

    disk.make_room()
    assert server.client.get("/readyz").status_code == 200
    check_whole(server, project)


@pytest.mark.parametrize("step", ["create_repo", "setup_gitops"])
def test_a_run_whose_disk_fills_fails_at_its_step_and_a_retry_ends_it(
    disk: SmallDisk, start_server: StartServer, gate: Gate, visitors: Visitors, step: str
) -> None:
    gate.hold(step)
    server = start_server(path=gate.path)
    project = server.create("Phoenix")
    server.wait_for_event(project, type="step_started", step=step)
    page = visitors.open(f"{server.url}/projects/{project}")
    until_live(page)
    mark(page)
    disk.fill()
    gate.release(step)

    # The last page of the journal's file may still take the end of the step.
    told = re.compile("Live data is interrupted|Saving the summary")
    expect(page.locator("#run-header .now")).to_contain_text(told)
    check_calm(server)
    assert server.client.get("/livez").status_code == 200
    disk.make_room()
    server.wait_for_end(project, status="failed")
    assert state_at_the_end(page) == "failed"
    assert not was_reloaded(page)
    expect(page.locator("#run")).to_contain_text("o space left on device")
    row = server.row(project)
    assert row["initialization_summary"]["failedStep"] == step
    assert row["initialization_summary"]["events"] == len(server.events(project)) - 1
    check_log(server)

    press(page, "Retry")
    server.wait_for_event(project, type="completed")
    assert state_at_the_end(page) == "active"
    check_whole(server, project)


def test_a_journal_without_room_interrupts_its_pages_and_the_run_goes_on(
    tmp_path: Path, start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    with SmallDisk(tmp_path / "data" / "journals") as disk:
        gate.hold("push_template")
        server = start_server(path=gate.path)
        project = server.create("Phoenix", template="python-service")
        server.wait_for_event(project, type="step_started", step="push_template")
        page = visitors.open(f"{server.url}/projects/{project}")
        now = page.locator("#run-header .now")
        until_live(page)
        mark(page)
        disk.fill()
        gate.release("push_template")

        expect(now).to_contain_text("Live data is interrupted")
        assert server.client.get("/readyz").json()["journal"] == "away"
        disk.make_room()
        server.wait_for_end(project)
        assert state_at_the_end(page) == "active"
        assert not was_reloaded(page)
        assert server.client.get("/readyz").status_code == 200
        check_log(server)
        check_whole(server, project)
        server.stop()


def now_of(page: Page) -> Locator:
    return page.locator("#run-header .now")


def interrupt_all(server: ServerProcess, disk: SmallDisk, gate: Gate) -> None:
    """Fill the disk under the journals, so that another run's cannot be written: pages of all are told."""
    gate.hold("create_repo")
    writing = server.create("Writing", template="python-service")
    server.wait_for_event(writing, type="step_started", step="create_repo")
    disk.fill()
    gate.release("create_repo")
    wait_for(lambda: server.client.get("/readyz").json()["journal"] == "away", "the journal is away")


def make_whole_again(server: ServerProcess, disk: SmallDisk) -> None:
    disk.make_room()
    wait_for(lambda: server.client.get("/readyz").status_code == 200, "the journal is there again")
    check_log(server)


def test_a_page_that_was_away_as_the_journal_came_back_says_no_more_that_it_is_interrupted(
    tmp_path: Path, start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    visitors.allow_lost_connections()
    with SmallDisk(tmp_path / "data" / "journals") as disk:
        gate.hold("setup_gitops")
        server = start_server(path=gate.path)
        project = server.create("Quiet", template="static-site")
        with Relay(server.port) as relay:
            page = visitors.open(f"{relay.url}/projects/{project}")
            index = wait_until_it_stands_still(server, page, project)
            mark(page)
            interrupt_all(server, disk, gate)
            expect(now_of(page)).to_contain_text("Live data is interrupted")
            relay.go_down()
            banner(page, "Reconnecting")
            make_whole_again(server, disk)
            relay.come_back()
            expect(now_of(page)).not_to_contain_text("interrupted")
            assert wait_until_it_stands_still(server, page, project) == index  # no event has brought that
            assert check_lines(server, page, project) > 20
            gate.release("setup_gitops")
            assert state_at_the_end(page) == "active"
            assert not was_reloaded(page)
        server.stop()


def test_a_page_that_only_asks_is_told_of_an_interruption_and_of_its_end(
    tmp_path: Path, start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    visitors.allow_lost_connections()
    visitors.allow("Error during WebSocket handshake")
    with SmallDisk(tmp_path / "data" / "journals") as disk:
        gate.hold("setup_gitops")
        server = start_server(path=gate.path)
        project = server.create("Quiet", template="static-site")
        with SocketBlocker(server.port) as blocker:
            page = visitors.open(f"{blocker.url}/projects/{project}")
            banner(page, "This page asks every 2 seconds instead.")
            index = wait_until_it_stands_still(server, page, project)
            interrupt_all(server, disk, gate)
            expect(now_of(page)).to_contain_text("Live data is interrupted")
            make_whole_again(server, disk)
            expect(now_of(page)).not_to_contain_text("interrupted")
            assert wait_until_it_stands_still(server, page, project) == index
            assert check_lines(server, page, project) > 20
        server.stop()


def test_the_end_of_a_run_is_written_once_as_soon_as_the_database_has_room(
    tmp_path: Path, start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    with SmallDisk(tmp_path / "disk") as disk:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "projects.db").symlink_to(tmp_path / "disk" / "projects.db")
        gate.hold("verify")
        server = start_server(path=gate.path)
        project = server.create("Phoenix")
        server.wait_for_event(project, type="step_started", step="verify")
        server.execute("CREATE TABLE ends (project text)")
        server.execute(COUNT_ENDS)
        page = visitors.open(f"{server.url}/projects/{project}")
        until_live(page)
        mark(page)
        until_database_is_closed(tmp_path / "disk")
        disk.fill()
        gate.release("verify")

        server.wait_for_event(project, type="saving")
        expect(page.locator("#run-header .now")).to_contain_text("Saving the summary")
        check_calm(server)
        told = server.client.get(f"/projects/{project}").text
        assert FULL in told or "Saving the summary" in told  # while another reader has the database open
        assert server.events(project)[-1]["type"] == "saving"
        disk.make_room()
        server.wait_for_end(project)
        assert state_at_the_end(page) == "active"
        assert not was_reloaded(page)
        check_log(server)
        check_whole(server, project)
        assert server.query("SELECT project FROM ends") == [{"project": project}]
        server.stop()


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_start_on_a_full_disk_is_refused_in_one_sentence(
    disk: SmallDisk, tmp_path: Path, command: str, is_first: bool
) -> None:
    if not is_first:
        ServerProcess(tmp_path).start().close()
    disk.fill()
    ended = initializer(command, {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port())})
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    (line,) = (it for it in (ended.stdout + ended.stderr).splitlines() if not it.startswith("ok"))
    assert re.fullmatch(
        "(Cannot start:|FAIL) DATA_DIR .*/data is on a disk without space: make room there", line
    )
