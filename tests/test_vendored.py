"""What others wrote stands here as they published it: the checksums are those of the README beside it."""

import hashlib
import re
from pathlib import Path

import pytest

VENDOR = Path(__file__).parents[1] / "static" / "vendor"
ROW = re.compile(
    r"^\| (?P<file>\S+\.js) \|.*\| (?P<version>[\d.]+) \|.*\| (?P<sum>[0-9a-f]{64}) \|$", re.MULTILINE
)
LISTED = {row["file"]: row for row in ROW.finditer((VENDOR / "README.md").read_text())}


@pytest.mark.parametrize("name", sorted(path.name for path in VENDOR.glob("*.js")))
def test_a_vendored_script_is_unchanged(name: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == LISTED[name]["sum"]
    assert LISTED[name]["version"] in name


def test_every_listed_script_is_there_with_a_licence() -> None:
    assert LISTED
    assert all((VENDOR / name).is_file() for name in LISTED)
    assert list(VENDOR.glob("*LICENSE*"))
