"""The rows of the list as they are asked for again, as long as runs go on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.scripts import ScriptedServer, Speaker


@pytest.fixture
def speaker(tmp_path: Path) -> Speaker:
    return Speaker(tmp_path)


@pytest.fixture
def site(tmp_path: Path, speaker: Speaker) -> Iterator[ScriptedServer]:
    """A server whose runs stand still in their one step until the speaker ends."""
    server = ScriptedServer(tmp_path, {"speak": speaker.script})
    server.start()
    server.allow("run not shown in the list")
    yield server
    speaker.end()
    server.close()


def begin(site: ScriptedServer, name: str) -> str:
    """A run that stands still, and says nothing more."""
    project = site.create(name)
    site.wait_for_event(project, type="step_started")
    return project


def rows(site: ScriptedServer, *projects: str) -> str:
    return site.client.get("/projects/rows", params={"id": projects}).text


def asked_next(html: str) -> list[str]:
    """The runs that a page with this asks for 2 s later; none where it has been told to stop."""
    asking = re.search(r'<div id="rows-poll"[^>]* hx-get="/projects/rows\?([^"]*)"', html)
    return re.findall(r"id=(\w+)", asking[1]) if asking else []


def percents(html: str) -> int:
    return html.count('class="badge-percent"')


def test_a_run_whose_journal_did_not_answer_once_is_asked_for_again(site: ScriptedServer) -> None:
    project = begin(site, "Missed")
    assert percents(rows(site, project)) == 1
    with site.unreadable(project):
        missed = rows(site, project)
    assert 'data-state="initializing"' in missed
    assert percents(missed) == 0
    assert asked_next(missed) == [project]
    assert percents(rows(site, *asked_next(missed))) == 1


def test_where_the_journal_of_one_run_does_not_answer_both_are_asked_for_again(site: ScriptedServer) -> None:
    first, second = begin(site, "First"), begin(site, "Second")
    with site.unreadable(first):
        answer = rows(site, second, first)
    assert percents(answer) == 1
    assert sorted(asked_next(answer)) == sorted([first, second])


def test_a_list_that_is_loaded_while_no_journal_answers_asks_all_the_same(site: ScriptedServer) -> None:
    project = begin(site, "Loaded then")
    with site.unreadable(project):
        page = site.client.get("/").text
    assert percents(page) == 0
    assert asked_next(page) == [project]


def test_with_the_last_run_that_goes_on_the_asking_ends(site: ScriptedServer, speaker: Speaker) -> None:
    project = begin(site, "Ended")
    speaker.end()
    site.wait_for_end(project)
    page, answer = site.client.get("/").text, rows(site, project)
    assert asked_next(page) == asked_next(answer) == []
    assert 'hx-target="#rows-poll" hx-swap="delete"' in answer
