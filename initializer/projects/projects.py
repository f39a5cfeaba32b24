"""Everything that is asked of the projects table. Statements a run: one INSERT, one UPDATE."""

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import asyncpg
import msgspec
import sqlalchemy as sa
import structlog

from initializer.errors import InitializerError
from initializer.model.events import Reason
from initializer.model.parameters import Project, RunParameters
from initializer.model.pipeline import Pipeline
from initializer.model.progress import Status
from initializer.model.summary import Summary
from initializer.model.text import is_storable
from initializer.projects.database import Database
from initializer.projects.schema import projects

__all__ = [
    "KeyUsed",
    "OpenRun",
    "Order",
    "ProjectPage",
    "ProjectRow",
    "Projects",
    "RowUnreadable",
    "SlugTaken",
    "Standing",
]

PAGE_SIZE = 20
ROWS_AT_ONCE = 500
"""How many rows are asked for at once where there may be thousands: others get their turn between."""
NAMED_AT_ONCE = 100
"""How many ids a query names: to compose it takes two milliseconds, in which nothing else happens."""
_OPEN = [Status.PENDING.value, Status.INITIALIZING.value]
_ENDED_SHORT = [Status.FAILED.value, Status.CANCELLED.value]

log = structlog.get_logger()


class Order(StrEnum):
    """How a list of projects is sorted."""

    NEWEST = "newest"
    NAME = "name"
    STATE = "state"


class SlugTaken(InitializerError):
    """Another project has this slug."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"a project called {slug} exists already")
        self.slug = slug
        self.sentence = f"There is a project called {slug} already; choose another name."


class KeyUsed(InitializerError):
    """The idempotency key has made a project already, and not the one that is asked for now."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"this request has made the project {slug} already")
        self.slug = slug


class RowUnreadable(InitializerError):
    """The row holds what this version does not know, as one that a newer version wrote may."""

    def __init__(self, project_id: str, what: str) -> None:
        super().__init__(f"the row of project {project_id} cannot be read: {what}")
        self.project_id = project_id


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: the project, and how its run stands or ended."""

    project: Project
    status: Status
    attempt: int
    reason: Reason = Reason.CREATED
    """Why the current try began: it is no takeover."""
    cancel_requested_at: datetime | None = None
    error: str | None = None
    completed_at: datetime | None = None
    summary: Summary | None = None
    """Of the last try that has ended: while another is under way, of the one before it."""

    @property
    def tries(self) -> tuple[Summary, ...]:
        """How the tries so far ended, the first one first."""
        return (*self.summary.previous_attempts, self.summary) if self.summary else ()

    @property
    def try_id(self) -> int:
        """What names the current try: one more than the attempt with which the try before it ended."""
        earlier = self.tries[:-1] if self.status.is_final else self.tries
        return (earlier[-1].attempt if earlier else 0) + 1


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is not over: who owns it, and whether somebody wants it to end."""

    attempt: int
    is_waiting: bool = False
    """Whether it waits for whoever takes it: nobody owns it."""
    is_cancelled: bool


class Standing(NamedTuple):
    """How far a project is: its status, and the try that it speaks of."""

    status: Status
    attempt: int


class ProjectPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list; `number` counts from 1, `total` is all rows that match."""

    rows: list[ProjectRow]
    number: int
    total: int

    @property
    def last(self) -> int:
        """The number of the last page."""
        return max(1, -(-self.total // PAGE_SIZE))


class Projects:
    """The projects table. Every method may raise `DatabaseUnavailable`.

    What gives one row may raise `RowUnreadable`, a claim when it has been made. Lists are without such rows.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, project: Project, *, idempotency_key: str, is_owned: bool = True) -> str:
        """Write a new project; gives its id. This process owns its run as attempt 1, or nobody does as yet.

        A key that was used before gives the project that it made. Raises `SlugTaken`, and `KeyUsed` where
        that project is another one.
        """
        values = {
            "id": project.id,
            "slug": project.slug,
            "name": project.name,
            "owner": project.owner,
            "idempotency_key": idempotency_key,
            "status": (Status.INITIALIZING if is_owned else Status.PENDING).value,
            "attempt": int(is_owned),
            "parameters": msgspec.to_builtins(project.parameters),
            "created_at": project.created_at,
        }
        try:
            await self._database.execute(projects.insert().values(**values))
        except (sqlite3.IntegrityError, asyncpg.UniqueViolationError):
            earlier = await self._database.fetch_one(
                sa.select(projects.c.id, projects.c.slug).where(projects.c.idempotency_key == idempotency_key)
            )
            if earlier is None:
                raise SlugTaken(project.slug) from None
            if earlier.slug != project.slug:
                raise KeyUsed(earlier.slug) from None
            return str(earlier.id)
        return project.id

    async def get(self, project_id: str) -> ProjectRow | None:
        """The project of that id."""
        return await self._with(projects.c.id, project_id)

    async def get_by_slug(self, slug: str) -> ProjectRow | None:
        """The project of that slug."""
        return await self._with(projects.c.slug, slug)

    async def find(
        self,
        *,
        search: str = "",
        status: Status | None = None,
        template: str = "",
        order: Order = Order.NEWEST,
        page: int = 1,
    ) -> ProjectPage:
        """A page of projects; `search` is part of a name or slug. What is equal stands newest first."""
        if not is_storable(search + template):
            return ProjectPage(rows=[], number=page, total=0)
        conditions: list[sa.ColumnElement[bool]] = []
        if search:
            escaped = search.replace("/", "//").replace("%", "/%").replace("_", "/_")
            pattern = f"%{escaped}%"
            conditions.append(
                sa.or_(projects.c.name.ilike(pattern, escape="/"), projects.c.slug.ilike(pattern, escape="/"))
            )
        if status is not None:
            conditions.append(projects.c.status == status.value)
        if template:
            conditions.append(_template_name() == template)
        total = await self._database.fetch_val(
            sa.select(sa.func.count()).select_from(projects).where(*conditions)
        )
        newest = (projects.c.created_at.desc(), projects.c.id)
        rows = await self._database.fetch_all(
            projects.select()
            .where(*conditions)
            .order_by(*_FIRST[order], *newest)
            .limit(PAGE_SIZE)
            .offset((page - 1) * PAGE_SIZE)
        )
        return ProjectPage(rows=_rows(rows), number=page, total=total)

    async def get_all(self, ids: Iterable[str]) -> list[ProjectRow]:
        """The projects of these ids, those that there are, in one query."""
        query = projects.select().where(projects.c.id.in_(list(filter(is_storable, ids))))
        return _rows(await self._database.fetch_all(query))

    async def unfinished(self) -> list[ProjectRow]:
        """The projects whose run is not over, oldest first."""
        query = projects.select().where(projects.c.status.in_(_OPEN))
        return _rows(await self._database.fetch_all(query.order_by(projects.c.created_at, projects.c.id)))

    async def open_runs(self) -> Mapping[str, OpenRun]:
        """The runs that are not over, oldest first."""
        columns = projects.c
        place = (columns.created_at, columns.id)
        query = (
            sa.select(*place, columns.attempt, columns.status, columns.cancel_requested_at)
            .where(columns.status.in_(_OPEN))
            .order_by(*place)
            .limit(ROWS_AT_ONCE)
        )
        runs: dict[str, OpenRun] = {}
        rows = await self._database.fetch_tuples(query)
        while rows:
            for _, run, attempt, status, cancel_requested_at in rows:
                runs[run] = OpenRun(
                    attempt=attempt,
                    is_waiting=status == Status.PENDING.value,
                    is_cancelled=cancel_requested_at is not None,
                )
            if len(rows) < ROWS_AT_ONCE:
                break
            created_at, run, *_ = rows[-1]
            is_behind = sa.or_(
                columns.created_at > created_at, sa.and_(columns.created_at == created_at, columns.id > run)
            )
            rows = await self._database.fetch_tuples(query.where(is_behind))
        return runs

    async def standings(self, ids: Iterable[str]) -> Mapping[str, Standing]:
        """How far each of these projects is, in one query, or a few where there are many."""
        asked, columns = list(ids), projects.c
        standings: dict[str, Standing] = {}
        for start in range(0, len(asked), NAMED_AT_ONCE):
            some = asked[start : start + NAMED_AT_ONCE]
            query = sa.select(columns.id, columns.status, columns.attempt).where(columns.id.in_(some))
            for run, status, attempt in await self._database.fetch_tuples(query):
                standings[run] = Standing(Status(status), attempt)
        return standings

    async def durations(self, template: str, *, last: int = 50) -> list[int]:
        """How long the last runs of a template that went well took, in milliseconds, the newest first."""
        query = (
            sa.select(_json_text(projects.c.initialization_summary, "totalDuration").label("duration"))
            .where(projects.c.status == Status.ACTIVE.value, _template_name() == template)
            .order_by(projects.c.created_at.desc())
            .limit(last)
        )
        return [int(row.duration) for row in await self._database.fetch_all(query) if row.duration]

    async def ping(self) -> None:
        """Ask for next to nothing, to see that the table can be read: SQLite opens no file for `SELECT 1`."""
        await self._database.fetch_val(sa.select(projects.c.id).limit(1))

    async def attempt_of(self, project_id: str) -> int | None:
        """The attempt that owns the run."""
        query = sa.select(projects.c.attempt).where(projects.c.id == project_id)
        attempt: int | None = await self._database.fetch_val(query)
        return attempt

    async def claim(self, project_id: str, *, seen_attempt: int) -> ProjectRow | None:
        """Take the run over from the attempt that was seen; None if another was faster."""
        return await self._claim(project_id, seen_attempt, _OPEN)

    async def take(self, project_id: str, *, seen_attempt: int) -> ProjectRow | None:
        """Take a run that waits for whoever comes; gives its row, None if it waits no longer."""
        return await self._claim(project_id, seen_attempt, [Status.PENDING.value])

    async def request_cancel(self, project_id: str, *, at: datetime) -> ProjectRow | None:
        """Write down that the run is to end; gives its row, None if it is over or that was written before."""
        query = (
            projects.update()
            .where(
                projects.c.id == project_id,
                projects.c.status.in_(_OPEN),
                projects.c.cancel_requested_at.is_(None),
            )
            .values(cancel_requested_at=at)
            .returning(*projects.c)
        )
        return _row(await self._database.fetch_one(query))

    async def begin_again(
        self, project_id: str, *, seen_attempt: int, reason: Reason, is_owned: bool = True
    ) -> ProjectRow | None:
        """Claim a run that failed or was cancelled for another try; None where that is not so any more.

        The new attempt is this process's, or nobody's: then whoever takes the run claims it once more.
        The summary of the try before stays until this one has its own.
        """
        return await self._claim(
            project_id,
            seen_attempt,
            _ENDED_SHORT,
            status=(Status.INITIALIZING if is_owned else Status.PENDING).value,
            reason=reason.value,
            cancel_requested_at=sa.null(),
            initialization_error=sa.null(),
            initialization_completed_at=sa.null(),
        )

    async def finish(
        self, project_id: str, *, attempt: int, status: Status, summary: Summary, error: str | None
    ) -> bool:
        """Write how the run ended, for the attempt that owns it. False where another attempt does.

        May be repeated: a write that had landed unseen gives True again. False too where the run has ended
        otherwise already: a final row changes only by a claim.
        """
        query = (
            projects.update()
            .where(
                projects.c.id == project_id,
                projects.c.attempt == attempt,
                projects.c.status.in_(_OPEN),
            )
            .values(
                status=status.value,
                initialization_summary=msgspec.to_builtins(summary),
                initialization_error=error,
                initialization_completed_at=summary.completed_at,
            )
            .returning(projects.c.id)
        )
        if await self._database.fetch_val(query) is not None:
            return True
        held = await self._database.fetch_one(
            sa.select(projects.c.attempt, projects.c.status).where(projects.c.id == project_id)
        )
        return held is not None and (held.attempt, held.status) == (attempt, status.value)

    async def _with(self, column: sa.ColumnElement[str], text: str) -> ProjectRow | None:
        """The row with this text, which may be anything that stood in an address."""
        if not is_storable(text):
            return None
        return _row(await self._database.fetch_one(projects.select().where(column == text)))

    async def _claim(
        self, project_id: str, seen_attempt: int, statuses: Iterable[str], **changes: Any
    ) -> ProjectRow | None:
        """Raise the attempt that was seen, if the row still names it and has one of these statuses."""
        query = (
            projects.update()
            .where(
                projects.c.id == project_id,
                projects.c.attempt == seen_attempt,
                projects.c.status.in_(statuses),
            )
            .values(**{"attempt": projects.c.attempt + 1, "status": Status.INITIALIZING.value, **changes})
            .returning(*projects.c)
        )
        return _row(await self._database.fetch_one(query))


_FIRST: Mapping[Order, tuple[sa.ColumnElement[Any], ...]] = {
    Order.NEWEST: (),
    Order.NAME: (sa.func.lower(projects.c.name),),
    Order.STATE: (
        sa.case(
            {status.value: sa.literal_column(str(place)) for place, status in enumerate(Status)},
            value=projects.c.status,
        ),
    ),
}
"""What comes before "newest first": by state, what is under way stands first."""


def _template_name() -> sa.ColumnElement[str]:
    return _json_text(projects.c.parameters.op("->")(sa.literal_column("'template'")), "name")


@lru_cache(maxsize=64)
def _shared(pipeline: Pipeline) -> Pipeline:
    """One for all rows that have it: thousands may be watched at once."""
    return pipeline


def _json_text(value: sa.ColumnElement[Any], key: str) -> sa.ColumnElement[str]:
    """The text under a key of a JSON object, on both databases."""
    return sa.cast(sa.type_coerce(value.op("->>")(sa.literal_column(f"'{key}'")), sa.Text), sa.Text)


def _rows(rows: Iterable[Any]) -> list[ProjectRow]:
    """Those that can be read: one that cannot is no reason to show, or to go on with, none."""
    read: list[ProjectRow] = []
    for row in rows:
        try:
            read.append(_read(row))
        except RowUnreadable as error:
            log.warning("row not read", project=error.project_id, error=str(error))
    return read


def _row(row: Any) -> ProjectRow | None:
    return None if row is None else _read(row)


def _read(row: Any) -> ProjectRow:
    summary = row.initialization_summary
    try:
        parameters = msgspec.convert(row.parameters, RunParameters)
        return ProjectRow(
            project=Project(
                id=row.id,
                slug=row.slug,
                name=row.name,
                owner=row.owner,
                created_at=row.created_at,
                parameters=msgspec.structs.replace(parameters, pipeline=_shared(parameters.pipeline)),
            ),
            status=Status(row.status),
            attempt=row.attempt,
            reason=Reason(row.reason),
            cancel_requested_at=row.cancel_requested_at,
            error=row.initialization_error,
            completed_at=row.initialization_completed_at,
            summary=msgspec.convert(summary, Summary) if summary else None,
        )
    except ValueError as error:
        raise RowUnreadable(row.id, str(error)) from error
