"""Takes up what a process left behind when it ended: its runs, and the journals of those that were over."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from initializer.engines.engine import Engine
from initializer.journal.journal import Journal
from initializer.model.events import Reason
from initializer.projects.database import DatabaseUnavailable
from initializer.projects.projects import OpenRun, Projects, RowUnreadable
from initializer.running.absence import Absences, Sight
from initializer.running.lease import Leases, LeaseState, LeaseUnavailable

__all__ = ["LOOK_S", "Recovery", "recover", "retire_left_behind", "take_over", "takeover_limit_s"]

LOOK_S = 1.0
"""How often a process looks for runs without an owner."""

TakeUp = Callable[[Sight], Awaitable[object]]
"""What is done about a run that nobody owns, as long as that is so.

Raises `DatabaseUnavailable` and `RowUnreadable`.
"""

log = structlog.get_logger()


def takeover_limit_s(lease_s: float, *, has_workers: bool = False) -> float:
    """How soon a run whose process died is taken over: its lease runs out, and is away for as long again.

    To workers its job has to come besides, and one that came too early comes again after `LOOK_S`.
    """
    return 2 * lease_s + (3 if has_workers else 2) * LOOK_S


async def recover(projects: Projects, engine: Engine) -> int:
    """Claim every unfinished run and submit it, oldest first; gives how many.

    Only for a process that knows itself alone, as the lock on the data folder makes it: whatever is
    unfinished then has no owner. Rows that cannot be read are left as they are. Raises `DatabaseUnavailable`.
    """
    claimed = 0
    for row in await projects.unfinished():
        claimed += await take_over(projects, engine, (row.project.id, row.attempt))
    return claimed


async def retire_left_behind(
    journals: Sequence[str], journal: Journal, projects: Projects, *, keep_for: timedelta
) -> None:
    """Retire those of these journals whose run is over: its process ended before it could do so.

    Raises `DatabaseUnavailable` and `JournalUnavailable`.
    """
    for run, standing in (await projects.standings(journals)).items():
        if standing.status.is_final:
            await journal.retire(run, keep_for=keep_for)


class Recovery:
    """Looks at open rows in every process of many: has each lost run taken up, and ends what is cancelled.

    Leases are looked at beside the rows: a database that takes its time would else pull those looks so far
    apart that nobody could be said to have been away between them.

    `engine` performs what this process owns. Where lost runs are not to be claimed for it, `take_up` says
    what is done instead; one that is cancelled is claimed all the same, to be ended at once. `cancel` is how
    an attempt that is performed here hears that it is to end.
    """

    def __init__(
        self,
        projects: Projects,
        engine: Engine,
        leases: Leases,
        *,
        lease_s: float,
        take_up: TakeUp | None = None,
        cancel: Callable[[str, int], object] | None = None,
    ) -> None:
        self._projects = projects
        self._engine = engine
        self._leases = leases
        self._take_up = take_up
        self._cancel = cancel or engine.cancel
        self._attempts: Mapping[str, int] = {}
        self._lost: Mapping[Sight, LeaseState] = {}
        self._has_lost = asyncio.Event()
        self._unreadable: set[Sight] = set()
        # Between two looks at most as far apart as a lease is long, no renewal can hide.
        self._absences = Absences(period_s=lease_s, max_gap_s=max(lease_s, 2 * LOOK_S))

    async def keep(self) -> None:
        """Look, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_looking_at_rows())
            group.create_task(self._keep_looking_at_leases())

    def is_lost(self, run: str, attempt: int) -> bool:
        """Whether the last look found that nobody owns the run any more."""
        return (run, attempt) in self._lost

    async def _keep_looking_at_rows(self) -> None:
        while True:
            try:
                await self._look_at_rows()
            except DatabaseUnavailable as error:
                log.warning("lost runs not looked for", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._has_lost.wait()
            self._has_lost.clear()

    async def _look_at_rows(self) -> None:
        runs = await self._projects.open_runs()
        for run, seen in runs.items():
            self._leases.row_names(run, seen.attempt)
            if seen.is_cancelled:
                self._cancel(run, seen.attempt)
        self._attempts = {run: seen.attempt for run, seen in runs.items()}
        lost = {sight: state for sight, state in self._lost.items() if sight in self._attempts.items()}
        self._unreadable.intersection_update(self._attempts.items())
        ending = [(run, it.attempt) for run, it in runs.items() if it.is_waiting and it.is_cancelled]
        for sight in dict.fromkeys([*ending, *lost]):
            if sight not in self._unreadable:
                is_left = lost.get(sight) is LeaseState.HANDED_OVER
                await self._look_after(sight, runs[sight[0]], is_left=is_left)

    async def _keep_looking_at_leases(self) -> None:
        while True:
            try:
                await self._look_at_leases(self._attempts)
            except LeaseUnavailable as error:
                self._absences.broke()
                self._lost = {}
                log.warning("lost runs not looked for", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look_at_leases(self, attempts: Mapping[str, int]) -> None:
        states = {(run, attempts[run]): it for run, it in (await self._leases.look(attempts)).items()}
        absent = [sight for sight, state in states.items() if state is LeaseState.ABSENT]
        left = [sight for sight, state in states.items() if state is LeaseState.HANDED_OVER]
        lost = {sight: states[sight] for sight in (*left, *self._absences.saw(absent, now=time.monotonic()))}
        if not lost.keys() <= self._lost.keys():
            self._has_lost.set()
        self._lost = lost

    async def _look_after(self, sight: Sight, seen: OpenRun, *, is_left: bool) -> None:
        """Have a run taken up, or leave it to a version that can read its row."""
        run, _ = sight
        try:
            if self._take_up is None or seen.is_cancelled:
                # Before the claim, of which each process would make one more, for nothing.
                await self._projects.get(run)
                reason = Reason.HANDOVER if is_left else Reason.TAKEOVER
                await take_over(
                    self._projects, self._engine, sight, reason=None if seen.is_waiting else reason
                )
            else:
                await self._take_up(sight)
        except RowUnreadable as error:
            self._unreadable.add(sight)
            log.warning("run left alone", project=run, error=str(error))


async def take_over(
    projects: Projects, engine: Engine, lost: Sight, *, reason: Reason | None = Reason.TAKEOVER
) -> bool:
    """Claim a run that nobody owns, and submit it as this process's own. False where another was faster.

    Without a `reason` its try has not begun, and begins for the one that its row has.
    """
    run, seen_attempt = lost
    row = await projects.claim(run, seen_attempt=seen_attempt)
    if row is None:
        return False
    log.info("run taken over", project=run, attempt=row.attempt)
    await engine.submit(row, reason=reason or row.reason)
    return True
