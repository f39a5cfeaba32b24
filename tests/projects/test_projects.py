import asyncio
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from initializer.model.events import Event, Reason, Started, StepCompleted, StepFailed
from initializer.model.progress import Status, fold
from initializer.model.summary import Summary, summarise
from initializer.projects.database import Database
from initializer.projects.projects import PAGE_SIZE, KeyUsed, Projects, RowUnreadable, SlugTaken
from initializer.projects.schema import projects as table
from model.runs import HOSTILE, PIPELINE, START, at, numbered, project_of

pytestmark = pytest.mark.anyio

FAILURE = StepFailed(at=at(2), step="create_repo", duration_ms=900, error="no")


def summary_after(*drafts: Event) -> Summary:
    started = Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE)
    return summarise(fold(PIPELINE, numbered(started, *drafts)), completed_at=at(7), digest="d")


async def add(projects: Projects, run: str, *, slug: str = "", name: str = "") -> str:
    return await projects.add(project_of(run, slug=slug, name=name), idempotency_key=f"key-{run}")


async def finish(projects: Projects, run: str, attempt: int, status: Status = Status.FAILED) -> bool:
    return await projects.finish(
        run, attempt=attempt, status=status, summary=summary_after(FAILURE), error="Create repo failed: no"
    )


async def test_a_new_project_is_initialising_and_owned_by_its_first_attempt(projects: Projects) -> None:
    assert await add(projects, "a1") == "a1"
    row = await projects.get("a1")
    assert row is not None
    assert row.project == project_of("a1")
    assert (row.status, row.attempt, row.summary, row.error) == (Status.INITIALIZING, 1, None, None)
    assert await projects.get_by_slug("project-a1") == row


async def test_there_is_no_project_of_another_id_or_slug(projects: Projects) -> None:
    assert await projects.get("a1") is await projects.get_by_slug("a1") is None
    assert await projects.attempt_of("a1") is None


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "surrogate"])
async def test_what_no_database_holds_matches_nothing(projects: Projects, text: str) -> None:
    await add(projects, "a1")
    assert await projects.get(text) is await projects.get_by_slug(text) is None
    assert [row.project.id for row in await projects.get_all([text, "a1"])] == ["a1"]
    for found in (await projects.find(search=text), await projects.find(template=text)):
        assert (found.rows, found.total) == ([], 0)


async def test_a_slug_is_given_once(projects: Projects) -> None:
    await add(projects, "a1", slug="payments")
    with pytest.raises(SlugTaken) as taken:
        await add(projects, "b2", slug="payments")
    assert taken.value.slug == "payments"
    assert await projects.get("b2") is None


async def test_the_same_key_gives_the_same_project(projects: Projects) -> None:
    await projects.add(project_of("a1", slug="payments"), idempotency_key="k")
    assert await projects.add(project_of("b2", slug="payments"), idempotency_key="k") == "a1"
    assert (await projects.find()).total == 1


async def test_a_key_that_made_another_project_makes_no_second_one(projects: Projects) -> None:
    await projects.add(project_of("a1", slug="payments"), idempotency_key="k")
    with pytest.raises(KeyUsed) as used:
        await projects.add(project_of("b2", slug="orders"), idempotency_key="k")
    assert used.value.slug == "payments"
    assert (await projects.find()).total == 1


async def test_of_20_requests_with_one_key_at_once_one_project_is_made(projects: Projects) -> None:
    made = await asyncio.gather(
        *(projects.add(project_of(f"r{n}", slug="same"), idempotency_key="k") for n in range(20))
    )
    assert len(set(made)) == 1
    page = await projects.find()
    assert [row.project.id for row in page.rows] == [made[0]]


async def test_of_20_requests_for_one_slug_at_once_one_is_served(projects: Projects) -> None:
    made = await asyncio.gather(
        *(add(projects, f"r{n}", slug="same") for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(it, SlugTaken) for it in made) == 19


async def test_a_list_is_newest_first_and_in_pages(projects: Projects) -> None:
    for n in range(PAGE_SIZE + 3):
        await projects.add(
            project_of(f"r{n}", created_at=START + timedelta(seconds=n)), idempotency_key=f"k{n}"
        )
    first, second, third = [await projects.find(page=number) for number in (1, 2, 3)]
    ids = [row.project.id for page in (first, second) for row in page.rows]
    assert ids == [f"r{n}" for n in reversed(range(PAGE_SIZE + 3))]
    assert (first.total, first.last, len(first.rows), third.rows) == (PAGE_SIZE + 3, 2, PAGE_SIZE, [])


async def test_an_empty_list_has_one_page(projects: Projects) -> None:
    page = await projects.find()
    assert (page.rows, page.total, page.last) == ([], 0, 1)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"a", "b", "c", "d"}),
        ("%", {"a"}),
        ("_", {"b"}),
        ("/", {"c"}),
        ("100% s", {"a"}),
        ("UNDER", {"b"}),
        ("slug-of", {"d"}),
        ("'; drop table projects; --", set()),
        ("\\", set()),
    ],
)
async def test_a_search_takes_every_character_as_it_is(
    projects: Projects, search: str, found: set[str]
) -> None:
    await add(projects, "a", name="100% sure")
    await add(projects, "b", name="under_score")
    await add(projects, "c", name="either/or")
    await add(projects, "d", name="Plain", slug="slug-of-d")
    assert {row.project.id for row in (await projects.find(search=search)).rows} == found


async def test_a_list_can_be_of_one_status(projects: Projects) -> None:
    for run in ("a", "b"):
        await add(projects, run)
    await finish(projects, "a", 1)
    assert [row.project.id for row in (await projects.find(status=Status.FAILED)).rows] == ["a"]
    assert (await projects.find(search="project", status=Status.INITIALIZING)).total == 1


async def test_unfinished_runs_are_listed_oldest_first(projects: Projects) -> None:
    for n, run in enumerate(["c", "a", "b"]):
        await projects.add(project_of(run, created_at=at(n)), idempotency_key=run)
    await finish(projects, "a", 1)
    assert [row.project.id for row in await projects.unfinished()] == ["c", "b"]


@pytest.mark.parametrize("newer", [{"parameters": {"gitops": "newer"}}, {"reason": "newer"}])
async def test_a_row_of_a_newer_version_is_no_reason_to_list_none(
    projects: Projects, database: Database, newer: dict[str, Any]
) -> None:
    for run in ("a", "b", "c"):
        await add(projects, run)
    await database.execute(table.update().where(table.c.id == "b").values(**newer))
    with pytest.raises(RowUnreadable, match="b"):
        await projects.get("b")
    with capture_logs() as said:
        assert {row.project.id for row in (await projects.find()).rows} == {"a", "c"}
    assert [(it["event"], it["project"]) for it in said] == [("row not read", "b")]
    assert {row.project.id for row in await projects.get_all(["a", "b"])} == {"a"}
    assert {row.project.id for row in await projects.unfinished()} == {"a", "c"}
    assert set(await projects.open_runs()) == {"a", "b", "c"}


@pytest.mark.parametrize("at_once", [1, 2, 3, 8, 100])
async def test_open_runs_and_statuses_are_whole_however_many_are_asked_for_at_once(
    projects: Projects, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    for limit in ("ROWS_AT_ONCE", "NAMED_AT_ONCE"):
        monkeypatch.setattr(f"initializer.projects.projects.{limit}", at_once)
    runs = [f"{n}{letter}" for n in range(3) for letter in "zay"]
    for run in runs:  # three were created in one moment
        await projects.add(project_of(run, created_at=at(int(run[0]))), idempotency_key=run)
    await finish(projects, "1a", 1)
    await projects.request_cancel("2y", at=at(9))
    await projects.add(project_of("3", created_at=at(3)), idempotency_key="3", is_owned=False)
    found = await projects.open_runs()
    assert list(found) == ["0a", "0y", "0z", "1y", "1z", "2a", "2y", "2z", "3"]
    assert [run for run, it in found.items() if it.is_cancelled] == ["2y"]
    assert [run for run, it in found.items() if it.is_waiting] == ["3"]
    standings = await projects.standings([*runs, "unknown"])
    assert [run for run in runs if standings[run].status is Status.FAILED] == ["1a"]
    assert standings.keys() == set(runs)


async def test_how_far_many_runs_are_is_one_query(projects: Projects) -> None:
    for run in ("a", "b"):
        await add(projects, run)
    await finish(projects, "a", 1)
    standings = await projects.standings(["a", "b", "unknown"])
    assert standings == {"a": (Status.FAILED, 1), "b": (Status.INITIALIZING, 1)}
    assert await projects.standings([]) == {}


async def test_of_20_that_claim_a_run_one_wins(projects: Projects) -> None:
    await add(projects, "a1")
    won = await asyncio.gather(*(projects.claim("a1", seen_attempt=1) for _ in range(20)))
    assert [row.attempt for row in won if row is not None] == [2]
    assert await projects.attempt_of("a1") == 2


async def test_a_run_that_is_over_cannot_be_claimed(projects: Projects) -> None:
    await add(projects, "a1")
    await finish(projects, "a1", 1)
    assert await projects.claim("a1", seen_attempt=1) is None


async def test_the_end_stands_in_the_row_as_it_was_written(projects: Projects) -> None:
    await add(projects, "a1")
    outputs = {"texts": list(HOSTILE), "nested": {"n": 1.5, "none": None}}
    summary = summary_after(
        StepCompleted(at=at(1), step="create_repo", duration_ms=1, outputs=outputs),
        StepFailed(at=at(2), step="push_template", duration_ms=2, error=HOSTILE[2]),
    )
    assert await projects.finish("a1", attempt=1, status=Status.FAILED, summary=summary, error=HOSTILE[2])
    row = await projects.get("a1")
    assert row is not None
    assert (row.status, row.summary, row.error) == (Status.FAILED, summary, HOSTILE[2])
    assert row.completed_at == at(7)


async def test_only_the_attempt_that_owns_a_run_ends_it(projects: Projects) -> None:
    await add(projects, "a1")
    await projects.claim("a1", seen_attempt=1)
    assert not await finish(projects, "a1", 1)
    assert await finish(projects, "a1", 2)
    assert not await finish(projects, "a1", 1)  # though the row says what it would have written
    row = await projects.get("a1")
    assert row is not None
    assert row.status is Status.FAILED


async def test_an_end_that_is_written_again_counts_as_landed_and_another_one_does_not(
    projects: Projects,
) -> None:
    await add(projects, "a1")
    assert await finish(projects, "a1", 1, Status.ACTIVE)
    assert await finish(projects, "a1", 1, Status.ACTIVE)
    assert not await finish(projects, "a1", 1, Status.FAILED)
    row = await projects.get("a1")
    assert row is not None
    assert row.status is Status.ACTIVE


async def test_a_run_that_nobody_knows_cannot_be_ended(projects: Projects) -> None:
    assert not await finish(projects, "a1", 1)


async def test_a_wish_to_cancel_is_written_once_while_the_run_lasts_and_holds_for_no_other_try(
    projects: Projects,
) -> None:
    await add(projects, "a1")
    asked = await projects.request_cancel("a1", at=at(3))
    assert await projects.request_cancel("a1", at=at(4)) is None
    row = await projects.get("a1")
    assert row is not None
    assert row == asked
    assert row.cancel_requested_at == at(3)
    await finish(projects, "a1", 1)
    again = await projects.begin_again("a1", seen_attempt=1, reason=Reason.RETRY)
    assert again is not None
    assert (again.attempt, again.cancel_requested_at, again.error) == (2, None, None)
    await finish(projects, "a1", 2)
    assert await projects.request_cancel("a1", at=at(5)) is None
    row = await projects.get("a1")
    assert row is not None
    assert row.cancel_requested_at is None


async def test_a_run_is_begun_again_once_it_ended_short_and_taken_while_it_waits(projects: Projects) -> None:
    await add(projects, "a1")
    assert await projects.begin_again("a1", seen_attempt=1, reason=Reason.RETRY) is None
    assert await projects.take("a1", seen_attempt=1) is None
    await finish(projects, "a1", 1)
    again = await projects.begin_again("a1", seen_attempt=1, reason=Reason.RETRY, is_owned=False)
    assert again is not None
    assert (again.status, again.attempt, again.reason) == (Status.PENDING, 2, Reason.RETRY)
    taken = await projects.take("a1", seen_attempt=2)
    assert taken is not None
    assert (taken.status, taken.attempt, taken.reason) == (Status.INITIALIZING, 3, Reason.RETRY)
    assert await projects.take("a1", seen_attempt=3) is None
    await finish(projects, "a1", 3, Status.ACTIVE)
    assert await projects.begin_again("a1", seen_attempt=3, reason=Reason.RESTART) is None
