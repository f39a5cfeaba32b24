"""The pages and fragments, by their addresses."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.forms import filled_form
from harness.server import ServerProcess


@pytest.fixture
def empty_site(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server without any project."""
    server = ServerProcess(tmp_path).start()
    yield server
    server.close()


def create(site: ServerProcess, name: str, **values: object) -> str:
    """The path of a new project, whose run is over."""
    project = site.create(name, **values)
    site.wait_for_end(project)
    return f"/projects/{project}"


def names_in(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'class="project-name">([^<]*)<', page)]


def names_at(site: ServerProcess, **query: str) -> list[str]:
    return names_in(site.client.get("/", params=query).text)


def test_who_has_no_project_yet_is_shown_the_form(empty_site: ServerProcess) -> None:
    page = empty_site.client.get("/")
    assert page.status_code == 200
    assert "<h1>New project</h1>" in page.text


def test_the_form_has_a_new_key_each_time(site: ServerProcess) -> None:
    pages = [site.client.get("/projects/new").text for _ in range(3)]
    assert len({re.findall(r'name="key" value="([^"]+)"', page)[0] for page in pages}) == 3


def test_a_form_is_answered_with_a_redirect_to_the_project(site: ServerProcess) -> None:
    answer = site.post({"name": "Redirected"})
    assert answer.status_code == 303
    assert re.fullmatch("/projects/[0-9a-f]{32}", answer.headers["location"])


def test_htmx_is_told_where_to_go_without_a_reload(site: ServerProcess) -> None:
    answer = site.post({"name": "By htmx"}, **{"hx-request": "true"})
    assert answer.status_code == 200
    location = json.loads(answer.headers["hx-location"])
    assert re.fullmatch("/projects/[0-9a-f]{32}", location["path"])
    assert location["target"] == "#main"


def test_the_same_key_again_leads_to_the_same_project(site: ServerProcess) -> None:
    form = filled_form(name="Repeated")
    first = site.post(form).headers["location"]
    count = site.count_rows()
    again = site.post(form)
    assert (again.status_code, again.headers["location"]) == (303, first)
    assert site.count_rows() == count


def test_the_same_key_for_another_name_makes_nothing_and_says_why(site: ServerProcess) -> None:
    form = filled_form(name="Keyed")
    site.post(form)
    count = site.count_rows()
    answer = site.post({**form, "name": "Keyed otherwise"})
    assert answer.status_code == 422
    assert "This form has made the project keyed already" in answer.text
    assert site.count_rows() == count


@pytest.mark.parametrize("name", ["Taken", "TAKEN", "taken!", "  taken  "])
def test_a_name_that_is_taken_is_refused_with_the_form_kept(site: ServerProcess, name: str) -> None:
    site.post({"name": "Taken"})
    count = site.count_rows()
    answer = site.post({"name": name, "gitops": "argocd"})
    assert answer.status_code == 422
    assert "There is a project called taken already" in answer.text
    assert f'value="{name.strip()}"' in answer.text
    assert re.search('<input[^>]*value="argocd"[^>]* checked', answer.text)
    assert site.count_rows() == count


@pytest.mark.parametrize(
    ("name", "slug"),
    [("x", "x"), ("x" * 63, "x" * 63), ("Größe & Maß", "grosse-mass"), ("東京", "dongjing"), ("7", "7")],
)
def test_a_name_in_any_script_makes_a_project(site: ServerProcess, name: str, slug: str) -> None:
    page = site.client.get(create(site, name)).text
    assert f"{site.url}/git/{slug}.git" in page
    assert html.escape(name) in page


def test_environments_are_those_ticked_and_those_named(site: ServerProcess) -> None:
    path = create(site, "Own", environments=["production"], own_environments="qa, demo ,qa,")
    assert "production, qa, demo" in site.client.get(path).text


def test_the_slug_is_shown_as_one_types(site: ServerProcess) -> None:
    assert "/git/my-shop.git" in site.client.get("/projects/new/slug?name=My+Shop").text
    assert "gitops is reserved" in site.client.get("/projects/new/slug?name=gitops").text


def test_a_fragment_is_the_part_of_the_page_that_shows_it(site: ServerProcess) -> None:
    path = create(site, "Fragmented")
    summary = site.client.get(f"{path}/summary").text
    assert summary.lstrip().startswith('<section id="run"')
    assert summary.strip() in site.client.get(path).text
    panel = site.client.get(f"{path}/progress").text
    assert '<progress id="run-progress" max="100" value="100"' in panel


def test_the_log_holds_every_line_of_the_run(site: ServerProcess) -> None:
    path = create(site, "Logged")
    lines = site.client.get(f"{path}/log").text.splitlines()
    events = site.events(path.rpartition("/")[2])
    logged = [(event["step"], line) for event in events if event["type"] == "log" for line in event["lines"]]
    shown = [re.fullmatch(r"\d{4}-\d\d-\d\dT\S+ ([a-z_]+) (.*)", line) for line in lines]
    assert [found.groups() for found in shown if found] == logged
    assert len(shown) == len(logged) > 10


def test_projects_are_found_by_name_and_state(site: ServerProcess) -> None:
    for name in ("Alpha shop", "Beta_100%", "Gamma shop"):
        create(site, name)
    assert set(names_at(site)) >= {"Alpha shop", "Beta_100%", "Gamma shop"}
    assert set(names_at(site, q="SHOP")) == {"Alpha shop", "Gamma shop"}
    assert names_at(site, q="alpha-shop") == ["Alpha shop"]
    assert names_at(site, q="100%") == ["Beta_100%"]
    assert names_at(site, q="%") == ["Beta_100%"]
    assert names_at(site, q="_") == ["Beta_100%"]
    assert set(names_at(site, q="shop", status="active")) == {"Alpha shop", "Gamma shop"}
    assert names_at(site, q="shop", status="failed") == []
    assert "No project matches" in site.client.get("/?status=cancelled").text


def test_a_long_list_has_pages(empty_site: ServerProcess) -> None:
    for number in range(21):
        empty_site.create(f"Project {number}")
    first = empty_site.client.get("/").text
    assert len(names_in(first)) == 20
    assert 'rel="next"' in first
    second = empty_site.client.get("/?page=2").text
    assert len(names_in(second)) == 1
    assert 'rel="prev"' in second
    assert set(names_in(first)) | set(names_in(second)) == {f"Project {number}" for number in range(21)}


def test_an_address_that_leads_nowhere_is_a_page_with_a_sentence(site: ServerProcess) -> None:
    answer = site.client.get("/none")
    assert answer.status_code == 404
    assert "There is no page with this address." in answer.text
    assert "There is no project with this address." in site.client.get("/projects/none").text


def test_a_page_is_not_kept_by_caches(site: ServerProcess) -> None:
    for address in ("/", "/projects/new", create(site, "Cached")):
        assert site.client.get(address).headers["cache-control"] == "no-store"


def test_health_says_that_it_lives_and_can_work(site: ServerProcess) -> None:
    assert site.client.get("/livez").json() == {"status": "ok"}
    assert site.client.get("/readyz").json() == {"status": "ok", "database": "ok", "journal": "ok"}


def test_what_has_no_page_around_it_has_an_icon(site: ServerProcess) -> None:
    answer = site.client.get("/favicon.ico", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml"
