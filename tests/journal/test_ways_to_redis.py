"""The subscription over each way to Redis that a URL can name, on both event loops."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from harness.server import free_port
from harness.servers import RedisServer
from initializer.journal.redis import open_redis_journal
from initializer.model.events import Reason, Saving, Started
from initializer.redis_client import open_redis
from model.runs import PIPELINE, at, numbered

pytestmark = pytest.mark.anyio

DEADLINE_S = 10
MANY = 3000


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module")
def guarded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Redis whose events are for one user only, over TCP, TLS and a socket."""
    folder = tmp_path_factory.mktemp("guarded")
    made = ("-keyout", "key.pem", "-out", "certificate.pem", "-days", "1", "-subj", "/CN=localhost")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            *made,
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    tls_port = free_port()
    options = (
        *("--save", "", "--unixsocket", str(folder / "socket")),
        *(
            "--user",
            *["default", "on", "nopass", "-@all", "+ping"],
            "--user",
            *["events", "on", ">secret", "~*", "&*", "+@all"],
        ),
        *("--tls-port", str(tls_port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", "certificate.pem", "--tls-key-file", "key.pem"),
        *("--tls-ca-cert-file", "certificate.pem"),
    )
    with RedisServer(folder, *options) as server:
        yield {
            "tcp": f"redis://events:secret@localhost:{server.port}/0",
            "tls": f"rediss://events:secret@localhost:{tls_port}/0?ssl_ca_certs={folder}/certificate.pem",
            "socket": f"unix://events:secret@{folder}/socket",
        }


@pytest.mark.parametrize("way", ["tcp", "tls", "socket"])
async def test_events_arrive_by_every_way_and_in_any_number(
    anyio_backend: object, guarded_redis: dict[str, str], way: str, tmp_path: Path
) -> None:
    run = f"{way}-{tmp_path.parent.name}-{tmp_path.name}"
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
    events = numbered(started, *(Saving(at=at(n)) for n in range(MANY)))
    async with (
        asyncio.timeout(DEADLINE_S),
        open_redis(guarded_redis[way]) as client,
        open_redis_journal(client) as journal,
        aclosing(journal.follow(run)) as following,
    ):
        assert await anext(following) == []
        seen = []
        await journal.append(run, events[:1], expected_tail=None)
        await journal.append(run, events[1:], expected_tail="1-1")
        while len(seen) < len(events):
            seen += await anext(following)
    assert seen == events
