"""The database file is damaged under a running server."""

import shutil

from harness.browser import Visitors, mark, state_at_the_end, was_reloaded
from harness.gate import Gate
from harness.server import StartServer
from harness.waiting import wait_for


def test_a_damaged_database_is_told_and_a_sound_copy_lets_everything_go_on(
    start_server: StartServer, gate: Gate, visitors: Visitors
) -> None:
    gate.hold("verify")
    server = start_server(path=gate.path)
    for text in ("the database is damaged", "request failed"):
        server.allow(text)
    project = server.create("Damaged")
    server.wait_for_event(project, type="step_started", step="verify")
    page = visitors.open(f"{server.url}/projects/{project}")
    mark(page)
    file, copy = server.data / "projects.db", server.data / "copy.db"
    log = file.with_name("projects.db-wal")
    wait_for(lambda: not log.exists(), "nobody has the database open")
    shutil.copy(file, copy)
    # Over what is there: a file cut off first would be an empty database for as long as a reader is quick.
    with file.open("r+b") as damaged:
        damaged.write(b"damaged" * 1000)

    answer = server.client.get("/")
    assert answer.status_code == 503
    assert "The database of this server is damaged." in answer.text
    assert server.client.get("/livez").status_code == 200
    assert server.client.get("/readyz").status_code == 503
    assert server.post({"name": "Another"}).status_code == 503
    gate.release("verify")
    server.wait_for_event(project, type="saving")
    wait_for(lambda: "the database is damaged" in server.stderr.rpartition("saving")[2], "a word in the log")

    copy.replace(file)
    server.wait_for_end(project)
    assert state_at_the_end(page) == "active"
    assert not was_reloaded(page)
