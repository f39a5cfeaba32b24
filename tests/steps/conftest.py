from collections.abc import Callable
from pathlib import Path

import pytest
from real_context import RealContext, make_project

from initializer.forges.local import LocalForge
from initializer.model.parameters import Project


@pytest.fixture
def forge(tmp_path: Path) -> LocalForge:
    return LocalForge(tmp_path / "forge", "http://localhost:8000")


@pytest.fixture
def make_context(tmp_path: Path, forge: LocalForge) -> Callable[..., RealContext]:
    """A context for a project; each has a folder of its own."""
    count = 0

    def make(project: Project | None = None) -> RealContext:
        nonlocal count
        count += 1
        return RealContext(project or make_project(), forge, tmp_path / f"run-{count}")

    return make


@pytest.fixture
def context(make_context: Callable[..., RealContext]) -> RealContext:
    return make_context()
