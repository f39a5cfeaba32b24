"""The vendored schemas are the ones their README tells of, and each can be used."""

import hashlib
import json
import re

import pytest
from jsonschema.validators import validator_for

from initializer.manifests.schema import FOLDER, known_kinds, validator_of

LISTED = dict(
    re.findall(
        r"^\| `([^`]+\.(?:json|txt))` \| `([0-9a-f]{64})` \|$", (FOLDER / "README.md").read_text(), re.M
    )
)


def test_every_file_has_the_checksum_of_the_readme_and_none_is_unlisted() -> None:
    files = {path.name: path for path in FOLDER.iterdir() if path.name != "README.md"}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == LISTED


@pytest.mark.parametrize("name", sorted(known_kinds()))
def test_every_schema_is_valid_and_refers_to_no_other_file(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    validator_for(schema).check_schema(schema)
    assert all(reference.startswith("#/") for reference in re.findall(r'"\$ref":"([^"]*)"', text))


def test_all_schemas_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) < 300_000


def test_a_validator_is_compiled_once() -> None:
    assert validator_of("apps/v1", "Deployment") is validator_of("apps/v1", "Deployment")


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("apps/v1", "Nothing"), ("apps_v1", "Deployment"), ("../schemas/apps/v1", "Deployment"), ("", "")],
)
def test_no_schema_is_found_for_anything_else(api_version: str, kind: str) -> None:
    assert validator_of(api_version, kind) is None
