"""A job shows its run: step by step, but not faster than a person looks."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from initializer.background import in_background
from initializer.journal.memory import MemoryJournal
from initializer.model.events import (
    Cancelled,
    Cancelling,
    Completed,
    Event,
    Failed,
    Progressed,
    Reason,
    Saving,
    Started,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepStarted,
)
from initializer.running import mirror as mirror_module
from initializer.running.mirror import mirroring
from model.runs import PIPELINE, at, project_of

pytestmark = pytest.mark.anyio

RUN = "a1"
DEADLINE_S = 20
SHORTER_S = 0.005
"""By how much the event loop may end a pause too early."""


class Card:
    """Keeps what it was shown, and when."""

    def __init__(self) -> None:
        self.shown: list[Mapping[str, object]] = []
        self.lines: list[str] = []
        self.times: list[float] = []
        self._changed = asyncio.Condition()

    async def show(self, progress: Mapping[str, object], lines: list[str]) -> None:
        self.shown.append(progress)
        self.lines += lines
        self.times.append(time.monotonic())
        async with self._changed:
            self._changed.notify_all()

    async def until_shown(self, times: int) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.shown) >= times)


class WatchedJournal(MemoryJournal):
    """Notes how many events its follower is given each time, and when it has dealt with some."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []
        self.are_dealt_with = asyncio.Event()

    async def follow(self, run: str, **how: Any) -> AsyncGenerator[list[Event], None]:
        async with aclosing(super().follow(run, **how)) as following:
            async for events in following:
                self.given.append(len(events))
                try:
                    yield events
                finally:
                    self.are_dealt_with.set()


class Writer:
    """Appends what a run says."""

    def __init__(self) -> None:
        self.journal = WatchedJournal()
        self.attempt = 1
        self._tail: str | None = None
        self._count = 0

    async def say(self, *drafts: Event) -> None:
        events = [draft.numbered(self.attempt, self._count + n) for n, draft in enumerate(drafts, 1)]
        await self.journal.append(RUN, events, expected_tail=self._tail)
        self._tail, self._count = events[-1].id, self._count + len(events)

    async def begin(self) -> None:
        await self.say(
            Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE),
            StepStarted(at=at(1), step="create_repo"),
        )


async def report_for_ever(writer: Writer, said: list[str]) -> None:
    """Say something again and again, as a busy run does."""
    while True:
        said.append(f"part {len(said)}")
        await writer.say(
            Progressed(at=at(2), step="create_repo", progress=1, step_progress=6, message=said[-1])
        )
        await asyncio.sleep(0.005)


async def test_a_job_of_a_busy_run_is_changed_at_most_once_a_second_and_misses_nothing() -> None:
    writer, card, said = Writer(), Card(), list[str]()
    await writer.begin()
    async with mirroring(project_of(RUN), 1, writer.journal, card) as mirror:
        await card.until_shown(1)
        async with in_background(report_for_ever(writer, said)):
            await card.until_shown(3)
        assert all(b - a > 1 - SHORTER_S for a, b in pairwise(card.times))
        await writer.say(
            StepCompleted(at=at(3), step="create_repo", duration_ms=7), Saving(at=at(3)), Completed(at=at(4))
        )
        mirror.end()
    messages = [f"create_repo: {text}" for text in said]
    told = ["attempt 1: created", "create_repo started", *messages, "create_repo completed in 7 ms"]
    assert card.lines == told
    assert card.shown[0] == {"progress": 0, "step": "create_repo", "message": ""}


async def test_each_step_of_a_run_that_takes_its_time_is_shown() -> None:
    writer, card = Writer(), Card()
    await writer.begin()
    async with mirroring(project_of(RUN), 1, writer.journal, card):
        await card.until_shown(1)
        await writer.say(StepCompleted(at=at(3), step="create_repo", duration_ms=7))
        await card.until_shown(2)
        await writer.say(StepStarted(at=at(4), step="push_template"))
        await card.until_shown(3)
    assert [it["step"] for it in card.shown] == ["create_repo", "", "push_template"]
    assert card.lines[-2:] == ["create_repo completed in 7 ms", "push_template started"]


FAILED: tuple[Event, ...] = (
    StepFailed(at=at(2), step="create_repo", duration_ms=1, error="no"),
    Saving(at=at(2)),
    Failed(at=at(2), step="create_repo", error="no"),
)
CANCELLED: tuple[Event, ...] = (
    Cancelling(at=at(2)),
    StepCancelled(at=at(2), step="create_repo", duration_ms=1),
    Saving(at=at(2)),
    Cancelled(at=at(2), step="create_repo"),
)


@pytest.mark.parametrize("ends", [FAILED, CANCELLED], ids=["failed", "cancelled"])
async def test_the_job_of_another_try_tells_of_that_try_and_nothing_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[Event, ...]
) -> None:
    monkeypatch.setattr(mirror_module, "LAST_LOOK_S", 2 * DEADLINE_S)
    writer, card = Writer(), Card()
    await writer.begin()
    await writer.say(*ends)
    async with asyncio.timeout(DEADLINE_S), mirroring(project_of(RUN), 2, writer.journal, card) as mirror:
        await writer.journal.are_dealt_with.wait()
        assert card.shown == []
        writer.attempt = 2
        await writer.say(
            Started(at=at(3), reason=Reason.RETRY, pipeline=PIPELINE),
            StepStarted(at=at(4), step="create_repo"),
        )
        await card.until_shown(1)
        await writer.say(
            StepCompleted(at=at(5), step="create_repo", duration_ms=7), Saving(at=at(6)), Completed(at=at(7))
        )
        mirror.end()
    told = ["attempt 2: retry", "create_repo started", "create_repo completed in 7 ms"]
    assert card.lines == told
    assert [it["step"] for it in card.shown] == ["create_repo", ""]
    assert writer.journal.given == [2 + len(ends), 2, 3]  # it waits for what comes


async def test_the_end_of_an_attempt_that_took_the_run_over_ends_the_mirror_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror_module, "LAST_LOOK_S", 2 * DEADLINE_S)
    writer, card = Writer(), Card()
    await writer.begin()
    writer.attempt = 2
    await writer.say(Started(at=at(3), reason=Reason.TAKEOVER, pipeline=PIPELINE), *FAILED)
    async with asyncio.timeout(DEADLINE_S), mirroring(project_of(RUN), 1, writer.journal, card) as mirror:
        mirror.end()
    assert card.lines == ["attempt 1: created", "create_repo started"]
