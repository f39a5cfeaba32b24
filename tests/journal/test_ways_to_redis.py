"""The subscription over each way to Redis that a URL can name, on both event loops."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from harness.proxy import Relay
from harness.server import free_port
from harness.servers import RedisServer
from harness.waiting import wait_for
from initializer.journal.journal import JournalUnavailable
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


async def test_a_server_that_was_demoted_is_left_for_the_one_that_the_address_leads_to_now(
    anyio_backend: object, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir()
    old, new = (RedisServer(folder, "--save", "", "--repl-diskless-sync-delay", "0") for folder in folders)
    events = numbered(*(Saving(at=at(n)) for n in range(2)))
    with old, new, Relay(old.port) as relay:
        async with (
            asyncio.timeout(DEADLINE_S),
            open_redis(relay.through(old.url)) as client,
            open_redis_journal(client) as journal,
            aclosing(journal.follow("run")) as following,
        ):
            assert await anext(following) == []
            await journal.append("run", events[:1], expected_tail=None)
            assert await anext(following) == events[:1]
            replicate(old, new)
            new.ask("REPLICAOF", "NO", "ONE")
            relay.lead_to(new.port)
            replicate(new, old)
            with pytest.raises(JournalUnavailable, match="read only replica"):
                await journal.append("run", events[1:], expected_tail="1-1")
            await journal.append("run", events[1:], expected_tail="1-1")
            assert await anext(following) == events[1:]
            assert b":1" in old.ask("PUBSUB", "NUMSUB", "project:run")  # and passes on


def replicate(master: RedisServer, replica: RedisServer) -> None:
    """Return once the replica has all that its master has."""
    assert replica.ask("REPLICAOF", "127.0.0.1", str(master.port)) == b"+OK\r\n"
    wait_for(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), "a replica")
