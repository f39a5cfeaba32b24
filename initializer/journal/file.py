"""The embedded journal: one file of JSON lines a run, in the data folder.

Appends are one `write` into the page cache, microseconds, so they are done where they are asked for: a
killed process loses nothing of them. What must survive a loss of power is synced in a thread.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from initializer.journal.journal import AppendRefused, JournalUnavailable
from initializer.journal.signal import Signals
from initializer.model.events import Event, EventId, decode_event, encode_event, is_final

__all__ = ["FileJournal"]


class FileJournal:
    """Journals in `folder`, for one process at a time: the lock on the data folder sees to that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends: dict[str, tuple[EventId | None, int]] = {}  # run -> (tail, bytes) of files being written
        self._signals = Signals()
        folder.mkdir(parents=True, exist_ok=True)

    async def append(
        self, run: str, events: Sequence[Event], *, expected_tail: EventId | None, is_durable: bool = False
    ) -> None:
        try:
            self._append(run, events, expected_tail)
            if is_durable:
                await asyncio.to_thread(_sync, self._path(run))
        except OSError as error:
            raise JournalUnavailable(
                f"the journal of run {run} cannot be written: {error.strerror}"
            ) from error
        finally:
            self._signals.wake(run)

    async def read(self, run: str, *, after: int = 0) -> list[Event]:
        events, _ = await asyncio.to_thread(self._read_from, run, 0)
        return [event for event in events if event.index > after]

    async def follow(self, run: str, *, after: int = 0) -> AsyncIterator[list[Event]]:
        offset = 0
        with self._signals.listen(run) as woken:
            while True:
                if offset:
                    events, offset = self._read_from(run, offset)  # a tick's worth, from the page cache
                else:
                    events, offset = await asyncio.to_thread(self._read_from, run, 0)
                yield [event for event in events if event.index > after]
                await woken.wait()
                woken.clear()

    async def retire(self, run: str, *, keep_for: timedelta) -> None:
        due = datetime.now(UTC) + keep_for
        await asyncio.to_thread(self._expiry_path(run).write_text, due.isoformat())

    async def remove_retired(self, now: datetime) -> int:
        """Delete the journals whose time has come; gives how many."""
        return await asyncio.to_thread(self._remove_retired, now)

    def _append(self, run: str, events: Sequence[Event], expected_tail: EventId | None) -> None:
        tail, size = self._ends.get(run) or self._open(run)
        if tail != expected_tail:
            raise AppendRefused(expected=expected_tail, tail=tail)
        lines = b"".join(encode_event(event) + b"\n" for event in events)
        self._write_whole(run, lines, size)
        self._ends[run] = (events[-1].id, size + len(lines))
        if is_final(events[-1]):
            del self._ends[run]

    def _open(self, run: str) -> tuple[EventId | None, int]:
        """The end of a run's file, rid of a line that a crash tore."""
        self._expiry_path(run).unlink(missing_ok=True)
        events, size = self._read_from(run, 0)
        path = self._path(run)
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)
        end = self._ends[run] = (events[-1].id if events else None, size)
        return end

    def _write_whole(self, run: str, lines: bytes, size: int) -> None:
        """All of `lines` behind the first `size` bytes, or none: a short write is taken back."""
        descriptor = os.open(self._path(run), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(descriptor, lines) < len(lines):
                os.ftruncate(descriptor, size)
                raise OSError(28, "no space left on device")
        finally:
            os.close(descriptor)

    def _read_from(self, run: str, offset: int) -> tuple[list[Event], int]:
        """The whole lines from `offset` on, and where the last ends; a torn last line does not count."""
        try:
            with self._path(run).open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], offset
        except OSError as error:
            raise JournalUnavailable(f"the journal of run {run} cannot be read: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]
        return [decode_event(line) for line in whole.splitlines()], offset + len(whole)

    def _remove_retired(self, now: datetime) -> int:
        removed = 0
        for expiry in self._folder.glob("*.expires"):
            if datetime.fromisoformat(expiry.read_text()) <= now:
                expiry.with_suffix(".jsonl").unlink(missing_ok=True)
                expiry.unlink()
                removed += 1
        return removed

    def _path(self, run: str) -> Path:
        return self._folder / f"{run}.jsonl"

    def _expiry_path(self, run: str) -> Path:
        return self._folder / f"{run}.expires"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
