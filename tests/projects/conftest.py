from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initializer.projects.database import Database, open_database
from initializer.projects.projects import Projects


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/projects.db"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, once of each kind."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
async def database(anyio_backend: str, database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


@pytest.fixture
def projects(database: Database) -> Projects:
    return Projects(database)
