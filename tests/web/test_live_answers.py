"""The frame as an answer, for pages whose socket does not get through."""

from harness.server import ServerProcess


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


def test_a_page_is_packed_for_who_takes_it(site: ServerProcess) -> None:
    answer = site.client.get("/projects/new", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    plain = site.client.get("/projects/new", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
