from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.browser import Visitors, launch_browser
from harness.gate import Gate


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a file, and no longer: while it is open, other tests cannot run an event loop."""
    with launch_browser() as browser:
        yield browser


@pytest.fixture
def visitors(browser: Browser) -> Iterator[Visitors]:
    """Opens pages. What they complain of and was not allowed fails the test."""
    visitors = Visitors(browser)
    yield visitors
    visitors.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Holds steps; give its `path` as the setting `path` of the server."""
    return Gate(tmp_path / "gate", tmp_path / "data")
