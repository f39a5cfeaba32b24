"""What a list asks for, and what a page asks of the past, on each database."""

from datetime import timedelta

import msgspec
import pytest

from initializer.model.events import Reason, Started, StepCompleted
from initializer.model.parameters import TemplateRef
from initializer.model.progress import Status, fold
from initializer.model.summary import summarise
from initializer.projects.projects import Order, Projects
from model.runs import PIPELINE, START, at, numbered, project_of

pytestmark = pytest.mark.anyio


async def add(projects: Projects, run: str, name: str, *, template: str = "bare", minute: int = 0) -> None:
    project = project_of(run, name=name, created_at=START + timedelta(minutes=minute))
    parameters = msgspec.structs.replace(project.parameters, template=TemplateRef(name=template, version="1"))
    project = msgspec.structs.replace(project, parameters=parameters)
    await projects.add(project, idempotency_key=f"key-{run}")


async def finish(projects: Projects, run: str, status: Status, *, took_ms: int = 1000) -> None:
    events = numbered(
        Started(at=at(0), reason=Reason.CREATED, pipeline=PIPELINE),
        StepCompleted(at=at(1), step="create_repo", duration_ms=took_ms),
    )
    summary = summarise(fold(PIPELINE, events), completed_at=at(9), digest="d")
    assert await projects.finish(run, attempt=1, status=status, summary=summary, error=None)


async def names(projects: Projects, order: Order = Order.NEWEST, **asked: str) -> list[str]:
    page = await projects.find(order=order, **asked)  # type: ignore[arg-type]
    assert page.total == len(page.rows)
    return [row.project.name for row in page.rows]


async def test_a_list_is_sorted_and_filtered(projects: Projects) -> None:
    await add(projects, "a1", "beta", minute=1)
    await add(projects, "b2", "Alpha", template="static-site", minute=2)
    await add(projects, "c3", "gamma", minute=3)
    await finish(projects, "c3", Status.FAILED)
    await finish(projects, "a1", Status.ACTIVE)
    assert await names(projects) == ["gamma", "Alpha", "beta"]
    assert await names(projects, Order.NAME) == ["Alpha", "beta", "gamma"]
    assert await names(projects, Order.STATE) == ["Alpha", "beta", "gamma"]  # under way, ready, failed
    assert await names(projects, template="bare") == ["gamma", "beta"]
    assert await names(projects, template="bare", search="ET") == ["beta"]
    assert await names(projects, template="no'such\"") == []


async def test_projects_are_read_together_by_their_ids(projects: Projects) -> None:
    await add(projects, "a1", "One")
    await add(projects, "b2", "Two")
    assert {row.project.id for row in await projects.get_all(["b2", "a1", "none"])} == {"a1", "b2"}
    assert await projects.get_all([]) == []


async def test_the_durations_of_the_last_runs_that_went_well(projects: Projects) -> None:
    for minute in range(5):
        await add(projects, f"a{minute}", f"A {minute}", minute=minute)
        await finish(projects, f"a{minute}", Status.ACTIVE, took_ms=1000 + minute)
    await add(projects, "f1", "Failed", minute=9)
    await finish(projects, "f1", Status.FAILED)
    await add(projects, "o1", "Other", template="static-site")
    await finish(projects, "o1", Status.ACTIVE)
    await add(projects, "r1", "Running")
    assert await projects.durations("bare", last=3) == [1004, 1003, 1002]
    assert await projects.durations("static-site") == [1000]
    assert await projects.durations("none") == []
