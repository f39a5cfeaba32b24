import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import ServerProcess, StartServer
from harness.servers import PostgresServer, RedisServer, open_postgres


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts the one server of a test; keywords are settings in lower case."""
    servers: list[ServerProcess] = []

    def start(**settings: str) -> ServerProcess:
        servers.append(ServerProcess(tmp_path, {name.upper(): text for name, text in settings.items()}))
        return servers[0].start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A server with the default settings."""
    return start_server()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that do not harm it; empty it with `redis_url`."""
    with RedisServer(tmp_path_factory.mktemp("redis"), "--save", "", "--appendonly", "no") as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """The address of an empty Redis."""
    assert shared_redis.ask("FLUSHALL") == b"+OK\r\n"
    return shared_redis.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed, frozen and brought back."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that do not harm it."""
    with open_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(shared_postgres: PostgresServer) -> str:
    """The address of an empty database."""
    return shared_postgres.new_database()


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, to be stopped and brought back."""
    with open_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def encrypted_postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL that takes encrypted connections too, for all tests that do not harm it."""
    with open_postgres(is_encrypted=True) as server:
        yield server


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where FORBID_SKIPS is set, as in CI, what was not tested counts as failed."""
    if os.environ.get("FORBID_SKIPS") and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if os.environ.get("FORBID_SKIPS") and (count := _skipped(config)):
        terminalreporter.write_line(
            f"FORBID_SKIPS is set and {count} tests were skipped: that fails the run.", red=True
        )


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter else 0
