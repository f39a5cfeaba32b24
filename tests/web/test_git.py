import asyncio
import gzip
import http.client
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request

import web.git
from initializer.forges.git import Git
from initializer.forges.local import LocalForge, _run_quietly
from web.git import MAX_BODY_BYTES, MAX_INFLATED_BYTES, REQUEST_TYPE, SERVICE, git_routes

Ended = subprocess.CompletedProcess[str]
INFO = "info/refs?service=git-upload-pack"


async def authorize(request: Request, slug: str) -> None:
    if slug == "secret":
        raise HTTPException(403)


class Server:
    """A real server in a thread; `url` is its address."""

    def __init__(self, folder: Path) -> None:
        app = Starlette(routes=git_routes(folder, authorize))
        config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/git"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


def git(*arguments: object, cwd: Path | None = None, check: bool = True) -> Ended:
    return subprocess.run(
        ["git", *map(str, arguments)], cwd=cwd, check=check, capture_output=True, text=True, timeout=60
    )


def children() -> set[str]:
    """The `git http-backend`s that run now."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"http-backend" in words:
            found.add(folder.name)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "forge"


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    asyncio.run(LocalForge(folder, "http://x").create_shared_repository("shop"))
    server = Server(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def work(tmp_path: Path, folder: Path, server: Server) -> Git:
    """A clone through the file system, which may push."""
    git = Git(partial(_run_quietly, tmp_path), tmp_path, datetime(2026, 11, 24, tzinfo=UTC))
    remote = LocalForge(folder, "http://x").remote("shop")
    return asyncio.run(git.clone(remote, tmp_path / "work"))


async def add_commit(work: Git, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = work.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    old = await work.head()
    new = await work.commit_all("Change", {})
    assert new is not None
    await work.push(old=old)
    return new


@pytest.mark.parametrize("version", [0, 1, 2])
def test_git_clones_with_every_version_of_the_protocol(server: Server, tmp_path: Path, version: int) -> None:
    clone = tmp_path / "clone"
    git("-c", f"protocol.version={version}", "clone", f"{server.url}/shop.git", clone)
    assert (clone / "README.md").read_text().startswith("# GitOps")
    assert git("branch", "--show-current", cwd=clone).stdout == "main\n"


def test_a_shallow_clone_and_a_later_fetch_work(server: Server, work: Git, tmp_path: Path) -> None:
    for number in range(3):
        asyncio.run(add_commit(work, {"file": f"{number}"}))
    clone = tmp_path / "clone"
    git("clone", "--depth=1", f"{server.url}/shop.git", clone)
    assert git("rev-list", "--count", "HEAD", cwd=clone).stdout == "1\n"
    made = asyncio.run(add_commit(work, {"file": "later"}))
    git("fetch", "--unshallow", cwd=clone)
    assert git("rev-parse", "origin/main", cwd=clone).stdout.strip() == made


def test_a_large_repository_arrives_whole(server: Server, work: Git, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    asyncio.run(add_commit(work, {"big": content}))
    git("clone", f"{server.url}/shop.git", tmp_path / "clone")
    assert (tmp_path / "clone" / "big").read_bytes() == content


def test_a_push_is_refused_and_changes_nothing(server: Server, folder: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("clone", f"{server.url}/shop.git", clone)
    before = git("for-each-ref", cwd=folder / "shop.git").stdout
    commit = ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--allow-empty", "-m", "x"]
    git(*commit, cwd=clone)
    refused = git("push", cwd=clone, check=False)
    assert refused.returncode != 0
    assert "403" in refused.stderr
    assert git("for-each-ref", cwd=folder / "shop.git").stdout == before
    answer = httpx.post(
        f"{server.url}/shop.git/git-receive-pack",
        content=b"0000",
        headers={"Content-Type": "application/x-git-receive-pack-request"},
    )
    assert answer.status_code == 404


def test_the_mark_is_hidden(server: Server) -> None:
    assert "refs/initializer" not in git("ls-remote", f"{server.url}/shop.git").stdout


@pytest.mark.parametrize(
    "path",
    [
        "shop.git/HEAD",
        "shop.git/config",
        "shop.git/objects/info/packs",
        "shop.git",
        f"shop/{INFO}",
        f"nonesuch.git/{INFO}",
        f"link.git/{INFO}",
        f"..git/{INFO}",
        f"../forge/shop.git/{INFO}",
        f"%2e%2e/shop.git/{INFO}",
        f"..%2fforge%2fshop.git/{INFO}",
        f"shop.git%00.git/{INFO}",
        f"shop.git/../shop.git/{INFO}",
        f"SHOP.git/{INFO}",
        f".unfinished/x.git/{INFO}",
        f"shop.git%0a/{INFO}",
    ],
)
def test_no_other_path_is_served(server: Server, folder: Path, path: str) -> None:
    (folder / "link.git").symlink_to(folder / "shop.git")
    status, body = get_as_written(server, path)
    assert status in (403, 404)
    assert b"refs/heads" not in body


def get_as_written(server: Server, path: str) -> tuple[int, bytes]:
    """The status and body; unlike httpx, this client leaves dots and escapes in the path as they are."""
    address = httpx.URL(server.url)
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.request("GET", f"/git/{path}")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


@pytest.mark.parametrize("query", ["", "?service=git-receive-pack", "?service=git-upload-archive"])
def test_only_the_reading_service_is_advertised(server: Server, query: str) -> None:
    assert httpx.get(f"{server.url}/shop.git/info/refs{query}").status_code == 403


def test_the_app_decides_who_may_read(server: Server, folder: Path) -> None:
    asyncio.run(LocalForge(folder, "http://x").create_shared_repository("secret"))
    assert httpx.get(f"{server.url}/secret.git/{INFO}").status_code == 403
    assert git("clone", f"{server.url}/secret.git", folder / "clone", check=False).returncode != 0


def post(server: Server, body: bytes, **headers: str) -> httpx.Response:
    sent = {
        "Content-Type": REQUEST_TYPE,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return httpx.post(f"{server.url}/shop.git/{SERVICE}", content=body, headers=sent)


def test_request_bodies_are_bounded_before_and_after_they_are_inflated(server: Server) -> None:
    assert post(server, bytes(MAX_BODY_BYTES + 1)).status_code == 413
    bomb = gzip.compress(bytes(MAX_INFLATED_BYTES + 1))
    assert post(server, bomb, Content_Encoding="gzip").status_code == 413
    assert post(server, b"no gzip", Content_Encoding="gzip").status_code == 400
    assert post(server, gzip.compress(b"0000")[:-4], Content_Encoding="gzip").status_code == 400
    assert post(server, b"0000", Content_Encoding="br").status_code == 415
    assert post(server, b"0000", Content_Type="text/plain").status_code == 415


def test_a_request_that_is_compressed_is_answered_like_one_that_is_not(server: Server) -> None:
    lines = b"0014command=ls-refs\n00010009peel\n0000"
    plain = post(server, lines, Git_Protocol="version=2")
    packed = post(server, gzip.compress(lines), Git_Protocol="version=2", Content_Encoding="gzip")
    assert b"refs/heads/main" in plain.content
    assert packed.content == plain.content


def test_a_clone_beside_many_pushes_always_gets_a_whole_commit(
    server: Server, work: Git, tmp_path: Path
) -> None:
    pushing = threading.Event()

    def push_many() -> None:
        for number in range(12):
            asyncio.run(add_commit(work, {"one": f"{number}", "two": f"{number}"}))
        pushing.set()

    asyncio.run(add_commit(work, {"one": "first", "two": "first"}))
    thread = threading.Thread(target=push_many)
    thread.start()
    clones = 0
    while not pushing.is_set() or clones < 3:
        clone = tmp_path / f"clone-{clones}"
        git("clone", f"{server.url}/shop.git", clone)
        assert (clone / "one").read_text() == (clone / "two").read_text()
        git("fsck", "--strict", cwd=clone)
        clones += 1
    thread.join()


def test_a_client_that_leaves_takes_its_child_along(server: Server, work: Git) -> None:
    asyncio.run(add_commit(work, {f"big-{number}": random_bytes(number) for number in range(4)}))
    head = asyncio.run(work.head())
    before = children()
    want = f"0032want {head}\n00000009done\n".encode()
    url, headers = f"{server.url}/shop.git/{SERVICE}", {"Content-Type": REQUEST_TYPE}
    with httpx.stream("POST", url, content=want, headers=headers) as answer:
        assert answer.status_code == 200
        wait_until(lambda: children() - before)  # it cannot write on: nobody reads
    wait_until(lambda: not children() - before)


def test_one_too_many_at_once_is_told_to_come_again(
    server: Server, work: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.git, "WAIT_S", 0.05)
    asyncio.run(add_commit(work, {f"big-{number}": random_bytes(number) for number in range(4)}))
    want = f"0032want {asyncio.run(work.head())}\n00000009done\n".encode()
    url, headers = f"{server.url}/shop.git/{SERVICE}", {"Content-Type": REQUEST_TYPE}
    client = httpx.Client()
    held = []
    for _ in range(web.git.MAX_CHILDREN):
        request = client.build_request("POST", url, content=want, headers=headers)
        held.append(client.send(request, stream=True))
    answer = httpx.get(f"{server.url}/shop.git/{INFO}")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    for response in held:
        response.close()
    client.close()
    wait_until(lambda: httpx.get(f"{server.url}/shop.git/{INFO}").status_code == 200)


def random_bytes(seed: int) -> bytes:
    """4 MB that do not compress."""
    return random.Random(seed).randbytes(4_000_000)


def wait_until(condition: Callable[[], object]) -> None:
    """Return when it holds; the time limit of the test ends a wait in vain."""
    while not condition():
        threading.Event().wait(0.01)
