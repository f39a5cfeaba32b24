"""Takes the pictures of README.md and docs/looks.md from the real app: `make screenshots`.

Starts the app in a folder of its own, and for each look creates projects through the form in headless
Chromium: one that is seen live and as a summary, and one that fails because a stranger's repository has its
name.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
START_LIMIT_S = 30


class Look(NamedTuple):
    """How a page is looked at."""

    scheme: str
    width: int
    locale: str


LOOKS = {
    "light": Look("light", 1100, "en-GB"),
    "dark": Look("dark", 1100, "en-GB"),
    "chinese": Look("light", 1100, "zh-CN"),
    "narrow": Look("light", 320, "en-GB"),
    "narrow-chinese": Look("dark", 320, "zh-CN"),
}


@contextmanager
def served() -> Iterator[tuple[str, Path]]:
    """The base URL of a fresh app, and the folder it keeps its data in."""
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
            yield url, Path(folder)
            server.terminate()


def until_ready(url: str) -> None:
    """Wait until the app answers; its socket listens already, so the request waits by itself."""
    try:
        urllib.request.urlopen(f"{url}/readyz", timeout=START_LIMIT_S).close()  # noqa: S310
    except urllib.error.URLError as error:
        raise SystemExit(f"the app did not start: {error}") from error


def new_page(browser: Browser, look: Look) -> Page:
    """A page that is looked at like that."""
    context = browser.new_context(
        viewport={"width": look.width, "height": 860},
        color_scheme="dark" if look.scheme == "dark" else "light",
        locale=look.locale,
    )
    return context.new_page()


def fill_in(page: Page, url: str, name: str) -> None:
    """The form, ready to be sent, with the list of what will be made."""
    page.goto(f"{url}/projects/new")
    page.fill("#name", name)
    page.fill("#description", "Takes orders and tells the warehouse")
    page.check("input[name=template][value=python-service]", force=True)
    page.wait_for_function("() => document.querySelector('#slug code') !== null")
    page.click("#preview summary")


def take_all(page: Page, url: str, data: Path, look: str) -> None:
    """Every page in one look."""

    def take(name: str) -> None:
        page.mouse.move(0, 0)  # nothing is pointed at
        page.screenshot(path=IMAGES / f"{name}-{look}.png", full_page=True)

    fill_in(page, url, f"Order service {look}")
    take("form")
    page.click("#create button[type=submit]")
    page.wait_for_function("() => document.getElementById('run-progress')?.value > 30")
    take("run")
    page.wait_for_selector("#run[data-state=active]")
    take("summary")
    project = page.url
    page.goto(f"{project}/search?q=commit")
    take("search")
    page.goto(f"{project}/log/push_template")
    take("log")
    name = f"Taken {look}"
    (data / "repositories" / f"{re.sub('[^a-z]+', '-', name.lower())}.git").mkdir()
    fill_in(page, url, name)
    page.click("#create button[type=submit]")
    page.wait_for_selector("#run[data-state=failed]")
    take("failed")
    page.goto(url)
    take("list")
    page.goto(f"{url}/projects/unknown")
    take("unknown")


def main() -> None:
    """Take them all."""
    IMAGES.mkdir(exist_ok=True)
    with served() as (url, data), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        for name, look in LOOKS.items():
            page = new_page(browser, look)
            take_all(page, url, data, name)
            page.context.close()
        browser.close()


if __name__ == "__main__":
    main()
