"""Takes the README's pictures from the real app: `make screenshots`.

Starts the app in a folder of its own, creates a project through the form in headless Chromium, and takes the
live run and the summary as they are, light and dark.
"""

import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
START_LIMIT_S = 30


@contextmanager
def served() -> Iterator[str]:
    """The base URL of a fresh app."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "DATA_DIR": folder, "PORT": str(port)}
        program = [sys.executable, "-c", "from web.cli import main; main()", "serve"]
        with subprocess.Popen(
            program, env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it is bound now, and answers once it is ready
            url = f"http://localhost:{port}"
            until_ready(url)
            yield url
            server.terminate()


def until_ready(url: str) -> None:
    """Wait until the app answers; its socket listens already, so the request waits by itself."""
    try:
        urllib.request.urlopen(f"{url}/readyz", timeout=START_LIMIT_S).close()  # noqa: S310
    except urllib.error.URLError as error:
        raise SystemExit(f"the app did not start: {error}") from error


def new_page(browser: Browser, scheme: str, width: int = 1100) -> Page:
    """A page of that colour scheme."""
    context = browser.new_context(
        viewport={"width": width, "height": 860}, color_scheme="dark" if scheme == "dark" else "light"
    )
    return context.new_page()


def take(page: Page, name: str) -> None:
    """Keep what the page shows."""
    page.screenshot(path=IMAGES / f"{name}.png", full_page=True)


def create(page: Page, url: str, name: str) -> None:
    """Fill in the form and press Create."""
    page.goto(f"{url}/projects/new")
    page.fill("#name", name)
    page.fill("#description", "Takes orders and tells the warehouse")
    page.check("input[name=template][value=python-service]", force=True)
    page.wait_for_function("() => document.querySelector('#slug code') !== null")


def main() -> None:
    """Take them all."""
    IMAGES.mkdir(exist_ok=True)
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        for scheme in ("light", "dark"):
            page = new_page(browser, scheme)
            create(page, url, f"Order service {scheme}")
            take(page, f"form-{scheme}")
            page.click("#create button[type=submit]")
            page.wait_for_function("() => document.getElementById('run-progress')?.value > 30")
            take(page, f"run-{scheme}")
            page.wait_for_selector("#run[data-state=active]")
            take(page, f"summary-{scheme}")
            page.goto(url)
            take(page, f"list-{scheme}")
        browser.close()


if __name__ == "__main__":
    main()
