import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import ServerProcess, StartServer


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
