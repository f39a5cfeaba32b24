"""Chromium as people use it. No page may write errors to its console, or break its policy."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from harness.waiting import DEADLINE_S, wait_for
from initializer.model.events import index_of

__all__ = [
    "Visitors",
    "frames_seen",
    "launch_browser",
    "mark",
    "press",
    "state_at_the_end",
    "until_live",
    "was_reloaded",
]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RECORDER = (Path(__file__).parent / "recorder.js").read_text()


@contextlib.contextmanager
def launch_browser() -> Iterator[Browser]:
    """A browser without a window."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program is not None, "Chromium is not installed: `make test` installs it where it may"
    with sync_playwright() as playwright:
        expect.set_options(timeout=DEADLINE_S * 1000)
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


class Visitors:
    """Opens pages, each in a browser profile of its own, and collects what they complain of."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._complaints: list[str] = []
        self._allowed: list[str] = []

    def open(self, url: str, *, has_javascript: bool = True, **options: Any) -> Page:
        """A page at that address, with a recorder of what it shows (`recorder.js`)."""
        context = self._browser.new_context(java_script_enabled=has_javascript, **options)
        self._contexts.append(context)
        context.set_default_timeout(DEADLINE_S * 1000)
        context.add_init_script(RECORDER)
        context.on("weberror", lambda event: self._complaints.append(f"page error: {event.error}"))
        page = context.new_page()
        page.on("console", self._hear)
        page.goto(url)
        return page

    def allow(self, text: str) -> None:
        """Complaints with this text are expected."""
        self._allowed.append(text)

    def allow_lost_connections(self) -> None:
        """What the browser and htmx themselves write of a connection that breaks is expected."""
        for text in ("WebSocket connection to", "htmx:ws:error"):
            self.allow(text)
        for error in ("ERR_CONNECTION_RE", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED"):
            self.allow(error)

    def close(self) -> None:
        """Close all pages, and hold against the test what they complained of until then.

        Of a socket that closing cuts off while it connects the browser would complain as well.
        """
        for context in self._contexts:
            if context.pages:  # else the test has closed it itself
                context.cookies()  # with the answer has come all that was complained of before
        complaints = [it for it in self._complaints if not any(text in it for text in self._allowed)]
        for context in self._contexts:
            context.close()
        assert not complaints, "a page complained:\n" + "\n".join(complaints)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning", "assert"):
            self._complaints.append(f"console {message.type}: {message.text}")


def state_at_the_end(page: Page) -> str:
    """The state that the summary shows, once it is there."""
    summary = page.locator("#run:has(.result)")
    summary.wait_for()
    return summary.get_attribute("data-state") or ""


def until_live(page: Page) -> None:
    """Wait until the page has heard over its socket: the server has read all that it needs for it."""
    wait_for(lambda: page.evaluate("() => recorder.messages"), "a message of the page's socket")


def press(page: Page, name: str) -> None:
    """Press the button of that name."""
    page.get_by_role("button", name=name, exact=True).click()


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("() => { window.mark = 'not reloaded'; }")


def was_reloaded(page: Page) -> bool:
    """Whether the mark is gone."""
    is_there: bool = page.evaluate("() => window.mark === 'not reloaded'")
    return not is_there


def frames_seen(page: Page) -> dict[int, str]:
    """The panel after each frame of this page, by the index of the last event it shows; normalised HTML."""
    seen: dict[str, str] = page.evaluate("() => Object.fromEntries(recorder.panels)")
    return {index_of(event): html for event, html in seen.items()}
