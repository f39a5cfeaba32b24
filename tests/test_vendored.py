"""What others wrote is what they published: vendored files and locked packages, by their checksums."""

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "static" / "vendor"
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


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    packages = (ROOT / name).read_text().replace("\\\n", "").splitlines()
    assert packages
    assert [
        line for line in packages if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ .*--hash=sha256:", line)
    ] == []
    assert not [line for line in packages if re.search("https?:|index-url|find-links", line)]
