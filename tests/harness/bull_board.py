"""Bull Board from `examples/bull-board`, as operators start it."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness.server import free_port, plain_environment
from harness.waiting import wait_for

__all__ = ["open_bull_board"]

FOLDER = Path(__file__).parents[2] / "examples" / "bull-board"


@contextlib.contextmanager
def open_bull_board(*, redis_url: str, public_url: str) -> Iterator[str]:
    """The address of a board over the queue; skips the test, loudly, where what it needs is not installed."""
    node = shutil.which("node")
    if node is None or not (FOLDER / "node_modules").is_dir():
        pytest.skip("NOT TESTED: node, or what examples/bull-board needs, is missing. Install it: make board")
    port = free_port()
    settings = {"REDIS_URL": redis_url, "PUBLIC_URL": public_url, "PORT": str(port)}
    url = f"http://127.0.0.1:{port}"
    # A kernel signal ends it with the test runner, whatever ends that.
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", node, "server.js"], cwd=FOLDER, env=plain_environment(settings)
    ) as process:
        try:
            wait_for(lambda: process.poll() is not None or _answers(url), "an answer of Bull Board")
            assert process.poll() is None
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
