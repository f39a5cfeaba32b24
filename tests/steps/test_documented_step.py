import re
from collections.abc import Callable
from pathlib import Path

import pytest
from real_context import RealContext, make_project

from initializer.steps.builtin import BUILTIN_STEPS, pipeline_of
from initializer.steps.step import Step

DOCUMENT = Path(__file__).parents[2] / "docs" / "steps.md"


def documented_step() -> tuple[str, Step]:
    """The source of the example, and the step it makes."""
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(source, names)  # noqa: S102 - our own documentation
    step_class = names["CountFiles"]
    assert isinstance(step_class, type)
    step = step_class()
    assert isinstance(step, Step)
    return source, step


def test_the_documented_step_is_about_ten_lines() -> None:
    source, _ = documented_step()
    assert len([line for line in source.splitlines() if line.strip()]) <= 10


@pytest.mark.anyio
async def test_the_documented_step_runs_in_a_pipeline(make_context: Callable[..., RealContext]) -> None:
    _, step = documented_step()
    context = make_context(make_project(template="bare"))
    for each in (*BUILTIN_STEPS[:2], step):
        outputs = await context.perform(each)
    assert outputs["file_count"] > 3
    assert pipeline_of([*BUILTIN_STEPS, step], version=2).steps[-1].title == "Count files"
