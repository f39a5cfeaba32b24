"""The logs of a run: all of it as text, pieces of a step as rows, and what a search finds in them."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from itertools import chain

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from initializer.journal.journal import Journal, JournalRewritten
from initializer.model.events import Log, attempt_of
from initializer.model.progress import LOG_TAIL_ROWS, LogRow
from initializer.model.run_log import RunLog
from initializer.projects.projects import ProjectRow
from web.languages import VARY, language_of
from web.log_search import MAX_QUERY_CHARACTERS, Found, search
from web.log_text import plain
from web.rendering import Rendering
from web.runs import row_asked
from web.state import services

__all__ = ["Logs", "Shelf"]

MAX_SHELF_CHARACTERS = 32 * 1024 * 1024
PAGE_ROWS = LOG_TAIL_ROWS
"""How many rows are given at a time."""
ROWS_ABOVE = 20
"""How many of them stand above the line that was asked for."""
TAKEN_EVENTS = 1000
"""How many events of a long journal are taken before the event loop gets its turn: some milliseconds."""
MAX_NUMBER_DIGITS = 9
_CHUNK_CHARACTERS = 64 * 1024


class Logs:
    """Handlers over one rendering, and over logs that are kept as long as there is room for them."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._shelf = Shelf()
        self._searching = asyncio.Semaphore(1)  # the threads are also those that journals are synced in

    def routes(self) -> list[Route]:
        """Where they are served."""
        return [
            Route("/projects/{id}/log", self.text),
            Route("/projects/{id}/log/{step}", self.rows),
            Route("/projects/{id}/search", self.search),
        ]

    async def text(self, request: Request) -> Response:
        """Every line as text, also while the run lasts; of one `step`, its lines alone."""
        row, step = await row_asked(request), request.query_params.get("step")
        log = await self._open(request, row)
        name = row.project.slug
        if step is not None:
            self._check_step(row, log, step)
            name = f"{name}-{step}"
        headers = {"cache-control": "no-store"}
        if "download" in request.query_params:
            headers["content-disposition"] = f'attachment; filename="{name}.log"'
        write = _with_time if step is None else _alone
        return StreamingResponse(
            _chunks(log, step, write), media_type="text/plain; charset=utf-8", headers=headers
        )

    async def rows(self, request: Request) -> Response:
        """Rows of a step: those `before`, `after` or `around` a line, or the last ones.

        To htmx and log.js as a fragment, to others as a page.
        """
        row, step = await row_asked(request), request.path_params["step"]
        log = await self._open(request, row)
        self._check_step(row, log, step)
        html = self._rendering.speaking(language_of(request)).log_rows(
            row.project,
            step,
            _asked_rows(request, log, step),
            lines=log.last(step),
            is_fragment="hx-request" in request.headers,
        )
        return _html(html)

    async def search(self, request: Request) -> Response:
        """The lines of all steps that hold `q`."""
        row = await row_asked(request)
        query = request.query_params.get("q", "")[:MAX_QUERY_CHARACTERS]
        found = Found()
        if query.strip():
            log = await self._open(request, row)
            async with self._searching:
                found = await asyncio.to_thread(search, log.events(), query)
        else:
            query = ""
        rendering = self._rendering.speaking(language_of(request))
        return _html(rendering.hits(row.project, query, found, is_fragment="hx-request" in request.headers))

    async def _open(self, request: Request, row: ProjectRow) -> RunLog:
        return await self._shelf.open(services(request).journal, row)

    def _check_step(self, row: ProjectRow, log: RunLog, step: str) -> None:
        if step not in (*(spec.name for spec in row.project.parameters.pipeline.steps), *log.steps):
            raise HTTPException(HTTPStatus.NOT_FOUND, "This run has no such step.")


class Shelf:
    """Logs that were read from their journals, the last used ones: reading on costs only what is new."""

    def __init__(self, *, max_characters: int = MAX_SHELF_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._logs: OrderedDict[str, RunLog] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def open(self, journal: Journal, row: ProjectRow) -> RunLog:
        """The log of a run, up to now. Raises `JournalUnavailable` and `JournalDamaged`."""
        run = row.project.id
        held = self._logs.get(run)
        if held is not None and held.is_ended and attempt_of(held.tail) == row.attempt:
            self._logs.move_to_end(run)
            return held
        lock = self._locks.setdefault(run, asyncio.Lock())
        try:
            async with lock:
                log = self._logs.get(run) or RunLog()
                try:
                    events = await journal.read(run, after=log.tail)
                except JournalRewritten:
                    log, events = RunLog(), await journal.read(run)
                for start in range(0, len(events), TAKEN_EVENTS):
                    if start:
                        await asyncio.sleep(0)
                    log.extend(events[start : start + TAKEN_EVENTS])
                self._keep(run, log)
                return log
        finally:
            if not lock.locked():
                self._locks.pop(run, None)

    def _keep(self, run: str, log: RunLog) -> None:
        self._logs[run] = log
        self._logs.move_to_end(run)
        while len(self._logs) > 1 and sum(it.characters for it in self._logs.values()) > self._max_characters:
            self._logs.popitem(last=False)


def _asked_rows(request: Request, log: RunLog, step: str) -> list[LogRow]:
    if (before := _number(request, "before")) is not None:
        return log.rows_before(step, before, count=PAGE_ROWS)
    if (after := _number(request, "after")) is not None:
        return log.rows_after(step, after, count=PAGE_ROWS)
    last = log.last(step)
    around = _number(request, "around")
    if around is not None and around <= last - PAGE_ROWS + ROWS_ABOVE:
        return log.rows_after(step, max(0, around - ROWS_ABOVE), count=PAGE_ROWS)
    return log.rows_before(step, last + 1, count=PAGE_ROWS)


def _number(request: Request, name: str) -> int | None:
    """Raises `HTTPException` 400 where it is none."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= MAX_NUMBER_DIGITS:
        return int(text)
    raise HTTPException(HTTPStatus.BAD_REQUEST, "There is no such line.")


async def _chunks(log: RunLog, step: str | None, write: Callable[[Log], str]) -> AsyncIterator[str]:
    chunk = ""
    earlier = log.earlier if step is None else []
    for event in chain(earlier, log.events(step)):
        chunk += write(event)
        if len(chunk) > _CHUNK_CHARACTERS:
            yield chunk
            chunk = ""
    yield chunk


def _with_time(event: Log) -> str:
    head = f"{event.at.isoformat()} {event.step} "
    gap = f"{head}… {event.dropped} lines dropped\n" if event.dropped else ""
    return gap + "".join(f"{head}{plain(line)}\n" for line in event.lines)


def _alone(event: Log) -> str:
    gap = f"… {event.dropped} lines dropped\n" if event.dropped else ""
    return gap + "".join(f"{plain(line)}\n" for line in event.lines)


def _html(text: str) -> Response:
    return HTMLResponse(text, headers={"cache-control": "no-store", "vary": f"hx-request, {VARY}"})
