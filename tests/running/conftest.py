from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from stage import Stage

from initializer.projects.database import open_database
from initializer.projects.projects import Projects
from initializer.running import patience

# A busy machine is no finding.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A real journal and database for runs of a few steps; whoever has to wait asks again at once."""
    monkeypatch.setattr(patience, "_PAUSES_S", (0.001,))
    async with open_database(f"sqlite:///{tmp_path}/projects.db") as database:
        yield Stage(tmp_path, Projects(database))
