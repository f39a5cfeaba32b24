import asyncio
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from initializer.journal import file as file_module
from initializer.journal.file import FileJournal
from initializer.journal.journal import AppendRefused, JournalDamaged, JournalUnavailable
from initializer.model.events import Completed, Event, Log, Saving, decode_event
from model.runs import at, numbered

pytestmark = pytest.mark.anyio

RUN = "a1"
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def events(count: int, *, first: int = 1) -> list[Event]:
    return numbered(*(Saving(at=at(n)) for n in range(first, first + count)), first=first)


def file_of(journal: FileJournal) -> Path:
    return journal._path(RUN)


@contextmanager
def room_for_files_of(size: int) -> Iterator[None]:
    """A full disk, as far as this process can tell: no file may grow over `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_events_survive_the_process(file_journal: FileJournal, tmp_path: Path) -> None:
    await file_journal.append(RUN, events(2), expected_tail=None)
    reopened = FileJournal(tmp_path / "journals")
    assert await reopened.read(RUN) == events(2)
    await reopened.append(RUN, events(1, first=3), expected_tail="1-2")
    assert await FileJournal(tmp_path / "journals").read(RUN) == events(3)


async def test_a_line_that_a_crash_tore_does_not_count_and_the_next_append_cuts_it(
    file_journal: FileJournal, tmp_path: Path
) -> None:
    await file_journal.append(RUN, events(2), expected_tail=None)
    whole = file_of(file_journal).read_bytes()
    for torn in (b"{", b'{"type":"saving","id":"1-3"', whole.splitlines()[0]):
        file_of(file_journal).write_bytes(whole + torn)
        reopened = FileJournal(tmp_path / "journals")
        assert await reopened.read(RUN) == events(2)
        with pytest.raises(AppendRefused) as refused:
            await reopened.append(RUN, events(1, first=4), expected_tail="1-3")
        assert refused.value.tail == "1-2"
        await reopened.append(RUN, events(1, first=3), expected_tail="1-2")
        assert [event.index for event in await reopened.read(RUN)] == [1, 2, 3]


async def test_a_full_disk_takes_nothing_of_an_append_and_the_next_one_finds_it_all(
    file_journal: FileJournal,
) -> None:
    await file_journal.append(RUN, events(2), expected_tail=None)
    before = file_of(file_journal).read_bytes()
    for room in (0, 1, len(before) // 2 + 5):  # none at all, a torn line, one of three lines
        with (
            room_for_files_of(len(before) + room),
            pytest.raises(JournalUnavailable, match="cannot be written"),
        ):
            await file_journal.append(RUN, events(3, first=3), expected_tail="1-2")
        assert file_of(file_journal).read_bytes() == before
        assert file_journal.is_away
    await file_journal.append(RUN, events(3, first=3), expected_tail="1-2")
    assert not file_journal.is_away
    assert [event.index for event in await file_journal.read(RUN)] == [1, 2, 3, 4, 5]


async def test_a_run_that_is_over_no_longer_counts_as_one_that_cannot_be_written(
    file_journal: FileJournal,
) -> None:
    await file_journal.append(RUN, events(2), expected_tail=None)
    with room_for_files_of(file_of(file_journal).stat().st_size), pytest.raises(JournalUnavailable):
        await file_journal.append(RUN, events(1, first=3), expected_tail="1-2")
    await file_journal.retire(RUN, keep_for=timedelta(1))
    assert not file_journal.is_away


async def test_a_follower_misses_nothing_when_the_disk_was_full(file_journal: FileJournal) -> None:
    await file_journal.append(RUN, events(2), expected_tail=None)
    size = file_of(file_journal).stat().st_size
    following = file_journal.follow(RUN)
    assert await anext(following) == events(2)
    with room_for_files_of(size + 100), pytest.raises(JournalUnavailable):
        await file_journal.append(RUN, events(3, first=3), expected_tail="1-2")
    assert await anext(following) == []
    await file_journal.append(RUN, events(3, first=3), expected_tail="1-2")
    assert await anext(following) == events(3, first=3)
    await following.aclose()


async def test_a_file_that_is_gone_counts_as_a_loss_and_not_as_the_beginning_of_a_hole(
    file_journal: FileJournal,
) -> None:
    await file_journal.append(RUN, events(2), expected_tail=None)
    file_of(file_journal).unlink()
    with pytest.raises(AppendRefused) as refused:
        await file_journal.append(RUN, events(1, first=3), expected_tail="1-2")
    assert refused.value.tail is None
    await file_journal.append(RUN, events(3), expected_tail=None)
    assert await file_journal.read(RUN) == events(3)


@pytest.mark.parametrize("line", [b"rubbish\n", b'{"type":"saving","id":7}\n', b"\xff\xfe\n", b"\n"])
async def test_a_damaged_line_is_said_to_be_one(file_journal: FileJournal, line: bytes) -> None:
    await file_journal.append(RUN, events(1), expected_tail=None)
    with file_of(file_journal).open("ab") as file:
        file.write(line)
    with pytest.raises(JournalDamaged, match=f"journal of run {RUN} is damaged"):
        await file_journal.read(RUN)
    with pytest.raises(JournalDamaged):
        await file_journal.append(RUN, events(1, first=2), expected_tail="1-1")


async def test_a_file_that_cannot_be_read_is_unavailable(file_journal: FileJournal) -> None:
    file_of(file_journal).mkdir()
    with pytest.raises(JournalUnavailable):
        await file_journal.read(RUN)


async def test_a_folder_that_is_gone_is_unavailable(file_journal: FileJournal, tmp_path: Path) -> None:
    (tmp_path / "journals").rmdir()
    with pytest.raises(JournalUnavailable, match="cannot be written"):
        await file_journal.append(RUN, events(1), expected_tail=None)
    with pytest.raises(JournalUnavailable, match="cannot be retired"):
        await file_journal.retire(RUN, keep_for=timedelta(1))


async def test_a_retired_journal_is_removed_when_its_time_has_come(file_journal: FileJournal) -> None:
    await file_journal.append(RUN, numbered(Completed(at=at(1))), expected_tail=None)
    await file_journal.retire(RUN, keep_for=timedelta(days=7))
    assert await file_journal.remove_retired(datetime.now(UTC)) == 0
    assert await file_journal.remove_retired(datetime.now(UTC) + timedelta(days=8)) == 1
    assert await file_journal.read(RUN) == []
    assert list(file_of(file_journal).parent.iterdir()) == []


@pytest.mark.parametrize("last", [Saving(at=at(1)), Completed(at=at(1))])
async def test_an_append_takes_a_retirement_back(file_journal: FileJournal, last: Event) -> None:
    await file_journal.append(RUN, numbered(last), expected_tail=None)
    await file_journal.retire(RUN, keep_for=timedelta(0))
    await file_journal.append(RUN, events(1, first=2), expected_tail="1-1")
    assert await file_journal.remove_retired(NEVER) == 0
    assert len(await file_journal.read(RUN)) == 2


async def test_a_refused_append_does_not(file_journal: FileJournal) -> None:
    await file_journal.append(RUN, events(1), expected_tail=None)
    await file_journal.retire(RUN, keep_for=timedelta(0))
    with pytest.raises(AppendRefused):
        await file_journal.append(RUN, events(1, first=9), expected_tail="1-8")
    assert await file_journal.remove_retired(NEVER) == 1


@pytest.mark.parametrize("content", ["", "20", "rubbish"])
async def test_an_expiry_that_cannot_be_read_removes_nothing_and_stops_nothing(
    file_journal: FileJournal, content: str
) -> None:
    for run in (RUN, "b2"):
        await file_journal.append(run, events(1), expected_tail=None)
        await file_journal.retire(run, keep_for=timedelta(0))
    (file_of(file_journal).with_suffix(".expires")).write_text(content)
    assert await file_journal.remove_retired(NEVER) == 1
    assert len(await file_journal.read(RUN)) == 1


async def test_a_run_that_is_over_leaves_nothing_in_memory(file_journal: FileJournal) -> None:
    for number in range(50):
        await file_journal.append(f"run{number}", numbered(Completed(at=at(1))), expected_tail=None)
        following = file_journal.follow(f"run{number}")
        await anext(following)
        await following.aclose()
    assert not file_journal._ends
    assert not file_journal._signals._followed


async def test_a_reader_in_another_thread_never_sees_half_a_line(file_journal: FileJournal) -> None:
    """Appends go on while `read` is in its thread."""
    lines = tuple("x" * 3000 for _ in range(20))
    tail = None
    for index in range(1, 101):
        event = Log(at=at(1), step="a", first=1, lines=lines).numbered(1, index)
        await file_journal.append(RUN, [event], expected_tail=tail)
        tail = event.id
        if index % 5 == 0:
            read = await file_journal.read(RUN)
            assert [it.index for it in read] == list(range(1, len(read) + 1))
            assert len(read) == index


async def test_reading_on_decodes_only_what_is_new(
    file_journal: FileJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file_journal.append(RUN, events(500), expected_tail=None)
    decoded: list[bytes] = []

    def decode(line: bytes) -> Event:
        decoded.append(line)
        return decode_event(line)

    monkeypatch.setattr("initializer.journal.file.decode_event", decode)
    assert [event.index for event in await file_journal.read(RUN, after="1-497")] == [498, 499, 500]
    assert len(decoded) == 4  # the one that it reads on from, too
    assert await file_journal.read(RUN, after="1-500") == []


async def test_what_is_to_survive_a_loss_of_power_is_synced_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(file_module, "sync", synced.append)
    journal = FileJournal(tmp_path)
    first, second = events(2)
    await journal.append(RUN, [first], expected_tail=None)
    assert synced == []
    await journal.append(RUN, [second], expected_tail=first.id, is_durable=True)
    assert synced == [tmp_path / "a1.jsonl", tmp_path]


async def test_cut_off_at_any_byte_a_journal_reads_as_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    """What a loss of power may leave of the lines behind the last sync: any beginning of them."""
    kept, lost = events(2), events(2, first=3)
    journal = FileJournal(tmp_path)
    await journal.append(RUN, kept, expected_tail=None, is_durable=True)
    synced = file_of(journal).stat().st_size
    await journal.append(RUN, lost, expected_tail="1-2")
    whole = file_of(journal).read_bytes()
    for size in range(synced, len(whole) + 1):
        file_of(journal).write_bytes(whole[:size])
        left = [*kept, *lost][: whole[:size].count(b"\n")]
        reopened = FileJournal(tmp_path)
        assert await reopened.read(RUN) == left
        rest = events(2, first=len(left) + 1)
        await reopened.append(RUN, rest, expected_tail=left[-1].id)
        assert await FileJournal(tmp_path).read(RUN) == [*left, *rest]


async def test_a_follower_that_waits_holds_nothing_of_what_it_has_given(file_journal: FileJournal) -> None:
    lines = ("x" * 1000,) * 10
    history = numbered(*(Log(at=at(n), step="build", first=10 * n + 1, lines=lines) for n in range(500)))
    await file_journal.append(RUN, history, expected_tail=None)
    del history
    taken = asyncio.Event()

    def take(_: list[Event]) -> bool:
        taken.set()
        return True

    following = file_journal.follow(RUN, at_once=take)
    tracemalloc.start()
    try:
        async with aclosing(following), asyncio.timeout(10):
            assert len(await anext(following)) == 500
            waiting = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)  # now it waits
            await file_journal.append(RUN, events(1, first=501), expected_tail="1-500")
            await taken.wait()
            # Of 5 MB; the thread that has read them lets go in its own time.
            while tracemalloc.get_traced_memory()[0] > 1_000_000:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
    finally:
        tracemalloc.stop()
