"""Whatever is sent instead of a form: a clear refusal, what was typed is kept, and nothing is created."""

import html
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from harness.forms import filled_form
from harness.server import ServerProcess

URLENCODED = "application/x-www-form-urlencoded"


@pytest.fixture(autouse=True)
def _nothing_is_created(site: ServerProcess) -> Iterator[None]:
    before = site.count_rows()
    yield
    assert site.count_rows() == before


def post(site: ServerProcess, content: Any, media_type: str) -> httpx.Response:
    """Post a body as it is, from a page of the server."""
    headers = {"origin": site.url, "content-type": media_type}
    return site.client.post("/projects", content=content, headers=headers)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", "", "Give the project a name."),
        ("name", "   ", "Give the project a name."),
        ("name", "!!!", "A name has 1 to 63 characters"),
        ("name", "x" * 64, "A name has 1 to 63 characters"),
        ("name", "x" * 30_000, "A name has 1 to 63 characters"),
        ("name", "GitOps", "gitops is reserved"),
        ("name", "api", "api is reserved"),
        ("name", "kube system", "kube-system is reserved"),
        ("name", "a\0b", "control character"),
        ("name", "a\nb", "control character"),
        ("name", "a\x1b[31mb", "control character"),
        ("description", "x" * 201, "at most 200 characters"),
        ("description", "one\ntwo", "one line"),
        ("description", "a\0b", "one line"),
        ("template", "", "Choose one of the templates."),
        ("template", "nonesuch", "Choose one of the templates."),
        ("template", "../templates/bare", "Choose one of the templates."),
        ("environments", [], "Choose at least one environment."),
        ("environments", ["Production!"], "name has 1 to 30 lower-case letters"),
        ("environments", ["../etc"], "name has 1 to 30 lower-case letters"),
        ("environments", ["x" * 31], "name has 1 to 30 lower-case letters"),
        ("environments", ["a\0b"], "name has 1 to 30 lower-case letters"),
        ("own_environments", ", ".join(f"e{n}" for n in range(11)), "at most 10 environments"),
        ("gitops", "", "Choose Flux or Argo CD."),
        ("gitops", "helm", "Choose Flux or Argo CD."),
        ("key", "", "load it again"),
        ("key", "short", "load it again"),
        ("key", "x" * 65, "load it again"),
        ("key", "' OR 1=1 -- xxxxxxxxxx", "load it again"),
    ],
)
@pytest.mark.parametrize("is_htmx", [False, True])
def test_a_field_that_cannot_be_is_said_beside_it_with_the_form_kept(
    site: ServerProcess, field: str, value: Any, sentence: str, is_htmx: bool
) -> None:
    asked = filled_form(description="What it is for") | {field: value}
    headers = {"hx-request": "true"} if is_htmx else {}
    answer = site.post(asked, **headers)
    assert answer.status_code == 422
    assert sentence in html.unescape(answer.text)
    assert answer.text.lstrip().startswith("<form" if is_htmx else "<!doctype html>")
    if field != "description":
        assert 'value="What it is for"' in answer.text
    if field not in ("name", "own_environments"):
        assert 'value="Demo"' in answer.text
    if field != "template":
        assert re.search('<input[^>]*value="bare"[^>]* checked', answer.text)
    if field != "key":
        assert f'value="{asked["key"]}"' in answer.text


@pytest.mark.parametrize("field", ["name", "description", "template", "gitops", "key"])
@pytest.mark.parametrize(
    "text", ["%ED%A0%80", "%FF%FE", "%00", "%C0%80"], ids=["surrogate", "no UTF-8", "NUL", "overlong"]
)
def test_bytes_that_no_database_holds_are_refused(site: ServerProcess, field: str, text: str) -> None:
    body = urlencode(filled_form() | {field: "PLACE"}, doseq=True).replace("PLACE", f"abc{text}def")
    answer = post(site, body, URLENCODED)
    assert answer.status_code in (400, 422), answer.text


def test_many_problems_are_all_said_at_once(site: ServerProcess) -> None:
    answer = post(site, "name=&key=x", URLENCODED)
    assert answer.status_code == 422
    for sentence in ("Give the project a name.", "Choose one of the templates.", "Choose Flux or Argo CD."):
        assert sentence in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:1"},
        {"origin": "{url}.evil.example"},
        {"origin": "{url}@evil.example"},
        {"origin": "localhost"},
        {"origin": "http://["},
    ],
)
def test_a_form_from_elsewhere_is_refused(site: ServerProcess, headers: dict[str, str]) -> None:
    headers = {name: value.replace("{url}", site.url) for name, value in headers.items()}
    answer = site.client.post("/projects", data=filled_form(), headers=headers)
    assert answer.status_code == 403
    assert "does not come from a page of this server" in answer.text


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b'{"name": "Demo"}', "application/json"),
        (b"name=Demo", "text/plain"),
        (b"name=Demo", ""),
        (b"\x00\x01\x02", "application/octet-stream"),
    ],
)
def test_what_is_no_form_is_refused(site: ServerProcess, content: bytes, media_type: str) -> None:
    answer = post(site, content, media_type)
    assert answer.status_code == 415
    assert "Send the form as" in answer.text


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"", "multipart/form-data"),
        (b"no boundary here", "multipart/form-data; boundary=b"),
        (b"--b\r\nbroken", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"&".join(b"f=%d" % number for number in range(100)), "application/x-www-form-urlencoded"),
        (b"=&=&&;;%%%", "application/x-www-form-urlencoded"),
        (b"name", "application/x-www-form-urlencoded; charset=utf-16"),
    ],
)
def test_a_broken_form_is_refused(site: ServerProcess, content: bytes, media_type: str) -> None:
    answer = post(site, content, media_type)
    assert 400 <= answer.status_code < 500


def test_a_file_in_place_of_a_text_is_refused(site: ServerProcess) -> None:
    files = {"name": ("name.txt", b"Demo", "text/plain")}
    answer = site.client.post(
        "/projects", data=filled_form(name=""), files=files, headers={"origin": site.url}
    )
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_over_the_limit_is_refused(site: ServerProcess, is_announced: bool) -> None:
    body = b"name=" + b"x" * 70_000
    content = body if is_announced else (body[at : at + 1000] for at in range(0, len(body), 1000))
    answer = post(site, content, URLENCODED)
    assert answer.status_code == 413
    assert answer.text.startswith("<!doctype html>")
    assert "The request is larger than this server takes." in answer.text


@pytest.mark.parametrize("path", ["/?status=none", "/?page=0", "/?page=-1", "/?page=9999999", "/?page=%00"])
def test_a_list_that_cannot_be_asked_for_is_refused(site: ServerProcess, path: str) -> None:
    assert site.client.get(path).status_code == 400


@pytest.mark.parametrize("search", ["%00", "%ED%A0%80", "%25", "_", "/", "%27%22%3C", "%FF", "x" * 5000])
def test_a_search_for_anything_is_answered(site: ServerProcess, search: str) -> None:
    assert site.client.get(f"/?q={search}").status_code == 200


@pytest.mark.parametrize("project", ["none", "%00", "%ED%A0%80", "..%2f..%2fetc", "'", "x" * 3000])
@pytest.mark.parametrize("part", ["", "/progress", "/summary", "/log"])
def test_a_project_that_is_none_is_not_found(site: ServerProcess, project: str, part: str) -> None:
    assert site.client.get(f"/projects/{project}{part}").status_code == 404


@pytest.mark.parametrize("name", ["", "%00", "%ED%A0%80", "%0A", "x" * 5000, "%3Cscript%3E"])
def test_the_slug_of_anything_is_answered(site: ServerProcess, name: str) -> None:
    answer = site.client.get(f"/projects/new/slug?name={name}")
    assert answer.status_code == 200
    assert "<script" not in answer.text
