from pathlib import Path

import pytest

from initializer.journal.file import FileJournal
from initializer.journal.memory import MemoryJournal


@pytest.fixture
def file_journal(tmp_path: Path) -> FileJournal:
    return FileJournal(tmp_path / "journals")


@pytest.fixture
def memory_journal() -> MemoryJournal:
    return MemoryJournal()
