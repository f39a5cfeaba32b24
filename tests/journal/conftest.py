from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initializer.journal.file import FileJournal
from initializer.journal.memory import MemoryJournal
from initializer.journal.redis import RedisJournal, open_redis_journal
from initializer.redis_client import open_redis


@pytest.fixture
def file_journal(tmp_path: Path) -> FileJournal:
    return FileJournal(tmp_path / "journals")


@pytest.fixture
def memory_journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
async def redis_journal(anyio_backend: str, redis_url: str) -> AsyncIterator[RedisJournal]:
    async with open_redis(redis_url) as client, open_redis_journal(client) as journal:
        yield journal
