"""The frame as an answer, for pages whose socket does not get through."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.scripts import ScriptedServer, Speaker
from harness.server import ServerProcess


@pytest.fixture
def speaker(tmp_path: Path) -> Speaker:
    return Speaker(tmp_path)


@pytest.fixture
def speaking(tmp_path: Path, speaker: Speaker) -> Iterator[ScriptedServer]:
    """A server whose runs stand still in their one step until the speaker ends."""
    server = ScriptedServer(tmp_path, {"speak": speaker.script})
    server.start()
    yield server
    speaker.end()
    server.close()


def test_who_has_seen_nothing_gets_the_whole_and_who_has_seen_all_gets_nothing(site: ServerProcess) -> None:
    project = site.create("Asked")
    site.wait_for_event(project, type="step_started")
    whole = site.client.get(f"/projects/{project}/live?after=")
    assert 'hx-target="#run"' in whole.text
    beyond = site.client.get(f"/projects/{project}/live?after=1-999999")
    assert 'hx-target="#run"' in beyond.text
    site.wait_for_end(project)
    last = site.client.get(f"/projects/{project}/live?after=1-3").text
    assert 'hx-target="#live" hx-swap="delete"' in last
    assert "is ready" in last
    assert site.client.get("/projects/none/live?after=").status_code == 404


def test_who_shows_what_is_no_longer_so_gets_the_header_and_who_shows_what_there_is_gets_nothing(
    speaking: ScriptedServer, speaker: Speaker
) -> None:
    project = speaking.create("At rest")
    speaker.say(3)
    tail = speaking.wait_for_event(project, type="log", first=1)["id"]
    address = f"/projects/{project}/live?after={tail}"
    assert speaking.client.get(address).status_code == 204
    returned = speaking.client.get(f"{address}&besides=interrupted")
    assert 'hx-target="#run-header"' in returned.text
    assert "interrupted" not in returned.text
    assert "said 1" not in returned.text


def test_a_page_is_packed_for_who_takes_it(site: ServerProcess) -> None:
    answer = site.client.get("/projects/new", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    plain = site.client.get("/projects/new", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
