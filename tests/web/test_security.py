"""What every answer carries, whom the server listens to, and that text from outside stays text."""

import re
import socket

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from harness.forms import filled_form
from harness.server import ServerProcess, StartServer
from harness.waiting import wait_for

HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;{{7*7}}"


def raw_answer(site: ServerProcess, path: str, host: str) -> str:
    """The answer to a request with any Host header at all."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while portion := connection.recv(65536):
            answer += portion
    return answer.decode(errors="replace")


def end_of_socket(site: ServerProcess, path: str, *, origin: str | None = None) -> tuple[int, list[str]]:
    """The code with which the server ends a socket, and the frames before."""
    frames: list[str] = []
    address = f"ws://localhost:{site.port}{path}"
    with connect(address, additional_headers={"Origin": origin} if origin else None) as live:
        try:
            while True:
                frames.append(str(live.recv(timeout=60)))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code, frames


@pytest.mark.parametrize(
    "path",
    ["/", "/projects/new", "/projects/new/slug?name=x", "/none", "/projects/none", "/static/none",
     "/?page=0", "/livez", "/readyz", "/git/none.git/info/refs?service=git-upload-pack"],
)  # fmt: skip
def test_every_answer_carries_the_policy(site: ServerProcess, path: str) -> None:
    headers = site.client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_refusals_carry_the_policy_too(site: ServerProcess, method: str) -> None:
    answer = site.client.request(method, "/projects/new")
    assert answer.status_code == 405
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:80", "[", ""]
)
@pytest.mark.parametrize("path", ["/", "/livez"])
def test_a_name_that_is_not_the_servers_is_refused(site: ServerProcess, host: str, path: str) -> None:
    answer = raw_answer(site, path, host)
    assert answer.startswith("HTTP/1.1 400 ")
    assert "not one of this server" in answer
    assert "content-security-policy" in answer


@pytest.mark.parametrize("host", ["localhost", "localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
def test_every_name_of_this_machine_is_answered(site: ServerProcess, host: str) -> None:
    assert raw_answer(site, "/livez", host.format(port=site.port)).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://["])
def test_a_socket_from_elsewhere_is_refused(site: ServerProcess, origin: str) -> None:
    site.post({"name": "Watched"})
    project = site.query("SELECT id FROM projects WHERE slug = 'watched'")[0]["id"]
    assert end_of_socket(site, f"/projects/{project}/live", origin=origin) == (4403, [])


def test_a_socket_of_a_project_that_is_none_is_refused(site: ServerProcess) -> None:
    assert end_of_socket(site, "/projects/none/live", origin=site.url) == (4404, [])


@pytest.mark.parametrize(
    "after", ["", "0", "1-1", "1-0", "2-1", "1-999999999", f"1-{'9' * 40}", "-1", "x", "1-%D9%A3", "%00"]
)
def test_a_socket_gets_the_end_whatever_it_says_it_has_seen(site: ServerProcess, after: str) -> None:
    project = site.create(f"Seen {len(after)} {after.replace('-', 'minus ')}")
    path = f"/projects/{project}/live?after={after}"
    code, frames = end_of_socket(site, path, origin=site.url)
    assert code == 1000
    assert 'data-state="active"' in frames[-1]
    assert end_of_socket(site, path, origin=site.url) == (1000, [frames[-1]])


def test_text_from_outside_stays_text_everywhere(site: ServerProcess) -> None:
    project = site.create(HOSTILE, description=HOSTILE)
    path = f"/projects/{project}"
    get = site.client.get
    shown = [get(path).text, get(f"{path}/progress").text]
    site.wait_for_end(project)
    shown += [get(path).text, get(f"{path}/progress").text, get(f"{path}/summary").text, get("/").text]
    shown += [get("/", params={"q": HOSTILE}).text, get("/projects/new/slug", params={"name": HOSTILE}).text]
    shown += [site.post(filled_form(name=HOSTILE, description=HOSTILE, key=HOSTILE)).text]
    for text in shown:
        assert "<img" not in text
        assert "onerror=alert(1)>" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown[2]
    assert get(f"{path}/log").headers["content-type"] == "text/plain; charset=utf-8"


def test_a_static_file_is_found_by_its_hash_and_nothing_else_is(site: ServerProcess) -> None:
    page = site.client.get("/projects/new").text
    addresses = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert len(addresses) >= 3
    for address in addresses:
        answer = site.client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        plain = site.client.get(address, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
    for path in (
        "/static/../pyproject.toml",
        "/static/..%2fpyproject.toml",
        "/static/%2e%2e/app.py",
        "/static/",
    ):
        assert raw_answer(site, path, "localhost").startswith("HTTP/1.1 404 ")


def test_pages_bring_no_script_or_style_of_their_own(site: ServerProcess) -> None:
    project = site.create("Pure")
    paths = ["/", "/projects/new", f"/projects/{project}", "/none"]
    pages = [site.client.get(path).text for path in paths]
    site.wait_for_end(project)
    for page in [*pages, site.client.get(f"/projects/{project}").text]:
        assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", page)
        assert "<style" not in page
        tags = re.findall(r"<[a-z][^<>]*>", page)
        assert not [tag for tag in tags if re.search(r"\s(?:style|on[a-z]+)=", tag)]


def test_an_error_of_the_server_shows_no_more_than_a_sentence(server: ServerProcess) -> None:
    """A journal that somebody has scribbled in: the page cannot be made, and the log tells support why."""
    server.allow("request broke")
    server.allow("Exception in ASGI application")
    project = server.create("Scribbled")
    server.wait_for_end(project)
    with (server.data / "journals" / f"{project}.jsonl").open("a") as journal:
        journal.write('{"type":"log","id":"not an id","at":"never"}\n')
    answer = server.client.get(f"/projects/{project}/progress")
    assert answer.status_code == 500
    assert "Something went wrong here" in answer.text
    assert "Traceback" not in answer.text
    assert "never" not in answer.text
    assert "content-security-policy" in answer.headers
    wait_for(lambda: "Traceback" in server.stderr, "the stack trace in the log")


def test_nothing_is_kept_in_cookies(site: ServerProcess) -> None:
    assert site.post({"name": "Without cookies"}).status_code == 303
    assert not site.client.cookies


def test_on_a_trusted_network_addresses_are_answered_and_names_of_others_are_not(
    start_server: StartServer,
) -> None:
    server = start_server(trust_network="1", host="0.0.0.0", public_url="http://projects.example.com")
    assert raw_answer(server, "/livez", "192.168.7.7:8000").startswith("HTTP/1.1 200 ")
    assert raw_answer(server, "/livez", "evil.example:8000").startswith("HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("public_url", "origin", "is_own"),
    [
        ("https://projects.example.com", "https://projects.example.com", True),
        ("https://projects.example.com:443", "https://projects.example.com", True),
        ("http://Projects.example.com:8080/", "http://projects.example.com:8080", True),
        ("https://projects.example.com", "http://projects.example.com", False),
        ("https://projects.example.com", "https://projects.example.com.evil.example", False),
        ("https://projects.example.com", "https://evil.example", False),
    ],
)
def test_pages_of_the_public_address_are_ours_behind_a_proxy_that_asks_by_another_name(
    start_server: StartServer, public_url: str, origin: str, *, is_own: bool
) -> None:
    server = start_server(public_url=public_url)
    answer = server.client.post("/projects", data=filled_form(name=""), headers={"origin": origin})
    assert answer.status_code == (422 if is_own else 403)
    assert end_of_socket(server, "/projects/none/live", origin=origin) == (4404 if is_own else 4403, [])
