"""The schemas by which manifests are checked: read when first needed, compiled once.

Where they come from: `schemas/README.md`.
"""

import json
from functools import cache
from pathlib import Path

from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

__all__ = ["known_kinds", "validator_of"]

FOLDER = Path(__file__).parent / "schemas"


def validator_of(api_version: str, kind: str) -> Validator | None:
    """What checks documents of this `apiVersion` and `kind`; None where there is no schema of them."""
    if "_" in api_version:  # stands for `/` in the names below, and in no API's name
        return None
    name = f"{api_version.replace('/', '_')}_{kind}"
    return _validator(name) if name in known_kinds() else None


@cache
def known_kinds() -> frozenset[str]:
    """The names of all schemas: `apiVersion` with `/` written `_`, then `_`, then `kind`."""
    return frozenset(path.stem for path in FOLDER.glob("*.json"))


@cache
def _validator(name: str) -> Validator:
    schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return validator_for(schema)(schema)
