"""The embedded journal: one file of JSON lines a run, in the data folder.

Appends are one `write` into the page cache, microseconds, so they are done where they are asked for: a
killed process loses nothing of them. What must survive a loss of power is synced in a thread.
"""

import asyncio
import os
import re
from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from initializer.journal.journal import (
    AppendRefused,
    JournalDamaged,
    JournalRewritten,
    JournalUnavailable,
    TakeEvents,
    are_taken,
    behind,
)
from initializer.journal.signal import Signals
from initializer.model.events import Event, EventId, decode_event, encode_event, index_of, is_final
from initializer.model.pace import Pace
from initializer.syncing import sync

__all__ = ["FileJournal"]

_ID = re.compile(rb'"id":"\d+-(\d+)"')

log = structlog.get_logger()


class FileJournal:
    """Journals in `folder`, for one process at a time: the lock on the data folder sees to that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends: dict[str, tuple[EventId | None, int]] = {}  # run -> (tail, bytes) of files being written
        self._unwritten: set[str] = set()  # runs whose last append the disk did not take
        self._signals = Signals()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_away(self) -> bool:
        return bool(self._unwritten)

    async def append(
        self, run: str, events: Sequence[Event], *, expected_tail: EventId | None, is_durable: bool = False
    ) -> None:
        try:
            self._append(run, events, expected_tail)
            if is_durable:
                await asyncio.to_thread(self._sync, run)
        except OSError as error:
            self._unwritten.add(run)
            raise JournalUnavailable(
                f"the journal of run {run} cannot be written: {error.strerror}"
            ) from error
        except AppendRefused:
            self._unwritten.discard(run)
            raise
        else:
            self._unwritten.discard(run)
        finally:
            self._signals.wake(run)

    async def read(self, run: str, *, after: EventId = "") -> list[Event]:
        events, _ = await asyncio.to_thread(self._read_from, run, 0, first=index_of(after))
        return behind(run, events, after)

    async def follow(
        self, run: str, *, after: EventId = "", interval_s: float = 0, at_once: TakeEvents | None = None
    ) -> AsyncGenerator[list[Event], None]:
        offset, pace = 0, Pace(interval_s)

        def look() -> bool:
            nonlocal offset
            try:
                events, end = self._read_from(run, offset)
                new = behind(run, events, after)
            except (JournalUnavailable, JournalDamaged, JournalRewritten):
                return False
            if is_enough := are_taken(new, at_once):
                offset = end
            return is_enough

        with self._signals.listen(run) as signal:
            while True:
                if offset:
                    events, offset = self._read_from(run, offset)  # a tick's worth, from the page cache
                else:
                    events, offset = await asyncio.to_thread(self._read_from, run, 0)
                yield behind(run, events, after)
                del events  # maybe all there ever was, and nothing may be left to this turn for long
                await signal.next_turn(pace, look if at_once else None)
                signal.clear()

    async def retire(self, run: str, *, keep_for: timedelta) -> None:
        self._unwritten.discard(run)
        self._ends.pop(run, None)  # the next append opens the file, and so takes this back
        due = datetime.now(UTC) + keep_for
        try:
            _replace_text(self._expiry_path(run), due.isoformat())
        except OSError as error:
            raise JournalUnavailable(
                f"the journal of run {run} cannot be retired: {error.strerror}"
            ) from error

    async def unretired(self) -> list[str]:
        """The runs whose journal is kept without an end."""
        return await asyncio.to_thread(self._unretired)

    async def remove_retired(self, now: datetime) -> int:
        """Delete the journals whose time has come; gives how many."""
        due = await asyncio.to_thread(self._due, now)
        # Back in the thread of appends: none comes between the look and the removal.
        return sum(self._remove_if_due(run, now) for run in due)

    def _append(self, run: str, events: Sequence[Event], expected_tail: EventId | None) -> None:
        tail, size = self._end(run)
        if tail != expected_tail:
            raise AppendRefused(expected=expected_tail, tail=tail)
        lines = b"".join(encode_event(event) + b"\n" for event in events)
        self._expiry_path(run).unlink(missing_ok=True)
        self._write_whole(run, lines, size)
        self._ends[run] = (events[-1].id, size + len(lines))
        if is_final(events[-1]):
            del self._ends[run]

    def _end(self, run: str) -> tuple[EventId | None, int]:
        """The tail of a run and the size of its file, rid of a line that a crash or a full disk tore."""
        path = self._path(run)
        found = path.stat().st_size if path.exists() else 0
        end = self._ends.get(run)
        if end is None or end[1] != found:
            events, size = self._read_from(run, 0)
            if found > size:
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

    def _read_from(self, run: str, offset: int, *, first: int = 0) -> tuple[list[Event], int]:
        """The whole lines from `offset` on, and where the last ends; a torn last line does not count.

        Those below index `first` are left out, but for the last: a long journal is cheap to read on.
        """
        try:
            with self._path(run).open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], offset
        except OSError as error:
            raise JournalUnavailable(f"the journal of run {run} cannot be read: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]
        try:
            lines = whole.splitlines()
            start = min(bisect_left(lines, first, key=_index_in), max(0, len(lines) - 1)) if first else 0
            return [decode_event(line) for line in lines[start:]], offset + len(whole)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalDamaged(f"the journal of run {run} is damaged: {error}") from error

    def _sync(self, run: str) -> None:
        sync(self._path(run))
        sync(self._folder)  # that the file is there at all; costs nothing where it was there before

    def _unretired(self) -> list[str]:
        kept = {path.stem for path in self._folder.glob("*.jsonl")}
        return sorted(kept - {path.stem for path in self._folder.glob("*.expires")})

    def _due(self, now: datetime) -> list[str]:
        runs = [path.stem for path in self._folder.glob("*.expires")]
        return [run for run in runs if self._is_due(run, now)]

    def _remove_if_due(self, run: str, now: datetime) -> bool:
        if not self._is_due(run, now):
            return False
        self._path(run).unlink(missing_ok=True)
        self._expiry_path(run).unlink(missing_ok=True)
        return True

    def _is_due(self, run: str, now: datetime) -> bool:
        """Whether the time of a retired journal has come; one whose date cannot be read stays."""
        try:
            return datetime.fromisoformat(self._expiry_path(run).read_text()) <= now
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError) as error:  # TypeError: a date without a zone
            log.warning("expiry of a journal not read", run=run, error=str(error))
            return False

    def _path(self, run: str) -> Path:
        return self._folder / f"{run}.jsonl"

    def _expiry_path(self, run: str) -> Path:
        return self._folder / f"{run}.expires"


def _index_in(line: bytes) -> int:
    """The index in an event's line, without decoding it; 0 where that takes more."""
    found = _ID.search(line)
    return int(found[1]) if found else 0


def _replace_text(path: Path, text: str) -> None:
    """Write the whole of a small file, so that a crash leaves the old or the new one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
