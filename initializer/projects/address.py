"""The address of the database, as `DATABASE_URL` has it."""

import re
from pathlib import Path
from urllib.parse import quote

import databases

__all__ = ["sqlite_address", "sqlite_file"]

_SPECIAL = re.compile("[%?#\t\n\r]")
"""What means something else in an address, or is taken out of it."""


def sqlite_address(file: Path) -> str:
    """The address of a file."""
    return "sqlite:///" + _SPECIAL.sub(lambda found: quote(found[0]), str(file))


def sqlite_file(url: str) -> str:
    """The file of an address, read as the package does that opens it for every query."""
    return databases.DatabaseURL(url).database
