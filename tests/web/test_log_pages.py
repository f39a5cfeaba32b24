"""Logs by their addresses, and how they are kept."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from counted_journal import CountedJournal

from harness.scripts import ScriptedServer
from initializer.journal.memory import MemoryJournal
from initializer.model.events import Event, Failed, Log
from initializer.model.progress import Status
from initializer.projects.projects import ProjectRow
from model.runs import at, numbered, project_of
from web.logs import Shelf

LINES = 450
END = Failed(at=at(9), step="verify", error="")
COUNT = "".join(f"seq -f 'line %g' {first} {first + 149}; sleep 0.1\n" for first in (1, 151, 301))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    server = ScriptedServer(
        tmp_path_factory.mktemp("site"), {"count": COUNT, "red": r"printf '\033[31mred\033[0m <b>\n'"}
    )
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def run(site: ScriptedServer) -> str:
    """The address of a run that is over."""
    project = site.create("Logged")
    site.wait_for_end(project)
    return f"/projects/{project}"


def rows_of(site: ScriptedServer, address: str) -> list[int]:
    answer = site.client.get(address, headers={"hx-request": "true"})
    assert answer.status_code == 200
    assert answer.text.startswith('<ol id="log-count">')
    assert f'data-lines="{LINES}"' in answer.text
    return [int(number) for number in re.findall(r'<li id="count-L\d+" value="(\d+)"', answer.text)]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("", 351, 450),
        ("?before=351", 251, 350),
        ("?before=30", 1, 29),
        ("?before=1", 1, 0),
        ("?after=0", 1, 100),
        ("?after=420", 421, 450),
        ("?after=450", 1, 0),
        ("?around=42", 23, 122),
        ("?around=3", 1, 100),
        ("?around=449", 351, 450),
        ("?around=999999999", 351, 450),
    ],
)
def test_rows_are_given_before_after_and_around_a_line(
    site: ScriptedServer, run: str, asked: str, first: int, last: int
) -> None:
    assert rows_of(site, f"{run}/log/count{asked}") == list(range(first, last + 1))


@pytest.mark.parametrize(
    "asked", ["before=", "before=-1", "after=x", "around=1e9", "around=٣", "after=9999999999"]
)
def test_a_line_that_cannot_be_is_refused(site: ScriptedServer, run: str, asked: str) -> None:
    assert site.client.get(f"{run}/log/count?{asked}").status_code == 400


@pytest.mark.parametrize("address", ["log/nothing", "log?step=nothing", "log/count/x"])
def test_a_step_that_is_not_there_is_not_found(site: ScriptedServer, run: str, address: str) -> None:
    assert site.client.get(f"{run}/{address}").status_code == 404


@pytest.mark.parametrize("address", ["log", "log/count", "search?q=x"])
def test_a_run_that_is_not_there_is_not_found(site: ScriptedServer, address: str) -> None:
    assert site.client.get(f"/projects/{'0' * 32}/{address}").status_code == 404


def test_a_page_holds_the_same_rows_as_the_fragment(site: ScriptedServer, run: str) -> None:
    address = f"{run}/log/count?around=42"
    fragment = site.client.get(address, headers={"hx-request": "true"}).text
    rows = fragment.partition(">")[2].partition("</ol>")[0]
    page = site.client.get(address).text
    assert rows in page
    assert "Lines 23 to 122 of 450" in page
    assert f'href="{run}/log/count?before=23"' in page
    assert f'href="{run}/log/count?after=122"' in page


def test_the_text_has_every_line_and_no_escape_sequence(site: ScriptedServer, run: str) -> None:
    answer = site.client.get(f"{run}/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "content-disposition" not in answer.headers
    lines = answer.text.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        *(f"count line {number}" for number in range(1, LINES + 1)),
        "red red <b>",
    ]


def test_the_text_can_be_a_file_and_of_one_step(site: ScriptedServer, run: str) -> None:
    answer = site.client.get(f"{run}/log?step=red&download")
    assert answer.text == "red <b>\n"
    assert answer.headers["content-disposition"] == 'attachment; filename="logged-red.log"'
    named = site.client.get(f"{run}/log?download").headers["content-disposition"]
    assert named == 'attachment; filename="logged.log"'


def test_a_search_is_a_fragment_or_a_page(site: ScriptedServer, run: str) -> None:
    fragment = site.client.get(f"{run}/search?q=LINE+44", headers={"hx-request": "true"}).text
    assert fragment.lstrip().startswith('<section id="log-hits"')
    assert "11 lines match" in fragment
    assert f'href="{run}/log/count?around=44#count-L44"' in fragment
    page = site.client.get(f"{run}/search?q=LINE+44").text
    assert fragment.strip() in page
    assert 'value="LINE 44"' in page


@pytest.mark.parametrize("query", ["", "   ", "%00", "x" * 5000, "<script>", '"><b>'])
def test_any_search_is_answered(site: ScriptedServer, run: str, query: str) -> None:
    answer = site.client.get(f"{run}/search", params={"q": query})
    assert answer.status_code == 200
    assert "<script>" not in answer.text
    assert "<b>" not in answer.text


# How logs are kept


def row_of(number: int, *, status: Status, attempt: int = 1) -> ProjectRow:
    return ProjectRow(project=project_of(f"{number}" * 32), status=status, attempt=attempt)


def log(count: int, *, first: int = 1, length: int = 1) -> list[Event]:
    logs = (Log(at=at(n), step="verify", first=n, lines=("x" * length,)) for n in range(first, first + count))
    return numbered(*logs, first=first)


@pytest.mark.anyio
async def test_a_log_that_grows_is_read_on_and_one_that_is_complete_is_not_read_again() -> None:
    journal, shelf = CountedJournal(), Shelf()
    running = row_of(1, status=Status.INITIALIZING)
    run = running.project.id
    await journal.append(run, log(3), expected_tail=None)
    assert (await shelf.open(journal, running)).last("verify") == 3
    await journal.append(run, [*log(2, first=4), END.numbered(1, 6)], expected_tail="1-3")
    ended = row_of(1, status=Status.FAILED)
    for _ in range(3):
        assert (await shelf.open(journal, ended)).last("verify") == 5
    assert journal.reads == ["", "1-3"]
    await shelf.open(journal, row_of(1, status=Status.INITIALIZING, attempt=2))
    await shelf.open(journal, row_of(1, status=Status.ACTIVE, attempt=2))
    assert journal.reads == ["", "1-3", "1-6", "1-6"]


@pytest.mark.anyio
async def test_a_log_whose_last_events_come_after_the_end_of_the_row_is_read_on() -> None:
    journal, shelf, row = CountedJournal(), Shelf(), row_of(1, status=Status.FAILED)
    await journal.append(row.project.id, log(1), expected_tail=None)
    assert (await shelf.open(journal, row)).last("verify") == 1
    await journal.append(row.project.id, [*log(1, first=2), END.numbered(1, 3)], expected_tail="1-1")
    for _ in range(2):
        assert (await shelf.open(journal, row)).last("verify") == 2
    assert journal.reads == ["", "1-1"]


@pytest.mark.anyio
async def test_the_logs_that_were_used_last_are_kept_as_far_as_there_is_room() -> None:
    journal, shelf = CountedJournal(), Shelf(max_characters=100)
    rows = [row_of(number, status=Status.ACTIVE) for number in (1, 2, 3)]
    for row in rows:
        await journal.append(row.project.id, [*log(1, length=40), END.numbered(1, 2)], expected_tail=None)
    for row in (rows[0], rows[1], rows[0], rows[2], rows[0]):
        await shelf.open(journal, row)
    assert len(journal.reads) == 3
    await shelf.open(journal, rows[1])
    assert len(journal.reads) == 4


@pytest.mark.anyio
async def test_a_journal_that_is_gone_is_an_empty_log() -> None:
    journal, row = MemoryJournal(), row_of(1, status=Status.ACTIVE)
    await journal.append(row.project.id, log(1), expected_tail=None)
    await journal.retire(row.project.id, keep_for=timedelta())
    opened = await Shelf().open(journal, row)
    assert opened.steps == []


@pytest.mark.anyio
async def test_a_journal_that_was_lost_and_written_anew_is_read_anew() -> None:
    journal, shelf = MemoryJournal(), Shelf()
    row = row_of(1, status=Status.INITIALIZING)
    await journal.append(row.project.id, log(3), expected_tail=None)
    assert (await shelf.open(journal, row)).last("verify") == 3
    journal.lose(row.project.id, after=2)
    await journal.append(row.project.id, [log(1, first=7)[0].numbered(2, 3)], expected_tail="1-2")
    opened = await shelf.open(journal, row)
    assert [row.number for row in opened.rows_before("verify", 100, count=9)] == [1, 2, 7]
