from collections.abc import Iterator

import pytest

from harness.server import ServerProcess


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server for all tests of a file: their projects need names of their own."""
    server = ServerProcess(tmp_path_factory.mktemp("site")).start()
    yield server
    server.close()
